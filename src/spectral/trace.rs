//! [`Trace`]: tr(A) and ‖A‖²_F of a matrix known by its products.

use serde::{Deserialize, Serialize};

use super::Estimate;
use super::krylov::{Draws, extend};
use super::product::{TOGETHER, images};
use crate::error::{Error, Result};
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::vector::{axpy, dot, norm, scale};

/// How a trace is estimated.
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

/// A vector v and its image Av.
struct Pair {
    v: Vec<f64>,
    image: Vec<f64>,
}

/// The matrix B whose trace is wanted.
#[derive(Clone, Copy)]
enum Power {
    /// B = A
    One,
    /// B = A²
    Two,
}

impl Power {
    /// aᵀBb
    fn form(self, a: &Pair, b: &Pair) -> f64 {
        match self {
            Self::One => dot(&a.v, &b.image),
            Self::Two => dot(&a.image, &b.image),
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
        range: &[Pair],
        mut products: usize,
    ) -> Result<Estimate> {
        let n = operator.dim();
        let known: f64 = range.iter().map(|q| power.form(q, q)).sum();
        let mut draws = Draws::new(self.seed.wrapping_add(1));
        let mut progress = Progress::start("trace");
        let mut samples = match range.len() == n {
            true => vec![0.0; 2],
            false => Vec::new(),
        };
        loop {
            let mut estimate = match samples.len() {
                0 => None,
                _ => Some(Estimate::of(&samples)),
            };
            if let Some(estimate) = &mut estimate {
                estimate.value += known;
                estimate.products = products;
                estimate.converged = self.is_enough(estimate);
                progress.tick(|| estimate.to_string());
                if estimate.converged || products >= self.max_products {
                    return Ok(*estimate);
                }
            }
            let count = TOGETHER.min(self.max_products.saturating_sub(products).max(2));
            let probes = (0..count).map(|_| {
                let mut v = draws.signs(n);
                // (I − QQᵀ)v, in two passes.
                for q in range.iter().chain(range) {
                    axpy(-dot(&q.v, &v), &q.v, &mut v);
                }
                v
            });
            for pair in pairs(operator, probes.collect())? {
                samples.push(power.form(&pair, &pair));
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
        let mut draws = Draws::new(self.seed);
        let wanted = (self.max_products / 6).clamp(1, n);
        let (mut range, mut drawn): (Vec<Vec<f64>>, _) = (Vec::new(), 0);
        // Fewer new directions than vectors: the range is exhausted.
        while drawn < wanted && range.len() == drawn {
            let count = TOGETHER.min(wanted - drawn);
            let probes = (0..count).map(|_| draws.gaussian(n)).collect();
            for Pair { image, .. } in pairs(operator, probes)? {
                let smallest = rounding(n, norm(&image));
                range.extend(extend(image, &range, smallest).2);
            }
            drawn += count;
        }
        let range = pairs(operator, range)?;
        self.sampled(operator, power, &range, drawn + range.len())
    }

    fn xtrace(&self, operator: &(impl LinearOperator + ?Sized), power: Power) -> Result<Estimate> {
        let n = operator.dim();
        let most = (self.max_products / 2).min(n);
        let mut draws = Draws::new(self.seed);
        let mut progress = Progress::start("trace");
        let mut state = Exchange {
            power,
            probes: Vec::new(),
            range: Vec::new(),
            triangle: Vec::new(),
        };
        loop {
            let count = TOGETHER.min(most - state.probes.len());
            let probes = (0..count).map(|_| {
                let mut v = draws.gaussian(n);
                let length = norm(&v);
                scale(&mut v, (n as f64).sqrt() / length);
                v
            });
            let exhausted = state.add(operator, probes.collect())?;
            let products = state.probes.len() + state.range.len();
            let mut estimate = match exhausted || state.range.len() == n {
                true => state.exact(),
                false => state.estimate(n),
            };
            estimate.products = products;
            estimate.converged = self.is_enough(&estimate);
            progress.tick(|| estimate.to_string());
            if estimate.converged || exhausted || state.probes.len() == most {
                return Ok(estimate);
            }
        }
    }

    fn is_enough(&self, estimate: &Estimate) -> bool {
        estimate.standard_error <= self.relative_error * estimate.value.abs()
    }
}

/// What of a vector of this size may be rounding.
fn rounding(n: usize, size: f64) -> f64 {
    8.0 * (n as f64).sqrt() * f64::EPSILON * size
}

/// Vectors with their images.
fn pairs(
    operator: &(impl LinearOperator + ?Sized),
    mut vectors: Vec<Vec<f64>>,
) -> Result<Vec<Pair>> {
    let mut pairs = Vec::with_capacity(vectors.len());
    while !vectors.is_empty() {
        let some: Vec<Vec<f64>> = vectors.drain(..TOGETHER.min(vectors.len())).collect();
        let images = images(operator, &some)?;
        pairs.extend(
            some.into_iter()
                .zip(images)
                .map(|(v, image)| Pair { v, image }),
        );
    }
    Ok(pairs)
}

/// XTrace's vectors ω with y = Aω, and Y = QR.
struct Exchange {
    power: Power,
    probes: Vec<Pair>,
    range: Vec<Pair>,
    /// R's columns.
    triangle: Vec<Vec<f64>>,
}

impl Exchange {
    /// Takes more vectors in; true if their images add nothing to the range, which is then all of A's.
    fn add(
        &mut self,
        operator: &(impl LinearOperator + ?Sized),
        probes: Vec<Vec<f64>>,
    ) -> Result<bool> {
        let mut basis: Vec<Vec<f64>> = self.range.iter().map(|q| q.v.clone()).collect();
        let known = basis.len();
        let mut exhausted = false;
        for pair in pairs(operator, probes)? {
            let smallest = rounding(pair.v.len(), norm(&pair.image));
            let (mut column, length, q) = extend(pair.image.clone(), &basis, smallest);
            match q {
                Some(q) if !exhausted => {
                    column.push(length);
                    basis.push(q);
                    self.triangle.push(column);
                    self.probes.push(pair);
                }
                _ => {
                    exhausted = true;
                    self.probes.push(pair);
                }
            }
        }
        self.range.extend(pairs(operator, basis.split_off(known))?);
        Ok(exhausted)
    }

    /// tr(QᵀBQ)
    fn inside(&self) -> f64 {
        self.range.iter().map(|q| self.power.form(q, q)).sum()
    }

    /// The trace where Q spans A's range.
    fn exact(&self) -> Estimate {
        let size: f64 = self.range.iter().map(|q| self.power.form(q, q).abs()).sum();
        let n = self.probes[0].v.len();
        Estimate {
            value: self.inside(),
            standard_error: rounding(n, size),
            samples: self.probes.len(),
            products: 0,
            converged: true,
        }
    }

    /// The mean over i of the estimate whose range leaves ωᵢ out and whose sample is ωᵢ.
    ///
    /// Without the i-th column, Y spans what Q does but for Qs, where s is the unit vector that R's other columns
    /// are orthogonal to: s ∝ R⁻ᵀeᵢ.
    fn estimate(&self, n: usize) -> Estimate {
        let m = self.range.len();
        let table = |a: &[Pair], b: &[Pair]| -> Vec<Vec<f64>> {
            let row = |a: &Pair| b.iter().map(|b| self.power.form(a, b)).collect();
            a.iter().map(row).collect()
        };
        let inner = table(&self.range, &self.range);
        let mixed = table(&self.range, &self.probes);
        let inside = self.inside();
        let samples: Vec<f64> = (0..m)
            .map(|i| {
                let probe = &self.probes[i];
                let s = self.left_out(i);
                let mut x: Vec<f64> = self.range.iter().map(|q| dot(&q.v, &probe.v)).collect();
                axpy(-dot(&s, &x), &s, &mut x);
                let times =
                    |v: &[f64]| -> Vec<f64> { inner.iter().map(|row| dot(row, v)).collect() };
                let column: Vec<f64> = mixed.iter().map(|row| row[i]).collect();
                // (ω − Qx)ᵀB(ω − Qx), scaled to what a vector on the sphere of the rest of the space would give.
                let rest =
                    self.power.form(probe, probe) - 2.0 * dot(&x, &column) + dot(&x, &times(&x));
                let left = dot(&probe.v, &probe.v) - dot(&x, &x);
                inside - dot(&s, &times(&s)) + rest * (n - m + 1) as f64 / left
            })
            .collect();
        Estimate::of(&samples)
    }

    /// R⁻ᵀeᵢ, of length 1, by forward substitution.
    fn left_out(&self, i: usize) -> Vec<f64> {
        let m = self.triangle.len();
        let mut s = vec![0.0; m];
        for j in i..m {
            let column = &self.triangle[j];
            let right = f64::from(u8::from(i == j));
            s[j] = (right - dot(&column[..j], &s[..j])) / column[j];
        }
        let length = norm(&s);
        scale(&mut s, 1.0 / length);
        s
    }
}
