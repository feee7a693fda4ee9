//! Losses on several planes.

use std::borrow::Borrow;

use plotly::common::{Anchor, ColorBar, Font, Line as Stroke, Marker, Mode, Title};
use plotly::layout::{Annotation, Axis, Layout, Margin};
use plotly::traces::contour::Contours;
use plotly::{Contour, Plot, Scatter};

use super::palette::{INK, PAPER};
use super::plane_view::{DIRECTIONS, log_ticks};
use super::{Figure, WIDTH, axis, colors, layout, rows};
use crate::landscape::Plane;

/// Maximum number of panels.
const MAX_PANELS: usize = 6;
/// Panels per row.
const COLUMNS: usize = 3;
/// Number of contour levels.
const LEVELS: f64 = 20.0;

/// Margins and gaps in pixels.
const LEFT: usize = 60;
const RIGHT: usize = 90;
const TOP: usize = 80;
const BOTTOM: usize = 55;
const GAP: [usize; 2] = [45, 60];

/// Contours of L(θ + αd₁ + βd₂) on the first six of several named planes, with discs at θ.
///
/// All panels have the same levels and colours, evenly spaced in log₁₀ L. Losses are clipped at 10⁻⁶ times the largest.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let [near, far] = [0.1, 1.0].map(|radius| Plane::random(&objective, 0, radius, 5));
/// let json = figure::planes(&[("near", near?), ("far", far?)]).json();
/// assert_eq!(json["data"][2]["name"], "far");
/// assert_eq!(json["data"][0]["contours"], json["data"][2]["contours"]); // the same levels
/// # Ok::<(), Error>(())
/// ```
pub fn planes<N: AsRef<str>, P: Borrow<Plane>>(planes: &[(N, P)]) -> Figure {
    let title = "Losses on several planes, on a common scale";
    let planes = &planes[..planes.len().min(MAX_PANELS)];
    let all = planes
        .iter()
        .flat_map(|(_, plane)| plane.borrow().losses.iter());
    let high = all.clone().copied().fold(f64::MIN_POSITIVE, f64::max);
    let low = all.copied().fold(high, f64::min).max(1e-6 * high);
    let [low, high] = [low, high].map(f64::log10);
    let size = (high - low).max(1e-3) / LEVELS;

    let columns = planes.len().clamp(1, COLUMNS);
    let lines = planes.len().div_ceil(columns).max(1);
    let side = (WIDTH - LEFT - RIGHT - (columns - 1) * GAP[0]) / columns;
    let width = columns * side + (columns - 1) * GAP[0];
    let height = lines * side + (lines - 1) * GAP[1];
    let part = |from: usize, whole: usize| {
        let [from, to] = [from, from + side].map(|pixel| pixel as f64 / whole as f64);
        [from, to.min(1.0)]
    };
    let mut plot = Plot::new();
    let mut layout = layout(title).height(TOP + height + BOTTOM).margin(
        Margin::new()
            .left(LEFT)
            .right(RIGHT)
            .top(TOP)
            .bottom(BOTTOM),
    );
    for (panel, (name, plane)) in planes.iter().enumerate() {
        let plane = plane.borrow();
        let (line, column) = (panel / columns, panel % columns);
        let across = part(column * (side + GAP[0]), width);
        let up = part((lines - 1 - line) * (side + GAP[1]), height);
        let [x, y] = ["x", "y"].map(|axis| match panel {
            0 => axis.to_owned(),
            _ => format!("{axis}{}", panel + 1),
        });
        // `max` would replace NaN.
        let logarithms = plane.losses.mapv(|loss| match loss.is_nan() {
            true => loss,
            false => loss.log10().max(low),
        });
        let levels = Contours::new().start(low).end(high).size(size);
        plot.add_trace(
            Contour::new(plane.alphas.clone(), plane.betas.clone(), rows(&logarithms))
                .name(name.as_ref())
                .auto_contour(false)
                .contours(levels)
                .color_scale(colors())
                .show_scale(panel == 0)
                .color_bar(bar(low, high))
                .hover_template("direction 1: %{x:.4g}<br>direction 2: %{y:.4g}<br>log<sub>10</sub> loss = %{z:.3f}")
                .x_axis(&x)
                .y_axis(&y),
        );
        plot.add_trace(
            Scatter::new(vec![0.0], vec![0.0])
                .mode(Mode::Markers)
                .show_legend(false)
                .marker(
                    Marker::new()
                        .color(PAPER)
                        .size(9)
                        .line(Stroke::new().color(INK).width(2.0)),
                )
                .hover_template(format!("θ<br>loss = {:.5}<extra></extra>", plane.center))
                .x_axis(&x)
                .y_axis(&y),
        );
        let lowest = panel + columns >= planes.len();
        let across_title = if lowest { DIRECTIONS[0] } else { "" };
        let up_title = if column == 0 { DIRECTIONS[1] } else { "" };
        let across_axis = axis(across_title).domain(&across).anchor(&y);
        let up_axis = axis(up_title).domain(&up).anchor(&x);
        layout = with_axes(layout, panel, across_axis, up_axis);
        layout.add_annotation(
            Annotation::new()
                .text(name.as_ref())
                .x_ref("paper")
                .y_ref("paper")
                .x(across[0])
                .y(up[1])
                .x_anchor(Anchor::Left)
                .y_anchor(Anchor::Bottom)
                .show_arrow(false)
                .font(Font::new().size(14).color(INK)),
        );
    }
    plot.set_layout(layout);
    Figure::new(&plot, title)
}

fn with_axes(layout: Layout, panel: usize, x: Axis, y: Axis) -> Layout {
    match panel {
        0 => layout.x_axis(x).y_axis(y),
        1 => layout.x_axis2(x).y_axis2(y),
        2 => layout.x_axis3(x).y_axis3(y),
        3 => layout.x_axis4(x).y_axis4(y),
        4 => layout.x_axis5(x).y_axis5(y),
        _ => layout.x_axis6(x).y_axis6(y),
    }
}

/// Colour bar from 10^`low` to 10^`high`, with losses as tick labels.
fn bar(low: f64, high: f64) -> ColorBar {
    let (places, texts) = log_ticks(low, high);
    ColorBar::new()
        .title(Title::with_text("loss"))
        .tick_vals(places)
        .tick_text(texts)
}
