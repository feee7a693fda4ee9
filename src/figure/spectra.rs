//! Spectra of several matrices.

use std::borrow::Borrow;

use plotly::common::{Marker, MarkerSymbol, Mode};
use plotly::layout::Legend;
use plotly::{Plot, Scatter};

use super::palette::SERIES;
use super::{Figure, axis, error_bars, layout, log_axis};
use crate::spectral::Spectrum;

/// |λ| of named spectra on one logarithmic axis. Rings are positive eigenvalues over their rank from the largest, crosses
/// negative eigenvalues over their rank from the smallest, with residuals as error bars. Omits eigenvalues that are smaller than
/// their residual. Colours repeat after six spectra.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let spectrum = Dense::new(Array2::from_diag(&array![3.0, 1.0, -2.0]))?.eigen()?;
/// let json = figure::spectra(&[("mine", &spectrum)]).json();
/// assert_eq!(json["data"][0]["y"][0], 3.0);
/// assert_eq!(
///     (&json["data"][1]["name"], &json["data"][1]["y"][0]),
///     (&"mine, λ < 0".into(), &2.0.into())
/// );
/// # Ok::<(), Error>(())
/// ```
pub fn spectra<N: AsRef<str>, S: Borrow<Spectrum>>(spectra: &[(N, S)]) -> Figure {
    let title = "Eigenvalues of several matrices";
    let mut plot = Plot::new();
    for ((name, spectrum), color) in spectra.iter().zip(SERIES.iter().cycle()) {
        let (name, pairs) = (name.as_ref(), &spectrum.borrow().pairs);
        let rising = pairs.iter().filter(|pair| pair.value > pair.residual);
        let falling = pairs
            .iter()
            .rev()
            .filter(|pair| pair.value < -pair.residual);
        let sides: [(_, _, Vec<_>); 2] = [
            ("λ > 0", MarkerSymbol::CircleOpen, rising.collect()),
            ("λ < 0", MarkerSymbol::XThinOpen, falling.collect()),
        ];
        let mut is_first = true;
        for (sign, symbol, pairs) in sides {
            if pairs.is_empty() {
                continue;
            }
            let sizes = pairs.iter().map(|pair| pair.value.abs()).collect();
            let residuals = pairs.iter().map(|pair| pair.residual).collect();
            plot.add_trace(
                Scatter::new((1..=pairs.len()).collect(), sizes)
                    .mode(Mode::Markers)
                    .name(match sign {
                        "λ > 0" => name.to_owned(),
                        _ => format!("{name}, {sign}"),
                    })
                    .legend_group(name)
                    .show_legend(is_first)
                    .marker(Marker::new().color(*color).size(7).symbol(symbol))
                    .error_y(error_bars(residuals))
                    .hover_template(format!(
                        "{name}, {sign}<br>|λ<sub>%{{x}}</sub>| = %{{y:.5g}}<extra></extra>"
                    )),
            );
            is_first = false;
        }
    }
    plot.set_layout(
        layout(title)
            .show_legend(true)
            .legend(Legend::new())
            .x_axis(axis("rank, from each end of the spectrum"))
            .y_axis(log_axis("eigenvalue |λ|: ○ positive, × negative")),
    );
    Figure::new(&plot, title)
}
