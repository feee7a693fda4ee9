//! Embeddings in the plane.

use ndarray::Array2;
use plotly::common::{
    ColorBar, HoverInfo, Line as Stroke, Marker, MarkerSymbol, Mode, Position, Title,
};
use plotly::{Plot, Scatter};

use super::{Figure, GRID, INK, ORANGE, colors, square};

/// The first two columns of an embedding (a missing column is 0). Points are connected and coloured in the order of the rows, with
/// a square at the first and a cross at the last.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let figure = figure::embedding(&array![[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], "Three points");
/// assert_eq!(figure.json()["data"][1]["y"][2], 5.0);
/// ```
pub fn embedding(coordinates: &Array2<f64>, title: &str) -> Figure {
    let n = coordinates.nrows();
    let column = |j: usize| -> Vec<f64> {
        let at = |i| coordinates.get((i, j)).copied().unwrap_or(0.0);
        (0..n).map(at).collect()
    };
    let (x, y) = (column(0), column(1));
    let path = Scatter::new(x.clone(), y.clone())
        .mode(Mode::Lines)
        .line(Stroke::new().color(GRID).width(1.0));
    let points = Scatter::new(x.clone(), y.clone())
        .mode(Mode::Markers)
        .marker(
            Marker::new()
                .size(7)
                .color_array((0..n).collect())
                .color_scale(colors())
                .color_bar(ColorBar::new().title(Title::with_text("snapshot")))
                .show_scale(true),
        )
        .text_array((0..n).map(|i| i.to_string()).collect())
        .hover_template("snapshot %{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>");
    let mut plot = Plot::new();
    plot.add_trace(path.show_legend(false));
    plot.add_trace(points.show_legend(false));
    for (name, i, color, symbol) in [
        ("first", Some(0), INK, MarkerSymbol::SquareOpen),
        ("last", n.checked_sub(1), ORANGE, MarkerSymbol::X),
    ] {
        let place = |values: &[f64]| i.and_then(|i| values.get(i)).copied().into_iter().collect();
        plot.add_trace(
            Scatter::new(place(&x), place(&y))
                .mode(Mode::MarkersText)
                .text(name)
                .text_position(Position::TopCenter)
                .hover_info(HoverInfo::Skip)
                .show_legend(false)
                .marker(Marker::new().color(color).size(12).symbol(symbol)),
        );
    }
    plot.set_layout(square(title, "first coordinate", "second coordinate"));
    Figure::new(&plot, title)
}
