//! Jensen–Shannon distances between the spectral densities of blocks.

use plotly::common::{ColorBar, Title};
use plotly::layout::{AxisConstrain, Margin};
use plotly::{HeatMap, Plot};

use super::{Figure, axis, colors, layout, to_json};
use crate::spectral::{JsDistances, Short};

/// A heat map of the distances of all pairs of blocks, from 0 for equal densities to 1 for disjoint ones. Hover texts state
/// standard errors.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::operator::Blocks;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&array![3.0, 3.0, 9.0]))?;
/// let named = [("a", 0..1), ("b", 1..2), ("c", 2..3)];
/// let named = named.map(|(name, range)| (name.to_owned(), vec![range]));
/// let distances = Blocks::new(a, named.to_vec())?.spectra()?.js_distances()?;
/// let json = figure::js_distances(&distances).json();
/// assert_eq!(json["data"][0]["z"][0][1], 0.0);
/// assert!(json["data"][0]["z"][0][2].as_f64() > Some(0.99));
/// # Ok::<(), Error>(())
/// ```
pub fn js_distances(distances: &JsDistances) -> Figure {
    let title = "Jensen–Shannon distances of the blocks";
    let count = distances.names.len();
    let places: Vec<usize> = (0..count).collect();
    let texts = distances.names.iter().enumerate().map(|(i, row)| {
        let texts = distances.names.iter().enumerate().map(|(j, column)| {
            format!(
                "{row}<br>{column}<br>{:.3} ± {:.1}",
                distances.values[i][j],
                Short(distances.standard_errors[i][j])
            )
        });
        texts.collect::<Vec<String>>()
    });
    let mut plot = Plot::new();
    plot.add_trace(
        HeatMap::new(places.clone(), places, distances.values.clone())
            .zmin(0.0)
            .zmax(1.0)
            .color_scale(colors())
            .color_bar(ColorBar::new().thickness(14).title(Title::with_text("")))
            .hover_template("%{customdata}<extra></extra>"),
    );
    let longest = distances
        .names
        .iter()
        .map(|name| name.chars().count())
        .max();
    let side = 30 + 7 * longest.unwrap_or(0);
    let size = (14 * count).max(300);
    let end = count as f64 - 0.5;
    let names = |ends: [f64; 2]| {
        axis("")
            .range(ends.to_vec())
            .show_grid(false)
            .zero_line(false)
            .constrain(AxisConstrain::Domain)
            .tick_values((0..count).map(|i| i as f64).collect())
            .tick_text(distances.names.clone())
    };
    plot.set_layout(
        layout(title)
            .width((size + side + 100).max(620))
            .height(size + side + 50)
            .margin(Margin::new().left(side).right(30).top(50).bottom(side))
            .x_axis(names([-0.5, end]).tick_angle(-90.0))
            .y_axis(names([end, -0.5]).scale_anchor("x")),
    );
    let mut figure = Figure::new(&plot, title);
    // plotly.rs has no setter for the `customdata` of a heat map.
    figure.json["data"][0]["customdata"] = to_json(&texts.collect::<Vec<_>>());
    figure
}
