//! Loss and curvature during training.

use plotly::common::{ErrorData, ErrorType, Line as Stroke, Mode, Orientation};
use plotly::layout::{Axis, LayoutGrid, Legend, Margin};
use plotly::{Plot, Scatter};

use super::{
    BLUE, Figure, GREEN, INK, ORANGE, PURPLE, SKY, YELLOW, axis, heading, layout, log_axis,
};
use crate::landscape::{CurvatureSnapshot, Evolution};

/// A value with its error, if measured.
type Value = fn(&CurvatureSnapshot) -> Option<(f64, f64)>;

/// A line: its name, colour, panel and values.
type Trace = (&'static str, &'static str, usize, Value);

const TRACES: [Trace; 7] = [
    ("loss", BLUE, 0, |m| Some((m.loss, 0.0))),
    ("test loss", ORANGE, 0, |m| Some((m.test_loss?, 0.0))),
    ("gradient norm", GREEN, 0, |m| Some((m.gradient_norm, 0.0))),
    ("λ_max", PURPLE, 1, |m| {
        Some((m.largest.value, m.largest.high - m.largest.value))
    }),
    ("λ_min", SKY, 1, |m| {
        Some((m.smallest.value, m.smallest.high - m.smallest.value))
    }),
    ("trace", YELLOW, 2, |m| {
        m.trace.map(|trace| (trace.value, trace.standard_error))
    }),
    ("λ_max / |λ_min|", INK, 3, |m| {
        let ratio = m.sharpness_ratio();
        Some((ratio.value, 0.0))
    }),
];

/// Four panels over the training steps: loss and gradient norm; extreme eigenvalues with their errors; trace of the Hessian with
/// its standard error; λ_max/|λ_min|. The first and last panel are logarithmic and omit values ≤ 0.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let mut trajectory = Trajectory::every(3)?;
/// Trainer::adam(0.01).with_batch_size(20).with_epochs(2).fit_recorded(
///     &model,
///     &data,
///     &data,
///     &mut trajectory,
/// )?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let settings = EvolutionSettings::default().with_trace(None).with_sharpness(None);
/// let figure = figure::evolution(&settings.run(&objective, &trajectory)?);
/// assert_eq!(figure.json()["data"][0]["x"][2], 6); // the last step
/// # Ok::<(), Error>(())
/// ```
pub fn evolution(evolution: &Evolution) -> Figure {
    let title = "Loss and curvature during training";
    let mut plot = Plot::new();
    for (name, color, panel, value) in TRACES {
        let logarithmic = panel == 0 || panel == 3;
        let moments = evolution.snapshots.iter();
        let points = moments.filter_map(|m| Some((m.step, value(m)?)));
        let points = points.filter(|(_, (v, _))| v.is_finite() && (!logarithmic || *v > 0.0));
        let (steps, values): (Vec<usize>, Vec<(f64, f64)>) = points.unzip();
        if steps.is_empty() {
            continue;
        }
        let (values, errors): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        let axes = [["x", "y"], ["x2", "y2"], ["x3", "y3"], ["x4", "y4"]][panel];
        let mut trace = Scatter::new(steps, values)
            .mode(Mode::LinesMarkers)
            .name(name)
            .line(Stroke::new().color(color).width(2.0))
            .x_axis(axes[0])
            .y_axis(axes[1])
            .hover_template("step %{x}<br>%{y:.5g}");
        if errors.iter().any(|error| *error > 0.0) {
            trace = trace.error_y(ErrorData::new(ErrorType::Data).array(errors));
        }
        plot.add_trace(trace);
    }
    let steps = |y: &str| axis("").anchor(y);
    let place = |axis: Axis, from: f64, to: f64| axis.domain(&[from, to]);
    let mut layout = layout(title)
        .height(680)
        .margin(Margin::new().left(70).right(30).top(85).bottom(90))
        .legend(
            Legend::new()
                .orientation(Orientation::Horizontal)
                .x(0.0)
                .y(-0.16),
        )
        .grid(LayoutGrid::new().rows(2).columns(2))
        .x_axis(place(steps("y"), 0.0, 0.44))
        .x_axis2(place(steps("y2"), 0.56, 1.0))
        .x_axis3(place(axis("training step").anchor("y3"), 0.0, 0.44))
        .x_axis4(place(axis("training step").anchor("y4"), 0.56, 1.0))
        .y_axis(place(log_axis(""), 0.58, 1.0))
        .y_axis2(place(axis("").anchor("x2"), 0.58, 1.0))
        .y_axis3(place(axis("").anchor("x3"), 0.0, 0.42))
        .y_axis4(place(log_axis("").anchor("x4"), 0.0, 0.42));
    for (name, x, y) in [
        ("loss and gradient norm", 0.0, 1.0),
        ("extreme eigenvalues", 0.56, 1.0),
        ("trace of the Hessian", 0.0, 0.42),
        ("sharpness ratio λ_max / |λ_min|", 0.56, 0.42),
    ] {
        layout.add_annotation(heading(name, x, y));
    }
    plot.set_layout(layout);
    Figure::new(&plot, title)
}
