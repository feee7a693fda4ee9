//! [`DiagonalPacBayes`]: a PAC-Bayes bound with a separate, optimised variance of each weight.

use std::f64::consts::{LN_2, PI};

use serde::{Deserialize, Serialize};

use super::pac_bayes::{check_draws_and_delta, check_model, error_of, kl_inverse};
use crate::error::{Result, check_positive, counted};
use crate::objective::Objective;
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::spectral::Estimate;
use crate::train::{Adam, SliceUpdate, Step};

/// Settings of a PAC-Bayes bound for the classifier that draws its weights from N(w, diag(s²)) for each prediction, with w and s
/// that minimise the bound (Dziugaite and Roy, "Computing Nonvacuous Generalization Bounds…", 2017).
///
/// Let the prior N(w₀, λI) be fixed before the n samples of the objective are drawn independently from one distribution, except
/// for λ = exp(−j/100), of which each j ≥ 1 has the probability 6/(π²j²). Then, with probability at least 1 − δ, the error e on that
/// distribution and the error ê on the samples satisfy
///
/// kl(ê‖e) ≤ (KL + ln(2√n π²j²/(3δ)))/n, KL = ½ Σ (sᵢ²/λ − 1 + (wᵢ − w₀ᵢ)²/λ + ln(λ/sᵢ²)).
///
/// Half of δ is spent on this, half on Chernoff's bound on ê, kl(mean‖ê) ≤ ln(2/δ)/m, where the mean is over m draws of the
/// weights.
///
/// w starts from the model's θ. w and ln s are optimised by Adam with gradients at one draw of the weights per step, on the mean
/// loss over ln 2, which is at least the error for cross-entropy, plus √((KL + ln(2√n/δ))/(2n)).
///
/// # A prior from data
/// w₀ may depend on other samples: train a model on one half of the data for w₀, train it further on all data for θ, and pass an
/// objective of the other half (Dziugaite, Hsu, Gharbieh, Arpino and Roy, "On the Role of Data in PAC-Bayes Bounds", 2021). The
/// bound holds because w₀ does not depend on the objective's samples, whose number is n. If it does, the result is not a bound.
///
/// See [`DiagonalPacBayesBound`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiagonalPacBayes {
    /// Number of steps of the optimisation.
    pub steps: usize,
    /// Learning rate of the first step. It decays to 0 as a cosine.
    pub learning_rate: f64,
    /// Standard deviation s from which each weight's starts.
    pub initial_deviation: f64,
    /// Number m of draws of the weights.
    pub draws: usize,
    /// Probability δ that the bound is wrong.
    pub delta: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for DiagonalPacBayes {
    /// 1,000 steps with a learning rate of 0.01 from deviations of 0.02; 1,000 draws; δ = 0.05; seed 0.
    fn default() -> Self {
        Self {
            steps: 1000,
            learning_rate: 0.01,
            initial_deviation: 0.02,
            draws: 1000,
            delta: 0.05,
            seed: 0,
        }
    }
}

/// Result of [`DiagonalPacBayes`].
///
/// ```
/// use loss_landscape::landscape::DiagonalPacBayes;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(400, 0.1, 0, &Device::Cpu)?;
/// let (first, second) = (data.select(&(0..200).collect::<Vec<_>>())?, data.select(&(200..400).collect::<Vec<_>>())?);
/// let model = Mlp::new(&[2, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let trainer = Trainer::adam(0.1).with_batch_size(20).with_epochs(10);
/// trainer.fit(&model, &first, &first)?;
/// let prior = model.parameters().to_flat()?; // from the first half
/// trainer.fit(&model, &data, &data)?;
/// let objective = Objective::of(&model, &second, Loss::CrossEntropy)?;
/// let found = DiagonalPacBayes::default().with_steps(200).run(&objective, &prior)?;
/// assert!(found.empirical_error.value < found.bound && found.bound < 0.5);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiagonalPacBayesBound {
    /// The bound: with probability 1 − δ, the error on unseen data is below it. 1 is no information.
    pub bound: f64,
    /// Error on the samples, as a mean over the draws.
    pub empirical_error: Estimate,
    /// KL divergence of the two distributions, in nats.
    pub kl: f64,
    /// Variance λ of the prior.
    pub prior_variance: f64,
    /// w, shape `(d,)`.
    pub center: Vec<f64>,
    /// s, shape `(d,)`.
    pub deviations: Vec<f64>,
    /// δ.
    pub delta: f64,
    /// Number n of samples.
    pub samples: usize,
}

/// Steps of ln λ: the variances of the prior are exp(−j/GRID).
const GRID: f64 = 100.0;

impl DiagonalPacBayes {
    /// Sets the number of steps of the optimisation.
    #[must_use]
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }
    /// Sets the learning rate of the first step.
    #[must_use]
    pub fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        self.learning_rate = learning_rate;
        self
    }
    /// Sets the standard deviation from which each weight's starts.
    #[must_use]
    pub fn with_initial_deviation(mut self, initial_deviation: f64) -> Self {
        self.initial_deviation = initial_deviation;
        self
    }
    /// Sets the number of draws of the weights.
    #[must_use]
    pub fn with_draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }
    /// Sets δ, the probability that the bound is wrong.
    #[must_use]
    pub fn with_delta(mut self, delta: f64) -> Self {
        self.delta = delta;
        self
    }
    /// Sets the seed of the draws.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Optimises w and s from the model's current parameters, and computes the bound. The model is not changed. `prior_center` is
    /// w₀: the weights that training started from, or weights from other samples.
    ///
    /// # Errors
    /// The model has batch normalisation; a learning rate or deviation that is not a positive number; fewer than 2 draws; δ is not
    /// between 0 and 1; `prior_center` has the wrong length or entries that are not finite; the dataset has no labels; a loss at a
    /// draw is not finite.
    pub fn run(
        &self,
        objective: &Objective,
        prior_center: &[f64],
    ) -> Result<DiagonalPacBayesBound> {
        check_draws_and_delta(self.draws, self.delta)?;
        check_model(objective, prior_center)?;
        check_positive(self.learning_rate, "the learning rate")?;
        check_positive(self.initial_deviation, "the initial deviation")?;
        let posterior = self.optimise(objective, prior_center)?;
        let errors = self.errors(objective, &posterior)?;
        let empirical_error = Estimate::from_samples(&errors);
        let (j, prior_variance) = nearest_variance(posterior.best_variance(prior_center));
        let kl = posterior.kl(prior_center, prior_variance);
        let n = objective.samples() as f64;
        let error_bound = kl_inverse(
            empirical_error.value,
            (2.0 / self.delta).ln() / self.draws as f64,
        );
        let weight = PI.powi(2) * j * j / (3.0 * self.delta);
        let complexity = (kl + (2.0 * n.sqrt() * weight).ln()) / n;
        Ok(DiagonalPacBayesBound {
            bound: kl_inverse(error_bound, complexity),
            empirical_error,
            kl,
            prior_variance,
            deviations: posterior.deviations(),
            center: posterior.center,
            delta: self.delta,
            samples: objective.samples(),
        })
    }

    fn optimise(&self, objective: &Objective, prior_center: &[f64]) -> Result<Posterior> {
        let theta = objective.parameters().to_flat()?;
        let d = theta.len();
        let mut posterior = Posterior {
            log_deviations: vec![self.initial_deviation.ln(); d],
            center: theta,
        };
        let n = objective.samples() as f64;
        // Of w and of ln s.
        let mut moments = [(); 4].map(|()| vec![0.0; d]);
        let mut progress = Progress::start("PAC-Bayes posterior");
        for step in 0..self.steps {
            let z = normal(d, Purpose::PacBayesSteps, self.seed, step as u64);
            let (_, gradient) = objective.gradient_at(&posterior.draw(&z))?;
            let variance = posterior.best_variance(prior_center);
            let complexity =
                posterior.kl(prior_center, variance) + (2.0 * n.sqrt() / self.delta).ln();
            // d√((KL + c)/2n) = dKL/(4n√((KL + c)/2n))
            let weight = 1.0 / (4.0 * n * (complexity / (2.0 * n)).sqrt());
            let done = step as f64 / self.steps as f64;
            let rate = self.learning_rate * 0.5 * (1.0 + (PI * done).cos());
            let (mut of_center, mut of_deviations) = (vec![0.0; d], vec![0.0; d]);
            for i in 0..d {
                let s = posterior.log_deviations[i].exp();
                let g = gradient[i] / LN_2;
                of_center[i] = g + weight * (posterior.center[i] - prior_center[i]) / variance;
                of_deviations[i] = g * z[i] * s + weight * (s * s / variance - 1.0);
            }
            let step_of_adam = Step {
                number: step as i32 + 1,
                learning_rate: rate,
                num_axes: 1,
            };
            let [m, v, log_m, log_v] = &mut moments;
            let adam = Adam::default();
            adam.update_f64(&mut posterior.center, &of_center, &mut [m, v], step_of_adam);
            let logs = &mut posterior.log_deviations;
            adam.update_f64(logs, &of_deviations, &mut [log_m, log_v], step_of_adam);
            progress.part(step + 1, self.steps);
        }
        Ok(posterior)
    }

    /// The error on the samples at each draw.
    fn errors(&self, objective: &Objective, posterior: &Posterior) -> Result<Vec<f64>> {
        let mut progress = Progress::start("PAC-Bayes");
        let errors = (0..self.draws).map(|draw| {
            let z = normal(
                posterior.center.len(),
                Purpose::PacBayes,
                self.seed,
                draw as u64,
            );
            let score = objective.score_at(&posterior.draw(&z))?;
            progress.part(draw + 1, self.draws);
            error_of(&score)
        });
        errors.collect()
    }
}

/// N(w, diag(s²))
struct Posterior {
    center: Vec<f64>,
    log_deviations: Vec<f64>,
}

impl Posterior {
    fn deviations(&self) -> Vec<f64> {
        self.log_deviations.iter().map(|s| s.exp()).collect()
    }

    /// w + sz
    fn draw(&self, z: &[f64]) -> Vec<f64> {
        let all = self.center.iter().zip(&self.log_deviations).zip(z);
        all.map(|((w, s), z)| w + s.exp() * z).collect()
    }

    /// (Σ sᵢ² + ‖w − w₀‖²)/d: the prior's variance with the lowest KL divergence.
    fn best_variance(&self, prior_center: &[f64]) -> f64 {
        self.second_moment(prior_center) / self.center.len() as f64
    }

    /// Σ sᵢ² + ‖w − w₀‖²
    fn second_moment(&self, prior_center: &[f64]) -> f64 {
        let all = self
            .center
            .iter()
            .zip(prior_center)
            .zip(&self.log_deviations);
        all.map(|((w, prior), s)| (2.0 * s).exp() + (w - prior).powi(2))
            .sum()
    }

    /// KL divergence from N(w₀, λI), for λ = `variance`.
    fn kl(&self, prior_center: &[f64], variance: f64) -> f64 {
        let d = self.center.len() as f64;
        let logs: f64 = self.log_deviations.iter().sum();
        0.5 * (self.second_moment(prior_center) / variance - d + d * variance.ln()) - logs
    }
}

/// Returns j and λ = exp(−j/100) nearest to `variance`, for j ≥ 1.
fn nearest_variance(variance: f64) -> (f64, f64) {
    let j = (-GRID * variance.ln()).round().max(1.0);
    (j, (-j / GRID).exp())
}

impl std::fmt::Display for DiagonalPacBayesBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "error on unseen data at most {:.4} with probability {}; on {}: {:.4} ± {:.1e}; KL {:.1} nats",
            self.bound,
            1.0 - self.delta,
            counted(self.samples, "sample"),
            self.empirical_error.value,
            self.empirical_error.standard_error,
            self.kl
        )
    }
}
