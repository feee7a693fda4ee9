//! Spectra of the diagonal blocks of a matrix.

use plotly::common::{Marker, MarkerSymbol, Mode, Orientation};
use plotly::layout::{Legend, Margin};
use plotly::{Plot, Scatter};

use super::palette::{BLUE, PURPLE, VERMILION};
use super::{Figure, axis, error_bars, layout, log_axis};
use crate::spectral::{BlockSpectra, BlockSpectrum};

/// Height of a row in pixels.
const ROW: usize = 22;

/// One row per block, and a last one for the whole matrix, on a logarithmic axis: the largest eigenvalue, the root mean square
/// eigenvalue, and |λ| of the smallest eigenvalue if it is negative, with error bars. Omits values that are not larger than
/// their error.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::operator::Blocks;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&array![3.0, -1.0, 2.0]))?;
/// let named = [("first".to_owned(), vec![0..2]), ("last".to_owned(), vec![2..3])];
/// let json = figure::block_spectra(&Blocks::new(a, named.to_vec())?.spectra()?).json();
/// assert_eq!(json["data"][0]["x"][0], 3.0);
/// assert_eq!(json["layout"]["yaxis"]["ticktext"][0], "first");
/// # Ok::<(), Error>(())
/// ```
pub fn block_spectra(spectra: &BlockSpectra) -> Figure {
    let title = "Eigenvalues of the blocks";
    let all: Vec<&BlockSpectrum> = spectra.blocks.iter().chain([&spectra.whole]).collect();
    let mut plot = Plot::new();
    type Point = fn(&BlockSpectrum) -> (f64, f64);
    let series: [(&str, &str, MarkerSymbol, Point); 3] = [
        ("largest eigenvalue", BLUE, MarkerSymbol::Circle, |block| {
            (block.largest.value, block.largest.error())
        }),
        (
            "root mean square",
            PURPLE,
            MarkerSymbol::DiamondOpen,
            |block| {
                let size = block.root_mean_square();
                (size.value, size.standard_error)
            },
        ),
        (
            "− smallest eigenvalue",
            VERMILION,
            MarkerSymbol::SquareOpen,
            |block| (-block.smallest.value, block.smallest.error()),
        ),
    ];
    for (name, color, symbol, point) in series {
        let points = all
            .iter()
            .enumerate()
            .map(|(row, block)| (row, point(block)));
        let points: Vec<_> = points.filter(|(_, (x, error))| x > error).collect();
        let x = points.iter().map(|(_, (x, _))| *x).collect();
        let rows: Vec<usize> = points.iter().map(|(row, _)| *row).collect();
        let errors = points.iter().map(|(_, (_, error))| *error).collect();
        plot.add_trace(
            Scatter::new(x, rows)
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(color).size(8).symbol(symbol))
                .error_x(error_bars(errors))
                .hover_template("%{y}<br>%{fullData.name}: %{x:.4g}<extra></extra>"),
        );
    }
    let names: Vec<String> = all.iter().map(|block| block.name.clone()).collect();
    let end = all.len() as f64 - 0.5;
    let height = ROW * all.len() + 40;
    let left = names.iter().map(|name| name.chars().count()).max();
    plot.set_layout(
        layout(title)
            .height(height + 160)
            .margin(
                Margin::new()
                    .left(30 + 7 * left.unwrap_or(0))
                    .right(30)
                    .top(50)
                    .bottom(110),
            )
            .show_legend(true)
            .legend(
                Legend::new()
                    .orientation(Orientation::Horizontal)
                    .y(-70.0 / height as f64),
            )
            .x_axis(log_axis("eigenvalue |λ|"))
            .y_axis(
                axis("")
                    .range(vec![end, -0.5])
                    .zero_line(false)
                    .tick_values((0..all.len()).map(|row| row as f64).collect())
                    .tick_text(names),
            ),
    );
    Figure::new(&plot, title)
}
