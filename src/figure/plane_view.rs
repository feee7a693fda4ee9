//! Loss on a plane as contours or as a surface, with buttons that switch between them.

use ndarray::Array2;
use plotly::Plot;
use plotly::layout::Layout;
use serde_json::{Value, json};

use super::palette::{GRID, INK, PAPER};
use super::{Figure, axis, layout, rows};
use crate::landscape::Plane;

/// Number of contour levels, at least half of it.
const LEVELS: f64 = 24.0;
/// Smallest loss on a logarithmic scale, relative to the largest.
const FLOOR: f64 = 1e-6;
/// A plane is mostly flat if half of its losses are in this share of their range, so that most of it would have one colour.
const FLAT: f64 = 0.1;
/// Height of marks above the surface, relative to its height.
const LIFT: f64 = 0.025;
/// Height of the surface above the contours on the floor, relative to its height.
const FLOOR_GAP: f64 = 0.15;
/// Planes whose sides differ by more than this factor do not have equal scales, because they would be narrow strips.
const MAX_ASPECT: f64 = 1.8;

/// Axis titles in words.
pub(super) const ALONG: [&str; 2] = [
    "distance along direction 1, in units of its norm",
    "distance along direction 2, in units of its norm",
];
/// Short forms for small panels and the axes of surfaces.
pub(super) const DIRECTIONS: [&str; 2] = ["direction 1", "direction 2"];

/// How a plane is shown at first.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum View {
    Contours,
    Surface,
}

/// Points or a line on the plane, drawn above it.
pub(super) struct Mark {
    pub(super) name: &'static str,
    pub(super) alphas: Vec<f64>,
    pub(super) betas: Vec<f64>,
    /// Losses at the points.
    pub(super) losses: Vec<f64>,
    /// Hover texts; none for a mark without hover.
    pub(super) texts: Vec<String>,
    pub(super) style: MarkStyle,
}

#[derive(Clone, Copy)]
pub(super) enum MarkStyle {
    /// A dark line, the edge of a [`MarkStyle::Line`] above it.
    Edge,
    /// A thinner white line.
    Line,
    /// White dots with a dark edge.
    Dots,
    /// Large white discs with a dark edge.
    Disc,
    /// Large white squares with a dark edge.
    Square,
}

impl Mark {
    /// A white disc with a dark edge at the origin of the plane.
    pub(super) fn origin(plane: &Plane) -> Self {
        Self {
            name: "θ",
            alphas: vec![0.0],
            betas: vec![0.0],
            losses: vec![plane.center],
            texts: vec![format!("θ<br>loss = {:.5}", plane.center)],
            style: MarkStyle::Disc,
        }
    }
}

impl Mark {
    /// Diameter in pixels. plotly draws them about twice as large on surfaces.
    fn size(&self, view: View) -> usize {
        match (self.style, view) {
            (MarkStyle::Edge | MarkStyle::Line, _) => 0,
            (MarkStyle::Dots, View::Contours) => 6,
            (MarkStyle::Dots, View::Surface) => 3,
            (MarkStyle::Disc | MarkStyle::Square, View::Contours) => 13,
            (MarkStyle::Disc | MarkStyle::Square, View::Surface) => 7,
        }
    }
}

/// Values of the loss or of its logarithm, with contour levels and tick labels.
struct Scale {
    /// Linear or log₁₀.
    values: Array2<f64>,
    low: f64,
    high: f64,
    start: f64,
    step: f64,
    /// Positions and labels; `None` leaves them to plotly.
    ticks: Option<(Vec<f64>, Vec<String>)>,
    /// Smallest loss on a logarithmic scale.
    floor: Option<f64>,
}

impl Scale {
    fn linear(losses: &Array2<f64>) -> Self {
        Self::new(losses.clone(), None)
    }

    /// `None` if a loss is not positive, or all are equal.
    fn logarithmic(losses: &Array2<f64>) -> Option<Self> {
        let [low, high] = range(losses);
        if !(low > 0.0 && high > low) {
            return None;
        }
        let floor = low.max(FLOOR * high);
        // `max` would replace NaN.
        let values = losses.mapv(|loss| match loss.is_nan() {
            true => loss,
            false => loss.max(floor).log10(),
        });
        let mut scale = Self::new(values, Some(floor));
        scale.ticks = Some(log_ticks(scale.low, scale.high));
        Some(scale)
    }

    fn new(values: Array2<f64>, floor: Option<f64>) -> Self {
        let [low, high] = range(&values);
        let step = round_step((high - low) / LEVELS);
        Self {
            values,
            low,
            high,
            start: (low / step).ceil() * step,
            step,
            ticks: None,
            floor,
        }
    }

    fn of(&self, loss: f64) -> f64 {
        match self.floor {
            Some(floor) if !loss.is_nan() => loss.max(floor).log10(),
            _ => loss,
        }
    }

    fn height(&self) -> f64 {
        self.high - self.low
    }

    /// Heights of a mark, above the surface. The lower half of a large dot would be in it otherwise.
    fn lifted(&self, mark: &Mark) -> Vec<f64> {
        let lift = match mark.style {
            MarkStyle::Disc | MarkStyle::Square => 2.5 * LIFT,
            MarkStyle::Edge | MarkStyle::Line | MarkStyle::Dots => LIFT,
        };
        let losses = mark.losses.iter();
        let lifted = losses.map(|loss| self.of(*loss) + lift * self.height());
        lifted.collect()
    }

    /// Positions and labels of ticks, null if they are left to plotly.
    fn ticks(&self) -> [Value; 2] {
        match &self.ticks {
            Some((places, labels)) => [json!(places), json!(labels)],
            None => [Value::Null, Value::Null],
        }
    }

    /// The range of the vertical axis of a surface.
    fn vertical(&self) -> [f64; 2] {
        let height = self.height();
        [
            self.low - FLOOR_GAP * height,
            self.high + 3.0 * LIFT * height,
        ]
    }
}

/// Smallest and largest value that is not NaN; 0 and 0 if there is none.
fn range(values: &Array2<f64>) -> [f64; 2] {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let ends = finite.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
        [low.min(value), high.max(value)]
    });
    match ends[0] <= ends[1] {
        true => ends,
        false => [0.0, 0.0],
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `step`; 1 if that is 0.
fn round_step(step: f64) -> f64 {
    if step <= 0.0 || !step.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(step.log10().floor());
    let digits = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    digits
        .into_iter()
        .find(|size| *size >= step)
        .unwrap_or(step)
}

/// Positions from 10^`low` to 10^`high`, as logarithms, and labels of ticks.
pub(super) fn log_ticks(low: f64, high: f64) -> (Vec<f64>, Vec<String>) {
    let digits: &[f64] = match high - low {
        range if range > 3.0 => &[1.0],
        range if range > 0.7 => &[1.0, 2.0, 5.0],
        _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
    };
    let decades = low.floor() as i32..=high.floor() as i32;
    let ticks = decades.flat_map(|e| digits.iter().map(move |digit| (digit, e)));
    let ticks = ticks.map(|(digit, e)| (digit.log10() + f64::from(e), format!("{digit}e{e}")));
    let (places, texts): (Vec<f64>, Vec<String>) = ticks
        .filter(|(place, _)| (low..=high).contains(place))
        .unzip();
    let plain = |text: &String| {
        let value = text.parse::<f64>().unwrap_or(f64::NAN);
        match value {
            1e-4..1e6 => value.to_string(),
            _ => format!("{value:e}"),
        }
    };
    (places, texts.iter().map(plain).collect())
}

/// Whether half of the losses are in a small share of their range.
fn is_mostly_flat(losses: &Array2<f64>) -> bool {
    let mut sorted: Vec<f64> = losses.iter().copied().filter(|x| x.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let [low, high] = range(losses);
    sorted
        .get(sorted.len() / 2)
        .is_some_and(|middle| middle - low < FLAT * (high - low))
}

/// The plane with marks on it. Buttons switch between contours and surface, and between linear and logarithmic losses if all are
/// positive. Contours of a plane that is mostly flat are logarithmic at first, and its surface has logarithmic colours.
pub(super) fn plane_view(title: &str, plane: &Plane, view: View, marks: &[Mark]) -> Figure {
    let linear = Scale::linear(&plane.losses);
    let logarithmic = Scale::logarithmic(&plane.losses);
    let colors = logarithmic
        .as_ref()
        .filter(|_| is_mostly_flat(&plane.losses));
    let shown = match (view, colors) {
        (View::Contours, Some(logarithmic)) => logarithmic,
        _ => &linear,
    };
    let mut data = vec![plane_trace(plane, view, shown)];
    if view == View::Surface
        && let Some(colors) = colors
    {
        data[0]["surfacecolor"] = json!(rows(&colors.values));
    }
    data.extend(marks.iter().map(|mark| mark_trace(mark, view, shown)));

    let mut plot = Plot::new();
    plot.set_layout(plane_layout(title, plane));
    let mut figure = Figure::new(&plot, title);
    figure.json["data"] = data.into();
    let layout = &mut figure.json["layout"];
    layout["scene"] = scene(plane, shown);
    let traces: Vec<usize> = (0..=marks.len()).collect();
    let mut menus = vec![buttons(
        0.0,
        usize::from(view == View::Surface),
        [View::Contours, View::Surface].map(|view| {
            let mut types = vec![plane_type(view)];
            types.resize(1 + marks.len(), mark_type(view));
            let mut scales = vec![view == View::Contours];
            scales.resize(1 + marks.len(), false);
            let mut sizes = vec![Value::Null];
            sizes.extend(marks.iter().map(|mark| json!(mark.size(view))));
            let name = if view == View::Contours { "2-D" } else { "3-D" };
            let change = json!({"type": types, "showscale": scales, "marker.size": sizes});
            (name, json!([change, {}, traces]))
        }),
    )];
    if let Some(logarithmic) = &logarithmic {
        let is_log = std::ptr::eq(shown, logarithmic);
        menus.push(buttons(
            0.2,
            usize::from(is_log),
            [&linear, logarithmic].map(|scale| {
                let is_log = scale.floor.is_some();
                let surface_colors = match (is_log, colors) {
                    (false, Some(colors)) => json!(rows(&colors.values)),
                    _ => Value::Null,
                };
                let mut heights = vec![json!(rows(&scale.values))];
                heights.extend(marks.iter().map(|mark| json!(scale.lifted(mark))));
                let [places, labels] = scale.ticks();
                let change = json!({
                    "z": heights,
                    "surfacecolor": only_first(surface_colors, marks.len()),
                    "contours": only_first(contours(scale), marks.len()),
                    "colorbar.tickvals": only_first(places.clone(), marks.len()),
                    "colorbar.ticktext": only_first(labels.clone(), marks.len()),
                });
                let axes = json!({
                    "scene.zaxis.tickvals": places, "scene.zaxis.ticktext": labels,
                    "scene.zaxis.range": scale.vertical(),
                });
                let name = if is_log { "logarithmic" } else { "linear" };
                (name, json!([change, axes, traces]))
            }),
        ));
    }
    layout["updatemenus"] = menus.into();
    figure
}

/// A value for the plane, and null for its marks.
fn only_first(value: Value, marks: usize) -> Vec<Value> {
    let mut values = vec![value];
    values.resize(1 + marks, Value::Null);
    values
}

fn plane_type(view: View) -> &'static str {
    match view {
        View::Contours => "contour",
        View::Surface => "surface",
    }
}

fn mark_type(view: View) -> &'static str {
    match view {
        View::Contours => "scatter",
        View::Surface => "scatter3d",
    }
}

/// Levels of the contours, and of those on the floor of a surface.
fn contours(scale: &Scale) -> Value {
    let [start, end, size] = [scale.start, scale.high, scale.step];
    json!({
        "start": start, "end": end, "size": size,
        "z": {
            "show": true, "start": start, "end": end, "size": size, "width": 2,
            "usecolormap": true, "project": {"z": true},
        },
    })
}

fn plane_trace(plane: &Plane, view: View, scale: &Scale) -> Value {
    let [places, labels] = scale.ticks();
    let mut bar = json!({"title": {"text": "loss"}, "thickness": 16, "outlinewidth": 0});
    if scale.ticks.is_some() {
        bar["tickvals"] = places;
        bar["ticktext"] = labels;
    }
    json!({
        "type": plane_type(view),
        "name": "loss",
        "x": plane.alphas, "y": plane.betas, "z": rows(&scale.values),
        // The loss for hover texts, also if z is its logarithm.
        "text": rows(&plane.losses),
        "hovertemplate": "direction 1: %{x:.4g}<br>direction 2: %{y:.4g}<br>loss = %{text:.5g}<extra></extra>",
        "colorscale": "Viridis",
        "showscale": view == View::Contours,
        "colorbar": bar,
        "autocontour": false,
        "contours": contours(scale),
        "line": {"width": 0.5, "color": "rgba(255, 255, 255, 0.5)"},
        "lighting": {"ambient": 0.75, "diffuse": 0.5, "specular": 0.05, "roughness": 0.9},
    })
}

fn mark_trace(mark: &Mark, view: View, scale: &Scale) -> Value {
    let mut trace = json!({
        "type": mark_type(view),
        "name": mark.name,
        "x": mark.alphas, "y": mark.betas, "z": scale.lifted(mark),
        "showlegend": false,
    });
    match mark.texts.is_empty() {
        true => trace["hoverinfo"] = json!("skip"),
        false => {
            trace["text"] = json!(mark.texts);
            trace["hovertemplate"] = json!("%{text}<extra></extra>");
        }
    }
    let line = |color: &str, width: usize| json!({"color": color, "width": width});
    let marker = |symbol: &str| {
        let edge = if mark.size(View::Contours) > 8 {
            2.5
        } else {
            1.5
        };
        json!({
            "color": PAPER, "size": mark.size(view), "symbol": symbol, "opacity": 1,
            "line": {"color": INK, "width": edge},
        })
    };
    let (mode, key, style) = match mark.style {
        MarkStyle::Edge => ("lines", "line", line(INK, 5)),
        MarkStyle::Line => ("lines", "line", line(PAPER, 2)),
        MarkStyle::Dots | MarkStyle::Disc => ("markers", "marker", marker("circle")),
        MarkStyle::Square => ("markers", "marker", marker("square")),
    };
    trace["mode"] = json!(mode);
    trace[key] = style;
    trace
}

fn plane_layout(title: &str, plane: &Plane) -> Layout {
    let [x, y] = ALONG.map(|name| axis(name).zero_line(false));
    let length = |axis: &[f64]| axis.last().zip(axis.first()).map_or(0.0, |(b, a)| b - a);
    let aspect = length(&plane.alphas) / length(&plane.betas);
    let is_equal = (1.0 / MAX_ASPECT..=MAX_ASPECT).contains(&aspect);
    let [x, y] = match is_equal {
        true => {
            use plotly::layout::AxisConstrain::Domain;
            [x.constrain(Domain), y.scale_anchor("x").constrain(Domain)]
        }
        false => [x, y],
    };
    layout(title)
        .width(640)
        .height(560)
        .margin(
            plotly::layout::Margin::new()
                .left(75)
                .right(20)
                .top(90)
                .bottom(60),
        )
        .show_legend(false)
        .x_axis(x)
        .y_axis(y)
}

/// Axes and camera of a surface. The camera is above the lowest corner, which hides least.
fn scene(plane: &Plane, scale: &Scale) -> Value {
    let corner = |up: bool, right: bool| {
        let [rows, columns] = [plane.betas.len(), plane.alphas.len()];
        let [row, column] = [(up, rows), (right, columns)].map(|(end, count)| match end {
            true => count.saturating_sub(1),
            false => 0,
        });
        let loss = plane.losses.get((row, column)).copied();
        loss.filter(|loss| !loss.is_nan()).unwrap_or(f64::INFINITY)
    };
    let corners = [(true, true), (true, false), (false, true), (false, false)];
    let lowest = corners
        .into_iter()
        .min_by(|a, b| corner(a.0, a.1).total_cmp(&corner(b.0, b.1)));
    let (up, right) = lowest.unwrap_or((true, true));
    let eye = |is_positive: bool| if is_positive { 1.3 } else { -1.3 };
    let axis = |name: &str| {
        json!({
            "title": {"text": name}, "gridcolor": GRID, "zerolinecolor": GRID, "linecolor": INK,
            "showline": true, "showspikes": false, "nticks": 6, "tickfont": {"size": 11},
        })
    };
    let mut vertical = axis("loss");
    vertical["range"] = json!(scale.vertical());
    let [places, labels] = scale.ticks();
    if scale.ticks.is_some() {
        vertical["tickvals"] = places;
        vertical["ticktext"] = labels;
    }
    json!({
        "bgcolor": PAPER,
        "aspectmode": "manual",
        "aspectratio": {"x": 1.1, "y": 1.1, "z": 0.8},
        "camera": {"eye": {"x": eye(right), "y": eye(up), "z": 1.6}, "center": {"x": 0, "y": 0, "z": -0.12}},
        "xaxis": axis(DIRECTIONS[0]), "yaxis": axis(DIRECTIONS[1]), "zaxis": vertical,
    })
}

/// A row of buttons under the title, from `x` in fractions of the plot's width. Each has a label and the arguments of plotly's `update`.
fn buttons(x: f64, active: usize, buttons: [(&str, Value); 2]) -> Value {
    let buttons =
        buttons.map(|(label, args)| json!({"label": label, "method": "update", "args": args}));
    json!({
        "type": "buttons", "direction": "right", "showactive": true, "active": active,
        "x": x, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "pad": {"t": 0, "b": 0},
        "font": {"size": 11}, "buttons": buttons,
    })
}
