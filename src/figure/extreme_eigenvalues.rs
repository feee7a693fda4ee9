//! Extreme eigenvalues of the Hessian on a plane.

use plotly::common::{ColorBar, Title};
use plotly::layout::{LayoutGrid, Margin};
use plotly::{HeatMap, Plot};

use super::{Figure, axis, colors, heading, layout, rows, signed};
use crate::landscape::Plane;

/// Heat maps of λ_min (left) and λ_max (right), each with its own colour scale. If some values are negative, 0 is white. Empty if
/// the plane has no eigenvalues.
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
/// assert_eq!(
///     figure::extreme_eigenvalues(&plane).json()["data"]
///         .as_array()
///         .map(Vec::len),
///     Some(0)
/// );
/// let plane = plane.with_eigenvalues(&objective, &d1, &d2, &grid)?;
/// assert_eq!(
///     figure::extreme_eigenvalues(&plane).json()["data"]
///         .as_array()
///         .map(Vec::len),
///     Some(2)
/// );
/// # Ok::<(), Error>(())
/// ```
pub fn extreme_eigenvalues(plane: &Plane) -> Figure {
    let title = "Extreme Hessian eigenvalues on a plane";
    let mut plot = Plot::new();
    let mut layout = layout(title)
        .margin(Margin::new().left(70).right(30).top(85).bottom(60))
        .grid(LayoutGrid::new().rows(1).columns(2))
        .x_axis(axis("α").domain(&[0.0, 0.37]))
        .y_axis(axis("β"))
        .x_axis2(axis("α").domain(&[0.58, 0.95]))
        .y_axis2(axis("").anchor("x2"));
    if let Some(found) = &plane.eigenvalues {
        let sides = [
            ("λ<sub>min</sub>", &found.smallest, "x", "y", 0.0, 0.375),
            ("λ<sub>max</sub>", &found.largest, "x2", "y2", 0.58, 0.955),
        ];
        for (name, values, x, y, left, bar) in sides {
            let mut map = HeatMap::new(plane.alphas.clone(), plane.betas.clone(), rows(values))
                .color_scale(colors())
                .color_bar(
                    ColorBar::new()
                        .x(bar)
                        .thickness(14)
                        .title(Title::with_text("")),
                )
                .hover_template(format!(
                    "α = %{{x:.4g}}<br>β = %{{y:.4g}}<br>{name} = %{{z:.5g}}<extra></extra>"
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
    Figure::new(&plot, title)
}
