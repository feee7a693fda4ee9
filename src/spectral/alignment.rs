//! [`Alignment`]: how far two matrices point the same way, and [`Spectrum::subspace_overlap`]: how far their
//! leading eigenvectors do.

use serde::{Deserialize, Serialize};

use super::krylov::{Draws, products};
use super::product::TOGETHER;
use super::remainder::rounding;
use super::{Bracket, Estimate, Spectrum};
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, checked_products, epsilon};
use crate::progress::Progress;
use crate::random::Purpose;
use crate::vector::dot;

/// The inner product of two symmetric matrices A and B, and the cosine between them, from vectors z of random
/// signs: tr(AB), ‖A‖²_F and ‖B‖²_F are the means of (Az)ᵀBz, ‖Az‖² and ‖Bz‖² (Hutchinson, 1990), all three
/// over the same z.
///
/// ```
/// use loss_landscape::ndarray::array;
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
pub struct Alignment {
    /// tr(AB)
    pub product: Estimate,
    /// tr(AB)/(‖A‖_F ‖B‖_F), between −1 and 1; 0 where a matrix is zero. Its standard error is the jackknife's,
    /// and is rounding for matrices that are multiples of each other, whose cosine comes out exactly.
    pub cosine: Estimate,
}

impl Alignment {
    /// The alignment of `a` and `b` from `samples` products with each.
    ///
    /// # Errors
    /// Matrices of different sizes; fewer than 2 samples; products that fail or are not finite.
    pub fn estimate(
        a: &(impl LinearOperator + ?Sized),
        b: &(impl LinearOperator + ?Sized),
        samples: usize,
        seed: u64,
    ) -> Result<Self> {
        let n = a.dim();
        if b.dim() != n {
            return Err(Error::invalid(format!(
                "a matrix with {n} rows and one with {} have no alignment",
                b.dim()
            )));
        }
        if samples < 2 {
            return Err(Error::invalid(format!(
                "an alignment from {samples} samples has no uncertainty: take at least 2"
            )));
        }
        let mut draws = Draws::new(Purpose::Alignment, seed);
        let mut progress = Progress::start("alignment");
        let mut forms: Vec<[f64; 3]> = Vec::with_capacity(samples);
        while forms.len() < samples {
            let count = TOGETHER.min(samples - forms.len());
            let probes: Vec<Vec<f64>> = (0..count).map(|_| draws.signs(n)).collect();
            let pairs = checked_products(a, &probes)?
                .into_iter()
                .zip(checked_products(b, &probes)?);
            forms.extend(pairs.map(|(a, b)| [dot(&a, &b), dot(&a, &a), dot(&b, &b)]));
            progress.part(forms.len(), samples);
        }
        let inner: Vec<f64> = forms.iter().map(|f| f[0]).collect();
        let with_products = |estimate| Estimate {
            products: 2 * samples,
            ..estimate
        };
        let mean = |i: usize| forms.iter().map(|f| f[i]).sum::<f64>() / samples as f64;
        let size = (mean(1) * mean(2)).sqrt();
        let relative = relative_rounding(a, mean(1))? + relative_rounding(b, mean(2))?;
        let product = Estimate::of(&inner).with_error(relative * size);
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

/// Rounding of the products of A = `operator`, relative to ‖A‖_F, whose square is given.
fn relative_rounding(operator: &(impl LinearOperator + ?Sized), square: f64) -> Result<f64> {
    let size = match operator.cancellation()? {
        0.0 => 1.0,
        cancelled => 1.0 + cancelled / square.sqrt(),
    };
    Ok(rounding(epsilon(operator), operator.dim(), size))
}

/// x/√(ab) of sums x, a, b.
fn cosine([x, a, b]: [f64; 3]) -> f64 {
    // Of sums without one sample, what is left may be rounding.
    let size = (a.max(0.0) * b.max(0.0)).sqrt();
    if size > 0.0 { x / size } else { 0.0 }
}

/// The cosine of the samples' sums, with the error that leaving each sample out in turn tells (Tukey, 1958).
fn jackknife(forms: &[[f64; 3]]) -> Estimate {
    let n = forms.len() as f64;
    let sum = |i: usize| forms.iter().map(|form| form[i]).sum::<f64>();
    let sums = [sum(0), sum(1), sum(2)];
    let without = |form: &[f64; 3]| cosine([0, 1, 2].map(|i| sums[i] - form[i]));
    let spread = Estimate::of(&forms.iter().map(without).collect::<Vec<_>>());
    Estimate {
        value: cosine(sums),
        standard_error: (n - 1.0) * spread.standard_error,
        ..spread
    }
}

impl std::fmt::Display for Alignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tr(AB) {}\ncosine {}", self.product, self.cosine)
    }
}

impl Spectrum {
    /// (1/k)‖UᵀV‖²_F for the eigenvectors U and V of the `k` largest eigenvalues of two matrices: the share of one
    /// space that lies in the other, 1 where they are the same and about k/n where they have nothing to do with
    /// each other.
    ///
    /// The bounds come of the angles to the true spaces, as those of [`Spectrum::overlap`] do: both spectra need
    /// `k` + 1 pairs, or all. Without a gap after the `k`-th eigenvalue they are 0 and 1.
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
    /// `k` = 0, fewer than `k` pairs, matrices of different sizes.
    pub fn subspace_overlap(&self, other: &Self, k: usize) -> Result<Bracket> {
        let fewest = self.pairs.len().min(other.pairs.len());
        if self.dim != other.dim || k == 0 || k > fewest {
            return Err(Error::invalid(format!(
                "there is no overlap of {k} eigenvectors: the matrices have {} and {} rows, and the \
                 spectra {} and {} pairs",
                self.dim,
                other.dim,
                self.pairs.len(),
                other.pairs.len()
            )));
        }
        let vectors = |spectrum: &Self| -> Vec<Vec<f64>> {
            let pairs = spectrum.pairs[..k].iter();
            pairs.map(|pair| pair.vector.clone()).collect()
        };
        let cosines = products(&vectors(self), &vectors(other)).concat();
        let value = dot(&cosines, &cosines) / k as f64;
        let error = self.tilt(k) + other.tilt(k);
        Ok(Bracket {
            value,
            low: (value - error).max(0.0),
            high: (value + error).min(1.0),
        })
    }
}
