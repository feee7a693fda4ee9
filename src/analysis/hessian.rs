//! [`HessianMetrics`]: curvature quantities from extreme eigenvalues, trace and spectral density of the Hessian.

use serde::{Deserialize, Serialize};

use super::hessian_sampling::HessianSampling;
use super::newton::NewtonDecrement;
use super::row::{Row, widened};
use super::sampling::{Groups, SamplingError};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::spectral::{
    Bracket, Count, DensitySettings, Eigenpair, Estimate, Lanczos, Short, Spectrum, Trace, Which,
};
use crate::vector::norm;
use crate::verdict::{CONDITION, NEGATIVE};

/// Rounding error of matrix–vector products, in units of ε times the largest |λ|.
const ROUNDING: f64 = 10.0;

/// An eigenvalue λ without its eigenvector.
///
/// ```
/// use loss_landscape::analysis::Eigenvalue;
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let pair = &Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.eigen()?.pairs[0];
/// let without_vector = Eigenvalue::from(pair);
/// assert_eq!(
///     (without_vector.value, without_vector.residual),
///     (pair.value, pair.residual)
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Eigenvalue {
    /// λ
    pub value: f64,
    /// ‖Hv − λv‖: there is an eigenvalue within this distance of λ.
    pub residual: f64,
    /// The eigenvalue of this rank is within this distance of λ: the residual plus the [error of the rank](Eigenpair::rank).
    /// Only the residual if the eigenvalues have not converged.
    pub error: f64,
}

impl From<&Eigenpair> for Eigenvalue {
    fn from(pair: &Eigenpair) -> Self {
        Self {
            value: pair.value,
            residual: pair.residual,
            error: pair.residual + pair.rank.map_or(0.0, |rank| rank.error),
        }
    }
}

/// Number of eigenvalues below −[`threshold`](Self::threshold).
///
/// On a subsample it is the count for the measured samples and tells nothing about the count for all samples.
///
/// See [`HessianMetrics`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NegativeEigenvalues {
    /// The count with bounds. If `complete`, the bounds differ by the eigenvalues whose sign is uncertain because of their
    /// residual. Otherwise the count is an estimate from the density; its bounds are the wider of its 95 % confidence
    /// interval and the resolution of the quadrature, and at least `certain`.
    pub count: Bracket,
    /// Number of computed eigenvalues that are negative by more than residual and rounding. The matrix has at least this many
    /// negative eigenvalues, since the vectors are orthonormal (Courant–Fischer).
    pub certain: usize,
    /// Whether the computed eigenvalues include all negative ones: either all eigenvalues are computed, or the smallest ones
    /// [converged](Spectrum::converged) and the last of them is not negative.
    pub complete: bool,
    /// The estimate from the density; `None` if not computed.
    pub density: Option<Count>,
    /// Eigenvalues of smaller magnitude count as zero: 10 ε max |λ| with ε of the model's dtype, plus the error of the
    /// smallest eigenvalue.
    pub threshold: f64,
}

/// Curvature at a point.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w², with the Hessian diag(2, 8).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse)?;
/// let metrics = analyzer.hessian_metrics(1)?;
/// let close = |found: f64, exact: f64| (found - exact).abs() < 1e-9;
/// assert!(close(metrics.largest[0].value, 8.0) && close(metrics.smallest[0].value, 2.0));
/// assert!(close(metrics.condition_number.unwrap().value, 4.0));
/// assert!(close(metrics.stable_rate.unwrap().value, 0.25));
/// assert!(close(metrics.trace.value, 10.0));
/// assert_eq!(
///     (metrics.negative.certain, metrics.negative.complete),
///     (0, true)
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HessianMetrics {
    /// n, the size of the Hessian.
    pub dim: usize,
    /// Number of measured samples.
    pub samples: usize,
    /// Number of training samples. The measured samples are a random subset.
    pub train_samples: usize,
    /// The largest eigenvalues, the largest first.
    pub largest: Vec<Eigenvalue>,
    /// The smallest eigenvalues, the smallest first.
    pub smallest: Vec<Eigenvalue>,
    /// κ = λ_max/λ_min; `None` if λ_min is negative or zero within its error.
    pub condition_number: Option<Bracket>,
    /// λ_max/|λ_min| with the most negative eigenvalue λ_min; `None` if no eigenvalue is negative.
    pub end_ratio: Option<Bracket>,
    /// |λ|_max/|λ|_min with the eigenvalues of largest and smallest magnitude; `None` unless all eigenvalues are computed and
    /// |λ|_min is above its error.
    pub magnitude_ratio: Option<Bracket>,
    /// λ of [`Analyzer::with_damping`](super::Analyzer::with_damping).
    pub damping: Option<f64>,
    /// κ of H + λI, (λ_max + λ)/(λ_min + λ); `None` without damping, or if H + λI is not positive definite.
    pub damped_condition_number: Option<Bracket>,
    /// λ₁ − λ₂; `None` for a single parameter, or if λ₂ is not computed.
    pub spectral_gap: Option<Bracket>,
    /// Number of negative eigenvalues.
    pub negative: NegativeEigenvalues,
    /// tr H
    pub trace: Estimate,
    /// (Σ|λ|)² / Σλ², from all eigenvalues if computed, otherwise from the density; `None` for a zero matrix.
    pub effective_rank: Option<Estimate>,
    /// 2/λ_max, the learning rate below which gradient descent is stable; `None` unless λ_max is above its error.
    pub stable_rate: Option<Bracket>,
    /// Decrease of the loss by a Newton step; `None` for a zero Hessian.
    pub newton: Option<NewtonDecrement>,
    /// Whether the eigenvalues [converged](Spectrum::converged).
    pub converged: bool,
    /// Number of matrix–vector products on the measured samples. Sampling errors take another 19 on these and 9 on other
    /// samples.
    pub products: usize,
    /// Sampling errors; `None` if all samples were measured, or only one.
    pub sampling: Option<HessianSampling>,
}

/// Inputs of the metrics.
pub(super) struct Setting<'a> {
    pub(super) curvature: &'a Objective,
    /// L and ∇L on all training samples.
    pub(super) slope: (f64, Vec<f64>),
    /// Number of training samples.
    pub(super) train_samples: usize,
    pub(super) groups: Option<&'a Groups>,
    pub(super) damping: Option<f64>,
    pub(super) seed: u64,
}

/// Checks the number of eigenvalues at each end.
pub(super) fn check_eigenvalues(k: usize) -> Result<()> {
    match k {
        0 => Err(Error::invalid("expected at least 1 eigenvalue, found 0")),
        _ => Ok(()),
    }
}

impl HessianMetrics {
    /// Computes `k` eigenvalues at each end, or all if there are at most 2`k`.
    pub(super) fn compute(setting: &Setting, k: usize) -> Result<Self> {
        check_eigenvalues(k)?;
        let hessian = setting.curvature.hessian();
        let epsilon = setting.curvature.parameters().epsilon();
        let (dim, seed) = (hessian.dim(), setting.seed);
        let lanczos = Lanczos::default()
            .with_which(Which::BothEnds)
            .with_seed(seed);
        let spectrum = lanczos.run(&hessian, k.saturating_mul(2).min(dim))?;
        let found: Vec<Eigenvalue> = spectrum.pairs.iter().map(Eigenvalue::from).collect();
        let smallest: Vec<_> = found.iter().rev().take(k).copied().collect();
        let trace = Trace::default()
            .with_relative_error(0.05)
            .with_max_products(100)
            .with_seed(seed);
        let trace = trace.trace(&hessian)?;
        let mut products = spectrum.products + trace.products;
        let (high, low) = (found[0], smallest[0]);
        let size = high.value.abs().max(low.value.abs());
        let threshold = ROUNDING * epsilon * size;
        let zero = threshold + low.error;
        let (negative, effective_rank);
        if spectrum.is_complete() {
            negative = NegativeEigenvalues::count(&smallest_first(&spectrum), zero, true);
            effective_rank = match size > 0.0 {
                true => Some(exact_estimate(spectrum.effective_rank()?, dim)),
                false => None,
            };
        } else {
            let settings = DensitySettings::default()
                .with_probes(4)
                .with_steps(25)
                .with_seed(seed);
            let density = settings.run(&hessian)?;
            products += density.products;
            let ends = NegativeEigenvalues::count(&smallest, zero, false);
            negative = match ends.complete && spectrum.converged {
                true => ends,
                false => ends.with_density(density.count_below(-zero), dim)?,
            };
            effective_rank = density.effective_rank();
        }
        let (loss, gradient) = &setting.slope;
        let mut newton = None;
        if size > 0.0 {
            let theta = norm(&setting.curvature.parameters().to_flat()?);
            let slope = (*loss, &gradient[..]);
            let scales = (size, threshold);
            let options = (setting.damping, setting.groups);
            let found = NewtonDecrement::compute(&hessian, slope, scales, theta, options)?;
            products += found.products;
            newton = Some(found);
        }
        let magnitude_ratio = spectrum.condition_number().ok();
        let damped = |e: Eigenvalue, by: f64| Eigenvalue {
            value: e.value + by,
            ..e
        };
        let mut metrics = Self {
            dim,
            samples: setting.curvature.data().len(),
            train_samples: setting.train_samples,
            condition_number: ratio(high, low, threshold),
            end_ratio: ratio(high, negated(low), threshold).filter(|ratio| ratio.low > 0.0),
            magnitude_ratio: magnitude_ratio.filter(|r| r.high < size / threshold),
            damping: setting.damping,
            damped_condition_number: setting
                .damping
                .and_then(|by| ratio(damped(high, by), damped(low, by), threshold)),
            spectral_gap: spectrum.gap(0).ok(),
            negative,
            trace,
            effective_rank,
            stable_rate: stable_rate(high, threshold),
            newton,
            largest: found.into_iter().take(k).collect(),
            smallest,
            converged: spectrum.converged,
            products,
            sampling: None,
        };
        if let Some(groups) = setting.groups {
            metrics.sampling = HessianSampling::compute(&metrics, &spectrum, groups, seed)?;
        }
        Ok(metrics)
    }

    /// Rows of the report, starting with the extreme eigenvalues.
    pub(super) fn rows(&self) -> Vec<Row> {
        let end = |name: &str, found: Option<&Eigenvalue>, sampling| {
            let row = Row::new(name, found.map(|e| e.value));
            Row {
                uncertainty: found.map(|e| e.error),
                ..row.with_sampling(sampling)
            }
        };
        let (largest, smallest) = (self.largest.first(), self.smallest.first());
        let mut rows = vec![
            end(
                "largest eigenvalue",
                largest,
                self.sampling.map(|s| s.largest),
            ),
            end(
                "smallest eigenvalue",
                smallest,
                self.sampling.map(|s| s.smallest),
            ),
        ];
        if !self.converged {
            rows[0].verdict =
                "not converged: a residual is too large, or eigenvalues may be missing".into();
        }
        rows.extend(self.derived_rows());
        rows
    }

    /// Rows of the quantities derived from the spectrum.
    pub(super) fn derived_rows(&self) -> Vec<Row> {
        let error =
            |f: fn(&HessianSampling) -> Option<SamplingError>| self.sampling.as_ref().and_then(f);
        let only_here = match self.is_subsample() {
            true => "holds for the measured samples only",
            false => "",
        };
        let mut trace = Row::new("trace", self.trace.value)
            .with_uncertainty(self.trace.standard_error)
            .with_sampling(error(|s| Some(s.trace)));
        if !self.trace.converged {
            trace.verdict = "standard error above 5 %".into();
        }
        let sampling = error(|s| s.condition_number);
        let condition = Row::from_bracket("condition number", self.condition_number);
        let mut rows = vec![
            condition
                .with_sampling(sampling)
                .with_verdict(self.conditioning(sampling)),
        ];
        if self.curves_down() {
            rows.push(Row::from_bracket("λ_max/|λ_min|", self.end_ratio).with_verdict(only_here));
            let words = match (self.magnitude_ratio, self.has_all_eigenvalues()) {
                (Some(_), _) => only_here,
                (None, true) => "not meaningful: the smallest |λ| is zero within its error",
                (None, false) => "not computed: needs all eigenvalues",
            };
            rows.push(
                Row::from_bracket("|λ|_max/|λ|_min", self.magnitude_ratio).with_verdict(words),
            );
        }
        if let Some(damping) = self.damping {
            let (number, sampling) = (
                self.damped_condition_number,
                error(|s| s.damped_condition_number),
            );
            let words = match number {
                Some(number) => CONDITION.verdict(&widened(number, sampling)),
                None => self.too_little_damping(),
            };
            let row = Row::from_bracket(&format!("condition number of H + {damping} I"), number);
            rows.push(row.with_sampling(sampling).with_verdict(words));
        }
        let gap = match (self.spectral_gap, self.converged) {
            (None, _) if self.dim > 1 => "not computed: needs two eigenvalues from each end",
            (Some(_), false) => "an eigenvalue between the two may be missing",
            _ => "",
        };
        let newton = Row {
            uncertainty: self.newton.map(|n| n.error),
            ..Row::new("decrease by a Newton step", self.newton.map(|n| n.decrease))
        };
        rows.extend([
            Row::from_bracket("spectral gap", self.spectral_gap)
                .with_sampling(error(|s| s.spectral_gap))
                .with_verdict(gap),
            newton.with_verdict(self.stationarity()),
            Row::from_bracket("negative eigenvalues", Some(self.negative.count))
                .with_verdict(self.kind_of_point()),
            trace,
            Row::from_estimate("effective rank", self.effective_rank).with_verdict(only_here),
            Row::from_bracket("stable learning rate, 2/λ_max", self.stable_rate)
                .with_sampling(error(|s| s.stable_rate)),
        ]);
        rows
    }

    fn is_subsample(&self) -> bool {
        self.samples < self.train_samples
    }

    /// Whether all eigenvalues were computed.
    fn has_all_eigenvalues(&self) -> bool {
        2 * self.largest.len() >= self.dim
    }

    /// Whether λ_min is negative by more than its error.
    fn curves_down(&self) -> bool {
        let negative = |e: &Eigenvalue| e.value + e.error < -self.negative.threshold;
        self.smallest.first().is_some_and(negative)
    }

    /// Verdict for κ.
    fn conditioning(&self, sampling: Option<SamplingError>) -> String {
        if let Some(number) = self.condition_number {
            let word = CONDITION.verdict(&widened(number, sampling));
            return match (self.is_subsample(), sampling) {
                (true, None) => format!("{word} On all samples λ_min may be zero or negative."),
                _ => word,
            };
        }
        if self.curves_down() {
            return "not meaningful: λ_min is negative".into();
        }
        let (Some(high), Some(low)) = (self.largest.first(), self.smallest.first()) else {
            return String::new();
        };
        let rounding = self.negative.threshold;
        let least = (high.value - high.error) / (low.value.abs() + low.error + rounding);
        match least >= 1.0 {
            true => {
                format!("not meaningful: λ_min is zero within its error, κ at least {least:.1e}")
            }
            false => "not meaningful: the Hessian is zero".into(),
        }
    }

    /// Verdict for a damped matrix that is not positive definite.
    fn too_little_damping(&self) -> String {
        let least = self.smallest.first().map_or(0.0, |e| e.error - e.value);
        format!(
            "not meaningful: H + λI is not positive definite; needs λ above {:.2}",
            Short(least)
        )
    }

    /// Verdict for the Newton decrement.
    fn stationarity(&self) -> String {
        let Some(newton) = self.newton else {
            return "not meaningful: the Hessian is zero".into();
        };
        if newton.vanishes {
            return "stationary: the gradient is zero within rounding".into();
        }
        let share = |decrease: f64| {
            let percent = Short(100.0 * decrease / newton.loss.abs());
            format!("{percent:.2} % of the loss")
        };
        match (newton.is_small(), self.is_subsample()) {
            (Some(true), _) => format!("{}: near a stationary point", share(newton.decrease)),
            (Some(false), false) => {
                format!("{}: not near a stationary point", share(newton.decrease))
            }
            (Some(false), true) => format!(
                "on all samples at least {}: not near a stationary point",
                share(newton.on_all_samples)
            ),
            (None, false) => format!("undecided: at least {}", share(newton.decrease)),
            (None, true) => format!(
                "undecided: on all samples at least {}",
                share(newton.on_all_samples)
            ),
        }
    }

    /// Verdict for the number of negative eigenvalues.
    fn kind_of_point(&self) -> String {
        let negative = &self.negative;
        let many = NEGATIVE.band(negative.count.low) != Some(0);
        let word = match self.newton.map(|newton| newton.is_small()) {
            None => "not meaningful: the Hessian is zero".to_owned(),
            Some(Some(false)) if many => {
                "on a slope with many directions of negative curvature, not near a saddle point"
                    .to_owned()
            }
            Some(Some(false)) => {
                "not near a minimum: the gradient is large relative to the curvature".to_owned()
            }
            Some(None) => {
                "undecided: the gradient may be large relative to the curvature".to_owned()
            }
            Some(Some(true)) if negative.is_uncertain() => {
                "undecided: the error of the count is larger than the count".to_owned()
            }
            Some(Some(true)) => NEGATIVE.verdict(&negative.count),
        };
        let word = match self.is_subsample() {
            true => format!("on the measured samples: {word}"),
            false => word,
        };
        match negative.complete {
            true => word,
            false => format!(
                "{word}; at least {}, by the density {:.0} to {:.0}",
                negative.certain, negative.count.low, negative.count.high
            ),
        }
    }
}

impl NegativeEigenvalues {
    /// Counts among the smallest eigenvalues, sorted ascending. `all`: these are all eigenvalues.
    fn count(smallest: &[Eigenvalue], threshold: f64, all: bool) -> Self {
        let below = |x: f64| {
            let negative = |e: &&Eigenvalue| e.value + x * e.residual < -threshold;
            smallest.iter().filter(negative).count()
        };
        let (certain, possible) = (below(1.0), below(-1.0));
        let last = smallest.last();
        let done = last.is_none_or(|e| e.value - e.residual >= -threshold);
        Self {
            count: Bracket {
                value: below(0.0) as f64,
                low: certain as f64,
                high: possible as f64,
            },
            certain,
            complete: all || done,
            density: None,
            threshold,
        }
    }

    /// Adds the estimate from a density.
    fn with_density(self, found: Count, dim: usize) -> Result<Self> {
        let [low, high] = found.interval(0.95)?;
        let (least, n) = (self.certain as f64, dim as f64);
        let value = found.estimate.value.clamp(least, n);
        Ok(Self {
            count: Bracket {
                value,
                low: low.max(least).min(value),
                high: high.clamp(value, n),
            },
            complete: false,
            density: Some(found),
            ..self
        })
    }

    /// Whether the error exceeds the number and reaches another band of [`NEGATIVE`].
    fn is_uncertain(&self) -> bool {
        let [low, high] = [self.count.low, self.count.high].map(|x| NEGATIVE.band(x));
        low != high && self.count.error() > self.count.value
    }
}

fn smallest_first(spectrum: &Spectrum) -> Vec<Eigenvalue> {
    spectrum.pairs.iter().rev().map(Eigenvalue::from).collect()
}

/// Converts the bracket of a function of all n eigenvalues to an estimate.
fn exact_estimate(bracket: Bracket, n: usize) -> Estimate {
    Estimate {
        value: bracket.value,
        standard_error: bracket.error(),
        samples: n,
        products: 0,
        converged: true,
    }
}

/// high/low; `None` unless low is above its error.
fn ratio(high: Eigenvalue, low: Eigenvalue, threshold: f64) -> Option<Bracket> {
    let least = low.value - low.error;
    (least > threshold).then(|| Bracket {
        value: high.value / low.value,
        low: (high.value - high.error) / (low.value + low.error),
        high: (high.value + high.error) / least,
    })
}

fn negated(eigenvalue: Eigenvalue) -> Eigenvalue {
    Eigenvalue {
        value: -eigenvalue.value,
        ..eigenvalue
    }
}

fn stable_rate(top: Eigenvalue, threshold: f64) -> Option<Bracket> {
    let least = top.value - top.error;
    (least > threshold).then(|| Bracket {
        value: 2.0 / top.value,
        low: 2.0 / (top.value + top.error),
        high: 2.0 / least,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(low: f64, value: f64, high: f64) -> NegativeEigenvalues {
        NegativeEigenvalues {
            count: Bracket { value, low, high },
            certain: low as usize,
            complete: false,
            density: None,
            threshold: 1e-9,
        }
    }

    #[test]
    fn a_count_with_an_error_above_it_is_uncertain() {
        assert!(counted(0.0, 7141.0, 24418.0).is_uncertain());
        assert!(counted(1.0, 3.0, 7.0).is_uncertain());
        assert!(!counted(2000.0, 7141.0, 12000.0).is_uncertain());
        assert!(!counted(3.0, 4.0, 6.0).is_uncertain());
        // The whole interval lies in one band.
        assert!(!counted(0.0, 0.0, 2.0).is_uncertain());
        assert!(!counted(6.0, 10.0, 900.0).is_uncertain());
    }
}
