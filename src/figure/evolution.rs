//! Loss and curvature in the course of a training.

use plotly::common::{Line as Stroke, Mode};
use plotly::layout::AxisType;
use plotly::{Plot, Scatter};

use super::{BLUE, Figure, GREEN, ORANGE, PURPLE, YELLOW, axis, layout};
use crate::landscape::{Evolution, Moment};

/// Losses, gradient norm, λ_max and sharpness over the steps of training, on a logarithmic axis: what is not positive has no
/// place on it.
pub fn evolution(evolution: &Evolution) -> Figure {
    type Value = fn(&Moment) -> Option<f64>;
    let title = "Loss and curvature in training";
    let lines: [(&str, &str, Value); 5] = [
        ("loss", BLUE, |m| Some(m.loss)),
        ("test loss", ORANGE, |m| m.test_loss),
        ("gradient norm", GREEN, |m| Some(m.gradient_norm)),
        ("λ_max", PURPLE, |m| Some(m.largest.value)),
        ("sharpness", YELLOW, |m| m.sharpness),
    ];
    let mut plot = Plot::new();
    for (name, color, value) in lines {
        let moments = evolution.moments.iter();
        let points = moments.filter_map(|m| Some((m.step, value(m).filter(|v| *v > 0.0)?)));
        let (steps, values): (Vec<usize>, Vec<f64>) = points.unzip();
        if steps.is_empty() {
            continue;
        }
        plot.add_trace(
            Scatter::new(steps, values)
                .mode(Mode::LinesMarkers)
                .name(name)
                .line(Stroke::new().color(color).width(2.5))
                .hover_template("step %{x}<br>%{y:.5g}"),
        );
    }
    plot.set_layout(
        layout(title)
            .x_axis(axis("steps of training"))
            .y_axis(axis("value").type_(AxisType::Log)),
    );
    Figure::new(plot, title)
}
