//! Loss along a line.

use plotly::common::{DashType, Line as Stroke, Marker, Mode};
use plotly::layout::AxisRange;
use plotly::{Plot, Scatter};

use super::palette::{BLUE, GREEN, INK};
use super::{Figure, axis, layout};
use crate::landscape::Line;

/// L(θ + αd) over α, with its quadratic model L + αgᵀd + ½α²dᵀHd (dashed) and a dot at θ.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let line = Line::along(&objective, &objective.gradient()?, 1.0, 11)?;
/// let json = figure::line(&line).json();
/// assert_eq!(json["data"][1]["name"], "quadratic model");
/// assert_eq!(json["data"][1]["x"].as_array().map(Vec::len), Some(11));
/// # Ok::<(), Error>(())
/// ```
pub fn line(line: &Line) -> Figure {
    let title = "Loss and quadratic model along a line";
    let loss = Scatter::new(line.alphas.clone(), line.losses.clone())
        .mode(Mode::Lines)
        .name("loss")
        .line(Stroke::new().color(BLUE).width(2.5))
        .hover_template("distance %{x:.4g}<br>loss = %{y:.5g}<extra></extra>");
    let quadratic = Scatter::new(line.alphas.clone(), line.quadratic())
        .mode(Mode::Lines)
        .name("quadratic model")
        .line(Stroke::new().color(GREEN).width(2.0).dash(DashType::Dash))
        .hover_template("distance %{x:.4g}<br>quadratic model = %{y:.5g}<extra></extra>");
    let center = Scatter::new(vec![0.0], vec![line.center])
        .mode(Mode::Markers)
        .name("θ")
        .marker(Marker::new().color(INK).size(9))
        .hover_template("θ<br>loss = %{y:.5g}<extra></extra>");

    // The range of the loss; the quadratic may leave the figure.
    let low = line.losses.iter().copied().fold(line.center, f64::min);
    let high = line.losses.iter().copied().fold(line.center, f64::max);
    let margin = 0.08 * (high - low).max(f64::MIN_POSITIVE);
    let mut plot = Plot::new();
    plot.add_traces(vec![loss, quadratic, center]);
    plot.set_layout(
        layout(title)
            .x_axis(axis("distance along the direction, in units of its norm"))
            .y_axis(axis("loss").range(AxisRange::new(low - margin, high + margin))),
    );
    Figure::new(&plot, title)
}
