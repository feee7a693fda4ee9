//! [`PacBayes`]: a bound on the error on unseen data, low for flat minima near the prior.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, counted};
use crate::objective::{Objective, Score};
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::spectral::Estimate;
use crate::vector::{minus, norm};

/// Settings of a PAC-Bayes bound for the classifier that draws its weights from N(θ, σ²I) for each prediction (Dziugaite and
/// Roy, "Computing Nonvacuous Generalization Bounds…", 2017; with the constants of Maurer, 2004).
///
/// Let the prior N(θ₀, σ²I) be fixed before the n samples are drawn independently from one distribution. Then, with
/// probability at least 1 − δ, the error e on that distribution and the error ê on the samples satisfy
///
/// kl(ê‖e) ≤ (‖θ − θ₀‖²/(2σ²) + ln(2√n/δ))/n, kl(q‖p) = q ln(q/p) + (1 − q) ln((1 − q)/(1 − p)).
///
/// Each of K values of σ gets δ/K, so that the best may be chosen afterwards. Half of that is spent on the bound above, half
/// on Chernoff's bound on ê, kl(mean‖ê) ≤ ln(2K/δ)/m, where the mean is over m draws of the weights.
///
/// See [`PacBayesBound`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PacBayes {
    /// Values of σ to try, chosen without looking at the data.
    pub sigmas: Vec<f64>,
    /// Number m of draws of the weights, the same up to scale for each σ.
    pub draws: usize,
    /// Probability δ that the bound is wrong.
    pub delta: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for PacBayes {
    /// σ = 0.01, 0.02, 0.05, 0.1 and 0.2; 200 draws; δ = 0.05; seed 0.
    fn default() -> Self {
        Self {
            sigmas: vec![0.01, 0.02, 0.05, 0.1, 0.2],
            draws: 200,
            delta: 0.05,
            seed: 0,
        }
    }
}

/// Result of [`PacBayes`] for one σ.
///
/// See [`PacBayesBound`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PacBayesRow {
    /// σ.
    pub sigma: f64,
    /// ‖θ − θ₀‖²/(2σ²), in nats.
    pub kl: f64,
    /// Error on the samples, as a mean over the draws.
    pub empirical_error: Estimate,
    /// Loss L(θ + σz), as a mean over the draws z.
    pub loss: Estimate,
    /// Bound on the error on unseen data.
    pub bound: f64,
    /// A weaker form of the bound (McAllester, 2003), ê + √((KL + ln(2√n/δ))/(2n)), with the same bound on ê and the same δ.
    /// Vacuous above 1.
    pub mcallester: f64,
}

/// Result of [`PacBayes`]: the lowest bound, and one row per σ.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(200, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let prior = model.parameters().to_flat()?; // before training
/// Trainer::adam(0.1)
///     .with_batch_size(20)
///     .with_epochs(10)
///     .fit(&model, &data, &data)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let settings = PacBayes::default().with_sigmas(vec![0.1, 1.0]).with_draws(50);
/// let found = settings.run(&objective, &prior)?;
///
/// let squared: f64 = prior
///     .iter()
///     .zip(model.parameters().to_flat()?)
///     .map(|(a, b)| (a - b).powi(2))
///     .sum();
/// assert!((found.kl - squared / (2.0 * found.sigma.powi(2))).abs() < 1e-9);
/// for row in &found.rows {
///     assert!(row.empirical_error.value <= row.bound && row.bound <= row.mcallester);
///     assert!(found.bound <= row.bound);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PacBayesBound {
    /// Lowest bound: with probability 1 − δ, the error on unseen data is below it.
    pub bound: f64,
    /// σ of the lowest bound.
    pub sigma: f64,
    /// ‖θ − θ₀‖²/(2σ²) of the lowest bound, in nats.
    pub kl: f64,
    /// Error on the samples for this σ.
    pub empirical_error: Estimate,
    /// δ.
    pub delta: f64,
    /// One row per σ, in the given order. All bounds hold simultaneously.
    pub rows: Vec<PacBayesRow>,
}

impl PacBayes {
    /// Sets the values of σ to try. Choose them without looking at the data.
    #[must_use]
    pub fn with_sigmas(mut self, sigmas: Vec<f64>) -> Self {
        self.sigmas = sigmas;
        self
    }
    /// Sets the number of draws of the weights per σ.
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

    /// Computes the bound at the model's current parameters. `prior_center` is the centre of the prior, for example the weights
    /// that training started from. It must not depend on the data.
    ///
    /// # Errors
    /// The model has batch normalisation; there is no σ, or one is not a positive number; there are fewer than 2 draws; δ is not
    /// between 0 and 1; `prior_center` has the wrong length or entries that are not finite; the dataset has no labels; the loss
    /// at a draw is not finite.
    pub fn run(&self, objective: &Objective, prior_center: &[f64]) -> Result<PacBayesBound> {
        self.check()?;
        check_model(objective, prior_center)?;
        let theta = objective.parameters().to_flat()?;
        let distance = norm(&minus(&theta, prior_center));
        let scores = self.scores(objective, &theta)?;
        let rows = self
            .sigmas
            .iter()
            .zip(scores)
            .map(|(sigma, (errors, losses))| {
                // σ² underflows for small σ, and 0/0 is NaN.
                let kl = 0.5 * (distance / sigma).powi(2);
                self.row(*sigma, kl, objective.samples(), &errors, &losses)
            });
        let rows: Vec<PacBayesRow> = rows.collect();
        let best = rows.iter().min_by(|a, b| a.bound.total_cmp(&b.bound));
        let best = best.cloned();
        let best =
            best.ok_or_else(|| Error::invalid("there are no values of σ: give at least one"))?;
        Ok(PacBayesBound {
            bound: best.bound,
            sigma: best.sigma,
            kl: best.kl,
            empirical_error: best.empirical_error,
            delta: self.delta,
            rows,
        })
    }

    fn check(&self) -> Result<()> {
        if self.sigmas.is_empty() {
            return Err(Error::invalid(
                "there are no values of σ: give at least one",
            ));
        }
        let wrong = |sigma: &&f64| !(**sigma > 0.0 && sigma.is_finite());
        if let Some(sigma) = self.sigmas.iter().find(wrong) {
            return Err(Error::invalid(format!(
                "σ = {sigma} is not a standard deviation: use finite numbers above 0"
            )));
        }
        check_draws_and_delta(self.draws, self.delta)
    }

    /// Returns, for each σ, the errors and the losses of all draws.
    fn scores(&self, objective: &Objective, theta: &[f64]) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
        let points: Vec<[f64; 2]> = self.sigmas.iter().map(|sigma| [*sigma, 0.0]).collect();
        let mut scores = vec![(Vec::new(), Vec::new()); self.sigmas.len()];
        let mut progress = Progress::start("PAC-Bayes");
        for draw in 0..self.draws {
            let z = normal(theta.len(), Purpose::PacBayes, self.seed, draw as u64);
            let found = objective.scores_on_plane([theta, &z, &z], &points)?;
            for (score, (errors, losses)) in found.iter().zip(&mut scores) {
                errors.push(error_of(score)?);
                losses.push(score.loss);
            }
            progress.part(draw + 1, self.draws);
        }
        Ok(scores)
    }

    fn row(&self, sigma: f64, kl: f64, n: usize, errors: &[f64], losses: &[f64]) -> PacBayesRow {
        let share = self.delta / (2.0 * self.sigmas.len() as f64);
        let empirical_error = Estimate::from_samples(errors);
        let error_bound = kl_inverse(empirical_error.value, -share.ln() / self.draws as f64);
        let n = n as f64;
        let complexity = (kl + (2.0 * n.sqrt() / share).ln()) / n;
        PacBayesRow {
            sigma,
            kl,
            empirical_error,
            loss: Estimate::from_samples(losses),
            bound: kl_inverse(error_bound, complexity),
            mcallester: error_bound + (complexity / 2.0).sqrt(),
        }
    }
}

/// Checks what the bound assumes of the model, and the prior's centre.
pub(super) fn check_model(objective: &Objective, prior_center: &[f64]) -> Result<()> {
    let parameters = objective.parameters();
    if parameters.statistics().len() > 0 {
        return Err(Error::invalid(
            "the model has batch normalisation, whose running statistics depend on the samples and are not part of the KL \
             divergence, so the bound would not hold: use a model without it, such as one with \
             Norm::Group",
        ));
    }
    parameters.check_vector(prior_center, "prior's centre")
}

pub(super) fn check_draws_and_delta(draws: usize, delta: f64) -> Result<()> {
    if draws < 2 {
        return Err(Error::invalid(format!(
            "no standard error from {} of the weights: use at least 2",
            counted(draws, "draw")
        )));
    }
    if !(delta > 0.0 && delta < 1.0) {
        return Err(Error::invalid(format!(
            "δ = {delta} is not a probability: use a number between 0 and 1, such as 0.05"
        )));
    }
    Ok(())
}

/// The classification error of a draw.
pub(super) fn error_of(score: &Score) -> Result<f64> {
    let accuracy = score.accuracy.ok_or_else(|| {
        Error::invalid(
            "the bound is on the classification error, and this dataset has values, not \
             labels: build it with Dataset::classification",
        )
    })?;
    Ok(1.0 - accuracy)
}

/// Returns the largest p ≤ 1 with kl(q‖p) ≤ c, rounded up, for 0 ≤ q ≤ 1 and c ≥ 0.
pub(super) fn kl_inverse(q: f64, c: f64) -> f64 {
    let (mut low, mut high) = (q, 1.0);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return high;
        }
        if binary_kl(q, middle) <= c {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// Returns q ln(q/p) + (1 − q) ln((1 − q)/(1 − p)).
fn binary_kl(q: f64, p: f64) -> f64 {
    // a ln(a/b) with b = a + change; each form is accurate where the other cancels.
    let term = |a: f64, b: f64, change: f64| match change.abs() < 0.5 * a {
        true => -a * (change / a).ln_1p(),
        false if a > 0.0 => a * (a / b).ln(),
        false => 0.0,
    };
    term(q, p, p - q) + term(1.0 - q, 1.0 - p, q - p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_inverse_matches_closed_forms() {
        for c in [1e-12, 1e-3, 0.1, 1.0, 5.0, 100.0] {
            assert!((kl_inverse(0.0, c) + (-c).exp_m1()).abs() < 1e-15, "{c}");
            assert_eq!(kl_inverse(1.0, c), 1.0);
        }
        for q in [0.0, 1e-9, 0.1, 0.5, 0.99, 1.0] {
            assert!((kl_inverse(q, 0.0) - q).abs() < 1e-15, "{q}");
            assert_eq!(kl_inverse(q, f64::INFINITY), 1.0);
        }
        // kl(½‖p) = −½ ln(4p(1 − p))
        for c in [1e-6f64, 0.01, 0.3, 2.0] {
            let p = 0.5 + 0.5 * (-(-2.0 * c).exp_m1()).sqrt();
            assert!((kl_inverse(0.5, c) - p).abs() < 1e-14, "{c}");
        }
    }

    #[test]
    fn kl_inverse_inverts_kl_and_increases() {
        let grid = |n: usize| (0..=n).map(move |i| i as f64 / n as f64);
        for q in grid(50).take(46) {
            let mut last = q;
            for c in grid(40).skip(1).map(|c| 2.0 * c) {
                let p = kl_inverse(q, c);
                // Near 1, kl changes by this much from one floating-point number to the next.
                let step = f64::EPSILON * p / (1.0 - p);
                assert!((binary_kl(q, p) - c).abs() < 1e-12 + 2.0 * step, "{q}, {c}");
                assert!(p > last && p < 1.0, "{q}, {c}");
                assert!(p <= q + (c / 2.0).sqrt(), "{q}, {c}: Pinsker");
                last = p;
            }
        }
        for c in [0.01, 0.1, 1.0] {
            let values: Vec<f64> = grid(50).map(|q| kl_inverse(q, c)).collect();
            assert!(values.is_sorted(), "{c}");
        }
    }
}
