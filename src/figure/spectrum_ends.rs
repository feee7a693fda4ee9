//! The largest and smallest eigenvalues.

use plotly::common::{ErrorData, ErrorType, Marker, Mode};
use plotly::{Plot, Scatter};

use super::{BLUE, Figure, INK, ORANGE, axis, layout, residual_texts};
use crate::analysis::HessianMetrics;

/// The largest eigenvalues (blue) and the smallest (orange) over their rank from each end, with residuals as error bars.
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
    for (name, color, found) in [
        ("largest", BLUE, &metrics.largest),
        ("smallest", ORANGE, &metrics.smallest),
    ] {
        if name == "smallest" && found.len() == metrics.dim {
            continue;
        }
        let residuals: Vec<f64> = found.iter().map(|e| e.residual).collect();
        let errors = residual_texts(&residuals);
        let values = found.iter().map(|e| e.value).collect();
        plot.add_trace(
            Scatter::new((1..=found.len()).collect(), values)
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(color).size(8))
                .error_y(ErrorData::new(ErrorType::Data).array(residuals).width(5))
                .text_array(errors)
                .hover_template("%{y:.5g} ± %{text}<extra></extra>"),
        );
    }
    plot.set_layout(
        layout(&title)
            .x_axis(axis("rank, counted from each end"))
            .y_axis(axis("eigenvalue λ").zero_line_color(INK)),
    );
    Figure::new(&plot, &title)
}
