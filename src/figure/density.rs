//! Spectral density.

use plotly::common::{Fill, Line as Stroke, Mode};
use plotly::{Plot, Scatter};

use super::palette::BLUE;
use super::{Figure, axis, layout, log_axis};
use crate::spectral::DensityCurve;

/// The spectral density on a logarithmic axis, with a band of ± one standard error.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let curve = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?
///     .density()?
///     .smoothed(0.1, 50)?;
/// let figure = figure::density(&curve);
/// assert_eq!(
///     figure.title(),
///     "Density of the eigenvalues (smoothed over 0.1)"
/// );
/// assert_eq!(
///     figure.json()["data"][2]["x"].as_array().map(Vec::len),
///     Some(50)
/// );
/// # Ok::<(), Error>(())
/// ```
pub fn density(curve: &DensityCurve) -> Figure {
    // Six decades below the peak are the floor of the logarithmic axis.
    let peak = curve.values.iter().fold(0.0, |m: f64, v| m.max(*v));
    let shown = |v: f64| v.max(1e-6 * peak);
    let edge = |sign: f64| -> Vec<f64> {
        let pairs = curve.values.iter().zip(&curve.standard_errors);
        pairs.map(|(v, e)| shown(v + sign * e)).collect()
    };
    let line = |values: Vec<f64>| Scatter::new(curve.eigenvalues.clone(), values).mode(Mode::Lines);
    let thin = || Stroke::new().color(BLUE).width(0.0);
    let mut plot = Plot::new();
    plot.add_trace(
        line(edge(-1.0))
            .line(thin())
            .show_legend(false)
            .name("− 1 standard error"),
    );
    plot.add_trace(
        line(edge(1.0))
            .line(thin())
            .fill(Fill::ToNextY)
            .fill_color("rgba(0, 114, 178, 0.25)")
            .name("± 1 standard error"),
    );
    plot.add_trace(
        line(curve.values.iter().map(|v| shown(*v)).collect())
            .line(Stroke::new().color(BLUE).width(2.0))
            .name("density")
            .hover_template("λ = %{x:.4g}: %{y:.3g}<extra></extra>"),
    );
    // Three digits.
    let width = format!("{:.2e}", curve.width)
        .parse()
        .unwrap_or(curve.width);
    let title = format!("Density of the eigenvalues (smoothed over {width})");
    plot.set_layout(
        layout(&title)
            .x_axis(axis("eigenvalue λ"))
            .y_axis(log_axis("density")),
    );
    Figure::new(&plot, &title)
}
