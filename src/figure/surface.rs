//! Loss on a plane, as contours and as a surface.

use super::Figure;
use super::plane_view::{Mark, View, plane_view};
use crate::landscape::Plane;

/// Contours of L(θ + αd₁ + βd₂), with a ring at θ. Levels are logarithmic if most of the plane would have one colour otherwise.
/// Buttons switch to the surface, and between linear and logarithmic losses.
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
    let marks = [Mark::origin(plane)];
    plane_view("Loss on a plane", plane, View::Contours, &marks)
}

/// L(θ + αd₁ + βd₂) as a rotatable surface with contours on the floor and a disc at θ, seen from above its lowest corner. Colours are
/// logarithmic if most of the surface would have one colour otherwise. Buttons switch to contours, and between linear and
/// logarithmic losses.
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
    let marks = [Mark::origin(plane)];
    plane_view("Loss surface", plane, View::Surface, &marks)
}
