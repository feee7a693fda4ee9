//! Entries of a matrix.

use std::ops::Range;

use ndarray::Array2;
use plotly::common::{ColorBar, Title};
use plotly::layout::{AxisConstrain, AxisType, Margin, Shape, ShapeLine, ShapeType};
use plotly::{HeatMap, Plot};

use super::palette::INK;
use super::{Figure, axis, layout, rows, signed, to_json};
use crate::operator::Dense;

/// Share of the largest entry below which an entry is nearly white.
const VISIBLE: f64 = 0.03;
/// Size, relative to the largest entry, below which a logarithmic scale is nearly linear.
const LINEAR: f64 = 1e-3;

/// A heat map of the entries of a matrix, first row on top: positive blue, negative vermilion. Hover texts name the parameters. Colours
/// are logarithmic if most entries would be nearly white. Lines separate the `blocks`, such as
/// [`Parameters::blocks`](crate::model::Parameters::blocks) for a Hessian; may be empty.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?
///     .hessian()
///     .dense()?;
/// let figure = figure::matrix(&hessian, &model.parameters().blocks());
/// assert_eq!(figure.title(), "Entries of a 13 × 13 matrix");
/// assert_eq!(
///     figure.json()["layout"]["xaxis"]["ticktext"][0],
///     "layers.0.bias"
/// );
/// # Ok::<(), Error>(())
/// ```
pub fn matrix(matrix: &Dense, blocks: &[(String, Range<usize>)]) -> Figure {
    let entries = matrix.matrix();
    let n = entries.nrows();
    let title = format!("Entries of a {n} × {n} matrix");
    let labels = labels(n, blocks);
    let compressed = compressed(entries);
    let shown = compressed.as_ref().map_or(entries, |found| &found.values);
    let mut bar = ColorBar::new()
        .thickness(14)
        .outline_width(0)
        .title(Title::with_text(""));
    if let Some(found) = &compressed {
        bar = bar
            .tick_vals(found.places.clone())
            .tick_text(found.texts.clone());
    }
    let value = if compressed.is_some() {
        "customdata"
    } else {
        "z"
    };
    let map = HeatMap::new(labels.clone(), labels, rows(shown))
        .color_bar(bar)
        .hover_template(format!(
            "%{{y}}<br>%{{x}}<br>%{{{value}:.4g}}<extra></extra>"
        ));
    let mut plot = Plot::new();
    plot.add_trace(signed(map, shown));

    let end = n as f64 - 0.5;
    let middles: Vec<f64> = blocks
        .iter()
        .map(|(_, range)| (range.start + range.end) as f64 / 2.0 - 0.5)
        .collect();
    let names: Vec<String> = blocks.iter().map(|(name, _)| name.clone()).collect();
    let side = |ends: [f64; 2]| {
        let axis = axis("")
            .type_(AxisType::Category)
            .range(ends.to_vec())
            .show_grid(false)
            .zero_line(false)
            .constrain(AxisConstrain::Domain);
        match blocks.is_empty() {
            true => axis,
            false => axis.tick_values(middles.clone()).tick_text(names.clone()),
        }
    };
    let borders = blocks.iter().filter(|(_, range)| range.start > 0);
    let borders = borders.flat_map(|(_, range)| {
        let at = range.start as f64 - 0.5;
        let line = |[x0, x1, y0, y1]: [f64; 4]| {
            Shape::new()
                .shape_type(ShapeType::Line)
                .x0(x0)
                .x1(x1)
                .y0(y0)
                .y1(y1)
                .line(ShapeLine::new().color(INK).width(0.7))
        };
        [line([at, at, -0.5, end]), line([-0.5, end, at, at])]
    });
    plot.set_layout(
        layout(&title)
            .width(600)
            .height(580)
            .margin(Margin::new().left(110).right(30).top(50).bottom(110))
            .x_axis(side([-0.5, end]).tick_angle(-90.0))
            .y_axis(side([end, -0.5]).scale_anchor("x"))
            .shapes(borders.collect()),
    );
    let mut figure = Figure::new(&plot, &title);
    if compressed.is_some() {
        // plotly.rs has no setter for the `customdata` of a heat map.
        figure.json["data"][0]["customdata"] = to_json(&rows(entries));
    }
    figure
}

/// Names of the rows and columns: the block and the index in it.
fn labels(n: usize, blocks: &[(String, Range<usize>)]) -> Vec<String> {
    let label = |i: usize| {
        let block = blocks.iter().find(|(_, range)| range.contains(&i));
        match block {
            Some((name, range)) => format!("{name}[{}]", i - range.start),
            None => format!("entry {i}"),
        }
    };
    (0..n).map(label).collect()
}

/// Entries on a scale that is linear near 0 and logarithmic beyond.
struct Compressed {
    values: Array2<f64>,
    /// Positions of the ticks of the colour bar, and the original values there.
    places: Vec<f64>,
    texts: Vec<String>,
}

/// Entries on a scale that is linear near 0 and logarithmic beyond, and ticks of the original values. `None` if half of the entries
/// that are not 0 have a visible colour on a linear scale.
fn compressed(entries: &Array2<f64>) -> Option<Compressed> {
    let mut sizes: Vec<f64> = entries.iter().map(|entry| entry.abs()).collect();
    sizes.retain(|size| *size > 0.0);
    sizes.sort_by(f64::total_cmp);
    let (largest, median) = (*sizes.last()?, sizes[sizes.len() / 2]);
    if median >= VISIBLE * largest {
        return None;
    }
    let compress = |value: f64| (value.abs() / (LINEAR * largest)).ln_1p().copysign(value);
    let power = 10f64.powf(largest.log10().floor());
    let ticks = [1.0, 0.1, 0.01].map(|size| size * power);
    let ticks = ticks.iter().map(|t| -t).chain([0.0]).chain(ticks);
    let [low, high] = [f64::min, f64::max].map(|choose| entries.iter().copied().fold(0.0, choose));
    let ticks: Vec<f64> = ticks.filter(|tick| (low..=high).contains(tick)).collect();
    let texts = ticks.iter().map(|tick| format!("{tick:.0e}"));
    let texts = texts.map(|text| text.parse::<f64>().map_or(text, |tick| tick.to_string()));
    let places = ticks.iter().map(|tick| compress(*tick));
    Some(Compressed {
        values: entries.mapv(compress),
        places: places.collect(),
        texts: texts.collect(),
    })
}
