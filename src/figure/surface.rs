//! Loss on a plane, as contours and as a surface.

use plotly::common::{ColorBar, Marker, MarkerSymbol, Mode, Title};
use plotly::layout::Margin;
use plotly::{Contour, Plot, Scatter, Scatter3D, Surface};

use super::{Figure, ORANGE, colors, layout, rows, scene, square};
use crate::landscape::Plane;

const HOVER: &str = "α = %{x:.4g}<br>β = %{y:.4g}<br>loss = %{z:.5g}<extra></extra>";

/// Contours of L(θ + αd₁ + βd₂), with a cross at θ.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let plane = Plane::random(&objective, 0, 1.0, 5)?;
/// let json = figure::contour(&plane).json();
/// assert_eq!(json["data"][0]["type"], "contour");
/// assert_eq!(json["data"][0]["x"][4], 1.0);
/// # Ok::<(), Error>(())
/// ```
pub fn contour(plane: &Plane) -> Figure {
    let title = "Loss on a plane";
    let levels = Contour::new(
        plane.alphas.clone(),
        plane.betas.clone(),
        rows(&plane.losses),
    )
    .color_scale(colors())
    .color_bar(ColorBar::new().title(Title::with_text("loss")))
    .n_contours(24)
    .hover_template(HOVER);
    let center = Scatter::new(vec![0.0], vec![0.0])
        .mode(Mode::Markers)
        .name("θ")
        .show_legend(false)
        .marker(Marker::new().color(ORANGE).size(12).symbol(MarkerSymbol::X))
        .hover_template(format!("θ<br>loss = {:.5}<extra></extra>", plane.center));
    let mut plot = Plot::new();
    plot.add_trace(levels);
    plot.add_trace(center);
    plot.set_layout(square(title, "α, in units of d₁", "β, in units of d₂"));
    Figure::new(&plot, title)
}

/// L(θ + αd₁ + βd₂) as a rotatable surface, with a dot at θ.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let plane = Plane::random(&objective, 0, 1.0, 5)?;
/// let json = figure::surface(&plane).json();
/// assert_eq!(json["data"][0]["type"], "surface");
/// assert_eq!(json["data"][0]["z"].as_array().map(Vec::len), Some(5)); // a row for each β
/// # Ok::<(), Error>(())
/// ```
pub fn surface(plane: &Plane) -> Figure {
    let title = "Loss surface";
    let surface = Surface::<f64, f64, f64>::new(rows(&plane.losses))
        .x(plane.alphas.clone())
        .y(plane.betas.clone())
        .color_scale(colors())
        .color_bar(ColorBar::new().title(Title::with_text("loss")))
        .hover_template(HOVER);
    let center = Scatter3D::new(vec![0.0], vec![0.0], vec![plane.center])
        .mode(Mode::Markers)
        .name("θ")
        .show_legend(false)
        .marker(Marker::new().color(ORANGE).size(5))
        .hover_template("θ<br>loss = %{z:.5g}<extra></extra>");
    let mut plot = Plot::new();
    plot.add_trace(surface);
    plot.add_trace(center);
    plot.set_layout(
        layout(title)
            .height(540)
            .margin(Margin::new().left(10).right(10).top(50).bottom(10))
            .scene(scene()),
    );
    Figure::new(&plot, title)
}
