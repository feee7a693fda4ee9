//! Training trajectories on a plane.

use plotly::common::{Line as Stroke, Marker, Mode};
use plotly::{Scatter, Scatter3D};

use super::{Figure, INK, ORANGE, PAPER, contour, surface};
use crate::landscape::{Plane, Projection};

/// Contours of the loss on a plane with the projected training trajectory: white dots at the snapshots, the first larger and dark.
/// Hovering over a dot shows its own loss and the loss at its projection on the plane.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let mut snapshots = Trajectory::every(1)?;
/// Trainer::adam(0.05)
///     .with_epochs(5)
///     .fit_recorded(&model, &data, &data, &mut snapshots)?;
/// let pca = Pca::fit(&snapshots, 2)?; // the plane of largest variance
/// let (d1, d2) = (&pca.components[0], &pca.components[1]);
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let path = Projection::onto(&objective, d1, d2, &snapshots)?;
/// let plane = Plane::on_grid(&objective, d1, d2, &path.grid(5)?)?;
/// let json = figure::trajectory(&plane, &path).json();
/// assert_eq!(json["data"][2]["x"].as_array().map(Vec::len), Some(6));
/// let json = figure::trajectory_surface(&plane, &path).json();
/// assert_eq!(json["data"][2]["type"], "scatter3d");
/// # Ok::<(), Error>(())
/// ```
pub fn trajectory(plane: &Plane, path: &Projection) -> Figure {
    let mut figure = contour(plane);
    let n = path.steps.len();
    let mut colors = vec![PAPER; n];
    let mut sizes = vec![6; n];
    if n > 0 {
        (colors[0], sizes[0]) = (INK, 11);
    }
    let trace = Scatter::new(path.alphas.clone(), path.betas.clone())
        .mode(Mode::LinesMarkers)
        .name("training")
        .show_legend(false)
        .line(Stroke::new().color(PAPER).width(1.5))
        .marker(
            Marker::new()
                .color_array(colors)
                .size_array(sizes)
                .line(Stroke::new().color(INK).width(1.0)),
        )
        .text_array(texts(path))
        .hover_template("%{text}<extra></extra>");
    figure.add_trace(trace);
    figure.with_title("Training trajectory on a plane")
}

/// The loss surface with the projected training trajectory. Snapshots are at the loss of their projection on the plane, raised by
/// 2 % of the surface's height to be visible.
///
/// See [`trajectory`] for an example.
pub fn trajectory_surface(plane: &Plane, path: &Projection) -> Figure {
    let mut figure = surface(plane);
    let low = plane.losses.iter().copied().fold(f64::INFINITY, f64::min);
    let high = plane
        .losses
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    let above = |loss: &f64| loss + 0.02 * (high - low);
    let heights = path.plane_losses.iter().map(above).collect();
    let trace = Scatter3D::new(path.alphas.clone(), path.betas.clone(), heights)
        .mode(Mode::LinesMarkers)
        .name("training")
        .show_legend(false)
        .line(Stroke::new().color(ORANGE).width(6.0))
        .marker(Marker::new().color(INK).size(2))
        .text_array(texts(path))
        .hover_template("%{text}<extra></extra>");
    figure.add_trace(trace);
    figure.with_title("Training trajectory on the loss surface")
}

/// Hover texts of the snapshots.
fn texts(path: &Projection) -> Vec<String> {
    let text = |i: usize| {
        format!(
            "step {}<br>loss {:.5}<br>on the plane {:.5}<br>distance {:.4}",
            path.steps[i], path.losses[i], path.plane_losses[i], path.distances[i]
        )
    };
    (0..path.steps.len()).map(text).collect()
}
