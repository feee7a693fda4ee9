//! [`Evolution`]: curvature and sharpness during training.

use serde::{Deserialize, Serialize};

use super::{Sharpness, TopSpace};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::landscape::slices::StatisticsSource;
use crate::objective::Objective;
use crate::operator::{Hessian, LinearOperator};
use crate::parameters::Restore;
use crate::progress::Progress;
use crate::spectral::{Bracket, Estimate, Followed, Following, Lanczos, Spectrum, Trace, Which};
use crate::train::Trajectory;
use crate::vector::norm;

/// What to measure at each snapshot of a training.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let mut trajectory = Trajectory::every(1)?;
/// trajectory.push(0, model.parameters())?;
/// let settings = EvolutionSettings::default().with_test_data(data).with_trace(None).with_sharpness(None);
/// let snapshot = settings.run(&objective, &trajectory)?.snapshots.remove(0);
/// assert_eq!(snapshot.test_loss, Some(snapshot.loss));
/// assert!(snapshot.trace.is_none() && snapshot.sharpness.is_none());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvolutionSettings {
    /// Also measure the loss on this data. Not serialised.
    #[serde(skip)]
    pub test_data: Option<Dataset>,
    /// Search for the extreme eigenvalues.
    pub lanczos: Lanczos,
    /// Estimate of the trace; `None` leaves it out.
    pub trace: Option<Trace>,
    /// Random search for the largest rise of the loss; `None` leaves it out.
    pub sharpness: Option<Sharpness>,
    /// Number of leading eigenvectors of the Hessian with which the gradient and the last snapshot are compared; `None` leaves it
    /// out.
    #[serde(default)]
    pub top_space: Option<usize>,
}

/// Loss, gradient norm, extreme eigenvalues, the trace to 5 %, and the largest rise within a radius of 0.05 over 10 pairs of
/// random perturbations.
impl Default for EvolutionSettings {
    fn default() -> Self {
        Self {
            test_data: None,
            lanczos: Lanczos::default(),
            trace: Some(Trace::default().with_relative_error(0.05)),
            sharpness: Some(Sharpness::new(0.05).with_pairs(10)),
            top_space: None,
        }
    }
}

impl EvolutionSettings {
    /// Also measures the loss on this data.
    #[must_use]
    pub fn with_test_data(mut self, test_data: Dataset) -> Self {
        self.test_data = Some(test_data);
        self
    }

    /// Sets the search for the extreme eigenvalues.
    #[must_use]
    pub fn with_lanczos(mut self, lanczos: Lanczos) -> Self {
        self.lanczos = lanczos;
        self
    }

    /// Sets how the trace is estimated; `None` leaves it out.
    #[must_use]
    pub fn with_trace(mut self, trace: impl Into<Option<Trace>>) -> Self {
        self.trace = trace.into();
        self
    }

    /// Sets the random search for the largest rise of the loss; `None` leaves it out.
    #[must_use]
    pub fn with_sharpness(mut self, sharpness: impl Into<Option<Sharpness>>) -> Self {
        self.sharpness = sharpness.into();
        self
    }

    /// Also measures the fraction of the gradient in the span of the `k` leading eigenvectors of the Hessian at each snapshot
    /// (Gur-Ari, Roberts and Dyer, "Gradient Descent Happens in a Tiny Subspace", 2018), and how this space moves: see [`TopSpace`].
    /// Each snapshot then takes a search for k + 1 eigenvectors, which starts from those of the last one.
    #[must_use]
    pub fn with_top_space(mut self, k: impl Into<Option<usize>>) -> Self {
        self.top_space = k.into();
        self
    }

    /// Measures every snapshot of `trajectory`, with the running statistics of batch normalisation recorded there. The model's
    /// parameters are restored afterwards, also after an error.
    ///
    /// The extreme eigenvalues are followed from snapshot to snapshot by [`Following`], which saves products where θ changes
    /// little. It checks at some of the snapshots that they are the extreme ones: at the first one, at least at every 25th one, and
    /// after a large change; see [`CurvatureSnapshot::snapshots_since_check`].
    ///
    /// # Errors
    /// The trajectory has no snapshots, belongs to another model or lacks the model's running statistics; 0 leading eigenvectors, or
    /// more than parameters; as [`Lanczos::run`],
    /// [`Trace::trace`] and [`Sharpness::random`].
    pub fn run(&self, objective: &Objective, trajectory: &Trajectory) -> Result<Evolution> {
        if trajectory.is_empty() {
            return Err(Error::invalid(
                "the trajectory has no snapshots: record some with Trainer::fit_recorded",
            ));
        }
        let test = match &self.test_data {
            Some(test) => Some(objective.with_data(test)?),
            None => None,
        };
        let dim = objective.dim();
        if let Some(k) = self.top_space.filter(|k| *k == 0 || *k > dim) {
            return Err(Error::invalid(format!(
                "{k} leading eigenvectors of a matrix with {dim} rows: ask for 1 to {dim}"
            )));
        }
        let lanczos = self.lanczos.clone().with_which(Which::BothEnds);
        let mut following = Following::new(lanczos, 2.min(dim));
        let mut last_top: Option<Spectrum> = None;
        let mut progress = Progress::start("evolution");
        let parameters = objective.parameters();
        let statistics = match objective.uses_running_statistics() {
            true => StatisticsSource::Snapshots,
            false => StatisticsSource::from_objective(objective),
        };
        let all = parameters.iter().chain(parameters.statistics());
        let _restore = Restore::new(all.map(|(_, var)| var))?;
        let mut snapshots = Vec::with_capacity(trajectory.len());
        for (i, step) in trajectory.steps().iter().enumerate() {
            match objective.uses_running_statistics() {
                true => trajectory.restore(i, parameters)?,
                false => parameters.set_flat(&trajectory.snapshot(i)?)?,
            }
            let hessian = objective.hessian();
            let ends = following.next(&hessian)?;
            let gradient = objective.gradient()?;
            let top_space = match self.top_space {
                Some(k) => {
                    let top = self.leading_pairs(&hessian, k, last_top.as_ref())?;
                    let found = TopSpace::measure(&top, k, &gradient, last_top.as_ref())?;
                    last_top = Some(top);
                    Some(found)
                }
                None => None,
            };
            snapshots.push(CurvatureSnapshot {
                step: *step,
                loss: objective.loss()?,
                test_loss: test.as_ref().map(Objective::loss).transpose()?,
                gradient_norm: norm(&gradient),
                largest: bracket(&ends, 0),
                smallest: bracket(&ends, ends.spectrum.pairs.len() - 1),
                snapshots_since_check: ends.points_since_check,
                trace: match &self.trace {
                    Some(trace) => Some(trace.trace(&hessian)?),
                    None => None,
                },
                sharpness: match &self.sharpness {
                    Some(sharpness) => Some(sharpness.random(objective)?.maximum),
                    None => None,
                },
                top_space,
            });
            progress.part(i + 1, trajectory.len());
        }
        Ok(Evolution {
            snapshots,
            statistics,
        })
    }

    /// The `k` leading eigenpairs of the Hessian, and one more for the gap after them. `last` are those of the last snapshot.
    fn leading_pairs(
        &self,
        hessian: &Hessian,
        k: usize,
        last: Option<&Spectrum>,
    ) -> Result<Spectrum> {
        let mut lanczos = self.lanczos.clone().with_which(Which::Largest);
        if let Some(last) = last {
            let vectors = last.pairs.iter().map(|pair| pair.vector.clone());
            lanczos = lanczos.with_start_vectors(vectors.collect());
        }
        lanczos.run(hessian, (k + 1).min(hessian.dim()))
    }
}

/// Bounds of the `index`-th of the followed eigenvalues. If this point was not checked, they are those of some eigenvalue.
fn bracket(followed: &Followed, index: usize) -> Bracket {
    let pair = &followed.spectrum.pairs[index];
    match followed.points_since_check {
        0 => pair.bracket(),
        _ => Bracket::around(pair.value, pair.residual),
    }
}

/// Loss and curvature at the snapshots of a training.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: the curvature is the same everywhere.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let mut trajectory = Trajectory::every(5)?;
/// Trainer::sgd(0.1)
///     .with_epochs(10)
///     .fit_recorded(&model, &data, &data, &mut trajectory)?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let evolution = EvolutionSettings::default().run(&objective, &trajectory)?;
/// assert_eq!(evolution.snapshots.len(), 3); // after 0, 5 and 10 steps
/// for snapshot in &evolution.snapshots {
///     assert!(
///         (snapshot.largest.value - 8.0).abs() < 1e-6 && (snapshot.smallest.value - 2.0).abs() < 1e-6
///     );
/// }
/// assert!(evolution.snapshots[2].loss < evolution.snapshots[0].loss);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evolution {
    /// The snapshots, in order.
    #[serde(alias = "moments")]
    pub snapshots: Vec<CurvatureSnapshot>,
    /// Source of the batch-normalisation statistics.
    #[serde(default)]
    pub statistics: StatisticsSource,
}

/// Loss and curvature at one snapshot.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let bracket = |value| loss_landscape::spectral::Bracket {
///     value,
///     low: value - 0.1,
///     high: value + 0.1,
/// };
/// let snapshot = loss_landscape::landscape::CurvatureSnapshot {
///     step: 100,
///     loss: 0.3,
///     test_loss: None,
///     gradient_norm: 0.01,
///     largest: bracket(8.0),
///     smallest: bracket(-2.0),
///     snapshots_since_check: 0,
///     trace: None,
///     sharpness: None,
///     top_space: None,
/// };
/// let ratio = snapshot.sharpness_ratio(); // λ_max/|λ_min|
/// assert_eq!(ratio.value, 4.0);
/// assert!(ratio.low < 4.0 && 4.0 < ratio.high);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvatureSnapshot {
    /// Number of training steps before the snapshot.
    pub step: usize,
    /// L(θ) on the objective's data.
    pub loss: f64,
    /// Loss on the test data.
    pub test_loss: Option<f64>,
    /// ‖∇L(θ)‖.
    pub gradient_norm: f64,
    /// λ_max of the Hessian, with bounds from its residual.
    pub largest: Bracket,
    /// λ_min of the Hessian, with bounds from its residual.
    pub smallest: Bracket,
    /// Number of snapshots since the last one at which λ_max and λ_min were checked to be the extreme eigenvalues, 0 if they were
    /// checked at this one. Otherwise the bounds are those of an eigenvalue that was extreme at the last check, or has overtaken
    /// it since; a new one can be further out. See [`Following`].
    #[serde(default)]
    pub snapshots_since_check: usize,
    /// tr H.
    pub trace: Option<Estimate>,
    /// Largest rise L(θ + δ) − L(θ) found for ‖δ‖ ≤ ρ.
    pub sharpness: Option<f64>,
    /// The span of the leading eigenvectors of the Hessian.
    #[serde(default)]
    pub top_space: Option<TopSpace>,
}

impl CurvatureSnapshot {
    /// Returns λ_max/|λ_min|; the upper bound is infinite if λ_min may be 0.
    pub fn sharpness_ratio(&self) -> Bracket {
        let magnitude = |value: f64| value.abs();
        let [low, high] = [self.smallest.low, self.smallest.high];
        let (min, max) = match low <= 0.0 && high >= 0.0 {
            true => (0.0, magnitude(low).max(magnitude(high))),
            false => (
                magnitude(low).min(magnitude(high)),
                magnitude(low).max(magnitude(high)),
            ),
        };
        Bracket {
            value: self.largest.value / magnitude(self.smallest.value),
            low: self.largest.low / max,
            high: self.largest.high / min,
        }
    }
}
