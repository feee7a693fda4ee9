//! Eigenvalues over their rank.

use plotly::common::{Marker, Mode};
use plotly::{Plot, Scatter};

use super::palette::{BLUE, INK, VERMILION};
use super::{Figure, axis, error_bars, layout, residual_texts};
use crate::spectral::Spectrum;

/// Eigenvalues over their rank, largest first: positive blue, negative orange, with residuals as error bars.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let spectrum = Dense::new(Array2::from_diag(&array![3.0, 1.0, -2.0]))?.eigen()?;
/// let json = figure::spectrum(&spectrum).json();
/// assert_eq!(json["data"][0]["y"][0], 3.0);
/// assert_eq!(json["data"][1]["x"][0], 3); // −2 has the third rank
/// # Ok::<(), Error>(())
/// ```
pub fn spectrum(spectrum: &Spectrum) -> Figure {
    let title = if spectrum.is_complete() {
        "Hessian spectrum".to_owned()
    } else {
        let (k, n) = (spectrum.pairs.len(), spectrum.dim);
        format!("The {k} largest of {n} eigenvalues")
    };
    let mut plot = Plot::new();
    for (name, color, negative) in [("λ ≥ 0", BLUE, false), ("λ < 0", VERMILION, true)] {
        let ranked = spectrum.pairs.iter().enumerate();
        let (ranks, pairs): (Vec<usize>, Vec<_>) = ranked
            .filter(|(_, pair)| (pair.value < 0.0) == negative)
            .map(|(i, pair)| (i + 1, pair))
            .unzip();
        if pairs.is_empty() {
            continue;
        }
        let residuals: Vec<f64> = pairs.iter().map(|pair| pair.residual).collect();
        let values = pairs.iter().map(|pair| pair.value).collect();
        let errors = residual_texts(&residuals);
        plot.add_trace(
            Scatter::new(ranks, values)
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(color).size(8))
                .error_y(error_bars(residuals))
                .text_array(errors)
                .hover_template("λ<sub>%{x}</sub> = %{y:.5g} ± %{text}<extra></extra>"),
        );
    }
    plot.set_layout(
        layout(&title)
            .x_axis(axis("rank"))
            .y_axis(axis("eigenvalue λ").zero_line_color(INK)),
    );
    Figure::new(&plot, &title)
}
