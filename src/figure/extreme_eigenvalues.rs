//! Extreme eigenvalues of the Hessian on a plane.

use plotly::common::{ColorBar, Title};
use plotly::layout::{LayoutGrid, Margin};
use plotly::{HeatMap, Plot};
use serde_json::json;

use super::plane_view::DIRECTIONS;
use super::{Figure, INK, axis, colors, heading, layout, rows, signed};
use crate::landscape::Plane;

/// Maps of λ_min (left) and λ_max (right), each with its own colour scale, with contours of the loss. If some values are negative, 0 is
/// white. Empty if the plane has no eigenvalues.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0)?;
/// let grid = Grid::square(1.0, 3)?;
/// let plane = Plane::on_grid(&objective, &d1, &d2, &grid)?;
/// let count = |plane: &Plane| figure::extreme_eigenvalues(plane).json()["data"].as_array().map(Vec::len);
/// assert_eq!(count(&plane), Some(0));
/// assert_eq!(count(&plane.with_eigenvalues(&objective, &d1, &d2, &grid)?), Some(4));
/// # Ok::<(), Error>(())
/// ```
pub fn extreme_eigenvalues(plane: &Plane) -> Figure {
    let title = "Extreme Hessian eigenvalues on a plane, with contours of the loss";
    let mut plot = Plot::new();
    let [first, second] = DIRECTIONS;
    let mut layout = layout(title)
        .height(400)
        .margin(Margin::new().left(70).right(30).top(85).bottom(60))
        .grid(LayoutGrid::new().rows(1).columns(2))
        .show_legend(false)
        .x_axis(axis(first).domain(&[0.0, 0.37]).zero_line(false))
        .y_axis(axis(second).zero_line(false))
        .x_axis2(axis(first).domain(&[0.57, 0.94]).zero_line(false))
        .y_axis2(axis("").anchor("x2").zero_line(false));
    if let Some(found) = &plane.eigenvalues {
        let sides = [
            ("λ<sub>min</sub>", &found.smallest, "x", "y", 0.0, 0.375),
            ("λ<sub>max</sub>", &found.largest, "x2", "y2", 0.57, 0.945),
        ];
        for (name, values, x, y, left, bar) in sides {
            let mut map = HeatMap::new(plane.alphas.clone(), plane.betas.clone(), rows(values))
                .color_scale(colors())
                .color_bar(
                    ColorBar::new()
                        .x(bar)
                        .thickness(14)
                        .outline_width(0)
                        .title(Title::with_text("")),
                )
                .hover_template(format!(
                    "{first}: %{{x:.4g}}<br>{second}: %{{y:.4g}}<br>{name} = %{{z:.5g}}<extra></extra>"
                ))
                .x_axis(x)
                .y_axis(y);
            if values.iter().any(|value| *value < 0.0) {
                map = signed(map, values);
            }
            plot.add_trace(map);
            layout.add_annotation(heading(name, left, 1.0));
        }
    }
    plot.set_layout(layout);
    let mut figure = Figure::new(&plot, title);
    let contours = ["", "2"].map(|axes| {
        json!({
            "type": "contour", "x": plane.alphas, "y": plane.betas, "z": rows(&plane.losses),
            "xaxis": format!("x{axes}"), "yaxis": format!("y{axes}"),
            "contours": {"coloring": "none", "showlabels": true, "labelfont": {"size": 9, "color": INK}},
            "ncontours": 10, "line": {"color": INK, "width": 0.7}, "showscale": false, "hoverinfo": "skip",
        })
    });
    if let Some(data) = figure.json["data"].as_array_mut() {
        for map in &mut *data {
            map["zsmooth"] = json!("best");
        }
        if !data.is_empty() {
            data.extend(contours);
        }
    }
    figure
}
