//! [`HessianMetrics`]: what the ends of a Hessian's spectrum, its trace and its density say.

use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use super::row::{self, Row};
use crate::error::{Error, Result};
use crate::operator::LinearOperator;
use crate::spectral::{
    Bracket, Count, DensitySettings, Eigenpair, Estimate, Lanczos, Spectrum, Trace, Which,
};
use crate::verdict::{CONDITION, NEGATIVE};

/// Products with a matrix are rounded to about this many ε of its largest |λ|.
const ROUNDING: f64 = 10.0;

/// An eigenvalue λ, without its eigenvector.
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
pub struct Eigenvalue {
    /// λ
    pub value: f64,
    /// ‖Hv − λv‖: an eigenvalue lies within this of λ.
    pub residual: f64,
}

impl From<&Eigenpair> for Eigenvalue {
    fn from(pair: &Eigenpair) -> Self {
        Self {
            value: pair.value,
            residual: pair.residual,
        }
    }
}

/// How many eigenvalues are negative by more than rounding.
///
/// See [`HessianMetrics`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NegativeEigenvalues {
    /// The number, between bounds. Where the smallest eigenvalues that were computed tell all, the bounds are apart by those
    /// whose residual hides the sign; where not, the number is the density's, its bounds the widest of its 95 %
    /// interval and the quadrature's resolution, and never below `certain`.
    pub count: Bracket,
    /// Eigenvalues that were computed and are negative by more than residual and rounding.
    pub certain: usize,
    /// Whether the smallest ones that were computed tell all: the last of them is not negative.
    pub complete: bool,
    /// What the density says; none where it was not asked.
    pub density: Option<Count>,
    /// Smaller |λ| are zero within rounding: 10 ε max |λ| with the ε of the model's type.
    pub threshold: f64,
}

/// The curvature at a point, in numbers.
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
pub struct HessianMetrics {
    /// n, the number of all eigenvalues.
    pub dim: usize,
    /// The largest eigenvalues, the largest first.
    pub largest: Vec<Eigenvalue>,
    /// The smallest eigenvalues, the smallest first.
    pub smallest: Vec<Eigenvalue>,
    /// κ = λ_max/λ_min; none where it has no meaning, as λ_min is negative or zero within its error.
    pub condition_number: Option<Bracket>,
    /// λ₁ − λ₂; none for a single parameter.
    pub spectral_gap: Option<Bracket>,
    /// How many eigenvalues are negative.
    pub negative: NegativeEigenvalues,
    /// tr H
    pub trace: Estimate,
    /// (Σ|λ|)² / Σλ², of all eigenvalues where they are known, else from the density; none for a zero matrix.
    pub effective_rank: Option<Estimate>,
    /// 2/λ_max, the learning rate below which gradient descent is stable; none where λ_max may be 0 or negative.
    pub stable_rate: Option<Bracket>,
    /// Whether all residuals went below 10⁻⁴ of the largest |λ|.
    pub converged: bool,
    /// Matrix-vector products that all this took.
    pub products: usize,
}

impl HessianMetrics {
    /// `k` eigenvalues from each end, or all if there are no more than that, for a model whose numbers have this `epsilon`.
    pub(super) fn of(
        hessian: &impl LinearOperator,
        k: usize,
        epsilon: f64,
        seed: u64,
    ) -> Result<Self> {
        if k == 0 {
            return Err(Error::invalid(
                "no eigenvalues are asked for: give at least 1",
            ));
        }
        let dim = hessian.dim();
        let lanczos = Lanczos {
            which: Which::BothEnds,
            seed,
            ..Lanczos::default()
        };
        // Two at the upper end at least, for the gap.
        let spectrum = lanczos.run(hessian, k.max(2).saturating_mul(2).min(dim))?;
        let largest: Vec<Eigenvalue> = spectrum.pairs.iter().map(Eigenvalue::from).collect();
        let smallest: Vec<_> = largest.iter().rev().take(k).copied().collect();
        let trace = Trace {
            relative_error: 0.05,
            max_products: 100,
            seed,
            ..Trace::default()
        };
        let trace = trace.trace(hessian)?;
        let mut products = spectrum.products + trace.products;
        let size = largest[0].value.abs().max(smallest[0].value.abs());
        let threshold = ROUNDING * epsilon * size;
        let (negative, effective_rank);
        if spectrum.is_complete() {
            negative = NegativeEigenvalues::among(&smallest_first(&spectrum), threshold, true);
            effective_rank = match size > 0.0 {
                true => Some(known(spectrum.effective_rank()?, dim)),
                false => None,
            };
        } else {
            let settings = DensitySettings {
                probes: 4,
                steps: 25,
                seed,
            };
            let density = settings.run(hessian)?;
            products += density.products;
            let ends = NegativeEigenvalues::among(&smallest, threshold, false);
            negative = match ends.complete {
                true => ends,
                false => ends.with(density.count_below(-threshold), dim)?,
            };
            effective_rank = density.effective_rank();
        }
        Ok(Self {
            dim,
            condition_number: condition_number(largest[0], smallest[0], threshold),
            spectral_gap: spectrum.gap(0).ok(),
            negative,
            trace,
            effective_rank,
            stable_rate: stable_rate(largest[0], threshold),
            largest: largest.into_iter().take(k).collect(),
            smallest,
            converged: spectrum.converged,
            products,
        })
    }

    /// A row for each eigenvalue, counted from the largest, and for each number that is made of them: quantity, value,
    /// uncertainty, verdict.
    ///
    /// # Errors
    /// polars'.
    pub fn table(&self) -> Result<DataFrame> {
        let row = |(rank, found): (usize, &Eigenvalue)| {
            Row::new(format!("eigenvalue {rank}"), found.value).give_or_take(found.residual)
        };
        let top = self.largest.iter().enumerate().map(|(i, e)| (i + 1, e));
        let bottom = self.smallest.iter().enumerate();
        let bottom = bottom.map(|(i, e)| (self.dim.saturating_sub(i), e)).rev();
        let bottom = bottom.filter(|(rank, _)| *rank > self.largest.len());
        let rows: Vec<Row> = top.chain(bottom).map(row).chain(self.sums()).collect();
        row::table(&rows)
    }

    /// Both ends, and what is made of them.
    pub(super) fn rows(&self) -> Vec<Row> {
        let end = |name: &str, found: Option<&Eigenvalue>| Row {
            uncertainty: found.map(|e| e.residual),
            ..Row::new(name, found.map(|e| e.value))
        };
        let mut rows = vec![
            end("largest eigenvalue", self.largest.first()),
            end("smallest eigenvalue", self.smallest.first()),
        ];
        if !self.converged {
            rows[0].verdict = "not all residuals went below their tolerance".into();
        }
        rows.extend(self.sums());
        rows
    }

    fn sums(&self) -> Vec<Row> {
        let mut trace = Row::new("trace", self.trace.value).give_or_take(self.trace.standard_error);
        if !self.trace.converged {
            trace.verdict = "short of a standard error of 5 %".into();
        }
        vec![
            Row::between("condition number", self.condition_number).verdict(self.conditioning()),
            Row::between("spectral gap", self.spectral_gap),
            Row::between("negative eigenvalues", Some(self.negative.count))
                .verdict(self.negative.verdict()),
            trace,
            Row::estimate("effective rank", self.effective_rank),
            Row::between("stable learning rate, 2/λ_max", self.stable_rate),
        ]
    }

    /// The word for κ, or why it has none.
    fn conditioning(&self) -> String {
        if let Some(number) = &self.condition_number {
            return CONDITION.verdict(number);
        }
        let rounding = self.negative.threshold;
        let (Some(high), Some(low)) = (self.largest.first(), self.smallest.first()) else {
            return String::new();
        };
        if low.value + low.residual < -rounding {
            return "not meaningful: λ_min is negative".into();
        }
        let least = (high.value - high.residual) / (low.value.abs() + low.residual + rounding);
        match least >= 1.0 {
            true => {
                format!("not meaningful: λ_min is zero within its error, κ at least {least:.1e}")
            }
            false => "not meaningful: the loss does not curve".into(),
        }
    }
}

impl NegativeEigenvalues {
    /// From the smallest eigenvalues, the smallest first, which may be all.
    fn among(smallest: &[Eigenvalue], threshold: f64, all: bool) -> Self {
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

    /// With what a density says of those beyond.
    fn with(self, found: Count, dim: usize) -> Result<Self> {
        let [low, high] = found.estimate.interval(0.95)?;
        let (least, n) = (self.certain as f64, dim as f64);
        let value = found.estimate.value.clamp(least, n);
        Ok(Self {
            count: Bracket {
                value,
                low: low.min(found.resolution.low).max(least).min(value),
                high: high.max(found.resolution.high).clamp(value, n),
            },
            density: Some(found),
            ..self
        })
    }

    fn verdict(&self) -> String {
        let word = NEGATIVE.verdict(&self.count);
        match self.complete {
            true => word,
            false => format!(
                "{word}; at least {}, by the density {:.0} to {:.0}",
                self.certain, self.count.low, self.count.high
            ),
        }
    }
}

fn smallest_first(spectrum: &Spectrum) -> Vec<Eigenvalue> {
    spectrum.pairs.iter().rev().map(Eigenvalue::from).collect()
}

/// A certain bracket as an estimate of n numbers.
fn known(bracket: Bracket, n: usize) -> Estimate {
    Estimate {
        value: bracket.value,
        standard_error: bracket.error(),
        samples: n,
        products: 0,
        converged: true,
    }
}

fn condition_number(high: Eigenvalue, low: Eigenvalue, threshold: f64) -> Option<Bracket> {
    let least = low.value - low.residual;
    (least > threshold).then(|| Bracket {
        value: high.value / low.value,
        low: (high.value - high.residual) / (low.value + low.residual),
        high: (high.value + high.residual) / least,
    })
}

fn stable_rate(top: Eigenvalue, threshold: f64) -> Option<Bracket> {
    let least = top.value - top.residual;
    (least > threshold).then(|| Bracket {
        value: 2.0 / top.value,
        low: 2.0 / (top.value + top.residual),
        high: 2.0 / least,
    })
}
