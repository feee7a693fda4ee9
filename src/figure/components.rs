//! Principal components along a sequence of points.

use plotly::common::{Line as Stroke, Mode, Orientation};
use plotly::layout::Legend;
use plotly::{Plot, Scatter};

use super::palette::SERIES;
use super::{Figure, axis, layout};
use crate::embedding::Pca;

/// Coordinates of the points along the first four principal components, with their explained variance.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let points: Vec<Vec<f64>> = (0..5).map(|i| vec![f64::from(i), 0.0, 1.0]).collect();
/// let figure = figure::components(&Pca::fit(&points, 1)?, "A straight line");
/// assert_eq!(figure.json()["data"][0]["name"], "component 1 (100.0 %)");
/// assert_eq!(figure.json()["data"][0]["y"][4], 2.0); // from the mean
/// # Ok::<(), Error>(())
/// ```
pub fn components(pca: &Pca, title: &str) -> Figure {
    let mut plot = Plot::new();
    let columns = pca.coordinates.columns();
    let shares = columns.into_iter().zip(&pca.explained_ratio);
    for (i, ((column, share), color)) in shares.zip(SERIES.iter().take(4)).enumerate() {
        plot.add_trace(
            Scatter::new((0..column.len()).collect(), column.to_vec())
                .mode(Mode::Lines)
                .name(format!("component {} ({:.1} %)", i + 1, 100.0 * share))
                .line(Stroke::new().color(*color).width(2.5))
                .hover_template("point %{x}<br>%{fullData.name}: %{y:.4g}<extra></extra>"),
        );
    }
    plot.set_layout(
        layout(title)
            .show_legend(true)
            .legend(Legend::new().orientation(Orientation::Horizontal).y(-0.25))
            .x_axis(axis("point"))
            .y_axis(axis("coordinate along the component")),
    );
    Figure::new(&plot, title)
}
