//! [`Spectrum`]: eigenpairs with the errors of their eigenvalues.

use serde::{Deserialize, Serialize};

use std::ops::Range;

use super::Bracket;
use crate::error::{Error, Result, check_finite, counted};
use crate::vector::{axpy, dot, norm};

/// An eigenvalue λ with its unit eigenvector v.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?;
/// let pair = &a.eigen()?.pairs[0]; // 3, with (1, 1)/√2
/// let bracket = pair.bracket();
/// assert!(bracket.low <= 3.0 && 3.0 <= bracket.high);
/// assert_eq!(pair.rank.unwrap().index, 1); // the largest eigenvalue
/// let image = a.apply(&pair.vector)?;
/// assert!((image[0] - 3.0 * pair.vector[0]).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eigenpair {
    /// λ
    pub value: f64,
    /// ‖Av − λv‖, including the measured rounding of the products: some eigenvalue of A lies within this distance of λ. For
    /// which one, see [`rank`](Self::rank).
    pub residual: f64,
    /// Unit eigenvector v, length n.
    pub vector: Vec<f64>,
    /// Position among the eigenvalues of A; `None` if unknown, as in a run that has not converged.
    pub rank: Option<Rank>,
}

/// The position of an eigenvalue among all eigenvalues of its matrix, counted with multiplicity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// 1 for the largest eigenvalue, n for the smallest.
    pub index: usize,
    /// The eigenvalue with this index lies within the residual plus this error of λ, because eigenvalues that differ by less were
    /// not distinguished; see [`Lanczos`](super::Lanczos). 0 if all eigenvalues are known.
    pub error: f64,
}

/// Eigenpairs of a symmetric matrix, largest eigenvalue first.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let spectrum = Dense::new(Array2::from_diag(&array![-4.0, 2.0, 1.0]))?.eigen()?;
/// let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
/// assert!(spectrum.is_complete() && close(spectrum.values()[0], 2.0));
/// assert!(close(spectrum.condition_number()?.value, 4.0)); // |−4|/|1|
/// assert!(close(spectrum.gap(1)?.value, 1.0 - -4.0));
/// assert!(close(spectrum.effective_rank()?.value, 49.0 / 21.0)); // (Σ|λ|)²/Σλ²
/// assert!(close(spectrum.overlap(&[3.0, 4.0, 0.0], 1)?.value, 0.64)); // 4²/5² along the first
/// assert!(close(spectrum.by_magnitude().values()[0], -4.0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// The pairs, largest eigenvalue first.
    pub pairs: Vec<Eigenpair>,
    /// Number of rows of the matrix, n.
    pub dim: usize,
    /// Number of matrix–vector products.
    pub products: usize,
    /// Whether every residual is below the tolerance, up to rounding, and no wanted eigenvalue was missed. The probability that
    /// one was missed is at most 10⁻³ at each end of the spectrum; see [`Lanczos`](super::Lanczos).
    pub converged: bool,
}

impl Eigenpair {
    /// Bounds of the eigenvalue with this [`rank`](Self::rank): λ ± (residual + error of the rank). Infinite if the rank is
    /// unknown.
    pub fn bracket(&self) -> Bracket {
        Bracket::around(self.value, self.error())
    }

    /// Largest distance of λ to the eigenvalue with its rank.
    pub(crate) fn error(&self) -> f64 {
        self.rank
            .map_or(f64::INFINITY, |rank| self.residual + rank.error)
    }
}

impl Spectrum {
    /// The eigenvalues, largest first.
    pub fn values(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.value).collect()
    }

    /// The residuals, in the order of the eigenvalues.
    pub fn residuals(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.residual).collect()
    }

    /// The eigenvector of pair `index`, counted from 0.
    ///
    /// # Errors
    /// An index beyond the last pair.
    pub fn vector(&self, index: usize) -> Result<Vec<f64>> {
        let pair = self.pairs.get(index).ok_or_else(|| {
            Error::invalid(format!(
                "there is no eigenvector {index}: the spectrum has {}, counted from 0",
                counted(self.pairs.len(), "pair")
            ))
        })?;
        Ok(pair.vector.clone())
    }

    /// Sorts the pairs by |λ|, largest first.
    #[must_use]
    pub fn by_magnitude(mut self) -> Self {
        let size = |pair: &Eigenpair| pair.value.abs();
        self.pairs.sort_by(|a, b| size(b).total_cmp(&size(a)));
        self
    }

    /// Whether the pairs are all of the matrix.
    pub fn is_complete(&self) -> bool {
        self.pairs.len() == self.dim
    }

    /// Refuses `what` if some eigenvalues are missing.
    fn require_all(&self, what: &str) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{what} needs all {} eigenvalues, found {}: compute them with dense()?.eigen()?",
            self.dim,
            self.pairs.len()
        )))
    }

    /// Refuses `what` for eigenvalues of unknown error, from an iteration that has not converged.
    pub(super) fn require_bounds(&self, what: &str) -> Result<()> {
        match self.pairs.iter().all(|pair| pair.error().is_finite()) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "{what} needs a converged iteration: allow more products or a larger tolerance"
            ))),
        }
    }

    /// κ = max |λ| / min |λ|, with bounds from the errors of the eigenvalues.
    ///
    /// # Errors
    /// Missing eigenvalues; an iteration that has not converged; a zero matrix.
    pub fn condition_number(&self) -> Result<Bracket> {
        self.require_all("the condition number")?;
        self.require_bounds("the condition number")?;
        let sizes = || self.pairs.iter().map(|p| (p.value.abs(), p.error()));
        let largest = sizes().fold([0f64; 3], |[v, low, high], (value, residual)| {
            [
                v.max(value),
                low.max(value - residual),
                high.max(value + residual),
            ]
        });
        let smallest = sizes().fold([f64::INFINITY; 3], |[v, low, high], (value, residual)| {
            [
                v.min(value),
                low.min((value - residual).max(0.0)),
                high.min(value + residual),
            ]
        });
        if largest[0] == 0.0 {
            return Err(Error::invalid("a zero matrix has no condition number"));
        }
        Ok(Bracket {
            value: largest[0] / smallest[0],
            low: largest[1] / smallest[2],
            high: largest[2] / smallest[1],
        })
    }

    /// The gap λᵢ − λᵢ₊₁ between the eigenvalue at `index` and the next smaller eigenvalue of the matrix, with bounds from the
    /// errors of both: 0 and infinity if their ranks are unknown.
    ///
    /// # Errors
    /// An index of the last pair or beyond; eigenvalues between the two that were not computed, as in the middle of
    /// [`Which::BothEnds`](super::Which::BothEnds).
    pub fn gap(&self, index: usize) -> Result<Bracket> {
        let [a, b] = self
            .pairs
            .get(index..index.saturating_add(2))
            .unwrap_or_default()
        else {
            return Err(Error::invalid(format!(
                "there is no gap {index}: the spectrum has {}, counted from 0",
                counted(self.pairs.len(), "pair")
            )));
        };
        if let (Some(a), Some(b)) = (a.rank, b.rank)
            && a.index + 1 != b.index
        {
            return Err(Error::invalid(format!(
                "gap {index} is unknown: the pairs are eigenvalues {} and {} of the matrix, and those between were not \
                 computed",
                a.index, b.index
            )));
        }
        let (value, error) = (a.value - b.value, a.error() + b.error());
        Ok(Bracket {
            value,
            low: (value - error).max(0.0),
            high: value + error,
        })
    }

    /// The effective rank (Σ|λ|)² / Σλ²: m for m equal eigenvalues if all others are zero.
    ///
    /// # Errors
    /// Missing eigenvalues; an iteration that has not converged; a zero matrix.
    pub fn effective_rank(&self) -> Result<Bracket> {
        self.require_all("the effective rank")?;
        self.require_bounds("the effective rank")?;
        let ratio = |shift: f64| {
            let sizes = self
                .pairs
                .iter()
                .map(|p| (p.value.abs() + shift * p.error()).max(0.0));
            let (sum, squares) = sizes.fold((0.0, 0.0), |(a, b), x| (a + x, b + x * x));
            (sum * sum, squares)
        };
        let ((value, squares), (low, fewest), (high, most)) = (ratio(0.0), ratio(-1.0), ratio(1.0));
        if squares == 0.0 {
            return Err(Error::invalid("a zero matrix has no effective rank"));
        }
        let n = self.dim as f64;
        Ok(Bracket {
            value: value / squares,
            low: (low / most).max(1.0),
            high: if fewest > 0.0 {
                (high / fewest).min(n)
            } else {
                n
            },
        })
    }

    /// How the eigenvectors are distributed over blocks of θ, such as
    /// [`Parameters::blocks`](crate::model::Parameters::blocks): for each pair and each block, its fraction of the vector's
    /// squared length and its participation ratio.
    ///
    /// # Errors
    /// A block beyond the length of the vectors.
    pub fn participation(&self, blocks: &[(String, Range<usize>)]) -> Result<Vec<Participation>> {
        let mut found = Vec::new();
        for (rank, pair) in self.pairs.iter().enumerate() {
            for (block, range) in blocks {
                let part = pair.vector.get(range.clone()).ok_or_else(|| {
                    Error::invalid(format!(
                        "block `{block}` is the range {}..{}, but the vectors have {}",
                        range.start,
                        range.end,
                        counted(self.dim, "entry")
                    ))
                })?;
                let share = dot(part, part);
                let fourth: f64 = part.iter().map(|v| v.powi(4)).sum();
                found.push(Participation {
                    rank: rank + 1,
                    block: block.clone(),
                    share,
                    entries: if fourth > 0.0 {
                        share * share / fourth
                    } else {
                        0.0
                    },
                });
            }
        }
        Ok(found)
    }

    /// The fraction of a vector's squared length in the span of the first `count` eigenvectors, 0 to 1. For the gradient it is
    /// the fraction along the sharpest directions (Gur-Ari, Roberts and Dyer, 2018).
    ///
    /// The eigenvectors must belong to the `count` largest eigenvalues of the matrix. The bounds follow from the angle between
    /// their span and the exact one, whose sine is at most ‖R‖_F over the gap to the next eigenvalue (Davis and Kahan, 1970):
    /// `count` must be smaller than the number of pairs. If the gap is 0 within its error, or the ranks are unknown, the bounds
    /// are 0 and 1.
    ///
    /// # Errors
    /// A `count` of 0 or above the number of pairs; a vector of another length, not finite or zero.
    pub fn overlap(&self, vector: &[f64], count: usize) -> Result<Bracket> {
        if count == 0 || count > self.pairs.len() {
            return Err(Error::invalid(format!(
                "the span of {} is unknown: the spectrum has {}; give 1 to that many",
                counted(count, "eigenvector"),
                counted(self.pairs.len(), "pair")
            )));
        }
        if vector.len() != self.dim {
            return Err(Error::invalid(format!(
                "the vector has {} but the eigenvectors have {}",
                counted(vector.len(), "entry"),
                self.dim
            )));
        }
        check_finite(vector, "the vector")?;
        let length = norm(vector);
        if length == 0.0 {
            return Err(Error::invalid(
                "the vector is zero: its overlap is undefined",
            ));
        }
        let mut inside = vec![0.0; self.dim];
        for pair in &self.pairs[..count] {
            axpy(dot(&pair.vector, vector), &pair.vector, &mut inside);
        }
        let value = (norm(&inside) / length).powi(2).min(1.0);
        let sine = self.max_sine(count);
        // |‖Pg‖² − ‖P′g‖²| ≤ ‖P − P′‖ ‖g‖² = sin Θ ‖g‖².
        Ok(Bracket {
            value,
            low: (value - sine).max(0.0),
            high: (value + sine).min(1.0),
        })
    }

    /// Largest sine of the angle between the span of the first `count` eigenvectors and that of the exact eigenvectors of the
    /// `count` largest eigenvalues.
    pub(super) fn max_sine(&self, count: usize) -> f64 {
        let residuals: f64 = self.pairs[..count].iter().map(|p| p.residual.powi(2)).sum();
        let is_top = |(i, pair): (usize, &Eigenpair)| pair.rank.is_some_and(|r| r.index == i + 1);
        match self.gap(count - 1) {
            _ if count == self.dim => 0.0,
            Ok(gap) if gap.low > 0.0 && self.pairs[..count].iter().enumerate().all(is_top) => {
                (residuals.sqrt() / gap.low).min(1.0)
            }
            _ => 1.0,
        }
    }

    /// The numbers of eigenvalues that are negative, zero within their error, and positive.
    ///
    /// # Errors
    /// Missing eigenvalues; an iteration that has not converged.
    pub fn inertia(&self) -> Result<Inertia> {
        self.require_all("the inertia")?;
        self.require_bounds("the inertia")?;
        let count = |test: fn(&Eigenpair) -> bool| self.pairs.iter().filter(|p| test(p)).count();
        Ok(Inertia {
            negative: count(|p| p.value < -p.error()),
            zero: count(|p| p.value.abs() <= p.error()),
            positive: count(|p| p.value > p.error()),
        })
    }
}

/// The part of an eigenvector in a block of θ.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let spectrum =
///     Dense::new(array![[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 9.0]])?.eigen()?;
/// let blocks = [("pair".to_owned(), 0..2), ("single".to_owned(), 2..3)];
/// let found = spectrum.participation(&blocks)?; // two entries per eigenvector
/// assert!((found[1].share - 1.0).abs() < 1e-12); // 9: only the single entry
/// assert!((found[2].share - 1.0).abs() < 1e-12); // 3: both entries of the pair, equally
/// assert!((found[2].entries - 2.0).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Participation {
    /// Rank of the eigenvalue, 1 for the largest.
    pub rank: usize,
    /// Name of the block.
    pub block: String,
    /// Σ v² over the entries of the block; the shares of all blocks of a vector add up to 1.
    pub share: f64,
    /// Participation ratio (Σv²)²/Σv⁴ over the block: 1 for a single nonzero entry, m for m equal entries.
    pub entries: f64,
}

/// The signs of a matrix's eigenvalues (Sylvester's inertia).
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::Inertia;
///
/// let inertia = Dense::new(Array2::from_diag(&array![3.0, 0.0, -1.0]))?
///     .eigen()?
///     .inertia()?;
/// assert_eq!(
///     inertia,
///     Inertia {
///         negative: 1,
///         zero: 1,
///         positive: 1
///     }
/// );
/// assert!(inertia.to_string().starts_with("saddle point"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inertia {
    /// Number of eigenvalues below zero by more than their error.
    pub negative: usize,
    /// Number of eigenvalues that are zero within their error.
    pub zero: usize,
    /// Number of eigenvalues above zero by more than their error.
    pub positive: usize,
}

/// The type of a stationary point with this inertia.
impl std::fmt::Display for Inertia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = match (self.negative, self.zero, self.positive) {
            (0, 0, _) => "minimum",
            (0, _, 0) => "flat to second order",
            (0, _, _) => "minimum, with directions that are flat to second order",
            (_, 0, 0) => "maximum",
            (_, _, 0) => "maximum, with directions that are flat to second order",
            (_, _, _) => "saddle point",
        };
        write!(
            f,
            "{verdict}: {} negative, {} zero within error, {} positive eigenvalues",
            self.negative, self.zero, self.positive
        )
    }
}
