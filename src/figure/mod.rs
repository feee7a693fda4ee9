//! Figures: one builder a file, each from a result to a [`Figure`]. Nothing is computed here.

mod animation;
mod chart;
mod components;
mod density;
mod embedding;
mod ends;
mod evolution;
mod extremes;
mod history;
mod line;
mod matrix;
mod overview;
mod path;
mod plane;
mod planes;
mod spectra;
mod spectrum;
mod trajectory;

pub use animation::animation;
pub use chart::Chart;
pub use components::components;
pub use density::density;
pub use embedding::embedding;
pub use ends::ends;
pub use evolution::evolution;
pub use extremes::extremes;
pub use history::history;
pub use line::line;
pub use matrix::matrix;
pub use overview::overview;
pub use path::paths;
pub use plane::{contour, surface};
pub use planes::planes;
pub use spectra::spectra;
pub use spectrum::spectrum;
pub use trajectory::{trajectory, trajectory_surface};

use ndarray::Array2;
use plotly::common::{
    Anchor, ColorScale, ColorScaleElement, ColorScalePalette, ExponentFormat, Font, Title,
};
use plotly::layout::{
    Annotation, AspectMode, Axis, AxisConstrain, AxisType, Camera, Eye, Layout, LayoutScene, Margin,
};
use plotly::{HeatMap, Plot};
use serde::Serialize;
use serde_json::{Number, Value, json};

/// Width of a figure in pixels: a notebook's column.
pub const WIDTH: usize = 720;
/// Height of a figure in pixels.
pub const HEIGHT: usize = 440;

/// Colours that remain apart for colour-blind readers (Okabe and Ito, 2008).
const BLUE: &str = "#0072B2";
const ORANGE: &str = "#D55E00";
const GREEN: &str = "#009E73";
const PURPLE: &str = "#CC79A7";
const YELLOW: &str = "#E69F00";
const SKY: &str = "#56B4E9";
const INK: &str = "#222222";
const GRID: &str = "#dddddd";
const PAPER: &str = "#ffffff";

/// In the order in which neighbours are easiest to tell apart.
const COLORS: [&str; 6] = [ORANGE, BLUE, GREEN, PURPLE, YELLOW, SKY];

/// Significant digits that a figure's numbers keep.
const DIGITS: i32 = 6;

/// A plotly plot that a notebook shows as data, as a web page and as an image in one.
///
/// ```
/// use loss_landscape::plotly::{Plot, Scatter};
/// use loss_landscape::prelude::*;
///
/// let mut figure = Figure::new(Plot::new(), "Squares");
/// figure
///     .plot_mut()
///     .add_trace(Scatter::new(vec![1, 2, 3], vec![1, 4, 9]));
/// assert_eq!(figure.title(), "Squares");
/// assert_eq!(figure.json()["data"][0]["y"][2], 9);
/// assert!(figure.page().starts_with("<!doctype html>"));
/// ```
pub struct Figure {
    plot: Box<dyn Drawing>,
    title: String,
    /// Where a surface stands among other panels, in x and y: plotly.rs cannot say it.
    scene_at: Option<[[f64; 2]; 2]>,
}

impl Figure {
    /// Wraps a plot of your own.
    pub fn new(plot: Plot, title: &str) -> Self {
        Self {
            plot: Box::new(plot),
            title: title.into(),
            scene_at: None,
        }
    }

    /// The title, which also stands for the figure where only text can.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The plot, to change it with plotly's own calls.
    pub fn plot_mut(&mut self) -> &mut Plot {
        self.plot.plot_mut()
    }

    fn retitled(mut self, title: &str) -> Self {
        self.title = title.into();
        let layout = self.plot.plot().layout().clone().title(titled(title));
        self.plot_mut().set_layout(layout);
        self
    }

    fn with_scene_at(mut self, x: [f64; 2], y: [f64; 2]) -> Self {
        self.scene_at = Some([x, y]);
        self
    }

    /// A web page with the figure, of some 7 MB: it needs no network.
    pub fn page(&self) -> String {
        // Inside a script element a tag could end it.
        let json = self.json().to_string().replace('<', r"\u003c");
        format!(
            r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{}</head>
<body>
<div id="figure"></div>
<script>Plotly.newPlot("figure", {json});</script>
</body>
</html>
"#,
            Plot::offline_js_sources()
        )
    }

    /// plotly's JSON: `data`, `layout`, `config`, `frames`, numbers rounded to six digits.
    pub fn json(&self) -> Value {
        let mut value = serde_json::to_value(self.plot.plot()).unwrap_or_default();
        if let Some([x, y]) = self.scene_at {
            value["layout"]["scene"]["domain"] = json!({"x": x, "y": y});
        }
        round(&mut value);
        value
    }
}

impl Clone for Figure {
    fn clone(&self) -> Self {
        Self {
            plot: Box::new(self.plot.plot().clone()),
            title: self.title.clone(),
            scene_at: self.scene_at,
        }
    }
}

/// A plot whose type a cell does not see: each cell with a figure would compile anew how a hundred of plotly's types
/// are dropped.
trait Drawing {
    fn plot(&self) -> &Plot;
    fn plot_mut(&mut self) -> &mut Plot;
}

impl Drawing for Plot {
    fn plot(&self) -> &Plot {
        self
    }

    fn plot_mut(&mut self) -> &mut Plot {
        self
    }
}

/// Kernels fall back on this where a cell's last expression moves a variable.
impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Figure: {} (to see it: let figure = …; figure)",
            self.title
        )
    }
}

fn round(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(round),
        Value::Object(map) => map.values_mut().for_each(round),
        Value::Number(number) if number.is_f64() => {
            let rounded = format!(
                "{:.*e}",
                DIGITS as usize - 1,
                number.as_f64().unwrap_or(0.0)
            );
            if let Some(short) = rounded.parse().ok().and_then(Number::from_f64) {
                *number = short;
            }
        }
        _ => {}
    }
}

/// The common look: dark ink on white paper, which reads in light and dark surroundings.
fn layout(title: &str) -> Layout {
    Layout::new()
        .title(titled(title))
        .font(Font::new().size(13).color(INK))
        .width(WIDTH)
        .height(HEIGHT)
        .margin(Margin::new().left(70).right(30).top(50).bottom(60))
        .paper_background_color(PAPER)
        .plot_background_color(PAPER)
}

/// On the left, for plotly's buttons appear on the right.
fn titled(title: &str) -> Title {
    Title::with_text(title)
        .x(0.02)
        .font(Font::new().size(16).color(INK))
}

fn axis(title: &str) -> Axis {
    Axis::new()
        .title(Title::with_text(title))
        .grid_color(GRID)
        .zero_line_color(GRID)
        .line_color(INK)
        .show_line(true)
}

/// For numbers that span decades.
fn log_axis(title: &str) -> Axis {
    axis(title)
        .type_(AxisType::Log)
        .exponent_format(ExponentFormat::Power)
        .n_ticks(6)
}

/// For two coordinates with one scale.
fn square(title: &str, x: &str, y: &str) -> Layout {
    layout(title)
        .width(600)
        .height(520)
        .x_axis(axis(x).constrain(AxisConstrain::Domain))
        .y_axis(axis(y).scale_anchor("x").constrain(AxisConstrain::Domain))
}

/// For a surface, with room for both coordinates and the loss.
fn scene() -> LayoutScene {
    LayoutScene::new()
        .background_color(PAPER)
        .aspect_mode(AspectMode::Cube)
        .camera(Camera::new().eye(Eye::from((1.45, 1.45, 0.95))))
        .x_axis(axis("α"))
        .y_axis(axis("β"))
        .z_axis(axis("loss"))
}

/// The name of a panel whose upper left corner is at (x, y), in shares of the figure.
fn heading(name: &str, x: f64, y: f64) -> Annotation {
    Annotation::new()
        .text(name)
        .x_ref("paper")
        .y_ref("paper")
        .x(x)
        .y(y)
        .x_anchor(Anchor::Left)
        .y_anchor(Anchor::Bottom)
        .show_arrow(false)
        .font(Font::new().size(14).color(INK))
}

/// The map in blue above zero, orange below.
fn signed<X: Serialize + Clone, Y: Serialize + Clone, Z: Serialize + Clone>(
    map: Box<HeatMap<X, Y, Z>>,
    values: &Array2<f64>,
) -> Box<HeatMap<X, Y, Z>> {
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let colors = [(0.0, ORANGE), (0.5, PAPER), (1.0, BLUE)];
    let colors = colors.map(|(at, color)| ColorScaleElement(at, color.into()));
    map.color_scale(ColorScale::Vector(colors.to_vec()))
        .zmin(-largest)
        .zmax(largest)
}

fn colors() -> ColorScale {
    ColorScale::Palette(ColorScalePalette::Viridis)
}

/// Row by row, as plotly takes them.
fn rows(values: &Array2<f64>) -> Vec<Vec<f64>> {
    let rows = values.rows().into_iter();
    rows.map(|row| row.to_vec()).collect()
}
