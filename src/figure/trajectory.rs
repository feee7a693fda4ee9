//! A training on a plane.

use plotly::Scatter;
use plotly::common::{Line as Stroke, Marker, Mode};

use super::{Figure, INK, PAPER, contour};
use crate::landscape::{Plane, Projection};

/// The plane from above with the training's path on it: white dots at the snapshots, the first one
/// larger and dark. The path is seen from the plane; pointing at a dot tells the loss there and on
/// the plane below it.
pub fn trajectory(plane: &Plane, path: &Projection) -> Figure {
    let mut figure = contour(plane);
    let n = path.steps.len();
    let text = (0..n).map(|i| {
        format!(
            "step {}<br>loss {:.5}<br>on the plane {:.5}<br>distance {:.4}",
            path.steps[i], path.losses[i], path.on_plane[i], path.distances[i]
        )
    });
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
        .text_array(text.collect())
        .hover_template("%{text}<extra></extra>");
    figure.plot_mut().add_trace(trace);
    figure.retitled("Training over a plane")
}
