//! [`Report`]: the results of an analysis, with verdicts.

use serde::{Deserialize, Serialize};

use super::HessianMetrics;
use super::row::{Row, widened};
use super::sampling::{Groups, SamplingError};
use crate::error::{Result, counted};
use crate::landscape::{RandomSharpness, Sharpness};
use crate::objective::{Objective, Score};
use crate::spectral::{Bracket, Estimate, Short};
use crate::vector::norm;
use crate::verdict::SHARPNESS;

/// Training samples on which curvature and sharpness are measured.
///
/// ```
/// use loss_landscape::analysis::Subsample;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.with_samples(20, 7)?;
/// let report = analyzer.with_hessian(false).full_analysis()?;
/// assert_eq!(
///     report.subsample,
///     Subsample::Random {
///         samples: 20,
///         seed: 7
///     }
/// );
/// assert_eq!(report.train_samples, 60); // loss and gradient use all samples
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Subsample {
    /// All training samples.
    All,
    /// A random subset: [`Dataset::random`](crate::data::Dataset::random).
    Random {
        /// Number of samples.
        samples: usize,
        /// Seed of the draw.
        seed: u64,
    },
}

/// Increase of the loss within a ball.
///
/// See [`Report`] for an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharpnessMetrics {
    /// Largest increase found by random search.
    pub random: RandomSharpness,
    /// Worst case: the largest increase found by gradient ascent.
    pub worst: f64,
    /// Increase found from each start of the ascent.
    pub by_start: Vec<f64>,
    /// Whether the ascent converged from every start.
    pub converged: bool,
    /// The worst case of the quadratic model, or a bound on it; see [`WorstCase`](crate::landscape::WorstCase).
    pub quadratic: f64,
    /// ρ‖Tg‖, the first-order increase along the gradient.
    pub slope: f64,
    /// Sampling error of the random search, for the same perturbations; `None` if all samples were measured, or only one.
    pub random_sampling: Option<SamplingError>,
    /// Sampling error of the worst case.
    pub worst_sampling: Option<SamplingError>,
}

/// The geometry of a model's loss at its current θ. The loss is that of the data, without an L2 penalty of the training.
///
/// Its `Display` is a table of quantities with value, uncertainty and verdict: a condition number is excellent below 100,
/// good up to 1,000 and challenging above; sharpness is flat below 0.1, moderate up to 1 and sharp above. If the gradient is
/// small relative to the curvature ([`NewtonDecrement`](super::NewtonDecrement)), up to 5 negative eigenvalues mean near a
/// minimum, more mean likely a saddle point. The verdict says if the uncertainty reaches another band, or if the number has
/// no meaning.
///
/// Losses, accuracies and the gradient are measured on all training samples. On a [`Subsample`] the other numbers have a
/// 95 % confidence interval for their value on all training samples ([`SamplingError`]), except the number of negative
/// eigenvalues, the ratio of eigenvalues by magnitude and the effective rank, which hold for the measured samples only.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² at its minimum: within radius 0.05 the loss increases by at most 0.05² · 4.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse)?;
/// let report = analyzer.with_eigenvalues(1).full_analysis()?;
/// assert!((report.sharpness.worst - 0.01).abs() < 1e-6);
/// assert!(report.sharpness.random.maximum <= report.sharpness.worst);
/// assert_eq!((report.parameters, report.gradient_norm), (2, 0.0));
/// assert!(report.to_string().contains("condition number"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Number of parameters.
    pub parameters: usize,
    /// Number of training samples.
    pub train_samples: usize,
    /// Number of test samples.
    pub test_samples: usize,
    /// Training samples on which curvature and sharpness are measured.
    pub subsample: Subsample,
    /// Seed of all random vectors.
    pub seed: u64,
    /// Whether derivatives were computed by hand-derived rules instead of candle's automatic differentiation.
    pub hand_derived: bool,
    /// How derivatives were computed, and why not by hand-derived rules if they were not: the text of an
    /// [`Engine`](crate::objective::Engine).
    #[serde(default)]
    pub engine: String,
    /// Loss and accuracy on the training data.
    pub train: Score,
    /// Loss and accuracy on the test data.
    pub test: Score,
    /// Test loss − training loss.
    pub generalization_gap: f64,
    /// ‖∇L(θ)‖ on all training samples.
    pub gradient_norm: f64,
    /// Eigenvalues, trace and derived quantities; `None` if not computed.
    pub hessian: Option<HessianMetrics>,
    /// ε-sharpness.
    pub sharpness: SharpnessMetrics,
    /// ε-sharpness with perturbations proportional to the weights, within ten times the radius, as in Kwon et al., "ASAM",
    /// 2021. It is invariant under rescaling of layers.
    pub adaptive: SharpnessMetrics,
    /// Mean distance in random directions at which the loss has increased by 0.1; `None` if it does not increase that much.
    pub flatness: Option<Estimate>,
    /// Sampling error of the flatness, for the same directions.
    pub flatness_sampling: Option<SamplingError>,
}

impl SharpnessMetrics {
    pub(super) fn measure(
        objective: &Objective,
        settings: &Sharpness,
        groups: Option<&Groups>,
    ) -> Result<Self> {
        let (random, perturbation) = settings.random_search(objective)?;
        let worst = settings.worst_case(objective)?;
        let theta = objective.parameters().to_flat()?;
        let mut slope = objective.gradient()?;
        if settings.adaptive {
            slope.iter_mut().zip(&theta).for_each(|(g, t)| *g *= t);
        }
        let mut sampling = [None, None];
        if let Some(groups) = groups {
            let moved = |delta: &[f64]| theta.iter().zip(delta).map(|(t, d)| t + d).collect();
            let places: [Vec<f64>; 2] = [moved(&perturbation), moved(&worst.perturbation)];
            let rises = groups.means(|group| {
                let loss = group.loss()?;
                let [random, worst] = [0, 1].map(|i| group.loss_at(&places[i]));
                Ok([random? - loss, worst? - loss])
            })?;
            let values = [random.maximum, worst.rise];
            for (i, rise) in rises.iter().enumerate() {
                let found = groups.maximum(values[i], 10.0 * random.rounding, rise);
                sampling[i] = found.map(|found| SamplingError {
                    low: found.low.max(0.0), // δ = 0 is in the ball
                    ..found
                });
            }
        }
        let [random_sampling, worst_sampling] = sampling;
        Ok(Self {
            random,
            worst: worst.rise,
            by_start: worst.by_start,
            converged: worst.converged,
            quadratic: worst.quadratic,
            slope: settings.radius * norm(&slope),
            random_sampling,
            worst_sampling,
        })
    }

    fn rows(&self, name: &str, aside: &str) -> [Row; 2] {
        let rounding = self.random.rounding;
        let bracket = |found: f64, high: f64| Bracket {
            value: found,
            low: found - rounding,
            high: high + rounding,
        };
        let least = self.by_start.iter().copied().fold(self.worst, f64::min);
        let mut most = 2.0 * self.worst - least;
        if !self.converged {
            most = most.max(self.quadratic);
        }
        let random = bracket(self.random.maximum, self.random.maximum);
        let worst = bracket(self.worst, most);
        let flat = |x: f64| SHARPNESS.band(x) == Some(0);
        let words = |number: &Bracket| {
            if number.value <= rounding {
                "not meaningful: within the rounding error of the loss".into()
            } else if flat(number.value) && !flat(self.slope) {
                let slope = Short(self.slope);
                format!(
                    "no verdict: to first order the loss increases by {slope:.2} along the gradient"
                )
            } else {
                SHARPNESS.word(number) + aside + &SHARPNESS.advice(number.value)
            }
        };
        let wide_worst = widened(worst, self.worst_sampling);
        let wide_random = widened(random, self.random_sampling);
        let steep = flat(wide_random.value) && flat(self.slope) && !flat(wide_worst.high);
        let random_words = match steep && random.value > rounding {
            true => format!(
                "no verdict: random directions miss steep ones; the worst case is {}",
                SHARPNESS.word(&wide_worst)
            ),
            false => words(&wide_random),
        };
        let row = |how: &str, number: Bracket, sampling| {
            Row::from_bracket(&format!("{name}, {how}"), Some(number)).with_sampling(sampling)
        };
        [
            row("random search", random, self.random_sampling).with_verdict(random_words),
            row("worst case", worst, self.worst_sampling).with_verdict(words(&wide_worst)),
        ]
    }
}

impl Report {
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::new("training loss", self.train.loss),
            Row::new("test loss", self.test.loss),
            Row::new("generalization gap", self.generalization_gap),
        ];
        if let (Some(train), Some(test)) = (self.train.accuracy, self.test.accuracy) {
            let error = (test * (1.0 - test) / self.test_samples as f64).sqrt();
            rows.push(Row::new("training accuracy", train));
            rows.push(Row::new("test accuracy", test).with_uncertainty(error));
        }
        rows.push(Row::new("gradient norm", self.gradient_norm));
        rows.extend(self.hessian.iter().flat_map(HessianMetrics::rows));
        let aside = ", but depends on the scaling of layers";
        rows.extend(self.sharpness.rows("sharpness", aside));
        rows.extend(self.adaptive.rows("adaptive sharpness", ""));
        let flatness =
            Row::from_estimate("flatness", self.flatness).with_sampling(self.flatness_sampling);
        rows.push(match self.flatness {
            Some(_) => flatness,
            None => flatness.with_verdict("the loss does not increase by 0.1 in random directions"),
        });
        rows
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = match self.subsample {
            Subsample::All => "all training samples".to_owned(),
            Subsample::Random { samples, seed } => {
                format!(
                    "{samples} random of {} training samples, seed {seed}",
                    self.train_samples
                )
            }
        };
        writeln!(
            f,
            "{}, {} and {}; curvature on {on}\n\
             derivatives: {}\n\
             radius of sharpness {}, of adaptive sharpness {}; flatness for a loss increase of {}\n",
            counted(self.parameters, "parameter"),
            counted(self.train_samples, "training sample"),
            counted(self.test_samples, "test sample"),
            self.engine,
            self.sharpness.random.radius,
            self.adaptive.random.radius,
            super::FLATNESS_INCREASE
        )?;
        let sampled = self.subsample != Subsample::All;
        let wide = |interval: String| match sampled {
            true => format!("  {interval:<22}"),
            false => String::new(),
        };
        let header = wide("95 % on all samples".into());
        writeln!(
            f,
            "{:<34}{:>12}  {:>9}{}",
            "",
            "value",
            "±",
            header.trim_end()
        )?;
        for row in self.rows() {
            let value = row.value.map_or("—".into(), |x| format!("{:.5}", Short(x)));
            let error = row.uncertainty.map(|x| format!("{:.2}", Short(x)));
            let interval = row.sampling.map_or(String::new(), |s| {
                format!("{:.4} to {:.4}", Short(s.low), Short(s.high))
            });
            let line = format!(
                "{:<34}{value:>12}  {:>9}{}  {}",
                row.quantity,
                error.unwrap_or_default(),
                wide(interval),
                row.verdict
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
