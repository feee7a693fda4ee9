//! [`LearningCoefficientReport`]: an estimate of the local learning coefficient, with its diagnostics and verdict.

use serde::{Deserialize, Serialize};

use super::LearningCoefficient;
use super::sampling::Samples;
use crate::error::{Result, counted};
use crate::spectral::{Estimate, Short};

/// An estimate of the local learning coefficient.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² at its minimum: d = 2 directions of curvature 2 and 8.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let settings = LearningCoefficient::default().with_beta(500.0); // nβ = 1000
/// let found = settings.run(&objective)?;
/// let exact = 0.5 * (2_000.0 / 2_001.0 + 8_000.0 / 8_001.0); // γ = 1, because θ = 0
/// assert!((found.coefficient.value - exact).abs() < 1e-3, "{found}");
/// assert!(found.verdict.is_converged() && found.r_hat < 1.02);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LearningCoefficientReport {
    /// λ̂. Its samples are the chains. The error contains rounding and, with batches, [`step_bias`](Self::step_bias).
    pub coefficient: Estimate,
    /// Whether the estimate can be used, or why not.
    pub verdict: LearningCoefficientVerdict,
    /// Split R̂ of the chains, 1 if they agree (Gelman et al., 2013): the larger of that of nβ(L − L(w*)) and that with the
    /// control variate. Above 1.02 they disagree.
    pub r_hat: f64,
    /// Effective number of samples of all chains, from their autocorrelation.
    pub effective_samples: f64,
    /// Mean of (w − w*)·∇U over its exact value, which is 1 in equilibrium.
    pub balance: Estimate,
    /// Number of samples n.
    pub samples: usize,
    /// Number of parameters d.
    pub dim: usize,
    /// Inverse temperature β.
    pub beta: f64,
    /// Localisation γ.
    pub localization: f64,
    /// L(w*).
    pub loss: f64,
    /// Largest nβ(L(w*) − L(w)) that was found; 0 if no point is lower. λ̂ is too small by at least this.
    pub descent: f64,
    /// Rounding error of nβL(w*).
    pub rounding: f64,
    /// With batches, the bias of λ̂ on a quadratic loss without the control variate, which removes it there: ε E‖g‖²/8 for steps
    /// ε and gradients g of U. 0 without batches.
    pub step_bias: f64,
    /// Step size: of the leapfrog integrator, or ε of Langevin dynamics.
    pub step: f64,
    /// Mean acceptance probability of a step; 1 with batches, whose steps are always accepted.
    pub acceptance: f64,
    /// Share of the samples for which steps were unstable or the loss not finite. The exact sampler rejects these steps.
    pub diverged: f64,
    /// Number of samples of each chain in the burn-in. A sample is a trajectory, or ten steps with batches.
    pub burn_in: usize,
    /// Number of samples of each chain after the burn-in.
    pub kept: usize,
    /// Number of gradients.
    pub gradients: usize,
    /// Number of samples of each gradient, if not all.
    pub batch_size: Option<usize>,
}

/// Whether an estimate of the learning coefficient can be used.
///
/// See [`LearningCoefficientReport`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LearningCoefficientVerdict {
    /// The chains agree and the requested accuracy is reached.
    Converged,
    /// A loss clearly below L(w*) was found.
    NotAMinimum,
    /// R̂ is above 1.02.
    ChainsDisagree,
    /// (w − w*)·∇U does not have its expectation: the chains have not reached parts of the distribution.
    NotInEquilibrium,
    /// Steps with batches were unstable.
    Unstable,
    /// The gradients were used up before the requested accuracy was reached.
    TooFewSamples,
}

impl LearningCoefficientVerdict {
    /// Whether the chains agree and the requested accuracy is reached.
    pub fn is_converged(self) -> bool {
        self == Self::Converged
    }
}

impl std::fmt::Display for LearningCoefficientVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Converged => "converged",
            Self::NotAMinimum => {
                "not meaningful: θ is not a local minimum. Train longer, with a decreasing learning rate"
            }
            Self::ChainsDisagree => {
                "not meaningful: the chains disagree. Allow more gradients, or localise more strongly"
            }
            Self::NotInEquilibrium => {
                "not meaningful: the chains have not reached equilibrium. Allow more gradients, or localise more strongly"
            }
            Self::Unstable => {
                "not meaningful: steps were unstable. Use larger batches, or all samples"
            }
            Self::TooFewSamples => {
                "not converged to the requested accuracy. Allow more gradients"
            }
        })
    }
}

/// What is estimated.
pub(super) struct Setting {
    pub(super) samples: usize,
    pub(super) dim: usize,
    pub(super) beta: f64,
    pub(super) localization: f64,
    pub(super) loss: f64,
    /// Rounding error of nβL.
    pub(super) rounding: f64,
    /// Machine epsilon of the model's dtype.
    pub(super) epsilon: f64,
}

impl LearningCoefficientReport {
    pub(super) fn new(settings: &LearningCoefficient, samples: Samples, setting: Setting) -> Self {
        let equilibrium = &samples.equilibrium;
        let coefficient = equilibrium
            .mean
            .with_error(setting.rounding)
            // The control variate can remove all other errors.
            .with_error(64.0 * setting.epsilon * equilibrium.mean.value.abs())
            .with_error(equilibrium.step_bias);
        let descent = (-samples.lowest).max(0.0);
        let tolerance = 3.0 * setting.rounding + settings.relative_error * coefficient.value.abs();
        let verdict = if descent > tolerance {
            LearningCoefficientVerdict::NotAMinimum
        } else if settings.batch_size.is_some() && equilibrium.diverged > 0.0 {
            LearningCoefficientVerdict::Unstable
        } else if !equilibrium.agrees(settings.relative_error) {
            LearningCoefficientVerdict::ChainsDisagree
        } else if !equilibrium.is_balanced() {
            LearningCoefficientVerdict::NotInEquilibrium
        } else if !samples.is_accurate {
            LearningCoefficientVerdict::TooFewSamples
        } else {
            LearningCoefficientVerdict::Converged
        };
        Self {
            coefficient: Estimate {
                converged: verdict.is_converged(),
                ..coefficient
            },
            verdict,
            r_hat: equilibrium.r_hat(),
            effective_samples: equilibrium.effective(),
            balance: equilibrium.balance,
            samples: setting.samples,
            dim: setting.dim,
            beta: setting.beta,
            localization: setting.localization,
            loss: setting.loss,
            descent,
            rounding: setting.rounding,
            step_bias: equilibrium.step_bias,
            step: samples.step,
            acceptance: equilibrium.acceptance,
            diverged: equilibrium.diverged,
            burn_in: equilibrium.burn_in,
            kept: equilibrium.kept,
            gradients: samples.gradients,
            batch_size: settings.batch_size,
        }
    }

    /// Confidence interval of the expectation, for a confidence such as 0.95, by Student's distribution with one degree of
    /// freedom fewer than chains.
    ///
    /// # Errors
    /// A confidence that is not between 0 and 1.
    pub fn interval(&self, confidence: f64) -> Result<[f64; 2]> {
        self.coefficient.interval(confidence)
    }
}

impl std::fmt::Display for LearningCoefficientReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [value, error] = [self.coefficient.value, self.coefficient.standard_error].map(Short);
        write!(
            f,
            "λ̂ = {value:.5} ± {error:.2} (standard error, {}) at nβ = {:.4} and γ = {:.3}, d/2 = {}; ",
            counted(self.coefficient.samples, "chain"),
            Short(self.samples as f64 * self.beta),
            Short(self.localization),
            0.5 * self.dim as f64
        )?;
        write!(
            f,
            "R̂ = {:.3}, {:.0} effective samples from {}; {}",
            self.r_hat,
            self.effective_samples,
            counted(self.gradients, "gradient"),
            self.verdict
        )?;
        if self.descent > 0.01 * self.coefficient.value.abs() {
            write!(
                f,
                "; nβ(L(θ) − L) reaches {:.2}, by which λ̂ is too small",
                Short(self.descent)
            )?;
        }
        if self.step_bias > 0.0 {
            write!(f, "; bias of the steps up to {:.2}", Short(self.step_bias))?;
        }
        Ok(())
    }
}
