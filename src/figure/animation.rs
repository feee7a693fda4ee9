//! Animated spectra during training.

use plotly::common::{Marker, Mode};
use plotly::layout::AxisRange;
use plotly::{Plot, Scatter, Trace};

use super::palette::{BLUE, VERMILION};
use super::playback::PlaybackFrame;
use super::{Figure, axis, error_bars, layout, log_axis, to_json};
use crate::spectral::Spectrum;

/// Maximum number of decades on the axis.
const DECADES: f64 = 8.0;

/// Duration of a frame in milliseconds.
const FRAME_MS: usize = 400;

/// An animation of spectra `(step, spectrum)` during training, with a slider and a play button. Shows |λ| over the rank on a
/// logarithmic axis: positive eigenvalues blue, negative ones vermilion, with residuals as error bars. All frames have the same
/// axes, of at most eight decades.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let spectrum = |scale: f64| Dense::new(Array2::from_diag(&array![3.0, -1.0]) * scale)?.eigen();
/// let spectra = [(0, spectrum(1.0)?), (100, spectrum(5.0)?)];
/// let json = figure::animation(&spectra).json();
/// assert_eq!(json["frames"].as_array().map(Vec::len), Some(2));
/// assert_eq!(json["layout"]["sliders"][0]["steps"][1]["label"], "100");
/// # Ok::<(), Error>(())
/// ```
pub fn animation(spectra: &[(usize, Spectrum)]) -> Figure {
    let (k, n) = spectra
        .first()
        .map_or((0, 0), |(_, s)| (s.pairs.len(), s.dim));
    let title = match k == n {
        true => "Hessian spectrum in training".to_owned(),
        false => format!("{k} of {n} eigenvalues in training"),
    };
    let mut plot = Plot::new();
    if let Some((_, first)) = spectra.first() {
        plot.add_traces(traces(first).into());
    }
    let frames = spectra.iter().map(|(step, spectrum)| PlaybackFrame {
        label: step.to_string(),
        data: traces(spectrum).iter().map(to_json).collect(),
    });

    let pairs = spectra.iter().flat_map(|(_, spectrum)| &spectrum.pairs);
    let sizes = pairs
        .map(|pair| pair.value.abs())
        .filter(|size| *size > 0.0);
    let (low, high) = sizes.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), size| {
        (low.min(size), high.max(size))
    });
    let mut sizes = log_axis("eigenvalue |λ|");
    if high > 0.0 {
        let (low, high) = (low.log10(), high.log10());
        sizes = sizes.range(AxisRange::new(low.max(high - DECADES) - 0.2, high + 0.2));
    }
    let widest = spectra.iter().map(|(_, s)| s.pairs.len()).max();
    let margin = (0.02 * widest.unwrap_or(0) as f64).max(0.5);
    let ranks = AxisRange::new(1.0 - margin, widest.unwrap_or(1) as f64 + margin);
    plot.set_layout(
        layout(&title)
            .x_axis(axis("rank").range(ranks))
            .y_axis(sizes),
    );
    Figure::new(&plot, &title).with_playback("after step ", FRAME_MS, &[0, 1], frames.collect())
}

/// One trace per sign, also if empty, since frames replace existing traces.
fn traces(spectrum: &Spectrum) -> [Box<dyn Trace>; 2] {
    [("λ > 0", BLUE, 1.0), ("λ < 0", VERMILION, -1.0)].map(|(name, color, sign)| {
        let ranked = spectrum.pairs.iter().enumerate();
        let (ranks, pairs): (Vec<usize>, Vec<_>) = ranked
            .filter(|(_, pair)| sign * pair.value > 0.0)
            .map(|(i, pair)| (i + 1, pair))
            .unzip();
        let residuals: Vec<f64> = pairs.iter().map(|pair| pair.residual).collect();
        let minus = if sign < 0.0 { "−" } else { "" };
        let trace: Box<dyn Trace> =
            Scatter::new(ranks, pairs.iter().map(|pair| pair.value.abs()).collect())
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(color).size(6))
                .error_y(error_bars(residuals))
                .hover_template(format!(
                    "λ<sub>%{{x}}</sub> = {minus}%{{y:.5g}}<extra></extra>"
                ));
        trace
    })
}
