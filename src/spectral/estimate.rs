//! [`Estimate`] and [`Bracket`]: numbers with their errors.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::error::{Error, Result, counted};

/// A number estimated from random samples.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::Estimate;
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
    /// The mean of the samples, plus an exact part if the method has one.
    pub value: f64,
    /// Standard deviation of the value: s/√N for N samples with standard deviation s, wider for skewed samples, including
    /// rounding.
    pub standard_error: f64,
    /// Number of samples N; 0 if the value is exact.
    pub samples: usize,
    /// Number of matrix–vector products.
    pub products: usize,
    /// Whether the standard error reached the requested accuracy.
    pub converged: bool,
}

impl Estimate {
    /// The mean of N ≥ 2 samples, with its error [`widened`](Self::widened) by their skewness.
    pub(crate) fn from_samples(samples: &[f64]) -> Self {
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
        // From unbiased estimates of the second and third cumulants. For normal samples the mean of the square is `noise`. Half
        // of it is subtracted: the skewness of few samples is mostly smaller than that of their distribution.
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

    /// Widens the error for a mean with skewness γ, by the factor 1 + 2γ². Student's intervals of skewed means have too little
    /// coverage: at 95 % by 0.22γ² to second order, which a factor of 1 + γ² corrects (Hall, "The Bootstrap and Edgeworth
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

    /// Adds another independent error, such as rounding.
    pub(crate) fn with_error(self, error: f64) -> Self {
        Self {
            standard_error: self.standard_error.hypot(error),
            ..self
        }
    }

    /// Multiplies value and error by `factor`.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self {
            value: factor * self.value,
            standard_error: factor.abs() * self.standard_error,
            ..self
        }
    }

    /// Confidence interval of the exact value, for a confidence such as 0.95, by Student's distribution with N − 1 degrees of
    /// freedom.
    ///
    /// # Errors
    /// A confidence that is not between 0 and 1.
    pub fn interval(&self, confidence: f64) -> Result<[f64; 2]> {
        check_confidence(confidence)?;
        let freedom = (self.samples.max(2) - 1) as f64;
        let student = StudentsT::new(0.0, 1.0, freedom).map_err(|e| {
            Error::invalid(format!(
                "no interval from {}: {e}",
                counted(self.samples, "sample")
            ))
        })?;
        let reach = student.inverse_cdf(0.5 + confidence / 2.0) * self.standard_error;
        Ok([self.value - reach, self.value + reach])
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.samples {
            0 => "exact up to rounding".to_owned(),
            samples => format!("standard error, {}", counted(samples, "sample")),
        };
        write!(
            f,
            "{:.5} ± {:.2} ({kind}, {})",
            Short(self.value),
            Short(self.standard_error),
            counted(self.products, "product")
        )?;
        if !self.converged {
            write!(f, ", not converged to the requested accuracy")?;
        }
        Ok(())
    }
}

/// A number with certain bounds.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::Bracket;
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
    /// Best estimate.
    pub value: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound; infinite if there is none.
    pub high: f64,
}

impl Bracket {
    /// Bounds at the same distance on both sides.
    pub(crate) fn around(value: f64, error: f64) -> Self {
        Self {
            value,
            low: value - error,
            high: value + error,
        }
    }

    /// Distance of the value to the farther bound.
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

/// Refuses a confidence that is not between 0 and 1.
pub(super) fn check_confidence(confidence: f64) -> Result<()> {
    match confidence > 0.0 && confidence < 1.0 {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "the confidence is {confidence}: give a number between 0 and 1, such as 0.95"
        ))),
    }
}

/// Displays a number with as many significant digits as the precision of the format.
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
