//! The full geometry of a model's loss in one call: [`Analyzer`], and the [`Report`] that it makes.

mod hessian;
mod hessian_sampling;
mod newton;
mod report;
mod row;
mod sampling;
#[cfg(feature = "tables")]
mod table;

pub use hessian::{Eigenvalue, HessianMetrics, NegativeEigenvalues};
pub use hessian_sampling::HessianSampling;
pub use newton::NewtonDecrement;
pub use report::{Report, SharpnessMetrics, Subsample};
pub use sampling::SamplingError;

use std::sync::Arc;

use candle_core::{Module, Tensor};

use crate::data::Dataset;
use crate::error::{Error, Result, check_finite};
use crate::landscape::align::hidden_units;
use crate::landscape::{
    Connectivity, Curve, Evolution, EvolutionSettings, Flatness, PathTrainer, Plane,
    RunningStatistics, Sharpness,
};
use crate::model::{LayerKind, Model, Parameters};
use crate::objective::{Loss, Objective};
use crate::spectral::{Estimate, Lanczos, Trace};
use crate::train::{Trainer, Trajectory};
use crate::vector::{axpy, norm};

use hessian::Setting;
use sampling::Groups;

/// The rise of the loss up to which the surroundings count as flat.
const RISE: f64 = 0.1;
/// Relative step of the difference quotient for the slope at the distance of that rise.
const STEP: f64 = 0.01;

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
/// Trainer::adam(0.05).with_batch_size(20).with_epochs(20).fit(&model, &data, &data)?;
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
    /// The loss on the samples that curvature is measured on.
    curvature: Objective,
    subsample: Subsample,
    /// Groups for sampling errors; none where curvature is measured on all samples.
    groups: Option<Groups>,
    damping: Option<f64>,
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
            groups: None,
            damping: None,
            eigenvalues: 10,
            radius: 0.05,
            hessian: true,
            seed: 0,
        })
    }

    /// Measures curvature and sharpness on `n` training samples, drawn at random without replacement. Their mean loss,
    /// Hessian and so on are unbiased estimates of those of all training samples; the report says with what
    /// [`SamplingError`]. With all samples there is none.
    ///
    /// Loss, accuracy and gradient of a report are those of all training samples in any case: one pass for them takes
    /// little beside the rest.
    ///
    /// # Errors
    /// `n` is 0 or more than there are.
    pub fn samples(mut self, n: usize, seed: u64) -> Result<Self> {
        let all = self.train.data();
        let data = all.random(n, seed)?;
        if n == all.len() {
            self.curvature = self.train.clone();
            self.subsample = Subsample::All;
            self.groups = None;
        } else {
            self.groups = Some(Groups::new(&self.train, &all.random_order(seed), n)?);
            self.curvature = self.train.on(&data)?;
            self.subsample = Subsample::Random { samples: n, seed };
        }
        Ok(self)
    }

    /// Also reports the condition number of H + λI, and damps the Newton step of the report by λ.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // L(b, w) = b² + 4w², with the Hessian diag(2, 8).
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse)?.damping(1.0)?;
    /// let damped = analyzer.hessian_metrics(1)?.damped_condition_number.unwrap();
    /// assert!((damped.value - (8.0 + 1.0) / (2.0 + 1.0)).abs() < 1e-9);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A λ that is negative or not finite.
    pub fn damping(mut self, lambda: f64) -> Result<Self> {
        check_finite(&[lambda], "the damping")?;
        if lambda < 0.0 {
            return Err(Error::invalid(format!(
                "a damping of {lambda} is negative: give a number from 0"
            )));
        }
        self.damping = Some(lambda);
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

    /// The loss on the samples that curvature is measured on, for questions of your own.
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
        let adaptive = self.sharpness(10.0 * self.radius).with_adaptive(true);
        let sharpness =
            |settings| SharpnessMetrics::of(&self.curvature, settings, self.groups.as_ref());
        let slope = (train.loss, self.train.gradient()?);
        let gradient_norm = norm(&slope.1);
        let (flatness, flatness_sampling) = self.flatness()?;
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
            gradient_norm,
            hessian: match self.hessian {
                true => Some(self.metrics(self.eigenvalues, slope)?),
                false => None,
            },
            sharpness: sharpness(&plain)?,
            adaptive: sharpness(&adaptive)?,
            flatness,
            flatness_sampling,
        })
    }

    /// `k` eigenvalues from each end of the Hessian's spectrum, or all if there are no more than 2`k`, and the numbers that
    /// are made of them; trace and density by random vectors. It takes one gradient of all training samples.
    ///
    /// # Errors
    /// `k` is 0; those of the Hessian-vector products.
    pub fn hessian_metrics(&self, k: usize) -> Result<HessianMetrics> {
        self.metrics(k, (self.train.loss()?, self.train.gradient()?))
    }

    fn metrics(&self, k: usize, slope: (f64, Vec<f64>)) -> Result<HessianMetrics> {
        let setting = Setting {
            curvature: &self.curvature,
            slope,
            train_samples: self.train.data().len(),
            groups: self.groups.as_ref(),
            damping: self.damping,
            seed: self.seed,
        };
        HessianMetrics::of(&setting, k)
    }

    /// The loss over two random filter-normalised directions, `points` × `points` values, on the samples that curvature is
    /// measured on.
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
    /// were every `interval` steps, all on the samples that curvature is measured on. Sampling errors are not part of it.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?;
    /// let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(2); // 6 steps
    /// let evolution = analyzer.trajectory(&trainer, 3)?;
    /// let steps: Vec<_> = evolution.snapshots.iter().map(|moment| moment.step).collect();
    /// assert_eq!(steps, [0, 3, 6]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::fit_recorded`] and [`EvolutionSettings::run`]; `interval` is 0.
    pub fn trajectory(&self, trainer: &Trainer, interval: usize) -> Result<Evolution> {
        let mut trajectory = Trajectory::every(interval)?;
        let (train, test) = (self.train.data(), self.test.data());
        trainer.fit_recorded(&self.model, train, test, &mut trajectory)?;
        let trace = self.hessian.then(|| {
            Trace::default()
                .with_relative_error(0.1)
                .with_seed(self.seed)
        });
        let lanczos = Lanczos::default().with_tolerance(1e-3).with_seed(self.seed);
        EvolutionSettings::default()
            .with_test_data(test.clone())
            .with_lanczos(lanczos)
            .with_trace(trace)
            .with_sharpness(self.sharpness(self.radius).with_pairs(10))
            .run(&self.curvature, &trajectory)
    }

    /// What stands between this model and `other`: along the straight line, along those to `other` with its hidden units
    /// matched where the layers allow it, and along a trained path. With batch normalisation, statistics are
    /// estimated anew along the line, and there is no other path. Losses are those of the samples that curvature is measured
    /// on.
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
        let trainer = PathTrainer::default().with_seed(self.seed);
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
        Sharpness::new(radius)
            .with_pairs(25)
            .with_starts(2)
            .with_steps(30)
            .with_seed(self.seed)
    }

    /// The mean distance, and its sampling error for the same directions.
    fn flatness(&self) -> Result<(Option<Estimate>, Option<SamplingError>)> {
        let flatness = Flatness::new(RISE).with_directions(5).with_seed(self.seed);
        let crossings = match flatness.crossings(&self.curvature) {
            Ok(crossings) => crossings,
            // It never rises so far, or is not finite before.
            Err(Error::Invalid(_) | Error::NotFinite(_)) => return Ok((None, None)),
            Err(error) => return Err(error),
        };
        let radii: Vec<f64> = crossings.iter().map(|(radius, _)| *radius).collect();
        let found = Estimate::of(&radii);
        let Some(groups) = &self.groups else {
            return Ok((Some(found), None));
        };
        let sampling = self.flatness_sampling(&crossings, found.value, groups)?;
        Ok((Some(found), sampling))
    }

    /// The distances r along the directions solve L(θ + rd) = L(θ) + `RISE`. To first order a rise that is larger by x
    /// makes a distance smaller by x over the slope at r.
    fn flatness_sampling(
        &self,
        crossings: &[(f64, Vec<f64>)],
        mean: f64,
        groups: &Groups,
    ) -> Result<Option<SamplingError>> {
        let theta = self.curvature.parameters().to_flat()?;
        let loss = |objective: &Objective, (radius, direction): &(f64, Vec<f64>), factor: f64| {
            let mut place = theta.clone();
            axpy(factor * radius, direction, &mut place);
            objective.loss_at(&place)
        };
        let mut slopes = Vec::new();
        for crossing in crossings {
            let [above, below] =
                [1.0 + STEP, 1.0 - STEP].map(|x| loss(&self.curvature, crossing, x));
            slopes.push((above? - below?) / (2.0 * STEP * crossing.0));
        }
        if slopes.iter().any(|slope| *slope <= 0.0) {
            return Ok(None);
        }
        let [shift] = groups.means(|group| {
            let center = group.loss()?;
            let mut shift = 0.0;
            for (crossing, slope) in crossings.iter().zip(&slopes) {
                shift += (center - loss(group, crossing, 1.0)?) / slope / crossings.len() as f64;
            }
            Ok([shift])
        })?;
        Ok(groups.pooled_error(&shift).map(|error| {
            let linear = groups.unbiased(mean, error, 0.0);
            SamplingError {
                // A distance is positive, and its distribution has the longer tail above.
                low: linear.low.max(0.0),
                high: mean * ((linear.high - mean) / mean).exp(),
                ..linear
            }
        }))
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
