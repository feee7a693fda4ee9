//! Figures: one builder a file, each from a result to a [`Figure`]. Nothing is computed here.

mod components;
mod density;
mod embedding;
mod ends;
mod evolution;
mod extremes;
mod history;
mod line;
mod path;
mod plane;
mod spectra;
mod spectrum;
mod trajectory;

pub use components::components;
pub use density::density;
pub use embedding::embedding;
pub use ends::ends;
pub use evolution::evolution;
pub use extremes::extremes;
pub use history::history;
pub use line::line;
pub use path::paths;
pub use plane::{contour, surface};
pub use spectra::spectra;
pub use spectrum::spectrum;
pub use trajectory::trajectory;

use ndarray::Array2;
use plotly::Plot;
use plotly::common::{ColorScale, ColorScalePalette, Font, Title};
use plotly::layout::{Axis, AxisConstrain, Layout, Margin};
use serde_json::{Number, Value};

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

/// Significant digits that a figure's numbers keep.
const DIGITS: i32 = 6;

/// A plotly plot that a notebook shows as data, as a web page and as an image in one.
#[derive(Clone)]
pub struct Figure {
    plot: Plot,
    title: String,
}

impl Figure {
    /// Wraps a plot of your own.
    pub fn new(plot: Plot, title: &str) -> Self {
        Self {
            plot,
            title: title.into(),
        }
    }

    /// The title, which also stands for the figure where only text can.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The plot, to change it with plotly's own calls.
    pub fn plot_mut(&mut self) -> &mut Plot {
        &mut self.plot
    }

    fn retitled(mut self, title: &str) -> Self {
        self.title = title.into();
        let layout = self.plot.layout().clone().title(titled(title));
        self.plot.set_layout(layout);
        self
    }

    /// A web page with the figure, of some 7 MB: it needs no network.
    pub fn page(&self) -> String {
        self.plot.to_html()
    }

    /// plotly's JSON: `data`, `layout`, `config`, `frames`, numbers rounded to six digits.
    pub fn json(&self) -> Value {
        let mut value = serde_json::to_value(&self.plot).unwrap_or_default();
        round(&mut value);
        value
    }
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Figure: {}", self.title)
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

/// For two coordinates with one scale.
fn square(title: &str, x: &str, y: &str) -> Layout {
    layout(title)
        .width(600)
        .height(520)
        .x_axis(axis(x).constrain(AxisConstrain::Domain))
        .y_axis(axis(y).scale_anchor("x").constrain(AxisConstrain::Domain))
}

fn colors() -> ColorScale {
    ColorScale::Palette(ColorScalePalette::Viridis)
}

/// Row by row, as plotly takes them.
fn rows(values: &Array2<f64>) -> Vec<Vec<f64>> {
    let rows = values.rows().into_iter();
    rows.map(|row| row.to_vec()).collect()
}
