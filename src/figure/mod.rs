//! Figures: each file has a function that turns a result into a [`Figure`]. Nothing is computed here.
//!
//! [`Figure::save`] writes a figure to a PNG, SVG, PDF or HTML file; [`Figure::with_title`], [`Figure::with_size`] and
//! [`Figure::with_scale`] change it.

mod animation;
mod block_densities;
mod block_spectra;
mod chart;
mod class_structure;
mod components;
mod density;
mod embedding;
mod evolution;
mod extreme_eigenvalues;
mod history;
pub(crate) mod image;
mod influence;
mod js_distances;
mod line;
mod matrix;
mod overview;
mod palette;
mod panels;
mod paths;
mod plane_grid;
mod plane_view;
mod playback;
mod save;
mod spectra;
mod spectrum;
mod spectrum_ends;
mod stability;
mod surface;
#[cfg(feature = "tables")]
mod sweep;
mod trajectory;

pub use animation::animation;
pub use block_densities::block_densities;
pub use block_spectra::block_spectra;
pub use chart::Chart;
pub use class_structure::class_structure;
pub use components::components;
pub use density::density;
pub use embedding::{embedding, embedding_3d};
pub use evolution::evolution;
pub use extreme_eigenvalues::extreme_eigenvalues;
pub use history::history;
pub use influence::influence;
pub use js_distances::js_distances;
pub use line::line;
pub use matrix::matrix;
pub use overview::overview;
pub use paths::paths;
pub use plane_grid::planes;
pub use save::{FigureFormat, require_images};
pub use spectra::spectra;
pub use spectrum::spectrum;
pub use spectrum_ends::spectrum_ends;
pub use stability::stability;
pub use surface::{contour, surface};
#[cfg(feature = "tables")]
pub use sweep::sweep;
pub use trajectory::{trajectory, trajectory_animation, trajectory_surface};

use ndarray::Array2;
use palette::{BLUE, GRID, INK, PAPER, VERMILION, tint};
use plotly::common::{
    Anchor, ColorScale, ColorScaleElement, ColorScalePalette, ErrorData, ErrorType, Font, Title,
};
use plotly::layout::{Annotation, Axis, AxisType, HAlign, Layout, Margin};
use plotly::{HeatMap, Plot, Trace};
use serde::Serialize;
use serde_json::{Number, Value};

/// Width of a figure in pixels: a notebook's column.
pub const WIDTH: usize = 720;
/// Height of a figure in pixels.
pub const HEIGHT: usize = 440;

/// Space above the plot in pixels, for the title.
const TOP_MARGIN: usize = 50;

/// Significant digits of the numbers in a figure's JSON.
const DIGITS: i32 = 6;

/// A plotly figure. Notebooks show it as JSON and PNG in one output.
///
/// ```
/// use loss_landscape::plotly::{Plot, Scatter};
/// use loss_landscape::figure::Figure;
/// use loss_landscape::prelude::*;
///
/// let mut figure = Figure::new(&Plot::new(), "Squares");
/// figure.add_trace(Scatter::new(vec![1, 2, 3], vec![1, 4, 9]));
/// assert_eq!(figure.title(), "Squares");
/// assert_eq!(figure.json()["data"][0]["y"][2], 9);
/// assert!(figure.page().starts_with("<!doctype html>"));
/// ```
#[derive(Clone)]
pub struct Figure {
    title: String,
    /// plotly's JSON. A [`Plot`] could not be sent to another thread, and each cell with a figure would compile again
    /// how a hundred of plotly's types are dropped.
    json: Value,
    /// Pixels of a saved PNG per pixel of the figure.
    scale: f64,
}

/// 300 dots per inch, as a pixel of the figure is 1/96 of an inch.
const SCALE: f64 = 300.0 / 96.0;

impl Figure {
    /// A figure of any plot. Later changes of `plot` do not change the figure.
    pub fn new(plot: &Plot, title: &str) -> Self {
        Self {
            title: title.into(),
            json: to_json(plot),
            scale: SCALE,
        }
    }

    /// The title. Viewers that show only text show this.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Adds a trace on top of the others.
    pub fn add_trace(&mut self, trace: Box<dyn Trace>) {
        if let Some(traces) = self.json["data"].as_array_mut() {
            traces.push(to_json(&trace));
        }
    }

    /// Replaces the title, for example by what the figure shows in this case.
    ///
    /// ```
    /// # use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    /// # let spectrum = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.eigen()?;
    /// let figure = figure::spectrum(&spectrum).with_title("Both eigenvalues are positive");
    /// assert_eq!(figure.title(), "Both eigenvalues are positive");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_title(mut self, title: &str) -> Self {
        self.title = title.into();
        self.json["layout"]["title"] = to_json(&titled(title));
        self
    }

    /// Sets width and height in pixels, 1/96 of an inch each. See [`Figure::save`] for an example.
    #[must_use]
    pub fn with_size(mut self, width: usize, height: usize) -> Self {
        self.json["layout"]["width"] = width.into();
        self.json["layout"]["height"] = height.into();
        self
    }

    /// Sets the number of pixels of a saved PNG per pixel of the figure [default: 3.125, which is 300 dots per inch].
    #[must_use]
    pub fn with_scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// A self-contained web page with the figure, about 7 MB. The figure becomes narrower in a narrow window.
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
<script>
{}
const box = document.getElementById("figure");
Plotly.newPlot(box, fitFigure(box, {json}));
</script>
</body>
</html>
"#,
            Plot::offline_js_sources(),
            include_str!("figure.js")
        )
    }

    /// plotly's JSON with the keys `data`, `layout`, `config` and `frames`. Numbers are rounded to six significant digits.
    pub fn json(&self) -> Value {
        let mut value = self.json.clone();
        round(&mut value);
        value
    }
}

fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// What the kernel shows if a cell's last expression moves a variable.
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

/// The common layout: dark text on white, readable in light and dark themes.
fn layout(title: &str) -> Layout {
    Layout::new()
        .title(titled(title))
        .font(Font::new().size(13).color(INK))
        .width(WIDTH)
        .height(HEIGHT)
        .margin(Margin::new().left(70).right(30).top(TOP_MARGIN).bottom(60))
        .paper_background_color(PAPER)
        .plot_background_color(PAPER)
}

/// Left-aligned, since plotly's buttons appear on the right.
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

/// A logarithmic axis. All labels are decimals in one font size; plotly's powers of ten would be larger than the digits between.
fn log_axis(title: &str) -> Axis {
    axis(title)
        .type_(AxisType::Log)
        .tick_format("~g")
        .n_ticks(6)
}

/// Error bars without caps, which would change the shape of dots.
fn error_bars(errors: Vec<f64>) -> ErrorData {
    ErrorData::new(ErrorType::Data)
        .array(errors)
        .width(0)
        .thickness(1.5)
}

/// Title of a panel whose upper left corner is at (x, y), in fractions of the figure.
fn heading(name: &str, x: f64, y: f64) -> Annotation {
    Annotation::new()
        .text(name)
        .align(HAlign::Left)
        .x_ref("paper")
        .y_ref("paper")
        .x(x)
        .y(y)
        .x_anchor(Anchor::Left)
        .y_anchor(Anchor::Bottom)
        .show_arrow(false)
        .font(Font::new().size(14).color(INK))
}

/// Colours positive values blue, 0 white and negative values vermilion, with equal intensity for equal size. The scale ends at
/// the smallest and largest value, or at 0.
fn signed<X: Serialize + Clone, Y: Serialize + Clone, Z: Serialize + Clone>(
    map: Box<HeatMap<X, Y, Z>>,
    values: &Array2<f64>,
) -> Box<HeatMap<X, Y, Z>> {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let [low, high] = finite.fold([0.0, 0.0], |[low, high]: [f64; 2], value| {
        [low.min(value), high.max(value)]
    });
    let largest = high.max(-low);
    if largest == 0.0 {
        return map
            .zmin(-1.0)
            .zmax(1.0)
            .color_scale(scale_of(&[(0.0, PAPER.into()), (1.0, PAPER.into())]));
    }
    let zero = -low / (high - low);
    let mut stops = Vec::new();
    if low < 0.0 {
        stops.push((0.0, tint(VERMILION, -low / largest)));
    }
    stops.push((zero, PAPER.to_owned()));
    if high > 0.0 {
        stops.push((1.0, tint(BLUE, high / largest)));
    }
    map.color_scale(scale_of(&stops)).zmin(low).zmax(high)
}

fn scale_of(stops: &[(f64, String)]) -> ColorScale {
    let stops = stops.iter();
    let stops = stops.map(|(at, color)| ColorScaleElement(*at, color.clone()));
    ColorScale::Vector(stops.collect())
}

fn colors() -> ColorScale {
    ColorScale::Palette(ColorScalePalette::Viridis)
}

/// Residuals for hover texts.
fn residual_texts(residuals: &[f64]) -> Vec<String> {
    let text = |r: &f64| match *r {
        0.0 => "0".to_owned(),
        r => format!("{r:.1e}"),
    };
    residuals.iter().map(text).collect()
}

/// The rows as vectors, as plotly takes them.
fn rows(values: &Array2<f64>) -> Vec<Vec<f64>> {
    let rows = values.rows().into_iter();
    rows.map(|row| row.to_vec()).collect()
}
