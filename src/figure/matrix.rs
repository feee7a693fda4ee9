//! Entries of a matrix.

use std::ops::Range;

use plotly::common::{ColorBar, Title};
use plotly::layout::{AxisConstrain, Margin, Shape, ShapeLine, ShapeType};
use plotly::{HeatMap, Plot};

use super::{Figure, INK, axis, layout, rows, signed};
use crate::operator::Dense;

/// A heat map of the entries of a matrix, first row on top: positive blue, negative orange. Lines separate the `blocks`, such as
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
    let places: Vec<usize> = (0..n).collect();
    let map = HeatMap::new(places.clone(), places, rows(entries))
        .color_bar(ColorBar::new().thickness(14).title(Title::with_text("")))
        .hover_template("row %{y}, column %{x}: %{z:.4g}<extra></extra>");
    let mut plot = Plot::new();
    plot.add_trace(signed(map, entries));

    let end = n as f64 - 0.5;
    let middles: Vec<f64> = blocks
        .iter()
        .map(|(_, range)| (range.start + range.end) as f64 / 2.0 - 0.5)
        .collect();
    let names: Vec<String> = blocks.iter().map(|(name, _)| name.clone()).collect();
    let side = |ends: [f64; 2]| {
        let axis = axis("")
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
    Figure::new(&plot, &title)
}
