//! [`Analyzer`]: the full geometry of a model's loss in one call, as a [`Report`].

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
use crate::error::{Error, Result, check_finite, counted};
use crate::landscape::{
    Connectivity, Evolution, EvolutionSettings, Flatness, PathTrainer, Plane, Sharpness,
};
use crate::model::{LayerKind, Model, Parameters};
use crate::objective::{Loss, Objective};
use crate::spectral::{Estimate, Lanczos, Trace};
use crate::train::{Trainer, Trajectory};
use crate::vector::{axpy, norm};

use hessian::{Setting, check_eigenvalues};
use sampling::Groups;

/// Increase of the loss that defines flatness.
const FLATNESS_INCREASE: f64 = 0.1;
/// Relative step of the difference quotient for the slope at the distance of that increase.
const STEP: f64 = 0.01;

/// Analyses the loss of a model at its current θ. After more training, the same analyzer analyses the new θ.
///
/// ```
/// use loss_landscape::analysis::Report;
/// use loss_landscape::prelude::*;
///
/// # fn main() -> Result<(), Error> {
/// let data = two_moons(200, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 6, 2], Activation::Tanh, 1, data.device())?.to_dtype(DType::F64)?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.with_eigenvalues(3);
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
    train: Objective,
    test: Objective,
    /// The loss on the samples on which curvature is measured.
    curvature: Objective,
    subsample: Subsample,
    /// Groups for sampling errors; `None` if curvature is measured on all samples.
    groups: Option<Groups>,
    damping: Option<f64>,
    eigenvalues: usize,
    radius: f64,
    hessian: bool,
    seed: u64,
}

impl Analyzer {
    /// An analyzer that measures the `loss` of `model` on all of `train`, with default settings.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// // A network that PyTorch exported to ONNX.
    /// let model = Onnx::load("tests/onnx/mlp.onnx", &Device::Cpu)?;
    /// let x = Tensor::rand(-1f32, 1f32, (20, 12), &Device::Cpu)?;
    /// let labels = Tensor::from_iter((0..20u32).map(|i| i % 5), &Device::Cpu)?;
    /// let data = Dataset::classification(&x, &labels)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?;
    /// let report = analyzer.with_eigenvalues(2).full_analysis()?;
    /// assert_eq!(report.parameters, 12 * 24 + 24 + 24 * 16 + 16 + 16 * 5 + 5);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Objective::of`] and [`Objective::with_data`].
    pub fn new<M>(model: &M, train: &Dataset, test: &Dataset, loss: impl Into<Loss>) -> Result<Self>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        Self::from_objective(&Objective::of(model, train, loss)?, test)
    }

    /// An analyzer of your own candle model: `forward` maps inputs of shape `(n, …)` to outputs of shape `(n, outputs)` with the
    /// variables of `parameters`, a `&VarMap` or [`Parameters`].
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// # fn main() -> Result<(), Error> {
    /// let vars = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
    /// let first = candle_nn::linear(2, 6, vb.pp("first"))?;
    /// let last = candle_nn::linear(6, 2, vb.pp("last"))?;
    ///
    /// let data = two_moons(100, 0.1, 0, &Device::Cpu)?;
    /// let forward = move |x: &Tensor| last.forward(&first.forward(x)?.tanh()?);
    /// let analyzer = Analyzer::from_fn(&vars, &data, &data, Loss::CrossEntropy, forward)?;
    /// let evolution = analyzer.trajectory(&Trainer::adam(0.05).with_epochs(5), 5)?;
    /// let report = analyzer.with_eigenvalues(2).full_analysis()?;
    /// println!("{report}");
    /// assert!(report.train.loss < evolution.snapshots[0].loss);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Objective::from_fn`] and [`Objective::with_data`].
    pub fn from_fn<P, F>(
        parameters: P,
        train: &Dataset,
        test: &Dataset,
        loss: impl Into<Loss>,
        forward: F,
    ) -> Result<Self>
    where
        P: TryInto<Parameters>,
        Error: From<P::Error>,
        F: Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    {
        Self::from_objective(&Objective::from_fn(parameters, train, loss, forward)?, test)
    }

    /// An analyzer of any objective on the training data, such as one with a custom loss
    /// ([`Objective::from_loss`]), an L2 penalty, or a [training pass](Objective::with_training_pass) of its own.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // L(b, w) = b² + 4w², with a penalty of (b² + w²)/2.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let own = move |z: &Tensor, _: &Targets| z.sqr()?.squeeze(1);
    /// let line = model.clone();
    /// let forward = move |x: &Tensor| line.forward(x);
    /// let objective = Objective::from_loss(model.parameters().clone(), &data, forward, own)?;
    /// let analyzer = Analyzer::from_objective(&objective.with_l2(0.5)?, &data)?;
    /// let metrics = analyzer.hessian_metrics(1)?;
    /// assert!((metrics.largest[0].value - 9.0).abs() < 1e-9);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Objective::with_data`].
    pub fn from_objective(objective: &Objective, test: &Dataset) -> Result<Self> {
        let train = objective.clone();
        Ok(Self {
            test: train.with_data(test)?,
            curvature: train.clone(),
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

    /// Measures curvature and sharpness on `n` training samples, drawn at random without replacement. Loss and Hessian of
    /// this subsample are unbiased estimates of those of all training samples; the report states their [`SamplingError`].
    /// If `n` is the number of training samples, there is no sampling error.
    ///
    /// Loss, accuracy and gradient in a report are always measured on all training samples, in one pass.
    ///
    /// # Errors
    /// `n` is 0 or larger than the number of training samples.
    pub fn with_samples(mut self, n: usize, seed: u64) -> Result<Self> {
        let all = self.train.data();
        let data = all.random(n, seed)?;
        if n == all.len() {
            self.curvature = self.train.clone();
            self.subsample = Subsample::All;
            self.groups = None;
        } else {
            self.groups = Some(Groups::new(&self.train, &all.random_order(seed), n)?);
            self.curvature = self.train.with_subset(&data)?;
            self.subsample = Subsample::Random { samples: n, seed };
        }
        Ok(self)
    }

    /// Damping λ: reports also the condition number of H + λI, and damps the Newton step by λ.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // L(b, w) = b² + 4w², with the Hessian diag(2, 8).
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse)?.with_damping(1.0)?;
    /// let damped = analyzer.hessian_metrics(1)?.damped_condition_number.unwrap();
    /// assert!((damped.value - (8.0 + 1.0) / (2.0 + 1.0)).abs() < 1e-9);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `lambda` is negative or not finite.
    pub fn with_damping(mut self, lambda: f64) -> Result<Self> {
        check_finite(&[lambda], "the damping")?;
        if lambda < 0.0 {
            return Err(Error::invalid(format!(
                "damping must be at least 0, found {lambda}"
            )));
        }
        self.damping = Some(lambda);
        Ok(self)
    }

    /// Seed of all random vectors (default: 0).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Number of eigenvalues to compute at each end of the spectrum (default: 10).
    #[must_use]
    pub fn with_eigenvalues(mut self, k: usize) -> Self {
        self.eigenvalues = k;
        self
    }

    /// Radius of the ball in which sharpness is measured (default: 0.05). Adaptive sharpness uses ten times this radius.
    #[must_use]
    pub fn with_radius(mut self, radius: f64) -> Self {
        self.radius = radius;
        self
    }

    /// Whether [`full_analysis`](Self::full_analysis) computes eigenvalues, trace and density of the Hessian
    /// (default: true).
    #[must_use]
    pub fn with_hessian(mut self, hessian: bool) -> Self {
        self.hessian = hessian;
        self
    }

    /// The objective on the samples on which curvature is measured.
    pub fn objective(&self) -> Objective {
        self.curvature.clone()
    }

    /// Computes the full report at the model's current θ.
    ///
    /// # Errors
    /// Invalid settings; a loss that is not finite at θ or within the radius; errors of the derivatives.
    pub fn full_analysis(&self) -> Result<Report> {
        let plain = self.sharpness(self.radius);
        plain.check()?;
        if self.hessian {
            check_eigenvalues(self.eigenvalues)?;
        }
        let (train, test) = (self.train.score()?, self.test.score()?);
        let adaptive = self.sharpness(10.0 * self.radius).with_adaptive(true);
        let sharpness =
            |settings| SharpnessMetrics::measure(&self.curvature, settings, self.groups.as_ref());
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
            engine: self.curvature.engine().to_string(),
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

    /// Computes `k` eigenvalues at each end of the Hessian's spectrum (all of them if there are at most 2`k`) and the
    /// quantities derived from them, and estimates trace and density with random vectors. Takes one gradient of all
    /// training samples.
    ///
    /// # Errors
    /// `k` is 0; errors of the Hessian-vector products.
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
        HessianMetrics::compute(&setting, k)
    }

    /// The loss on a plane along two random filter-normalised directions, `points` × `points` values, on the samples on
    /// which curvature is measured.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.with_seed(3);
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

    /// Trains the model with `trainer` on the analyzer's loss and measures loss, gradient, extreme eigenvalues, trace (to 10 %) and sharpness every
    /// `interval` steps, on the samples on which curvature is measured. Sampling errors are not included.
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
    /// As [`Trainer::fit_objective_recorded`] and [`EvolutionSettings::run`]; `interval` is 0.
    pub fn trajectory(&self, trainer: &Trainer, interval: usize) -> Result<Evolution> {
        let mut trajectory = Trajectory::every(interval)?;
        trainer.fit_objective_recorded(&self.train, &self.test, &mut trajectory)?;
        self.evolution(&trajectory)
    }

    /// Measures loss, gradient, extreme eigenvalues, trace (to 10 %) and sharpness at the snapshots of a training, as
    /// [`Analyzer::trajectory`].
    ///
    /// # Errors
    /// As [`EvolutionSettings::run`].
    pub fn evolution(&self, trajectory: &Trajectory) -> Result<Evolution> {
        let trace = self.hessian.then(|| {
            Trace::default()
                .with_relative_error(0.1)
                .with_seed(self.seed)
        });
        let lanczos = Lanczos::default().with_tolerance(1e-3).with_seed(self.seed);
        EvolutionSettings::default()
            .with_test_data(self.test.data().clone())
            .with_lanczos(lanczos)
            .with_trace(trace)
            .with_sharpness(self.sharpness(self.radius).with_pairs(10))
            .run(&self.curvature, trajectory)
    }

    /// Measures the loss along paths between this model and `other`: the straight line, the lines to `other` with its hidden
    /// units matched to this model's (if the layers allow it), and a trained path, as [`Connectivity::between`]. Losses are measured
    /// on the samples on which curvature is measured.
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
        let (ours, theirs) = (self.train.parameters(), other.parameters());
        if ours.shapes() != theirs.shapes() {
            return Err(Error::invalid(format!(
                "the other model has {} of other shapes than this model's {}: give two models of the same \
                 architecture",
                counted(theirs.len(), "parameter"),
                ours.len()
            )));
        }
        let samples = self.curvature.data().len();
        let mut trainer = PathTrainer::default().with_seed(self.seed);
        // Batch normalisation cannot normalise a last batch of one sample.
        let normalised = ours.statistics().len() > 0;
        while normalised && samples % trainer.batch_size == 1 && trainer.batch_size > 2 {
            trainer.batch_size -= 1;
        }
        let [model, other] = [
            SharedModel(Arc::new(self.train.model())),
            SharedModel(Arc::new(other.clone())),
        ];
        Connectivity::between(&self.curvature, &model, &other, &[trainer], points)
    }

    fn sharpness(&self, radius: f64) -> Sharpness {
        Sharpness::new(radius)
            .with_pairs(25)
            .with_starts(2)
            .with_steps(30)
            .with_seed(self.seed)
    }

    /// The mean distance and its sampling error for the same directions.
    fn flatness(&self) -> Result<(Option<Estimate>, Option<SamplingError>)> {
        let flatness = Flatness::new(FLATNESS_INCREASE)
            .with_directions(5)
            .with_seed(self.seed);
        let crossings = match flatness.crossings(&self.curvature) {
            Ok(crossings) => crossings,
            // The loss does not increase that much, or becomes infinite first.
            Err(Error::Invalid(_) | Error::NotFinite(_)) => return Ok((None, None)),
            Err(error) => return Err(error),
        };
        let radii: Vec<f64> = crossings.iter().map(|(radius, _)| *radius).collect();
        let found = Estimate::from_samples(&radii);
        let Some(groups) = &self.groups else {
            return Ok((Some(found), None));
        };
        let sampling = self.flatness_sampling(&crossings, found.value, groups)?;
        Ok((Some(found), sampling))
    }

    /// Distances r along the directions d solve L(θ + rd) = L(θ) + `FLATNESS_INCREASE`. To first order, an increase that is larger by x
    /// shortens the distance by x over the slope at r.
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
                // A distance is positive, and its distribution is skewed to the right.
                low: linear.low.max(0.0),
                high: mean * ((linear.high - mean) / mean).exp(),
                ..linear
            }
        }))
    }
}

/// A model of any type, as a trait object.
#[derive(Clone)]
struct SharedModel(Arc<dyn Model + Send + Sync>);

impl Module for SharedModel {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.0.forward(x)
    }
}

impl Model for SharedModel {
    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }

    fn layers(&self) -> Option<Vec<LayerKind>> {
        self.0.layers()
    }

    fn without_layers(&self) -> Option<String> {
        self.0.without_layers()
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> candle_core::Result<Tensor> {
        self.0.forward_training(x, seed)
    }
}

impl std::fmt::Debug for SharedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&counted(self.parameters().len(), "parameter"))
    }
}
