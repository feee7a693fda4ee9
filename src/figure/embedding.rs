//! Embeddings in two and three dimensions.

use ndarray::Array2;
use plotly::Plot;
use serde_json::{Value, json};

use super::palette::{GRID, INK, PAPER};
use super::{Figure, axis, layout};

/// Axis titles.
const AXES: [&str; 3] = ["first coordinate", "second coordinate", "third coordinate"];

/// The first two columns of an embedding (a missing column is 0). Points are connected and coloured in the order of the rows, with
/// a square around the first and a ring around the last. The axes have different scales.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let figure = figure::embedding(&array![[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], "Three points");
/// assert_eq!(figure.json()["data"][1]["y"][2], 5.0);
/// ```
pub fn embedding(coordinates: &Array2<f64>, title: &str) -> Figure {
    let plot = Plot::new();
    let mut figure = Figure::new(&plot, title);
    figure.json["data"] = traces(coordinates, 2).into();
    let [x, y] = [AXES[0], AXES[1]].map(|name| axis(name).zero_line(false));
    figure.json["layout"] =
        super::to_json(&layout(title).width(660).height(480).x_axis(x).y_axis(y));
    figure.json["layout"]["legend"] = legend();
    figure
}

/// The first three columns of an embedding as a rotatable figure; otherwise as [`embedding`].
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let figure = figure::embedding_3d(&array![[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "Two points");
/// assert_eq!(figure.json()["data"][1]["z"][1], 5.0);
/// ```
pub fn embedding_3d(coordinates: &Array2<f64>, title: &str) -> Figure {
    let plot = Plot::new();
    let mut figure = Figure::new(&plot, title);
    figure.json["data"] = traces(coordinates, 3).into();
    let side = |name: &str| {
        json!({
            "title": {"text": name}, "gridcolor": GRID, "zerolinecolor": GRID, "linecolor": INK,
            "showline": true, "showspikes": false, "nticks": 6, "tickfont": {"size": 11},
        })
    };
    let layout = &mut figure.json["layout"];
    *layout = super::to_json(&layout_3d(title));
    layout["legend"] = legend();
    layout["scene"] = json!({
        "bgcolor": PAPER, "aspectmode": "cube",
        "camera": {"eye": {"x": 1.5, "y": 1.5, "z": 1.2}, "center": {"x": 0, "y": 0, "z": -0.12}},
        "xaxis": side(AXES[0]), "yaxis": side(AXES[1]), "zaxis": side(AXES[2]),
    });
    figure
}

fn layout_3d(title: &str) -> plotly::layout::Layout {
    let margin = plotly::layout::Margin::new();
    layout(title)
        .width(660)
        .height(560)
        .margin(margin.left(10).right(10).top(50).bottom(40))
}

fn legend() -> Value {
    json!({"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"})
}

/// The path, the points, and marks at the first and last point.
fn traces(coordinates: &Array2<f64>, dimensions: usize) -> Vec<Value> {
    let n = coordinates.nrows();
    let kind = if dimensions == 3 {
        "scatter3d"
    } else {
        "scatter"
    };
    let trace = |rows: &[usize], style: Value| {
        let mut trace = style;
        trace["type"] = json!(kind);
        for (j, axis) in ["x", "y", "z"].into_iter().take(dimensions).enumerate() {
            let at = |i: &usize| coordinates.get((*i, j)).copied().unwrap_or(0.0);
            trace[axis] = json!(rows.iter().map(at).collect::<Vec<f64>>());
        }
        trace
    };
    let all: Vec<usize> = (0..n).collect();
    let ends = [
        (0, "first", "square-open"),
        (n.saturating_sub(1), "last", "circle-open"),
    ];
    let template = match dimensions {
        3 => "snapshot %{text}<br>%{x:.4g}, %{y:.4g}, %{z:.4g}<extra></extra>",
        _ => "snapshot %{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
    };
    let mut traces = vec![
        trace(
            &all,
            json!({"mode": "lines", "line": {"color": GRID, "width": 1.5}, "hoverinfo": "skip", "showlegend": false}),
        ),
        trace(
            &all,
            json!({
                "mode": "markers", "showlegend": false,
                "marker": {
                    "size": if dimensions == 3 { 5 } else { 8 }, "color": all, "colorscale": "Viridis", "showscale": true,
                    "colorbar": {"title": {"text": "snapshot"}, "thickness": 16, "outlinewidth": 0},
                },
                "text": all.iter().map(usize::to_string).collect::<Vec<_>>(),
                "hovertemplate": template,
            }),
        ),
    ];
    for (i, name, symbol) in ends {
        let rows: &[usize] = if n == 0 { &[] } else { &[i] };
        traces.push(trace(rows, json!({
            "mode": "markers", "name": name, "hoverinfo": "skip", "showlegend": true,
            "marker": {"color": INK, "size": if dimensions == 3 { 11 } else { 15 }, "symbol": symbol, "line": {"color": INK, "width": 2}},
        })));
    }
    traces
}
