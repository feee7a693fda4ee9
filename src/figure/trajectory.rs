//! Training trajectories on a plane.

use serde_json::json;

use super::Figure;
use super::plane_view::{Mark, MarkStyle, View, plane_view};
use super::playback::PlaybackFrame;
use crate::landscape::{Plane, Projection};

/// Number of pieces of the line between two snapshots, so that it follows the surface.
const PIECES: usize = 4;
/// Maximum number of snapshots whose line has several pieces.
const MANY: usize = 200;
/// Maximum number of frames of an animation.
const MAX_FRAMES: usize = 50;
/// Duration of a frame in milliseconds.
const FRAME_MS: usize = 200;

/// Contours of the loss on a plane with the projected training trajectory: dots at the snapshots and a square at the first. A disc
/// marks the origin of the plane. Hovering over a dot shows the step, its own loss and the loss at its projection on the plane. Buttons
/// switch to the surface.
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
/// assert_eq!(json["data"][3]["x"].as_array().map(Vec::len), Some(6));
/// let json = figure::trajectory_surface(&plane, &path).json();
/// assert_eq!(json["data"][3]["type"], "scatter3d");
/// let json = figure::trajectory_animation(&plane, &path).json();
/// assert_eq!(json["frames"].as_array().map(Vec::len), Some(6));
/// # Ok::<(), Error>(())
/// ```
pub fn trajectory(plane: &Plane, path: &Projection) -> Figure {
    let title = "Training trajectory on a plane";
    plane_view(title, plane, View::Contours, &marks(plane, path))
}

/// The loss surface with the projected training trajectory, which is raised by a small part of the surface's height to be visible.
///
/// See [`trajectory`] for an example.
pub fn trajectory_surface(plane: &Plane, path: &Projection) -> Figure {
    let title = "Training trajectory on the loss surface";
    plane_view(title, plane, View::Surface, &marks(plane, path))
}

/// The training as an animation on the loss surface, with a slider and buttons to play and pause; at most 50 frames. Before it is
/// played, the whole trajectory is shown. Buttons switch to contours.
///
/// See [`trajectory`] for an example.
pub fn trajectory_animation(plane: &Plane, path: &Projection) -> Figure {
    let title = "Training on the loss surface";
    let marks = marks(plane, path);
    let mut figure = plane_view(title, plane, View::Surface, &marks);
    // The frames have heights for linear losses.
    if let Some(menus) = figure.json["layout"]["updatemenus"].as_array_mut() {
        menus.truncate(1);
    }
    let count = path.steps.len();
    let number = count.min(MAX_FRAMES);
    let frames = (0..number).map(|frame| {
        let last = match number {
            0 | 1 => 0,
            _ => frame * (count - 1) / (number - 1),
        };
        // The edge and the filling of the line, then the dots.
        let data = [1, 2, 3].map(|trace| {
            let end = match trace {
                3 => last + 1,
                _ => last * pieces(count) + 1,
            };
            let whole = &figure.json["data"][trace];
            let part = |axis: &str| {
                let values = whole[axis].as_array().map_or(&[][..], Vec::as_slice);
                json!(&values[..end.min(values.len())])
            };
            json!({"x": part("x"), "y": part("y"), "z": part("z"), "text": part("text")})
        });
        PlaybackFrame {
            label: path.steps[last].to_string(),
            data: data.to_vec(),
        }
    });
    let frames: Vec<PlaybackFrame> = frames.collect();
    let active = frames.len().saturating_sub(1);
    let mut figure = figure.with_playback("after step ", FRAME_MS, &[1, 2, 3], frames);
    figure.json["layout"]["sliders"][0]["active"] = json!(active);
    figure
}

/// The line with its edge, the dots of the snapshots, a square at the first, and the origin of the plane.
fn marks(plane: &Plane, path: &Projection) -> Vec<Mark> {
    let [alphas, betas, losses] = line(plane, path);
    let line = |style| Mark {
        name: "training",
        alphas: alphas.clone(),
        betas: betas.clone(),
        losses: losses.clone(),
        texts: Vec::new(),
        style,
    };
    let dots = |indices: std::ops::Range<usize>, style| Mark {
        name: "training",
        alphas: path.alphas[indices.clone()].to_vec(),
        betas: path.betas[indices.clone()].to_vec(),
        losses: indices.clone().map(|i| above(plane, path, i)).collect(),
        texts: indices.map(|i| text(path, i)).collect(),
        style,
    };
    let count = path.steps.len();
    vec![
        line(MarkStyle::Edge),
        line(MarkStyle::Line),
        dots(0..count, MarkStyle::Dots),
        dots(0..count.min(1), MarkStyle::Square),
        Mark::origin(plane),
    ]
}

fn pieces(count: usize) -> usize {
    if count > MANY { 1 } else { PIECES }
}

/// α, β and loss along the line through the snapshots, never below the drawn surface.
fn line(plane: &Plane, path: &Projection) -> [Vec<f64>; 3] {
    let (mut alphas, mut betas, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let count = path.steps.len();
    let pieces = pieces(count);
    for i in 0..count {
        let parts = if i + 1 < count { pieces } else { 1 };
        for part in 0..parts {
            let t = part as f64 / pieces as f64;
            let next = (i + 1).min(count - 1);
            let between = |values: &[f64]| (1.0 - t) * values[i] + t * values[next];
            let (alpha, beta) = (between(&path.alphas), between(&path.betas));
            alphas.push(alpha);
            betas.push(beta);
            losses.push(match part {
                0 => above(plane, path, i),
                _ => surface_at(plane, alpha, beta).max(between(&path.plane_losses)),
            });
        }
    }
    [alphas, betas, losses]
}

/// The loss at a projection, or that of the drawn surface if it is higher.
fn above(plane: &Plane, path: &Projection, i: usize) -> f64 {
    // `max` ignores NaN.
    path.plane_losses[i].max(surface_at(plane, path.alphas[i], path.betas[i]))
}

/// The bilinear surface between the points of the grid; NaN outside of it.
fn surface_at(plane: &Plane, alpha: f64, beta: f64) -> f64 {
    let cell = |axis: &[f64], at: f64| {
        let right = axis
            .partition_point(|x| *x < at)
            .clamp(1, axis.len().max(2) - 1);
        let [from, to] = [axis.get(right - 1)?, axis.get(right)?];
        (*from <= at && at <= *to).then(|| (right - 1, (at - from) / (to - from)))
    };
    let (Some((column, x)), Some((row, y))) =
        (cell(&plane.alphas, alpha), cell(&plane.betas, beta))
    else {
        return f64::NAN;
    };
    let at = |row, column| plane.losses.get((row, column)).copied().unwrap_or(f64::NAN);
    let along = |row| (1.0 - x) * at(row, column) + x * at(row, column + 1);
    (1.0 - y) * along(row) + y * along(row + 1)
}

/// Hover text of a snapshot.
fn text(path: &Projection, i: usize) -> String {
    format!(
        "step {}<br>loss {:.5}<br>loss on the plane {:.5}<br>distance from the plane {:.4}",
        path.steps[i], path.losses[i], path.plane_losses[i], path.distances[i]
    )
}
