//! Several small charts in one figure.

use plotly::Plot;
use plotly::layout::{Axis, Margin};
use serde_json::{Value, json};

use super::palette::INK;
use super::{Figure, axis, heading, layout, log_axis, to_json};

/// Number of panels in a row.
const COLUMNS: usize = 2;
/// Height of a panel in pixels.
const PANEL: usize = 190;
/// Height between rows in pixels, with the title of the lower panel and the axis of the upper one.
const GAP: usize = 85;
const TOP: usize = 85;
const BOTTOM: usize = 60;
/// Horizontal ranges of the columns, in fractions of the figure.
const ACROSS: [[f64; 2]; COLUMNS] = [[0.0, 0.43], [0.57, 1.0]];

/// Lines over a common horizontal axis.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    pub(super) logarithmic: bool,
    pub(super) lines: Vec<PanelLine>,
}

/// A line of a panel. Its name is shown beside the panel's title if there are several.
pub(super) struct PanelLine {
    pub(super) name: &'static str,
    pub(super) color: &'static str,
    /// x, y and the error of y.
    pub(super) points: Vec<(f64, f64, f64)>,
}

/// The panels, row by row. Omits points that are not finite, points ≤ 0 on a logarithmic axis, and panels without points.
pub(super) fn panels(title: &str, panels: Vec<Panel>) -> Figure {
    let shown = panels.into_iter().map(|mut panel| {
        let logarithmic = panel.logarithmic;
        for line in &mut panel.lines {
            let shows =
                |(x, y): (f64, f64)| x.is_finite() && y.is_finite() && !(logarithmic && y <= 0.0);
            line.points.retain(|point| shows((point.0, point.1)));
        }
        panel.lines.retain(|line| !line.points.is_empty());
        panel
    });
    let panels: Vec<Panel> = shown.filter(|panel| !panel.lines.is_empty()).collect();
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let inner = rows * PANEL + (rows - 1) * GAP;
    let mut plot = Plot::new();
    let mut layout = layout(title)
        .height(TOP + inner + BOTTOM)
        .margin(Margin::new().left(70).right(30).top(TOP).bottom(BOTTOM))
        .show_legend(false);
    let mut axes = serde_json::Map::new();
    let mut traces = Vec::new();
    for (i, panel) in panels.iter().enumerate() {
        let (row, column) = (i / COLUMNS, i % COLUMNS);
        let top = 1.0 - (row * (PANEL + GAP)) as f64 / inner as f64;
        let up = [(top - PANEL as f64 / inner as f64).max(0.0), top];
        let suffix = if i == 0 {
            String::new()
        } else {
            (i + 1).to_string()
        };
        let (x, y) = (format!("x{suffix}"), format!("y{suffix}"));
        let placed =
            |axis: Axis, domain: &[f64], anchor: &str| to_json(&axis.domain(domain).anchor(anchor));
        let vertical = match panel.logarithmic {
            true => log_axis(""),
            false => axis(""),
        };
        axes.insert(
            format!("xaxis{suffix}"),
            placed(axis(panel.x), &ACROSS[column], &y),
        );
        axes.insert(format!("yaxis{suffix}"), placed(vertical, &up, &x));
        let names = panel.lines.iter().map(|line| {
            let (color, name) = (line.color, line.name);
            format!(r#"<span style="color:{color}">{name}</span>"#)
        });
        let names = names.collect::<Vec<_>>().join(", ");
        let text = match panel.lines.len() {
            1 => panel.title.to_owned(),
            _ => format!("{}: {names}", panel.title),
        };
        layout.add_annotation(heading(&text, ACROSS[column][0], up[1]));
        traces.extend(panel.lines.iter().map(|line| trace(panel, line, &x, &y)));
    }
    plot.set_layout(layout);
    let mut figure = Figure::new(&plot, title);
    figure.json["data"] = traces.into();
    if let Some(layout) = figure.json["layout"].as_object_mut() {
        layout.extend(axes);
    }
    figure
}

fn trace(panel: &Panel, line: &PanelLine, x: &str, y: &str) -> Value {
    let column =
        |value: fn(&(f64, f64, f64)) -> f64| line.points.iter().map(value).collect::<Vec<_>>();
    let errors = column(|point| point.2);
    let mode = match line.points.len() {
        0..=30 => "lines+markers",
        _ => "lines",
    };
    let mut trace = json!({
        "type": "scatter", "mode": mode, "name": line.name,
        "x": column(|point| point.0), "y": column(|point| point.1),
        "xaxis": x, "yaxis": y,
        "line": {"color": line.color, "width": 2.0},
        "hovertemplate": format!("{} %{{x}}<br>{} = %{{y:.5g}}<extra></extra>", panel.x, line.name),
    });
    if errors.iter().any(|error| *error > 0.0) {
        trace["error_y"] =
            json!({"type": "data", "array": errors, "width": 0, "color": INK, "thickness": 1});
    }
    trace
}
