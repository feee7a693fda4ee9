//! The largest and smallest eigenvalues.

use plotly::common::{Marker, MarkerSymbol, Mode};
use plotly::{Plot, Scatter};

use super::palette::{BLUE, INK, VERMILION};
use super::{Figure, axis, error_bars, layout, residual_texts};
use crate::analysis::HessianMetrics;

/// The largest eigenvalues (dots) and the smallest (rings) over their rank from each end, with residuals as error bars; negative ones
/// have their own colour.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?;
/// let figure = figure::spectrum_ends(&analyzer.hessian_metrics(3)?);
/// assert_eq!(figure.title(), "Largest and smallest of 13 Hessian eigenvalues");
/// assert_eq!(
///     figure.json()["data"][1]["y"].as_array().map(Vec::len),
///     Some(3)
/// );
/// # Ok::<(), Error>(())
/// ```
pub fn spectrum_ends(metrics: &HessianMetrics) -> Figure {
    let title = match metrics.largest.len() == metrics.dim {
        true => format!("All {} Hessian eigenvalues", metrics.dim),
        false => format!(
            "Largest and smallest of {} Hessian eigenvalues",
            metrics.dim
        ),
    };
    let mut plot = Plot::new();
    for (name, symbol, found) in [
        ("largest", MarkerSymbol::Circle, &metrics.largest),
        ("smallest", MarkerSymbol::CircleOpen, &metrics.smallest),
    ] {
        if name == "smallest" && found.len() == metrics.dim {
            continue;
        }
        let residuals: Vec<f64> = found.iter().map(|e| e.residual).collect();
        let errors = residual_texts(&residuals);
        let colors = found
            .iter()
            .map(|e| if e.value < 0.0 { VERMILION } else { BLUE });
        let colors = colors.collect();
        let values = found.iter().map(|e| e.value).collect();
        plot.add_trace(
            Scatter::new((1..=found.len()).collect(), values)
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color_array(colors).size(8).symbol(symbol))
                .error_y(error_bars(residuals))
                .text_array(errors)
                .hover_template("%{fullData.name}, rank %{x}: %{y:.5g} ± %{text}<extra></extra>"),
        );
    }
    plot.set_layout(
        layout(&title)
            .x_axis(axis("rank, counted from each end"))
            .y_axis(axis("eigenvalue λ").zero_line_color(INK)),
    );
    Figure::new(&plot, &title)
}
