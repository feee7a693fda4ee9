//! [`Estimate`] and [`Bracket`]: numbers with their uncertainty.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::error::{Error, Result};

/// A number estimated from random samples.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let (value, standard_error) = (10.0, 0.5);
/// let estimate = Estimate {
///     value,
///     standard_error,
///     samples: 11,
///     products: 11,
///     converged: true,
/// };
/// let [low, high] = estimate.interval(0.95)?; // Student's t for 10 degrees of freedom is 2.228
/// assert!(
///     (low - (10.0 - 2.228 * 0.5)).abs() < 1e-3 && (high - (10.0 + 2.228 * 0.5)).abs() < 1e-3
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean of the samples, plus what is known exactly.
    pub value: f64,
    /// Standard deviation of the value: s/√N for N samples with standard deviation s, widened where the samples are skewed,
    /// and what rounding adds to it.
    pub standard_error: f64,
    /// N; 0 where nothing had to be sampled.
    pub samples: usize,
    /// Matrix-vector products that it took.
    pub products: usize,
    /// Whether the standard error went below the one that was asked for.
    pub converged: bool,
}

impl Estimate {
    /// The mean of N ≥ 2 samples, with its error [`widened`](Self::widened) by their own skewness.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let n = samples.len() as f64;
        let mean = Self::mean(samples);
        let moment = |k| {
            samples
                .iter()
                .map(|s| (s - mean.value).powi(k))
                .sum::<f64>()
        };
        let (squares, cubes) = (moment(2), moment(3));
        if squares == 0.0 || n < 3.0 {
            return mean;
        }
        // From unbiased estimates of the second and third cumulant. For normal samples its mean is `noise`. Half of that is taken
        // off: the skewness of few samples is mostly less than that of their distribution.
        let square = cubes.powi(2) * n.powi(2) * (n - 1.0) / ((n - 2.0).powi(2) * squares.powi(3));
        let noise = 6.0 * n * (n - 1.0) / ((n - 2.0) * (n + 1.0) * (n + 3.0));
        mean.widened(((square - 0.5 * noise).max(0.0) / n).sqrt())
    }

    /// The mean of N ≥ 2 samples.
    pub(crate) fn mean(samples: &[f64]) -> Self {
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let squares = samples.iter().map(|s| (s - mean).powi(2)).sum::<f64>();
        Self {
            value: mean,
            standard_error: (squares / (n - 1.0) / n).sqrt(),
            samples: samples.len(),
            products: 0,
            converged: true,
        }
    }

    /// With the error of a mean that has this skewness γ: wider by 1 + 2 γ². Intervals of skewed means by Student's distribution
    /// hold the truth too rarely, to the second order by 0.22 γ² at 95 %, which 1 + γ² mends (Hall, "The Bootstrap and Edgeworth
    /// Expansion", 1992). The rest is for higher orders, which matter with few samples.
    pub(crate) fn widened(self, skewness: f64) -> Self {
        Self {
            standard_error: (1.0 + 2.0 * skewness * skewness) * self.standard_error,
            ..self
        }
    }

    /// A value without sampling error.
    pub(crate) fn exact(value: f64) -> Self {
        Self {
            value,
            standard_error: 0.0,
            samples: 0,
            products: 0,
            converged: true,
        }
    }

    /// With one more, independent error, such as that of rounding.
    pub(crate) fn with_error(self, error: f64) -> Self {
        Self {
            standard_error: self.standard_error.hypot(error),
            ..self
        }
    }

    /// The same in other units.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self {
            value: factor * self.value,
            standard_error: factor.abs() * self.standard_error,
            ..self
        }
    }

    /// The interval that holds the true value with this probability, such as 0.95, by Student's
    /// distribution with N − 1 degrees of freedom.
    ///
    /// # Errors
    /// A confidence that is not between 0 and 1.
    pub fn interval(&self, confidence: f64) -> Result<[f64; 2]> {
        if !(confidence > 0.0 && confidence < 1.0) {
            return Err(Error::invalid(format!(
                "a confidence of {confidence} is none: give a number between 0 and 1, such as 0.95"
            )));
        }
        let freedom = (self.samples.max(2) - 1) as f64;
        let student = StudentsT::new(0.0, 1.0, freedom).map_err(|e| {
            Error::invalid(format!("no interval from {} samples: {e}", self.samples))
        })?;
        let reach = student.inverse_cdf(0.5 + confidence / 2.0) * self.standard_error;
        Ok([self.value - reach, self.value + reach])
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.5} ± {:.2} (standard error, {} samples, {} products)",
            Short(self.value),
            Short(self.standard_error),
            self.samples,
            self.products
        )?;
        if !self.converged {
            write!(f, ", short of the accuracy that was asked for")?;
        }
        Ok(())
    }
}

/// A number with the certain bounds between which it lies.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let bracket = Bracket {
///     value: 2.5,
///     low: 2.25,
///     high: 3.0,
/// };
/// assert_eq!(bracket.to_string(), "2.5000 (between 2.2500 and 3.0000)");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bracket {
    /// The best guess.
    pub value: f64,
    /// It is not below this.
    pub low: f64,
    /// It is not above this; infinite where nothing bounds it.
    pub high: f64,
}

impl Bracket {
    /// How far the value is from the further of its bounds.
    pub(crate) fn error(&self) -> f64 {
        (self.high - self.value).max(self.value - self.low)
    }
}

impl std::fmt::Display for Bracket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [value, low, high] = [self.value, self.low, self.high].map(Short);
        write!(f, "{value:.5} (between {low:.5} and {high:.5})")
    }
}

/// Prints as many significant digits as the format's precision says.
pub(crate) struct Short(pub(crate) f64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(4) as i32;
        let size = self.0.abs();
        if size == 0.0 || !size.is_finite() {
            return write!(f, "{}", self.0);
        }
        let exponent = size.log10().floor() as i32;
        if (-4..7).contains(&exponent) {
            write!(f, "{:.*}", (digits - 1 - exponent).max(0) as usize, self.0)
        } else {
            write!(f, "{:.*e}", (digits - 1).max(0) as usize, self.0)
        }
    }
}
