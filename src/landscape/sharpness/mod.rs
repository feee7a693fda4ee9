//! Sharpness of a minimum: how much the loss increases near θ.
//!
//! | file | measure |
//! | --- | --- |
//! | `random_search` | largest increase at random points of a ball |
//! | `average` | mean increase over a sphere and over a Gaussian |
//! | `worst_case` | largest increase in a ball, by gradient ascent |
//! | `m_sharpness` | mean over small batches of the largest increase of their loss |
//! | `keskar` | largest increase in the box of Keskar et al. |
//! | `directional` | curvature along one direction |
//! | `preconditioned` | largest curvature in the metrics of SGD and of Adam |
//! | `sam` | ascent step of sharpness-aware minimisation |
//! | `flatness` | distance at which the loss has increased by a tolerance |
//! | `fisher_rao` | length of θ in the metric of the Fisher matrix |
//! | `relative_flatness` | traces of layers' Hessians, weighted by their units' weights |
//! | `normalized` | curvature of layers times the size of their weights, in the best units |
//! | `pac_bayes` | PAC-Bayes bound on the error on unseen data |
//! | `pac_bayes_diagonal` | the same with a separate, optimised variance of each weight |
//! | `evolution` | curvature and sharpness during training |
//! | `top_space` | leading eigenvectors and the gradient during training |

mod average;
mod directional;
mod evolution;
mod fisher_rao;
mod flatness;
mod keskar;
mod m_sharpness;
mod normalized;
mod pac_bayes;
mod pac_bayes_diagonal;
mod preconditioned;
mod random_search;
mod relative_flatness;
mod sam;
mod top_space;
mod weights;
mod worst_case;

pub use average::AverageSharpness;
pub use directional::directional_sharpness;
pub use evolution::{CurvatureSnapshot, Evolution, EvolutionSettings};
pub use fisher_rao::FisherRaoNorm;
pub use flatness::{Flatness, FlatnessReport};
pub use keskar::KeskarSharpness;
pub use m_sharpness::MSharpness;
pub use normalized::NormalizedSharpness;
pub use pac_bayes::{PacBayes, PacBayesBound, PacBayesRow};
pub use pac_bayes_diagonal::{DiagonalPacBayes, DiagonalPacBayesBound};
pub use preconditioned::PreconditionedSharpness;
pub use random_search::RandomSharpness;
pub use relative_flatness::RelativeFlatness;
pub use sam::SamStep;
pub use top_space::TopSpace;
pub use worst_case::WorstCase;

use std::fmt::Formatter;

use crate::error::{Error, Result, check_positive, counted};
use crate::memory;
use crate::objective::Objective;
use crate::operator::{Hessian, LinearOperator, Scaled};
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::spectral::{Estimate, Trace};
use crate::vector::scale;

/// Settings of the sharpness measures: how much the loss increases within a given radius.
///
/// A perturbation is δ = Tu with ‖u‖ ≤ ρ. Plain sharpness has T = 1. Adaptive sharpness has T = diag|θ| (Kwon et al.,
/// "ASAM", 2021). Unlike plain sharpness (Dinh et al., "Sharp Minima Can Generalize For Deep Nets", 2017), it is invariant
/// to rescalings of the layers that do not change the function.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² at its minimum: H = diag(2, 8).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let ball = Sharpness::new(0.1);
/// let worst = ball.worst_case(&objective)?.rise;
/// assert!((worst - 0.1f64.powi(2) * 8.0 / 2.0).abs() < 1e-6); // ρ²λ_max/2
/// assert!(ball.random(&objective)?.maximum <= worst);
/// assert_eq!(ball.with_adaptive(true).worst_case(&objective)?.rise, 0.0); // weights of 0 are not perturbed
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Sharpness {
    /// Radius ρ (also called ε) of the ball.
    pub radius: f64,
    /// Whether each weight is perturbed in proportion to its magnitude.
    pub adaptive: bool,
    /// Number of pairs ±δ of random perturbations.
    #[serde(alias = "samples")]
    pub pairs: usize,
    /// Number of starts of the searches for the largest increase.
    pub starts: usize,
    /// Maximum number of steps per start.
    pub steps: usize,
    /// Seed of the random perturbations and starts.
    pub seed: u64,
}

impl Sharpness {
    /// Creates settings for a ball of this radius: plain, 50 pairs of random perturbations, 3 starts of at most 100 steps,
    /// seed 0.
    pub fn new(radius: f64) -> Self {
        Self {
            radius,
            adaptive: false,
            pairs: 50,
            starts: 3,
            steps: 100,
            seed: 0,
        }
    }

    /// Sets whether each weight is perturbed in proportion to its magnitude.
    #[must_use]
    pub fn with_adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }
    /// Sets the number of pairs ±δ of random perturbations.
    #[must_use]
    pub fn with_pairs(mut self, pairs: usize) -> Self {
        self.pairs = pairs;
        self
    }
    /// Sets the number of starts of the searches for the largest rise.
    #[must_use]
    pub fn with_starts(mut self, starts: usize) -> Self {
        self.starts = starts;
        self
    }
    /// Sets the maximum number of steps per start.
    #[must_use]
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }
    /// Sets the seed of the random perturbations and starts.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks the radius.
    pub(crate) fn check(&self) -> Result<()> {
        check_positive(self.radius, "the radius")
    }

    /// Checks the radius and returns the neighbourhood of the current parameters.
    fn ball(&self, objective: &Objective) -> Result<Ball> {
        self.check()?;
        let theta = objective.parameters().to_flat()?;
        let stretch = match self.adaptive {
            true => theta.iter().map(|t| t.abs()).collect(),
            false => vec![1.0; theta.len()],
        };
        let center = objective.loss_at(&theta)?;
        Ok(Ball {
            rounding: objective.rounding(&theta, center)?,
            theta,
            stretch,
            center,
            epsilon: objective.parameters().epsilon(),
        })
    }

    /// Returns L(θ + Tu) − L(θ) and L(θ − Tu) − L(θ) for standard normal vectors u, each scaled by `factor(u)`.
    fn rises(
        &self,
        (task, purpose): (&'static str, Purpose),
        objective: &Objective,
        ball: &Ball,
        mut factor: impl FnMut(&[f64]) -> f64,
    ) -> Result<Vec<[f64; 2]>> {
        if self.pairs < 2 {
            return Err(Error::invalid(format!(
                "no standard error from {} of perturbations: use at least 2",
                counted(self.pairs, "pair")
            )));
        }
        memory::check(16.0 * self.pairs as f64, "the rises of all perturbations")?;
        let mut progress = Progress::start(task);
        let mut rises = Vec::with_capacity(self.pairs);
        while rises.len() < self.pairs {
            // Two u span a plane, on which four points share most of the work.
            let count = 2.min(self.pairs - rises.len());
            let directions: Vec<Vec<f64>> = (rises.len()..rises.len() + count)
                .map(|i| {
                    let mut u = normal(ball.theta.len(), purpose, self.seed, i as u64);
                    let factor = factor(&u);
                    scale(&mut u, factor);
                    ball.perturbation(&u)
                })
                .collect();
            let vectors = [&ball.theta[..], &directions[0], &directions[count - 1]];
            let points = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
            let scores = objective.scores_on_plane(vectors, &points[..2 * count])?;
            let both = scores.as_chunks::<2>().0.iter();
            rises.extend(both.map(|both| both.map(|score| score.loss - ball.center)));
            progress.part(rises.len(), self.pairs);
        }
        Ok(rises)
    }
}

/// The neighbourhood of θ.
struct Ball {
    theta: Vec<f64>,
    /// Diagonal of T.
    stretch: Vec<f64>,
    /// L(θ).
    center: f64,
    /// Machine epsilon of the model's dtype.
    epsilon: f64,
    /// Rounding error of a rise in the model's dtype.
    rounding: f64,
}

impl Ball {
    /// Returns the mean over pairs of rises, with the rounding of both losses included in its error.
    fn mean(&self, rises: &[[f64; 2]]) -> Estimate {
        let means: Vec<f64> = rises.iter().map(|[a, b]| 0.5 * (a + b)).collect();
        let mean = Estimate::from_samples(&means);
        let rise = 8.0 * self.epsilon * mean.value.abs();
        mean.with_error(self.rounding + rise)
    }

    /// Returns Tu.
    fn perturbation(&self, u: &[f64]) -> Vec<f64> {
        let pairs = u.iter().zip(&self.stretch);
        pairs.map(|(u, t)| u * t).collect()
    }

    /// Returns θ + Tu.
    fn point(&self, u: &[f64]) -> Vec<f64> {
        let all = self.theta.iter().zip(u).zip(&self.stretch);
        all.map(|((theta, u), t)| theta + t * u).collect()
    }

    /// Returns THT, the Hessian with respect to u at the centre.
    fn hessian(&self, objective: &Objective) -> Result<Scaled<Hessian>> {
        let hessian = objective.hessian().at(self.theta.clone())?;
        Scaled::new(hessian, self.stretch.clone())
    }
}

/// Estimates the trace used in quadratic predictions, to 2 %.
fn trace(operator: &impl LinearOperator, seed: u64) -> Result<Estimate> {
    let trace = Trace::default().with_relative_error(0.02).with_seed(seed);
    trace.trace(operator)
}

/// Writes the rounding of the loss if it dominates `error`.
fn write_rounding(f: &mut Formatter<'_>, rounding: f64, error: f64) -> std::fmt::Result {
    match rounding > 0.7 * error {
        true => write!(f, "; rounding of the loss: {rounding:.1e}"),
        false => Ok(()),
    }
}
