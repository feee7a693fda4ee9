//! [`Trace`]: tr(A) and ‖A‖²_F of a matrix known by its products.

use serde::{Deserialize, Serialize};

use super::Estimate;
use super::krylov::{Draws, extend, orthogonalize};
use super::product::{TOGETHER, in_turn};
use super::xtrace::Exchange;
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, images};
use crate::progress::Progress;
use crate::random::Purpose;
use crate::vector::{dot, norm, scale};

/// How a trace is estimated.
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::prelude::*;
///
/// // Eigenvalues that decay: 1, ½, ¼, …, whose sum is 2.
/// let decaying = Array1::from_iter((0..60).map(|k| 0.5f64.powi(k)));
/// let a = Dense::new(Array2::from_diag(&decaying))?;
/// for method in [TraceMethod::HutchPlusPlus, TraceMethod::XTrace] {
///     let trace = Trace {
///         method,
///         ..Default::default()
///     }
///     .trace(&a)?;
///     assert!((trace.value - 2.0).abs() <= 5.0 * trace.standard_error + 1e-12);
/// }
/// // Vectors of random signs do not see a diagonal's spread at all.
/// let exact = Trace {
///     method: TraceMethod::Hutchinson,
///     ..Default::default()
/// }
/// .trace(&a)?;
/// assert!((exact.value - 2.0).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceMethod {
    /// The mean of vᵀAv over vectors v of random signs (Hutchinson, 1990; variance 2(‖A‖²_F − Σ aᵢᵢ²)).
    Hutchinson,
    /// The trace on the range of A times random vectors, exactly, plus Hutchinson's estimate for the
    /// rest (Hutch++: Meyer, Musco, Musco and Woodruff, 2021). A sixth of the products that are allowed span the range.
    HutchPlusPlus,
    /// The same with each vector used for both in turn (XTrace: Epperly, Tropp and Webber, 2024). With
    /// the fewest products where the eigenvalues decay, as they do in networks.
    #[default]
    XTrace,
}

/// Estimates of tr(A), and of ‖A‖²_F = tr(A²), to a stated accuracy.
///
/// ```
/// use loss_landscape::ndarray::Array2;
/// use loss_landscape::prelude::*;
///
/// // aᵢⱼ = 1/(1 + |i − j|), 100 × 100.
/// let a = Array2::from_shape_fn((100, 100), |(i, j)| 1.0 / (1.0 + i.abs_diff(j) as f64));
/// let frobenius = a.iter().map(|a| a * a).sum::<f64>();
/// let a = Dense::new(a)?;
/// let settings = Trace {
///     relative_error: 0.02,
///     ..Default::default()
/// };
/// let trace = settings.trace(&a)?;
/// assert!(trace.converged && trace.standard_error <= 0.02 * trace.value);
/// assert!((trace.value - 100.0).abs() < 5.0 * trace.standard_error);
/// let squared = settings.frobenius_squared(&a)?;
/// assert!((squared.value - frobenius).abs() < 5.0 * squared.standard_error);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// How.
    pub method: TraceMethod,
    /// Standard error, relative to the estimate, at which to stop.
    pub relative_error: f64,
    /// Products after which to stop anyway.
    pub max_products: usize,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for Trace {
    /// XTrace to 1 %, with at most 300 products, seed 0.
    fn default() -> Self {
        Self {
            method: TraceMethod::XTrace,
            relative_error: 0.01,
            max_products: 300,
            seed: 0,
        }
    }
}

/// The matrix B whose trace is wanted.
#[derive(Clone, Copy)]
pub(super) enum Power {
    /// B = A
    One,
    /// B = A²
    Two,
}

impl Power {
    /// vᵀBv of v and its image Av.
    fn form(self, v: &[f64], image: &[f64]) -> f64 {
        match self {
            Self::One => dot(v, image),
            Self::Two => dot(image, image),
        }
    }
}

impl Trace {
    /// tr(A) of A = `operator`.
    ///
    /// # Errors
    /// Fewer than 12 products; an accuracy that is no positive number; products that fail or are not
    /// finite. Not to reach the accuracy is no error: see [`Estimate::converged`].
    pub fn trace(&self, operator: &(impl LinearOperator + ?Sized)) -> Result<Estimate> {
        self.run(operator, Power::One)
    }

    /// ‖A‖²_F, the sum of all squared entries and of all squared eigenvalues. It takes no more products than the
    /// trace.
    ///
    /// # Errors
    /// As [`Trace::trace`].
    pub fn frobenius_squared(&self, operator: &(impl LinearOperator + ?Sized)) -> Result<Estimate> {
        self.run(operator, Power::Two)
    }

    fn run(&self, operator: &(impl LinearOperator + ?Sized), power: Power) -> Result<Estimate> {
        if !(self.relative_error > 0.0 && self.relative_error.is_finite()) {
            return Err(Error::invalid(format!(
                "a relative error of {} cannot be reached: give a finite number above 0",
                self.relative_error
            )));
        }
        if self.max_products < 12 {
            return Err(Error::invalid(format!(
                "{} products are too few for an estimate with an error: allow at least 12",
                self.max_products
            )));
        }
        match self.method {
            TraceMethod::Hutchinson => self.sampled(operator, power, &[], 0),
            TraceMethod::HutchPlusPlus => self.hutch_plus_plus(operator, power),
            TraceMethod::XTrace => self.xtrace(operator, power),
        }
    }

    /// tr(QᵀBQ) for the orthonormal `range` plus Hutchinson's estimate of the trace on the rest of the
    /// space.
    fn sampled(
        &self,
        operator: &(impl LinearOperator + ?Sized),
        power: Power,
        range: &[Vec<f64>],
        mut products: usize,
    ) -> Result<Estimate> {
        let n = operator.dim();
        let images_of_range = in_turn(operator, range)?;
        products += range.len();
        let inside = range.iter().zip(&images_of_range);
        let known: f64 = inside.map(|(q, image)| power.form(q, image)).sum();
        let mut draws = Draws::new(Purpose::Trace, self.seed);
        let mut progress = Progress::start("trace");
        let mut samples = Vec::new();
        if range.len() == n {
            samples = vec![0.0; 2];
        }
        loop {
            if !samples.is_empty() {
                let mut estimate = Estimate::of(&samples);
                estimate.value += known;
                estimate.products = products;
                estimate.converged = self.is_enough(&estimate);
                progress.tick(|| estimate.to_string());
                if estimate.converged || products >= self.max_products {
                    return Ok(estimate);
                }
            }
            let count = TOGETHER.min(self.max_products.saturating_sub(products).max(2));
            let probes = (0..count).map(|_| {
                let mut v = draws.signs(n);
                orthogonalize(&mut v, range);
                v
            });
            let probes: Vec<Vec<f64>> = probes.collect();
            for (v, image) in probes.iter().zip(images(operator, &probes)?) {
                samples.push(power.form(v, &image));
            }
            products += count;
        }
    }

    fn hutch_plus_plus(
        &self,
        operator: &(impl LinearOperator + ?Sized),
        power: Power,
    ) -> Result<Estimate> {
        let n = operator.dim();
        let mut draws = Draws::new(Purpose::TraceRange, self.seed);
        let wanted = (self.max_products / 6).clamp(1, n);
        let (mut range, mut drawn): (Vec<Vec<f64>>, _) = (Vec::new(), 0);
        // Fewer new directions than vectors: the range is exhausted.
        while drawn < wanted && range.len() == drawn {
            let count = TOGETHER.min(wanted - drawn);
            let probes: Vec<Vec<f64>> = (0..count).map(|_| draws.gaussian(n)).collect();
            for image in images(operator, &probes)? {
                let smallest = rounding(n, norm(&image));
                range.extend(extend(image, &range, smallest).2);
            }
            drawn += count;
        }
        self.sampled(operator, power, &range, drawn)
    }

    fn xtrace(&self, operator: &(impl LinearOperator + ?Sized), power: Power) -> Result<Estimate> {
        let n = operator.dim();
        let most = (self.max_products / 2).min(n);
        let mut draws = Draws::new(Purpose::Trace, self.seed);
        let mut progress = Progress::start("trace");
        let mut exchange = Exchange::new(power);
        loop {
            let count = TOGETHER.min(most - exchange.probes());
            let probes = (0..count).map(|_| {
                let mut v = draws.gaussian(n);
                let length = norm(&v);
                scale(&mut v, (n as f64).sqrt() / length);
                v
            });
            let exhausted = exchange.add(operator, probes.collect())?;
            let mut estimate = match exhausted || exchange.probes() == n {
                true => exchange.exact(),
                false => exchange.estimate(),
            };
            estimate.converged = self.is_enough(&estimate);
            progress.tick(|| estimate.to_string());
            if estimate.converged || exhausted || exchange.probes() == most {
                return Ok(estimate);
            }
        }
    }

    fn is_enough(&self, estimate: &Estimate) -> bool {
        estimate.standard_error <= self.relative_error * estimate.value.abs()
    }
}

/// What of a vector of this size may be rounding.
pub(super) fn rounding(n: usize, size: f64) -> f64 {
    8.0 * (n as f64).sqrt() * f64::EPSILON * size
}
