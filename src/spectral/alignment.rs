//! [`Alignment`]: the cosine between two matrices, and [`Spectrum::subspace_overlap`]: the overlap of their leading
//! eigenvectors.

use serde::{Deserialize, Serialize};

use super::deflated_trace::rounding;
use super::orthonormal::products;
use super::probe_loop::{BLOCK_SIZE, Estimator, Sampler, estimate};
use super::{Bracket, Estimate, Spectrum};
use crate::error::{Error, Result, counted};
use crate::operator::{LinearOperator, checked_products};
use crate::progress::Progress;
use crate::random::Purpose;
use crate::vector::dot;

/// The inner product of two symmetric matrices A and B and the cosine between them, from vectors z of random signs: tr(AB),
/// ‖A‖²_F and ‖B‖²_F are the means of (Az)ᵀBz, ‖Az‖² and ‖Bz‖² over the same vectors z (Hutchinson, 1990).
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::operator::Scaled;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?;
/// let same = Alignment::estimate(&a, &Scaled::new(a.clone(), vec![3.0, 3.0])?, 10, 0)?;
/// assert!((same.cosine.value - 1.0).abs() < 1e-12); // A and 9A
/// let b = Dense::new(array![[1.0, 0.0], [0.0, 0.0]])?;
/// let found = Alignment::estimate(&a, &b, 400, 0)?;
/// assert!((found.product.value - 2.0).abs() < 5.0 * found.product.standard_error); // tr(AB)
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Alignment {
    /// tr(AB)
    pub product: Estimate,
    /// tr(AB)/(‖A‖_F ‖B‖_F), between −1 and 1; 0 if a matrix is zero. Its standard error is that of the jackknife. For
    /// matrices that are multiples of each other the cosine is exact, and its error is only rounding.
    pub cosine: Estimate,
}

impl Alignment {
    /// Estimates the alignment of `a` and `b` from `samples` products with each.
    ///
    /// # Errors
    /// Matrices of different sizes; fewer than 2 samples; products that fail or are not finite.
    pub fn estimate(
        a: &dyn LinearOperator,
        b: &dyn LinearOperator,
        samples: usize,
        seed: u64,
    ) -> Result<Self> {
        let n = a.dim();
        if b.dim() != n {
            return Err(Error::invalid(format!(
                "an alignment needs matrices of the same size, found {n} and {} rows",
                b.dim()
            )));
        }
        if samples < 2 {
            return Err(Error::invalid(format!(
                "an alignment from {} has no standard error: use at least 2",
                counted(samples, "sample")
            )));
        }
        let mut sampler = Sampler::new(Purpose::Alignment, seed);
        let integrand = |_: &Forms, probes: Vec<Vec<f64>>| {
            let pairs = checked_products(a, &probes)?.into_iter();
            let pairs = pairs.zip(checked_products(b, &probes)?);
            let forms = pairs.map(|(a, b)| [dot(&a, &b), dot(&a, &a), dot(&b, &b)]);
            Ok(forms.collect())
        };
        let forms = Forms {
            forms: Vec::with_capacity(samples),
            samples,
            progress: Progress::start("alignment"),
        };
        let forms = estimate(|| sampler.signs(n), integrand, forms)?.forms;
        let inner: Vec<f64> = forms.iter().map(|f| f[0]).collect();
        let with_products = |estimate| Estimate {
            products: 2 * samples,
            ..estimate
        };
        let mean = |i: usize| forms.iter().map(|f| f[i]).sum::<f64>() / samples as f64;
        let size = (mean(1) * mean(2)).sqrt();
        let relative = relative_rounding(a, mean(1))? + relative_rounding(b, mean(2))?;
        let product = Estimate::from_samples(&inner).with_error(relative * size);
        let cosine = match size > 0.0 {
            true => jackknife(&forms).with_error(relative.min(2.0)),
            false => jackknife(&forms),
        };
        Ok(Self {
            product: with_products(product),
            cosine: with_products(cosine),
        })
    }
}

/// Rounding of the products of A = `operator`, relative to ‖A‖_F; `square` is ‖A‖²_F.
fn relative_rounding(operator: &dyn LinearOperator, square: f64) -> Result<f64> {
    let size = match operator.cancellation()? {
        0.0 => 1.0,
        cancellation => 1.0 + cancellation / square.sqrt(),
    };
    Ok(rounding(operator.epsilon(), operator.dim(), size))
}

/// x/√(ab) of sums x, a, b.
fn cosine([x, a, b]: [f64; 3]) -> f64 {
    // Sums without one sample can be negative by rounding.
    let size = (a.max(0.0) * b.max(0.0)).sqrt();
    if size > 0.0 { x / size } else { 0.0 }
}

/// The cosine from the sums over all samples, with its jackknife error (Tukey, 1958).
fn jackknife(forms: &[[f64; 3]]) -> Estimate {
    let n = forms.len() as f64;
    let sum = |i: usize| forms.iter().map(|form| form[i]).sum::<f64>();
    let sums = [sum(0), sum(1), sum(2)];
    let without = |form: &[f64; 3]| cosine([0, 1, 2].map(|i| sums[i] - form[i]));
    let spread = Estimate::from_samples(&forms.iter().map(without).collect::<Vec<_>>());
    Estimate {
        value: cosine(sums),
        standard_error: (n - 1.0) * spread.standard_error,
        ..spread
    }
}

/// The products (Az)ᵀBz, ‖Az‖² and ‖Bz‖² of each z, up to a number of samples.
struct Forms {
    forms: Vec<[f64; 3]>,
    samples: usize,
    progress: Progress,
}

impl Estimator for Forms {
    type Sample = [f64; 3];

    fn next_round(&mut self) -> Result<usize> {
        let count = self.forms.len();
        if count > 0 {
            self.progress.part(count, self.samples);
        }
        Ok(BLOCK_SIZE.min(self.samples - count))
    }

    fn add(&mut self, form: [f64; 3]) {
        self.forms.push(form);
    }
}

impl std::fmt::Display for Alignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tr(AB) {}\ncosine {}", self.product, self.cosine)
    }
}

impl Spectrum {
    /// Returns (1/k)‖UᵀV‖²_F for the eigenvectors U and V of the `k` largest eigenvalues of two matrices: the fraction of one
    /// space that lies in the other, 1 for equal spaces and about k/n for unrelated ones.
    ///
    /// The bounds come from the angles to the exact spaces, as those of [`Spectrum::overlap`]. Both spectra need `k` + 1 pairs,
    /// or all. Without a gap after the `k`-th eigenvalue the bounds are 0 and 1.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    ///
    /// let a = Dense::new(array![[2.0, 0.0], [0.0, 1.0]])?.eigen()?; // first eigenvector (1, 0)
    /// let b = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.eigen()?; // first eigenvector (1, 1)/√2
    /// assert!((a.subspace_overlap(&b, 1)?.value - 0.5).abs() < 1e-12);
    /// assert!((a.subspace_overlap(&a, 1)?.value - 1.0).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `k` = 0; fewer than `k` pairs; matrices of different sizes.
    pub fn subspace_overlap(&self, other: &Self, k: usize) -> Result<Bracket> {
        self.check_subspaces(other, k)?;
        let cosines = products(&self.leading_vectors(k), &other.leading_vectors(k)).concat();
        let value = dot(&cosines, &cosines) / k as f64;
        let error = self.max_sine(k) + other.max_sine(k);
        Ok(Bracket {
            value,
            low: (value - error).max(0.0),
            high: (value + error).min(1.0),
        })
    }

    /// The eigenvectors of the `k` largest eigenvalues.
    pub(super) fn leading_vectors(&self, k: usize) -> Vec<Vec<f64>> {
        let pairs = self.pairs[..k].iter();
        pairs.map(|pair| pair.vector.clone()).collect()
    }

    /// Refuses to compare `k` eigenvectors of two spectra if one has fewer, or the matrices differ in size.
    pub(super) fn check_subspaces(&self, other: &Self, k: usize) -> Result<()> {
        let fewest = self.pairs.len().min(other.pairs.len());
        if self.dim != other.dim || k == 0 || k > fewest {
            return Err(Error::invalid(format!(
                "the overlap of {} needs matrices of the same size and as many pairs each; found {} and {} rows, {} and \
                 {} pairs",
                counted(k, "eigenvector"),
                self.dim,
                other.dim,
                self.pairs.len(),
                other.pairs.len()
            )));
        }
        Ok(())
    }
}
