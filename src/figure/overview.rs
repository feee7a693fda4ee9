//! Eight views of the loss at a point in one figure.

use plotly::common::{Line as Stroke, Marker, Mode};
use plotly::layout::{Axis, AxisRange, Margin};
use plotly::{Histogram, Plot, Scatter, Trace};
use serde::Serialize;
use serde_json::{Value, json};

use super::palette::{BLUE, INK, PURPLE, SERIES, VERMILION};
use super::plane_view::DIRECTIONS;
use super::{
    Figure, axis, contour, error_bars, heading, history, layout, log_axis, matrix, spectrum,
    surface,
};
use crate::landscape::{Line, Plane};
use crate::operator::Dense;
use crate::spectral::{Eigenpair, Spectrum};
use crate::train::History;

/// Horizontal ranges of the columns and vertical ranges of the rows, from the top, in fractions of the figure.
const COLUMNS: [[f64; 2]; 2] = [[0.0, 0.4], [0.56, 1.0]];
const ROWS: [[f64; 2]; 4] = [[0.785, 1.0], [0.542, 0.702], [0.243, 0.458], [0.0, 0.16]];

/// Eight panels, row by row: loss on a plane as contours and as a surface; Hessian eigenvalues over their rank, and their
/// histogram; entries of the Hessian, and loss along `lines`, labelled with their curvature; as its rise above the loss at the point, on a
/// logarithmic axis, if it rises along all of them; |λ| over its rank on a logarithmic
/// axis; and the training history.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let history = Trainer::adam(0.05)
///     .with_batch_size(20)
///     .with_epochs(5)
///     .fit(&model, &data, &data)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let hessian = objective.hessian().dense()?;
/// let spectrum = hessian.eigen()?;
/// let plane = Plane::eigen(&objective, &spectrum, 1.0, 5)?;
/// let sharpest = Line::along(&objective, &spectrum.vector(0)?, 1.0, 5)?;
/// let figure = figure::overview(&plane, &hessian, &spectrum, &[sharpest], &history);
/// assert_eq!(figure.title(), "Overview of the loss at a point");
/// # Ok::<(), Error>(())
/// ```
pub fn overview(
    plane: &Plane,
    hessian: &Dense,
    eigenvalues: &Spectrum,
    lines: &[Line],
    training: &History,
) -> Figure {
    let title = "Overview of the loss at a point";
    let mut plot = Plot::new();
    let bar = |[low, high]: [f64; 2]| {
        let (x, y, len) = (COLUMNS[0][1], (low + high) / 2.0, high - low);
        json!({"x": x, "y": y, "len": len, "thickness": 12, "title": {"text": ""}})
    };
    plot.add_traces(moved(&contour(plane), json!({"colorbar": bar(ROWS[0])})));
    plot.add_traces(moved(&surface(plane), json!({"showscale": false})));
    let axes = json!({"xaxis": "x2", "yaxis": "y2"});
    plot.add_traces(moved(&spectrum(eigenvalues), axes));
    plot.add_trace(
        Histogram::new(eigenvalues.values())
            .n_bins_x(40)
            .marker(Marker::new().color(BLUE))
            .x_axis("x3")
            .y_axis("y3")
            .hover_template("%{y} with λ in %{x}<extra></extra>"),
    );
    let axes = json!({"xaxis": "x4", "yaxis": "y4", "colorbar": bar(ROWS[2])});
    plot.add_traces(moved(&matrix(hessian, &[]), axes));

    // At a minimum, a linear axis would hide the flatter lines.
    let rises = lines.iter().all(|line| {
        let mut losses = line.losses.iter().filter(|loss| !loss.is_nan());
        losses.all(|loss| *loss >= line.center)
    });
    let mut curvatures = Vec::new();
    for (line, color) in lines.iter().zip(SERIES.iter().cycle()) {
        let name = format!("λ = {}", two_digits(line.curvature));
        // A logarithmic axis leaves out 0.
        let heights = line.losses.iter().map(|loss| match rises {
            true => loss - line.center,
            false => *loss,
        });
        let heights: Vec<f64> = heights.collect();
        plot.add_trace(
            Scatter::new(line.alphas.clone(), heights)
                .mode(Mode::Lines)
                .name(&name)
                .line(Stroke::new().color(*color).width(2.0))
                .x_axis("x5")
                .y_axis("y5")
                .hover_template(match rises {
                    true => "distance %{x:.4g}<br>rise of the loss = %{y:.5g}",
                    false => "distance %{x:.4g}<br>loss = %{y:.5g}",
                }),
        );
        curvatures.push(colored(&name, color));
    }
    sizes(eigenvalues).for_each(|trace| plot.add_trace(trace));
    let axes = json!({"xaxis": "x7", "yaxis": "y7"});
    plot.add_traces(moved(&history(training), axes));

    let place = |axis: Axis, domain: [f64; 2], anchor: &str| axis.domain(&domain).anchor(anchor);
    let [left, right] = COLUMNS;
    let end = hessian.matrix().nrows() as f64 - 0.5;
    let side = |name: &str, from: f64, to: f64| {
        axis(name)
            .range(AxisRange::new(from, to))
            .show_tick_labels(false)
            .show_grid(false)
            .zero_line(false)
    };
    let mut layout = layout(title)
        .width(860)
        .height(1360)
        .margin(Margin::new().left(70).right(30).top(85).bottom(60))
        .show_legend(false)
        .x_axis(place(axis(DIRECTIONS[0]), left, "y"))
        .y_axis(place(axis(DIRECTIONS[1]), ROWS[0], "x"))
        .x_axis2(place(axis("rank"), left, "y2"))
        .y_axis2(place(axis("λ").zero_line_color(INK), ROWS[1], "x2"))
        .x_axis3(place(axis("λ"), right, "y3"))
        .y_axis3(place(axis("eigenvalues"), ROWS[1], "x3"))
        .x_axis4(place(side("column", -0.5, end), left, "y4"))
        .y_axis4(place(side("row", end, -0.5), ROWS[2], "x4"))
        .x_axis5(place(axis("distance"), right, "y5"))
        .y_axis5(place(
            if rises { log_axis("") } else { axis("") },
            ROWS[2],
            "x5",
        ))
        .x_axis6(place(axis("rank of |λ|"), left, "y6"))
        .y_axis6(place(log_axis(""), ROWS[3], "x6"))
        .x_axis7(place(axis("epoch"), right, "y7"))
        .y_axis7(place(log_axis("loss"), ROWS[3], "x7"));
    let signs = [colored("λ ≥ 0", BLUE), colored("λ &lt; 0", VERMILION)].join(", ");
    let losses = [colored("training", BLUE), colored("test", PURPLE)].join(" and ");
    for (i, name) in [
        "loss on a plane".to_owned(),
        "loss surface".to_owned(),
        format!("eigenvalues, {signs}"),
        "histogram of eigenvalues".to_owned(),
        "Hessian".to_owned(),
        format!(
            "{} along lines<br>{}",
            if rises { "rise of the loss" } else { "loss" },
            curvatures.join(", ")
        ),
        format!("|λ|, {signs}"),
        format!("{losses} loss"),
    ]
    .iter()
    .enumerate()
    {
        layout.add_annotation(heading(name, COLUMNS[i % 2][0], ROWS[i / 2][1]));
    }
    plot.set_layout(layout);
    let mut figure = Figure::new(&plot, title);
    // plotly.rs has no setter for the place of a scene.
    let mut scene = surface(plane).json()["layout"]["scene"].take();
    scene["domain"] = json!({"x": right, "y": ROWS[0]});
    scene["camera"]["eye"] = further(&scene["camera"]["eye"]);
    figure.json["layout"]["scene"] = scene;
    figure
}

/// A camera at a larger distance, since the panel is small.
fn further(eye: &Value) -> Value {
    let at = |axis: &str| 1.15 * eye[axis].as_f64().unwrap_or(1.0);
    json!({"x": at("x"), "y": at("y"), "z": at("z")})
}

/// |λ| over its rank, one trace per sign.
fn sizes(spectrum: &Spectrum) -> impl Iterator<Item = Box<dyn Trace>> {
    let mut pairs: Vec<_> = spectrum.pairs.iter().collect();
    pairs.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
    [(BLUE, 1.0), (VERMILION, -1.0)]
        .into_iter()
        .map(move |(color, sign)| {
            let ranked = pairs.iter().enumerate();
            let (ranks, pairs): (Vec<usize>, Vec<&Eigenpair>) = ranked
                .filter(|(_, pair)| sign * pair.value > 0.0)
                .map(|(i, pair)| (i + 1, pair))
                .unzip();
            let residuals = pairs.iter().map(|pair| pair.residual).collect();
            let sizes = pairs.iter().map(|pair| pair.value.abs()).collect();
            let trace: Box<dyn Trace> = Scatter::new(ranks, sizes)
                .mode(Mode::Markers)
                .marker(Marker::new().color(color).size(7))
                .error_y(error_bars(residuals))
                .x_axis("x6")
                .y_axis("y6")
                .hover_template("|λ| = %{y:.5g}<extra></extra>");
            trace
        })
}

/// A trace of another figure, as JSON.
#[derive(Clone, Serialize)]
struct Moved(Value);

impl Trace for Moved {
    fn to_json(&self) -> String {
        self.0.to_string()
    }
}

/// The traces of `figure`, with their JSON overridden by `change`.
fn moved(figure: &Figure, change: Value) -> Vec<Box<dyn Trace>> {
    let mut traces = figure.json()["data"].take();
    let traces = traces.as_array_mut().map(std::mem::take);
    let moved = traces.into_iter().flatten().map(|mut trace| {
        if let (Some(trace), Some(change)) = (trace.as_object_mut(), change.as_object()) {
            for (key, value) in change {
                // The ticks of a colour bar stay.
                if let (Some(Value::Object(old)), Value::Object(new)) = (trace.get_mut(key), value)
                {
                    old.extend(new.clone());
                    continue;
                }
                trace.insert(key.clone(), value.clone());
            }
        }
        Box::new(Moved(trace)) as Box<dyn Trace>
    });
    moved.collect()
}

fn colored(text: &str, color: &str) -> String {
    format!(r#"<span style="color:{color}">{text}</span>"#)
}

fn two_digits(x: f64) -> f64 {
    format!("{x:.1e}").parse().unwrap_or(x)
}
