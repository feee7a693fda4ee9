//! The full geometry of a model's loss in one call: [`Analyzer`], and the [`Report`] that it makes.

mod hessian;
mod report;
mod row;

pub use hessian::{Eigenvalue, HessianMetrics, NegativeEigenvalues};
pub use report::{Report, SharpnessMetrics, Subsample};

use std::sync::Arc;

use candle_core::{Module, Tensor};

use crate::data::{Dataset, Targets};
use crate::error::{Error, Result};
use crate::landscape::align::hidden_units;
use crate::landscape::{
    Connectivity, Curve, Evolution, Flatness, PathTrainer, Plane, RunningStatistics, Sharpness,
    Watch,
};
use crate::model::{LayerKind, Model, Parameters};
use crate::objective::{Loss, Objective};
use crate::spectral::{Estimate, Lanczos, Trace};
use crate::train::{Trainer, Trajectory};

/// The rise of the loss up to which the surroundings count as flat.
const RISE: f64 = 0.1;

/// A model with its data, to be analysed where the model stands: after more training, the same analyzer speaks of the
/// new θ.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// # fn main() -> Result<(), Error> {
/// let data = two_moons(200, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 6, 2], Activation::Tanh, 1, data.device())?.to_dtype(DType::F64)?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.eigenvalues(3);
/// let before = analyzer.full_analysis()?;
/// Trainer::adam(0.05).batch_size(20).epochs(20).fit(&model, &data, &data)?;
/// let after = analyzer.full_analysis()?;
/// println!("{after}");
/// assert!(after.train.loss < before.train.loss);
/// let both = Report::compare(&[("random", before), ("trained", after)])?;
/// assert_eq!(both.height(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Analyzer {
    model: Held,
    train: Objective,
    test: Objective,
    /// On the samples that curvature is measured on.
    curvature: Objective,
    subsample: Subsample,
    eigenvalues: usize,
    radius: f64,
    hessian: bool,
    seed: u64,
}

impl Analyzer {
    /// For `model` with this `loss`, measured on all of `train` with 10 eigenvalues from each end, sharpness within 0.05 and
    /// seed 0.
    ///
    /// # Errors
    /// As [`Objective::of`] and [`Objective::on`].
    pub fn new<M>(model: &M, train: &Dataset, test: &Dataset, loss: Loss) -> Result<Self>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        let model = Held(Arc::new(model.clone()));
        let train = Objective::of(&model, train, loss)?;
        Ok(Self {
            test: train.on(test)?,
            curvature: train.clone(),
            model,
            train,
            subsample: Subsample::All,
            eigenvalues: 10,
            radius: 0.05,
            hessian: true,
            seed: 0,
        })
    }

    /// Measures curvature and sharpness on `n` training samples, as many of each class where there are labels and enough
    /// of each.
    ///
    /// # Errors
    /// `n` is 0 or more than there are.
    pub fn samples(mut self, n: usize, seed: u64) -> Result<Self> {
        let all = self.train.data();
        let balanced = match all.targets() {
            Targets::Labels(_) => all.balanced(n, seed).ok(),
            Targets::Values(_) => None,
        };
        let samples = n;
        let (data, subsample) = match balanced {
            Some(data) => (data, Subsample::Balanced { samples, seed }),
            None => (all.random(n, seed)?, Subsample::Random { samples, seed }),
        };
        self.curvature = self.train.on(&data)?;
        self.subsample = subsample;
        Ok(self)
    }

    /// Seed of all random vectors.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Looks for `k` eigenvalues from each end of the spectrum.
    pub fn eigenvalues(mut self, k: usize) -> Self {
        self.eigenvalues = k;
        self
    }

    /// Measures sharpness within this distance, and adaptive sharpness within ten times it.
    pub fn radius(mut self, radius: f64) -> Self {
        self.radius = radius;
        self
    }

    /// Leaves eigenvalues, trace and density out of the analysis.
    pub fn without_hessian(mut self) -> Self {
        self.hessian = false;
        self
    }

    /// The loss that curvature is measured of, for questions of your own.
    pub fn objective(&self) -> Objective {
        self.curvature.clone()
    }

    /// Everything about the point where the model stands.
    ///
    /// # Errors
    /// Settings that make no sense; a loss that is not finite at θ or in the ball; those of the derivatives.
    pub fn full_analysis(&self) -> Result<Report> {
        let (train, test) = (self.train.score()?, self.test.score()?);
        let plain = self.sharpness(self.radius);
        let adaptive = self.sharpness(10.0 * self.radius).adaptive();
        Ok(Report {
            parameters: self.train.dim(),
            train_samples: self.train.data().len(),
            test_samples: self.test.data().len(),
            subsample: self.subsample,
            seed: self.seed,
            hand_derived: self.curvature.is_hand_derived(),
            train,
            test,
            generalization_gap: test.loss - train.loss,
            gradient_norm: self.curvature.gradient_norm()?,
            hessian: match self.hessian {
                true => Some(self.hessian_metrics(self.eigenvalues)?),
                false => None,
            },
            sharpness: SharpnessMetrics::of(&self.curvature, &plain)?,
            adaptive: SharpnessMetrics::of(&self.curvature, &adaptive)?,
            flatness: self.flatness()?,
        })
    }

    /// `k` eigenvalues from each end of the Hessian's spectrum, or all if there are no more than 2`k`, and what follows
    /// of them; trace and density by random vectors.
    ///
    /// # Errors
    /// `k` is 0; those of the Hessian-vector products.
    pub fn hessian_metrics(&self, k: usize) -> Result<HessianMetrics> {
        let epsilon = self.curvature.parameters().epsilon();
        HessianMetrics::of(&self.curvature.hessian(), k, epsilon, self.seed)
    }

    /// The loss over two random filter-normalised directions, `points` × `points` values.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.seed(3);
    /// assert_eq!(
    ///     analyzer.plane(1.0, 5)?,
    ///     Plane::random(&analyzer.objective(), 3, 1.0, 5)?
    /// );
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Plane::random`].
    pub fn plane(&self, radius: f64, points: usize) -> Result<Plane> {
        Plane::random(&self.curvature, self.seed, radius, points)
    }

    /// Trains the model by `trainer`, and tells what loss, gradient, extreme eigenvalues, trace (to a tenth) and sharpness
    /// were every `interval` steps; the training loss is that of the samples that curvature is measured on.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?;
    /// let trainer = Trainer::adam(0.01).batch_size(20).epochs(2); // 6 steps
    /// let evolution = analyzer.trajectory(&trainer, 3)?;
    /// let steps: Vec<_> = evolution.moments.iter().map(|moment| moment.step).collect();
    /// assert_eq!(steps, [0, 3, 6]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::fit_recorded`] and [`Evolution::along`]; `interval` is 0.
    pub fn trajectory(&self, trainer: &Trainer, interval: usize) -> Result<Evolution> {
        let mut trajectory = Trajectory::every(interval)?;
        let (train, test) = (self.train.data(), self.test.data());
        trainer.fit_recorded(&self.model, train, test, &mut trajectory)?;
        let watch = Watch {
            test: Some(test.clone()),
            lanczos: Lanczos {
                tolerance: 1e-3,
                seed: self.seed,
                ..Lanczos::default()
            },
            trace: self.hessian.then(|| Trace {
                relative_error: 0.1,
                seed: self.seed,
                ..Trace::default()
            }),
            sharpness: Some(Sharpness {
                samples: 10,
                ..self.sharpness(self.radius)
            }),
        };
        Evolution::along(&self.curvature, &trajectory, &watch)
    }

    /// What stands between this model and `other`: along the straight line, along those to `other` with its hidden units
    /// matched where the layers allow it, and along a trained path. With batch normalisation, statistics are
    /// estimated anew along the line, and there is no other path.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     |seed| Mlp::new(&[2, 3, 1], Activation::Tanh, seed, &Device::Cpu)?.to_dtype(DType::F64);
    /// let a = model(0)?;
    /// let analyzer = Analyzer::new(&a, &data, &data, Loss::CrossEntropy)?;
    /// let (_, straight) = &analyzer.mode_connectivity(&a, 5)?.paths[0]; // to itself
    /// assert_eq!((straight.barrier_height, straight.path_norm), (0.0, 0.0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A model of another architecture; as [`Connectivity::between`].
    pub fn mode_connectivity<M>(&self, other: &M, points: usize) -> Result<Connectivity>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        let (ours, theirs) = (self.model.parameters(), other.parameters());
        if ours.shapes() != theirs.shapes() {
            return Err(Error::invalid(format!(
                "the other model has {} parameters in other shapes than this one's {}: a path joins \
                 models of one architecture",
                theirs.len(),
                ours.len()
            )));
        }
        let trainer = PathTrainer {
            seed: self.seed,
            ..PathTrainer::default()
        };
        if hidden_units(&self.model).is_ok() {
            let other = Held(Arc::new(other.clone()));
            let (objective, trainers) = (&self.curvature, [trainer]);
            return Connectivity::between(objective, &self.model, &other, &trainers, points);
        }
        let (start, end) = (ours.to_flat()?, theirs.to_flat()?);
        let line = Curve::linear(&start, &end)?;
        let mut paths = Vec::new();
        if ours.statistics().next().is_some() {
            let model = self.model.clone();
            let forward = move |x: &Tensor| model.forward_training(x, 0);
            let statistics = RunningStatistics::new(ours, self.curvature.data(), 512, forward)?;
            let profile = line.profile_with_statistics(&self.curvature, points, &statistics)?;
            paths.push(("linear".to_owned(), profile));
        } else {
            let bent = trainer.connect(&self.curvature, &start, &end)?;
            for (name, curve) in [("linear", line), ("trained Bézier", bent)] {
                paths.push((name.to_owned(), curve.profile(&self.curvature, points)?));
            }
        }
        Ok(Connectivity { paths })
    }

    fn sharpness(&self, radius: f64) -> Sharpness {
        Sharpness {
            samples: 25,
            starts: 2,
            steps: 30,
            seed: self.seed,
            ..Sharpness::within(radius)
        }
    }

    fn flatness(&self) -> Result<Option<Estimate>> {
        let flatness = Flatness {
            directions: 5,
            seed: self.seed,
            ..Flatness::of(RISE)
        };
        match flatness.radius(&self.curvature) {
            Ok((radius, _)) => Ok(Some(radius)),
            // It never rises so far, or is not finite before.
            Err(Error::Invalid(_) | Error::NotFinite(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A model of any type.
#[derive(Clone)]
struct Held(Arc<dyn Model + Send + Sync>);

impl Module for Held {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.0.forward(x)
    }
}

impl Model for Held {
    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        self.0.layers()
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> candle_core::Result<Tensor> {
        self.0.forward_training(x, seed)
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} parameters", self.parameters().len())
    }
}
