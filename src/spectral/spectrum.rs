//! [`Spectrum`]: eigenpairs, each with the error of its eigenvalue.

use serde::{Deserialize, Serialize};

use std::ops::Range;

use super::Bracket;
use crate::error::{Error, Result, check_finite};
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
    /// ‖Av − λv‖, and the rounding of the operator as far as its products show it: some eigenvalue of A lies within this of
    /// λ. Which one is [`rank`](Self::rank).
    pub residual: f64,
    /// v, of length 1.
    pub vector: Vec<f64>,
    /// Which eigenvalue of A this is; none if that is not known, as in a run that has not converged.
    pub rank: Option<Rank>,
}

/// The position of an eigenvalue among all eigenvalues of its matrix, each counted as often as it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// 1 for the largest eigenvalue, n for the smallest.
    pub index: usize,
    /// The eigenvalue with this index lies within the residual plus this of λ, since eigenvalues that differ by less were not
    /// told apart; see [`Lanczos`](super::Lanczos). 0 if all eigenvalues are known.
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
    /// Number of rows of the matrix, and of all its eigenvalues.
    pub dim: usize,
    /// Matrix-vector products that the pairs took.
    pub products: usize,
    /// Whether every residual, but for rounding, is below the tolerance, and no wanted eigenvalue was missed. That one was
    /// missed has a probability of at most 10⁻³ at each end of the spectrum; see [`Lanczos`](super::Lanczos).
    pub converged: bool,
}

impl Eigenpair {
    /// Bounds of the eigenvalue with this [`rank`](Self::rank): λ, give or take the residual and the rank's error. Infinite
    /// if the rank is not known.
    pub fn bracket(&self) -> Bracket {
        let error = self.error();
        Bracket {
            value: self.value,
            low: self.value - error,
            high: self.value + error,
        }
    }

    /// The largest distance of λ to the eigenvalue with its rank.
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

    /// The residuals, in the same order.
    pub fn residuals(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.residual).collect()
    }

    /// The eigenvector of the largest eigenvalue but `index`.
    ///
    /// # Errors
    /// An index beyond the last pair.
    pub fn vector(&self, index: usize) -> Result<Vec<f64>> {
        let pair = self.pairs.get(index).ok_or_else(|| {
            Error::invalid(format!(
                "there is no eigenvector {index}: this spectrum has {}, counted from 0",
                self.pairs.len()
            ))
        })?;
        Ok(pair.vector.clone())
    }

    /// The same pairs, largest |λ| first.
    pub fn by_magnitude(mut self) -> Self {
        let size = |pair: &Eigenpair| pair.value.abs();
        self.pairs.sort_by(|a, b| size(b).total_cmp(&size(a)));
        self
    }

    /// Whether these are all eigenvalues of the matrix.
    pub fn is_complete(&self) -> bool {
        self.pairs.len() == self.dim
    }

    fn need_all(&self, what: &str) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} of {} eigenvalues do not tell {what}: take all of them with dense()?.eigen()?",
            self.pairs.len(),
            self.dim
        )))
    }

    /// Refuses eigenvalues without an error, of an iteration that has not converged.
    fn need_bounds(&self, what: &str) -> Result<()> {
        match self.pairs.iter().all(|pair| pair.error().is_finite()) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "eigenvalues of an iteration that has not converged do not tell {what}: allow more products or a larger \
                 tolerance"
            ))),
        }
    }

    /// κ = max |λ| / min |λ|, with the bounds that the errors of the eigenvalues leave.
    ///
    /// # Errors
    /// A spectrum that is not complete or has not converged; a zero matrix.
    pub fn condition_number(&self) -> Result<Bracket> {
        self.need_all("the condition number")?;
        self.need_bounds("the condition number")?;
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

    /// The gap between the eigenvalue at `index` and the next smaller eigenvalue of the matrix, λᵢ − λᵢ₊₁, between the bounds
    /// that the errors of both leave: 0 and infinity if their ranks are not known.
    ///
    /// # Errors
    /// No such two eigenvalues; eigenvalues between them that were not computed, as in the middle of
    /// [`Which::BothEnds`](super::Which::BothEnds).
    pub fn gap(&self, index: usize) -> Result<Bracket> {
        let [a, b] = self
            .pairs
            .get(index..index.saturating_add(2))
            .unwrap_or_default()
        else {
            return Err(Error::invalid(format!(
                "there is no gap {index} between {} eigenvalues, counted from 0",
                self.pairs.len()
            )));
        };
        if let (Some(a), Some(b)) = (a.rank, b.rank)
            && a.index + 1 != b.index
        {
            return Err(Error::invalid(format!(
                "there is no gap {index}: the eigenvalues here are number {} and {} of the matrix, and those between them \
                 were not computed",
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

    /// The effective rank (Σ|λ|)² / Σλ²: m for m equal eigenvalues and zeros besides.
    ///
    /// # Errors
    /// A spectrum that is not complete; a zero matrix.
    pub fn effective_rank(&self) -> Result<Bracket> {
        self.need_all("the effective rank")?;
        self.need_bounds("the effective rank")?;
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

    /// Where the eigenvectors live: for each pair and each block of θ, such as
    /// [`Parameters::blocks`](crate::model::Parameters::blocks), its share of the vector's squared length and how many
    /// of its entries take part in it.
    ///
    /// # Errors
    /// A block that is not within the vectors.
    pub fn participation(&self, blocks: &[(String, Range<usize>)]) -> Result<Vec<Participation>> {
        let mut found = Vec::new();
        for (rank, pair) in self.pairs.iter().enumerate() {
            for (block, range) in blocks {
                let part = pair.vector.get(range.clone()).ok_or_else(|| {
                    Error::invalid(format!(
                        "block `{block}` reaches from {} to {}, but the vectors have {} entries",
                        range.start, range.end, self.dim
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

    /// The share of a vector's squared length that lies in the space of the first `count` eigenvectors, 0 to 1: of
    /// the gradient, how much of it points along the sharpest directions (Gur-Ari, Roberts and Dyer, 2018).
    ///
    /// The eigenvectors must belong to the `count` largest eigenvalues of the matrix. The bounds follow from the angle between
    /// their space and the true one, whose sine is at most ‖R‖_F over the gap to the next eigenvalue (Davis and Kahan,
    /// 1970): ask for one pair fewer than there are. Without a gap that the errors leave above 0, or if the ranks are not
    /// known, the bounds are 0 and 1.
    ///
    /// # Errors
    /// More vectors than there are or none; a vector of another length, not finite or zero.
    pub fn overlap(&self, vector: &[f64], count: usize) -> Result<Bracket> {
        if count == 0 || count > self.pairs.len() {
            return Err(Error::invalid(format!(
                "the space of {count} eigenvectors is not here: this spectrum has {}",
                self.pairs.len()
            )));
        }
        if vector.len() != self.dim {
            return Err(Error::invalid(format!(
                "the vector has {} entries but the eigenvectors have {}",
                vector.len(),
                self.dim
            )));
        }
        check_finite(vector, "the vector")?;
        let length = norm(vector);
        if length == 0.0 {
            return Err(Error::invalid("a zero vector lies in no direction"));
        }
        let mut inside = vec![0.0; self.dim];
        for pair in &self.pairs[..count] {
            axpy(dot(&pair.vector, vector), &pair.vector, &mut inside);
        }
        let value = (norm(&inside) / length).powi(2).min(1.0);
        let sine = self.tilt(count);
        // |‖Pg‖² − ‖P′g‖²| ≤ ‖P − P′‖ ‖g‖² = sin Θ ‖g‖².
        Ok(Bracket {
            value,
            low: (value - sine).max(0.0),
            high: (value + sine).min(1.0),
        })
    }

    /// Largest sine of the angle between the space of the first `count` eigenvectors and that of the `count` largest
    /// eigenvalues.
    pub(super) fn tilt(&self, count: usize) -> f64 {
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

    /// How many eigenvalues are negative, zero within their error, and positive.
    ///
    /// # Errors
    /// A spectrum that is not complete or has not converged.
    pub fn inertia(&self) -> Result<Inertia> {
        self.need_all("how many are negative")?;
        self.need_bounds("how many are negative")?;
        let count = |test: fn(&Eigenpair) -> bool| self.pairs.iter().filter(|p| test(p)).count();
        Ok(Inertia {
            negative: count(|p| p.value < -p.error()),
            zero: count(|p| p.value.abs() <= p.error()),
            positive: count(|p| p.value > p.error()),
        })
    }
}

/// How much of an eigenvector lies in a block of θ.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let spectrum =
///     Dense::new(array![[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 9.0]])?.eigen()?;
/// let blocks = [("pair".to_owned(), 0..2), ("single".to_owned(), 2..3)];
/// let found = spectrum.participation(&blocks)?; // two rows for each eigenvector
/// assert!((found[1].share - 1.0).abs() < 1e-12); // 9: the single entry alone
/// assert!((found[2].share - 1.0).abs() < 1e-12); // 3: both of the pair, alike
/// assert!((found[2].entries - 2.0).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Participation {
    /// 1 for the largest eigenvalue.
    pub rank: usize,
    /// The block's name.
    pub block: String,
    /// Σ v² over the block's entries; all blocks' shares of a vector add up to 1.
    pub share: f64,
    /// The participation ratio (Σv²)²/Σv⁴ over the block: 1 for a single entry, all for equal ones.
    pub entries: f64,
}

/// The signs of a matrix's eigenvalues (Sylvester's inertia).
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
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
    /// Eigenvalues below zero by more than their error.
    pub negative: usize,
    /// Eigenvalues whose sign their error hides.
    pub zero: usize,
    /// Eigenvalues above zero by more than their error.
    pub positive: usize,
}

/// The verdict on a point where the gradient vanishes.
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
