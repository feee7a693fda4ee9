//! [`OutlierTest`]: the number of large eigenvalues that are separated from the others, by a test of the gaps.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::edge_gaps::{WINDOW, largest_gaps, log_gap};
use super::{Eigenpair, Short, Spectrum};
use crate::error::{Error, Result, counted};

/// A test for the number of outliers at the upper end of a spectrum.
///
/// If the k largest eigenvalues are outliers and the others form a bulk whose density ends like a square root, as that of Wishart
/// and Wigner matrices, then the gaps at the bulk's edge have the distribution of those of the Gaussian orthogonal ensemble
/// (Tracy and Widom, 1996; Soshnikov, "Universality at the edge of the spectrum in Wigner random matrices", 1999), whatever the
/// position and the scale of the edge. For each k the statistic compares the gap below λ_k with the five gaps after it:
///
/// r_k = (ln λ_k − ln λ_{k+1}) / (ln λ_{k+1} − ln λ_{k+6})
///
/// The p-value of r_k is the probability that the largest r of all tested gaps of a Gaussian matrix is at least r_k, from
/// simulated matrices. The number of outliers is the largest k whose p-value is at most the significance. So it exceeds the
/// number of outliers with a probability of at most the significance, however many gaps are tested. Similar tests with one gap
/// in the denominator choose the number of factors in econometrics (Onatski, "Testing Hypotheses About the Number of Factors in
/// Large Factor Models", 2009).
///
/// The statistic uses the bounds of the eigenvalues, so that errors of the eigenvalues make gaps less significant.
///
/// # Limitations
///
/// Outliers next to the bulk, without a clear gap, are not counted, and neither are those with a larger outlier's gap but none
/// of their own: only the last significant gap counts. Logarithms make the test nearly valid for bulks with a power law, whose
/// gaps decrease with the rank; with a population spectrum k^(−1/2) it counted outliers in 16 % of the cases at a significance
/// of 5 %, and independent eigenvalues, which do not repel each other, have more large gaps than the stated rate.
///
/// The count depends on the number of eigenvalues. Only the gaps above the last six are tested: an outlier below is not found, and
/// [`OutlierCount::is_last_gap`] shows when that is likely. With more gaps, each needs to be larger to be significant.
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::OutlierTest;
///
/// // Two outliers, and a bulk of evenly spaced eigenvalues.
/// let values = (0..30).map(|k| match k {
///     0 => 10.0,
///     1 => 7.0,
///     _ => 1.0 - 0.02 * f64::from(k),
/// });
/// let spectrum = Dense::new(Array2::from_diag(&Array1::from_iter(values)))?.eigen()?;
/// let found = OutlierTest::default().count(&spectrum)?;
/// assert_eq!(found.count, 2);
/// assert!(found.p_values[1] <= 0.001);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OutlierTest {
    /// Largest probability of counting too many outliers.
    pub significance: f64,
    /// Largest number of outliers that is tested; `None`: as many as the eigenvalues allow.
    pub max_outliers: Option<usize>,
    /// Number of simulated matrices. The smallest possible p-value is 1/(draws + 1).
    pub draws: usize,
    /// Seed of the simulated matrices.
    pub seed: u64,
}

impl Default for OutlierTest {
    /// Significance 5 %, all gaps, 999 simulated matrices, seed 0.
    fn default() -> Self {
        Self {
            significance: 0.05,
            max_outliers: None,
            draws: 999,
            seed: 0,
        }
    }
}

/// The number of outliers, and the significance of each gap; see [`OutlierTest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutlierCount {
    /// Number of outliers.
    pub count: usize,
    /// Largest probability that the count is too large.
    pub significance: f64,
    /// Largest eigenvalue that is not an outlier.
    pub edge: f64,
    /// r_k for k = 1, 2, …
    pub gaps: Vec<f64>,
    /// p-value of each r_k.
    pub p_values: Vec<f64>,
}

impl OutlierCount {
    /// Whether the last gap that was tested is significant. More eigenvalues may then show more outliers.
    pub fn is_last_gap(&self) -> bool {
        self.count == self.gaps.len()
    }
}

impl std::fmt::Display for OutlierCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let significance = 100.0 * self.significance;
        write!(
            f,
            "{} above {:.4}",
            counted(self.count, "outlier"),
            Short(self.edge)
        )?;
        match self.count {
            0 => {
                let smallest = self.p_values.iter().copied().fold(1.0, f64::min);
                write!(f, " (smallest p-value {smallest:.3}, ")?;
            }
            count => write!(f, " (p-value {:.3}, ", self.p_values[count - 1])?,
        }
        write!(
            f,
            "{} tested at {significance} %)",
            counted(self.gaps.len(), "gap")
        )?;
        match self.is_last_gap() {
            true => f.write_str(
                "; the last gap tested is significant: more eigenvalues may show more outliers",
            ),
            false => Ok(()),
        }
    }
}

/// Simulated statistics for a number of gaps, draws and a seed.
type Simulated = ([u64; 3], Arc<Vec<f64>>);

/// The last simulation.
static LAST: Mutex<Option<Simulated>> = Mutex::new(None);

impl OutlierTest {
    /// Smallest number of positive eigenvalues that can be tested.
    pub const MIN_VALUES: usize = WINDOW + 2;

    /// Sets the largest probability of counting too many outliers.
    #[must_use]
    pub fn with_significance(mut self, significance: f64) -> Self {
        self.significance = significance;
        self
    }

    /// Sets the largest number of outliers that is tested; `None`: as many as the eigenvalues allow.
    #[must_use]
    pub fn with_max_outliers(mut self, max_outliers: impl Into<Option<usize>>) -> Self {
        self.max_outliers = max_outliers.into();
        self
    }

    /// Sets the number of simulated matrices.
    #[must_use]
    pub fn with_draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// Sets the seed of the simulated matrices.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Number of the largest eigenvalues that can be tested: those that are positive beyond their error, without a missing one
    /// between them.
    pub(crate) fn num_testable(spectrum: &Spectrum) -> usize {
        let is_testable = |(i, pair): &(usize, &Eigenpair)| {
            pair.rank.is_some_and(|rank| rank.index == i + 1) && pair.bracket().low > 0.0
        };
        let pairs = spectrum.pairs.iter().enumerate();
        pairs.take_while(is_testable).count()
    }

    /// Counts the outliers among the largest eigenvalues of a spectrum. The first call simulates `draws` matrices, about one
    /// second for 999; they are kept for later calls with as many gaps.
    ///
    /// # Errors
    /// A significance that is not between 0 and 1, or below 1/(draws + 1); fewer than [`OutlierTest::MIN_VALUES`] positive
    /// eigenvalues; a `max_outliers` of 0, or one that needs more eigenvalues.
    pub fn count(&self, spectrum: &Spectrum) -> Result<OutlierCount> {
        if !(self.significance > 0.0 && self.significance < 1.0) {
            return Err(Error::invalid(format!(
                "the significance is {}: give a number between 0 and 1, such as 0.05",
                self.significance
            )));
        }
        if self.significance * (self.draws as f64 + 1.0) < 1.0 {
            return Err(Error::invalid(format!(
                "{} cannot give a p-value of {}: use at least {}",
                counted(self.draws, "draw"),
                self.significance,
                (1.0 / self.significance).ceil() - 1.0
            )));
        }
        let testable = Self::num_testable(spectrum);
        let tested = self
            .max_outliers
            .unwrap_or(testable.saturating_sub(WINDOW + 1));
        let needed = tested.max(1) + WINDOW + 1;
        if tested == 0 || testable < needed {
            return Err(Error::invalid(format!(
                "a test for up to {} needs the {needed} largest eigenvalues, positive beyond their errors, and there are \
                 {testable}: compute more of them, or test fewer outliers, at least 1",
                counted(tested.max(1), "outlier")
            )));
        }
        let bounds: Vec<[f64; 2]> = spectrum.pairs[..needed]
            .iter()
            .map(|pair| {
                let bracket = pair.bracket();
                [bracket.low.ln(), bracket.high.ln()]
            })
            .collect();
        let gaps: Vec<f64> = (0..tested).map(|i| log_gap(&bounds[i..])).collect();
        let simulated = self.simulated(tested)?;
        let p_values: Vec<f64> = gaps
            .iter()
            .map(|gap| {
                let larger = simulated.iter().filter(|s| *s >= gap).count();
                (larger + 1) as f64 / (simulated.len() + 1) as f64
            })
            .collect();
        let last = p_values.iter().rposition(|p| *p <= self.significance);
        let count = last.map_or(0, |i| i + 1);
        Ok(OutlierCount {
            count,
            significance: self.significance,
            edge: spectrum.pairs[count].value,
            gaps,
            p_values,
        })
    }

    /// The largest statistic of each simulated matrix.
    fn simulated(&self, tested: usize) -> Result<Arc<Vec<f64>>> {
        let key = [tested as u64, self.draws as u64, self.seed];
        let lock = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, simulated)) = &*lock()
            && *last == key
        {
            return Ok(simulated.clone());
        }
        let simulated = Arc::new(largest_gaps(tested, self.draws, self.seed)?);
        *lock() = Some((key, simulated.clone()));
        Ok(simulated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectral::Rank;

    /// A spectrum with these eigenvalues, each known up to `error`.
    fn spectrum(values: &[f64], error: f64) -> Spectrum {
        let pairs = values.iter().enumerate().map(|(i, value)| Eigenpair {
            value: *value,
            residual: error,
            vector: Vec::new(),
            rank: Some(Rank {
                index: i + 1,
                error: 0.0,
            }),
        });
        Spectrum {
            pairs: pairs.collect(),
            dim: 1000,
            products: 0,
            converged: true,
        }
    }

    #[test]
    fn errors_of_eigenvalues_make_gaps_less_significant() -> Result<()> {
        let values: Vec<f64> = (0..20)
            .map(|k| {
                if k == 0 {
                    2.0
                } else {
                    1.0 - 0.02 * f64::from(k)
                }
            })
            .collect();
        let test = OutlierTest::default().with_draws(99);
        let exact = test.count(&spectrum(&values, 0.0))?;
        let rough = test.count(&spectrum(&values, 0.2))?;
        assert_eq!((exact.count, rough.count), (1, 0));
        assert!(exact.gaps[0] > 2.0 * rough.gaps[0]);
        assert_eq!(exact.edge, values[1]);
        assert!(
            exact.to_string().starts_with("1 outlier above 0.98"),
            "{exact}"
        );
        assert!(!exact.is_last_gap());
        let first = test
            .clone()
            .with_max_outliers(1)
            .count(&spectrum(&values, 0.0))?;
        assert!(first.is_last_gap() && first.to_string().ends_with("more outliers"));
        // Negative eigenvalues are not tested.
        let negative = [&values[..8], &[-1.0; 12]].concat();
        assert_eq!(test.count(&spectrum(&negative, 0.0))?.gaps.len(), 2);
        Ok(())
    }

    #[test]
    fn bad_settings_are_refused() {
        let few = spectrum(&[3.0, 2.0, 1.0], 0.0);
        let message = |test: OutlierTest| test.count(&few).unwrap_err().to_string();
        let default = OutlierTest::default();
        assert!(message(default.clone()).contains("there are 3: compute more"));
        assert!(message(default.clone().with_max_outliers(0)).contains("at least 1"));
        assert!(message(default.clone().with_significance(0.0)).contains("between 0 and 1"));
        assert!(message(default.with_draws(9)).contains("use at least 19"));
    }
}
