//! [`LearningCoefficient`]: the local learning coefficient of a minimum.
//!
//! | file | contents |
//! | --- | --- |
//! | `report` | the result and its verdict |
//! | `sampling` | chains of a sampler: their burn-in, number of samples and means |
//! | `chains` | R̂, effective number of samples and error of several chains |
//! | `trajectory` | the no-U-turn sampler, with the gradient of all samples |
//! | `langevin` | stochastic gradient Langevin dynamics, with gradients of batches |

mod chains;
mod langevin;
mod report;
mod sampling;
mod trajectory;

#[cfg(test)]
mod tests;

pub use report::{LearningCoefficientReport, LearningCoefficientVerdict};

use rand::seq::index;
use serde::{Deserialize, Serialize};

use self::langevin::Langevin;
use self::sampling::{Chain, Sampler, Sampling, Target};
use self::trajectory::NoUTurn;
use crate::error::{Error, Result, check_positive, counted};
use crate::memory;
use crate::objective::Objective;
use crate::spectral::Short;
use crate::vector::{dot, largest, scale};

/// Smallest typical deviation of a weight, where all weights are 0.
const SMALLEST_DEVIATION: f64 = 1e-30;

/// Settings of an estimate of the local learning coefficient λ(w*) (Lau, Furman, Wang, Murfet and Wei, "The Local Learning
/// Coefficient", 2023):
///
/// λ̂(w*) = nβ (E L(w) − L(w*)), w ~ exp(−nβ L(w) − γ/2 ‖w − w*‖²)
///
/// for n samples and β = 1/ln n, which is Watanabe's WBIC ("A Widely Applicable Bayesian Information Criterion", 2013) at w*. w*
/// is the model's current θ. The volume of weights near w* with a loss below L(w*) + ε is proportional to ε^λ (ln 1/ε)^(m − 1)
/// for small ε. λ is d/2 for d parameters with a Hessian of full rank, and less if the minimum is degenerate.
///
/// # Expectation
///
/// λ̂ estimates the expectation at this nβ and γ, and its error is that of this number. It differs from λ:
///
/// - On a quadratic loss with eigenvalues h it is Σ ½ nβh/(nβh + γ): a direction counts if its curvature is larger than γ/nβ.
/// - With multiplicity m > 1 it is about λ − (m − 1)/ln(c nβ) for a constant c. This decreases slowly: for L = x²y², λ = ½,
///   m = 2 and γ = 1, it is 0.35 at nβ = 100 and 0.44 at nβ = 10⁶.
/// - If the loss has lower points near w*, it is too small by nβ times the difference.
///
/// # Method
///
/// By default chains of the no-U-turn sampler with the gradient of all samples: the distribution is exact, whatever the step size.
/// Its length is chosen by the trajectories themselves. Steps are halved at random, for valleys that become narrow. With a
/// [`batch_size`](Self::batch_size), it is stochastic gradient Langevin dynamics, w ← w − ½ε g + √ε ξ, whose step size is chosen
/// from the bias that it causes.
///
/// For each density exp(−U) the mean of (w − w*)·∇U is d. This identity is a control variate for the mean, with which the
/// expectation is exact on a quadratic loss, and a test of the sampling.
///
/// See [`LearningCoefficientReport`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LearningCoefficient {
    /// Inverse temperature β; `None`: 1/ln n.
    pub beta: Option<f64>,
    /// Localisation γ; `None`: d/‖w*‖², with which the deviations have at most the size of the weights, or 1 if w* = 0.
    pub localization: Option<f64>,
    /// Number of samples of each gradient; `None`: all, which is exact.
    pub batch_size: Option<usize>,
    /// Number of chains.
    pub chains: usize,
    /// Standard error, relative to the estimate, at which sampling stops.
    pub relative_error: f64,
    /// Number of gradients after which sampling stops, converged or not.
    pub max_gradients: usize,
    /// Seed of the chains.
    pub seed: u64,
}

impl Default for LearningCoefficient {
    /// β = 1/ln n, γ = d/‖w*‖², the gradient of all samples, 8 chains, relative error 2 %, at most 100,000 gradients, seed 0.
    fn default() -> Self {
        Self {
            beta: None,
            localization: None,
            batch_size: None,
            chains: 8,
            relative_error: 0.02,
            max_gradients: 100_000,
            seed: 0,
        }
    }
}

impl LearningCoefficient {
    /// Sets the inverse temperature β.
    #[must_use]
    pub fn with_beta(mut self, beta: f64) -> Self {
        self.beta = Some(beta);
        self
    }
    /// Sets the localisation γ.
    #[must_use]
    pub fn with_localization(mut self, localization: f64) -> Self {
        self.localization = Some(localization);
        self
    }
    /// Samples with gradients of batches of this size, for large datasets. This biases the distribution.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = Some(batch_size);
        self
    }
    /// Sets the number of chains.
    #[must_use]
    pub fn with_chains(mut self, chains: usize) -> Self {
        self.chains = chains;
        self
    }
    /// Sets the standard error, relative to the estimate, at which sampling stops.
    #[must_use]
    pub fn with_relative_error(mut self, relative_error: f64) -> Self {
        self.relative_error = relative_error;
        self
    }
    /// Sets the number of gradients after which sampling stops, converged or not.
    #[must_use]
    pub fn with_max_gradients(mut self, max_gradients: usize) -> Self {
        self.max_gradients = max_gradients;
        self
    }
    /// Sets the seed of the chains.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Estimates the coefficient at the model's current parameters.
    ///
    /// Chains that disagree, and an accuracy that is not reached, are not errors: see
    /// [`verdict`](LearningCoefficientReport::verdict).
    ///
    /// # Errors
    /// A setting out of range, or a localisation with deviations below the rounding of the weights; one sample without a β; a
    /// loss that is not finite at θ, or whose rounding exceeds 1/nβ; a mean loss of the chains below that at θ, which is then not
    /// a local minimum; too little memory; with a batch size, samples that are divided among ranks or read in parts, and batch
    /// statistics.
    pub fn run(&self, objective: &Objective) -> Result<LearningCoefficientReport> {
        self.check()?;
        let (beta, temperature) = self.temperature(objective.samples())?;
        let center = objective.parameters().to_flat()?;
        let localization = self.localization.unwrap_or_else(|| {
            let square = dot(&center, &center);
            if square > 0.0 {
                center.len() as f64 / square
            } else {
                1.0
            }
        });
        let deviation = 1.0 / localization.sqrt();
        let rounding = objective.parameters().epsilon() * largest(&center);
        if rounding.is_finite() && deviation < rounding.max(SMALLEST_DEVIATION) {
            return Err(Error::invalid(format!(
                "the localisation γ = {:.3} is too large: deviations of about 1/√γ = {:.1} are below the rounding of the weights. Use at \
                 most {:.1}",
                Short(localization),
                Short(deviation),
                Short(rounding.max(SMALLEST_DEVIATION).powi(-2))
            )));
        }
        // A trajectory keeps about two points and a momentum for each doubling.
        let numbers = 60.0 * self.chains as f64 * center.len() as f64;
        memory::check(8.0 * numbers, "the chains of all weights")?;

        let (loss, _) = objective.gradient_at(&center)?;
        let rounding = temperature * objective.rounding(&center, loss)?;
        if rounding > 1.0 {
            return Err(Error::invalid(format!(
                "the rounding of the loss times nβ is {:.1}, more than what is to be measured: use dtype f64, or a smaller β",
                Short(rounding)
            )));
        }
        let at = |x: &[f64]| -> Vec<f64> { center.iter().zip(x).map(|(c, x)| c + x).collect() };
        let excess = |x: &[f64]| scaled(temperature, loss, finite(objective.gradient_at(&at(x)))?);
        let target = Target {
            excess: &excess,
            localization,
        };
        let start = target.at(vec![0.0; center.len()])?;
        let start = start.ok_or_else(|| {
            Error::NotFinite(format!(
                "the loss or its gradient times nβ = {temperature} is not finite"
            ))
        })?;

        let batch = |x: &[f64], chain: &mut Chain| {
            let (n, size) = (objective.samples(), self.batch_size.unwrap_or_default());
            let drawn = index::sample(&mut chain.generator, n, size).into_vec();
            let batch = objective.with_batch(objective.data().select(&drawn)?);
            let reference = batch.loss_at(&center)?;
            scaled(temperature, reference, finite(batch.gradient_at(&at(x)))?)
        };
        let sampler: Box<dyn Sampler + '_> = match self.batch_size {
            None => Box::new(NoUTurn { target }),
            Some(size) => {
                objective.needs_all_samples("a gradient of a batch")?;
                objective.needs_independent_samples("a gradient of a batch")?;
                if size > objective.samples() {
                    return Err(Error::invalid(format!(
                        "a batch of {size} of {} samples: use at most all of them",
                        objective.samples()
                    )));
                }
                Box::new(Langevin {
                    target,
                    excess: &batch,
                    relative_bias: 0.5 * self.relative_error,
                })
            }
        };
        let sampling = Sampling {
            chains: self.chains,
            relative_error: self.relative_error,
            max_gradients: self.max_gradients,
            seed: self.seed,
            parallel: objective.is_hand_derived() && objective.has_all_samples(),
        };
        let samples = sampling.run(sampler.as_ref(), &start)?;
        if samples.equilibrium.is_negative() {
            return Err(Error::invalid(format!(
                "θ is not a local minimum: around it the mean loss of the chains is below L(θ) = {}, by {:.3}. Train longer, or \
                 localise more strongly than with γ = {:.3}",
                Short(loss),
                Short(-samples.equilibrium.mean.value / temperature),
                Short(localization)
            )));
        }
        Ok(LearningCoefficientReport::new(
            self,
            samples,
            report::Setting {
                samples: objective.samples(),
                dim: center.len(),
                beta,
                localization,
                loss,
                rounding,
                epsilon: objective.parameters().epsilon(),
            },
        ))
    }

    /// Returns β and nβ.
    fn temperature(&self, samples: usize) -> Result<(f64, f64)> {
        let n = samples as f64;
        let beta = match self.beta {
            Some(beta) => beta,
            None if samples >= 2 => 1.0 / n.ln(),
            None => {
                return Err(Error::invalid(format!(
                    "β = 1/ln n is not defined for n = {samples}: set β, or use more samples"
                )));
            }
        };
        Ok((beta, n * beta))
    }

    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("the inverse temperature β", self.beta),
            ("the localisation γ", self.localization),
            ("the relative error", Some(self.relative_error)),
        ] {
            if let Some(value) = value {
                check_positive(value, name)?;
            }
        }
        if self.chains < 2 {
            return Err(Error::invalid(format!(
                "{} cannot be compared: use at least 2 chains",
                counted(self.chains, "chain")
            )));
        }
        for (name, value) in [
            ("batch size", self.batch_size),
            ("maximum number of gradients", Some(self.max_gradients)),
        ] {
            if value == Some(0) {
                return Err(Error::invalid(format!("the {name} is 0: use at least 1")));
            }
        }
        Ok(())
    }
}

/// Turns a loss or gradient that is not finite into `None`.
fn finite(found: Result<(f64, Vec<f64>)>) -> Result<Option<(f64, Vec<f64>)>> {
    match found {
        Err(Error::NotFinite(_)) => Ok(None),
        found => found.map(Some),
    }
}

/// Returns nβ(L − L(w*)) and nβ∇L, if they are finite.
fn scaled(
    temperature: f64,
    reference: f64,
    found: Option<(f64, Vec<f64>)>,
) -> Result<Option<(f64, Vec<f64>)>> {
    Ok(found.and_then(|(loss, mut gradient)| {
        scale(&mut gradient, temperature);
        let excess = temperature * (loss - reference);
        (excess.is_finite() && dot(&gradient, &gradient).is_finite()).then_some((excess, gradient))
    }))
}
