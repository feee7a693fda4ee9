//! Spectral densities of the diagonal blocks of a matrix.

use plotly::common::{Line as Stroke, Mode};
use plotly::layout::Legend;
use plotly::{Plot, Scatter};

use super::palette::SERIES;
use super::{Figure, axis, layout, log_axis};
use crate::error::Result;
use crate::spectral::BlockSpectra;

/// Width of the Gaussian, relative to the largest |λ| of the block.
const WIDTH: f64 = 0.01;

/// Number of points of a curve.
const POINTS: usize = 400;

/// The spectral density of each block on a logarithmic axis, as a function of the eigenvalue in units of the block's largest
/// |λ|, smoothed with a Gaussian of standard deviation 0.01 in these units. Omits blocks that are 0 up to rounding. Colours repeat after six
/// blocks; a click on a name in the legend hides the block.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::operator::Blocks;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&array![3.0, -1.0, 2.0, 0.0]))?;
/// let named = [("first", 0..2), ("second", 2..3), ("zero", 3..4)];
/// let named = named.map(|(name, range)| (name.to_owned(), vec![range]));
/// let spectra = Blocks::new(a, named.to_vec())?.spectra()?;
/// let json = figure::block_densities(&spectra)?.json();
/// assert_eq!(json["data"].as_array().map(Vec::len), Some(2));
/// assert_eq!(json["data"][1]["name"], "second");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`Density::smoothed`](crate::spectral::Density::smoothed).
pub fn block_densities(spectra: &BlockSpectra) -> Result<Figure> {
    let title = "Spectral densities of the blocks";
    let mut plot = Plot::new();
    for (block, color) in spectra.blocks.iter().zip(SERIES.iter().cycle()) {
        let [low, high] = block.density.range();
        let size = high.max(-low);
        if block.density.is_zero() {
            continue;
        }
        let curve = block.density.smoothed(WIDTH * size, POINTS)?;
        let peak = curve.values.iter().fold(0.0, |m: f64, v| m.max(*v));
        // Six decades below the peak are the floor of the logarithmic axis.
        let values = curve.values.iter().map(|v| size * v.max(1e-6 * peak));
        let name = &block.name;
        plot.add_trace(
            Scatter::new(
                curve.eigenvalues.iter().map(|x| x / size).collect(),
                values.collect(),
            )
            .mode(Mode::Lines)
            .name(name)
            .line(Stroke::new().color(*color).width(1.5))
            .hover_template(format!("{name}<br>%{{x:.3g}}: %{{y:.3g}}<extra></extra>")),
        );
    }
    plot.set_layout(
        layout(title)
            .show_legend(true)
            .legend(Legend::new())
            .x_axis(axis("eigenvalue / largest |λ| of the block"))
            .y_axis(log_axis("density")),
    );
    Ok(Figure::new(&plot, title))
}
