//! [`HessianSampling`]: sampling errors of Hessian metrics.

use serde::{Deserialize, Serialize};

use super::HessianMetrics;
use super::sampling::{ByGroup, Groups, SamplingError};
use crate::error::Result;
use crate::operator::LinearOperator;
use crate::random::{Purpose, normal};
use crate::spectral::{Bracket, Spectrum};
use crate::vector::dot;

/// Random vectors for the spread of the groups' traces.
const PROBES: u64 = 16;

/// Sampling errors of [`HessianMetrics`] that were measured on a random subsample.
///
/// A number is absent where it has no value on the subsample, or where its interval for all samples has no finite end.
///
/// See [`SamplingError`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HessianSampling {
    /// Error of λ_max. On average λ_max of a subsample is larger than λ_max of all samples; the interval includes this bias.
    pub largest: SamplingError,
    /// Error of λ_min, which is on average smaller on a subsample.
    pub smallest: SamplingError,
    /// Error of κ.
    pub condition_number: Option<SamplingError>,
    /// Error of κ of H + λI.
    pub damped_condition_number: Option<SamplingError>,
    /// Error of λ₁ − λ₂.
    pub spectral_gap: Option<SamplingError>,
    /// Error of tr H.
    pub trace: SamplingError,
    /// Error of 2/λ_max.
    pub stable_rate: Option<SamplingError>,
}

impl HessianSampling {
    /// Computes sampling errors of `metrics`, derived from `spectrum`. `None` for a single measured sample.
    pub(super) fn compute(
        metrics: &HessianMetrics,
        spectrum: &Spectrum,
        groups: &Groups,
        seed: u64,
    ) -> Result<Option<Self>> {
        let last = spectrum.pairs.len() - 1;
        let vectors = [0, 1.min(last), last].map(|i| spectrum.pairs[i].vector.clone());
        let [first, second, beside, least] = groups.means(|group| {
            let images = group.hessian().apply_block(&vectors)?;
            let form = |i: usize, j: usize| dot(&vectors[i], &images[j]);
            Ok([form(0, 0), form(1, 1), form(0, 1), form(2, 2)])
        })?;
        let (high, low) = (metrics.largest[0], metrics.smallest[0]);
        let (Some(largest), Some(smallest), Some(trace)) = (
            groups.maximum(high.value, high.error, &first),
            groups.minimum(low.value, low.error, &least),
            trace(metrics, groups, seed)?,
        ) else {
            return Ok(None);
        };
        let threshold = metrics.negative.threshold;
        let damping = metrics.damping.unwrap_or(0.0);
        let shifted = |error: SamplingError| error.map(1.0, |x| x + damping);
        Ok(Some(Self {
            largest,
            smallest,
            condition_number: quotient(metrics.condition_number, largest, smallest, threshold),
            damped_condition_number: quotient(
                metrics.damped_condition_number,
                shifted(largest),
                shifted(smallest),
                threshold,
            ),
            spectral_gap: metrics
                .spectral_gap
                .and_then(|gap| spectral_gap(high.value, gap, groups, [&first, &beside, &second])),
            trace,
            stable_rate: (largest.low > threshold)
                .then(|| largest.map(2.0 / high.value.powi(2), |x| 2.0 / x)),
        }))
    }
}

/// Spread of the groups' traces, with the same random sign vectors for each, which add little to the spread.
fn trace(metrics: &HessianMetrics, groups: &Groups, seed: u64) -> Result<Option<SamplingError>> {
    let signs = |i| {
        let v = normal(metrics.dim, Purpose::SubsampleTrace, seed, i);
        v.into_iter().map(|x| 1f64.copysign(x)).collect()
    };
    let probes: Vec<Vec<f64>> = (0..PROBES).map(signs).collect();
    let traces = groups.measured(|group| {
        let images = group.hessian().apply_block(&probes)?;
        let forms = probes.iter().zip(&images).map(|(v, image)| dot(v, image));
        Ok(forms.sum::<f64>() / PROBES as f64)
    })?;
    let Some(error) = groups.standard_error(&traces) else {
        return Ok(None);
    };
    let value = metrics.trace.value;
    let [low, _] = metrics.trace.interval(0.95)?;
    Ok(Some(groups.unbiased(value, error, value - low)))
}

/// Sampling error of λ₁ − λ₂ from the means v₁ᵀHv₁, v₁ᵀHv₂ and v₂ᵀHv₂.
fn spectral_gap(
    largest: f64,
    gap: Bracket,
    groups: &Groups,
    [first, beside, second]: [&ByGroup; 3],
) -> Option<SamplingError> {
    let next = largest - gap.value;
    // λ₁ + λ₂ is a maximum of means too, over pairs of orthonormal vectors (Fan, 1949).
    let sum = ByGroup::combine(&[first, second], |x| x[0] + x[1]);
    // λ₂ is not below the smaller eigenvalue on the span of two vectors (Courant and Fischer).
    let [a, b, c] = [(largest, first), (0.0, beside), (next, second)]
        .map(|(number, mean)| groups.over_all(number, mean));
    let (sine, cosine) = (0.5 * (2.0 * b).atan2(a - c)).sin_cos();
    let lower =
        |x: &[f64]| sine.powi(2) * x[0] - 2.0 * sine * cosine * x[1] + cosine.powi(2) * x[2];
    let on_span = ByGroup::combine(&[first, beside, second], lower);
    let second_at_least = groups.least(lower(&[largest, 0.0, next]), &on_span)?;

    let difference = ByGroup::combine(&[first, second], |x| x[0] - x[1]);
    let low = 2.0 * groups.least(largest, first)? - groups.most(largest + next, &sum)?;
    Some(SamplingError {
        standard_error: groups.standard_error(difference.on_measured())?,
        low: (low - gap.error()).max(0.0),
        high: groups.most(largest, first)? - second_at_least + gap.error(),
    })
}

/// Sampling error of high/low; `None` unless low is above the threshold.
fn quotient(
    number: Option<Bracket>,
    high: SamplingError,
    low: SamplingError,
    threshold: f64,
) -> Option<SamplingError> {
    let number = number.filter(|_| low.low > threshold)?.value;
    let middle = |error: &SamplingError| 0.5 * (error.low + error.high);
    let relative = [high, low].map(|error| error.standard_error / middle(&error));
    Some(SamplingError {
        standard_error: number * relative[0].hypot(relative[1]),
        low: high.low / low.high,
        high: high.high / low.low,
    })
}
