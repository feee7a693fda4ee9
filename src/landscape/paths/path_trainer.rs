//! [`PathTrainer`]: trains low-loss paths between two models.

use candle_core::{Device, Var};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Curve;
use crate::error::{Error, Result, check_positive, counted};
use crate::memory;
use crate::model::Parameters;
use crate::objective::{Objective, gradient_store};
use crate::progress::Progress;
use crate::random::{Purpose, generator};
use crate::train::VarOptimizer;
use crate::vector::{axpy, stream};

/// Strata of t: this many consecutive steps draw t from different parts of the path.
const STRATA: usize = 16;

/// Kind of path to train.
///
/// ```
/// use loss_landscape::landscape::PathShape;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let [a, b] = [vec![0.5; 13], vec![-0.5; 13]];
/// for (shape, points) in [(PathShape::Bezier, 3), (PathShape::Chain(2), 4)] {
///     let curve = PathTrainer::default().with_shape(shape).with_epochs(1).connect(&objective, &a, &b)?;
///     assert_eq!(curve.points().len(), points); // ends and bends
///     assert_eq!((&curve.at(0.0)?, &curve.at(1.0)?), (&a, &b));
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PathShape {
    /// A quadratic Bézier curve, with one bend.
    Bezier,
    /// A polygonal chain with this many bends.
    Chain(usize),
}

/// Trains a low-loss path φ between two models (Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of
/// DNNs", 2018). Starting from the straight line, Adam with a linearly decaying learning rate minimises the mean of L(φ(t))
/// over t with respect to the bends.
///
/// Each step uses one batch and one random t; 16 consecutive steps draw t from different sixteenths of the path. The same
/// seed gives the same bits on a CPU. Batch normalisation uses the statistics of each batch, as in training.
///
/// ```
/// use loss_landscape::landscape::Curve;
/// use loss_landscape::prelude::*;
///
/// // L(a, b) = (ab − 1)² is 0 on a hyperbola, which a bent path can follow.
/// let [a, b] = [
///     Var::new(&[0.5], &Device::Cpu)?,
///     Var::new(&[2.0], &Device::Cpu)?,
/// ];
/// let parameters = Parameters::new([("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())])?;
/// let one = Tensor::new(&[[1.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&one, &one)?;
/// let product = move |x: &Tensor| x.broadcast_mul(&a.mul(&b)?);
/// let objective = Objective::from_fn(parameters, &data, Loss::Mse, product)?;
///
/// let ends = [[0.5, 2.0], [2.0, 0.5]];
/// let straight = Curve::linear(&ends[0], &ends[1])?.profile(&objective, 21)?;
/// assert!((straight.barrier_height - (1.25f64.powi(2) - 1.0).powi(2)).abs() < 1e-9);
/// let trainer = PathTrainer::default().with_epochs(200);
/// let bent = trainer
///     .connect(&objective, &ends[0], &ends[1])?
///     .profile(&objective, 21)?;
/// assert!(bent.barrier_height < 0.1 * straight.barrier_height);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PathTrainer {
    /// Kind of path.
    pub shape: PathShape,
    /// Number of passes over the data.
    pub epochs: u32,
    /// Samples per step; all of them if the dataset is smaller.
    pub batch_size: usize,
    /// Initial learning rate of Adam.
    pub learning_rate: f64,
    /// Seed of the random t and of the shuffling.
    pub seed: u64,
}

impl Default for PathTrainer {
    /// A Bézier curve, 10 epochs, batches of 128 samples, learning rate 0.01, seed 0.
    fn default() -> Self {
        Self {
            shape: PathShape::Bezier,
            epochs: 10,
            batch_size: 128,
            learning_rate: 0.01,
            seed: 0,
        }
    }
}

impl PathTrainer {
    /// Sets the kind of path.
    #[must_use]
    pub fn with_shape(mut self, shape: PathShape) -> Self {
        self.shape = shape;
        self
    }
    /// Sets the number of passes over the data.
    #[must_use]
    pub fn with_epochs(mut self, epochs: u32) -> Self {
        self.epochs = epochs;
        self
    }
    /// Sets the number of samples per step.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }
    /// Sets the initial learning rate.
    #[must_use]
    pub fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        self.learning_rate = learning_rate;
        self
    }
    /// Sets the seed of the random t and of the shuffling.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Trains a path from `a` to `b`. The model's parameters are unchanged afterwards.
    ///
    /// See [`PathTrainer`] for an example.
    ///
    /// # Errors
    /// An end has the wrong length or entries that are not finite; the batch size is 0, the learning rate not positive, or a
    /// chain has no bends; the loss becomes not finite, with the step; the gradient fails. For a model with batch normalisation:
    /// as [`Objective::with_batch_statistics`], or the last batch has one sample.
    pub fn connect(&self, objective: &Objective, a: &[f64], b: &[f64]) -> Result<Curve> {
        self.check()?;
        objective.needs_all_samples("training a path")?;
        objective.parameters().check_vector(a, "path's start")?;
        objective.parameters().check_vector(b, "path's end")?;
        let straight = Curve::linear(a, b)?;
        let bends = match self.shape {
            PathShape::Bezier => 1,
            PathShape::Chain(bends) => bends,
        };
        // The points of the curve, and the gradient and two moments of each bend.
        let numbers = 5.0 * bends as f64 * a.len() as f64;
        memory::check(8.0 * numbers, &counted(bends, "bend"))?;
        let start = (1..=bends).map(|i| {
            let point = straight.at(i as f64 / (bends as f64 + 1.0))?;
            let var = Var::from_vec(point, a.len(), &Device::Cpu)?;
            // Padded, because parameters are sorted by name.
            Ok((format!("bend.{i:020}"), var))
        });
        let bends = Parameters::new(start.collect::<Result<Vec<_>>>()?)?;
        let mut optimizer = VarOptimizer::adam(bends.vars())?;

        let trained = self.in_training(objective)?;
        let data = objective.data();
        let a_pass = data.len().div_ceil(self.batch_size);
        let steps = a_pass * self.epochs as usize;
        let mut times = Times::new(self.seed);
        let mut progress = Progress::start("training a path");
        let mut curve = self.curve(a, &bends, b)?;
        let mut step = 0;
        for epoch in 0..self.epochs {
            let order = stream(self.seed, epoch.into());
            let batches = match a_pass {
                1 => data.batches(self.batch_size)?,
                _ => data.shuffled_batches(self.batch_size, order)?,
            };
            for batch in batches {
                let t = times.next();
                let on_batch = trained.with_batch(batch?);
                let found = curve.at(t).and_then(|theta| on_batch.gradient_at(&theta));
                let (_, slope) = found.map_err(|e| self.explained(e, step))?;
                let weights = curve.weights(t);
                let mut gradient = vec![0.0; bends.len()];
                let shares = gradient.chunks_exact_mut(a.len()).zip(&weights[1..]);
                shares.for_each(|(share, weight)| axpy(*weight, &slope, share));
                let rate = self.learning_rate * (1.0 - step as f64 / steps as f64);
                optimizer.step(&gradient_store(&bends, &gradient)?, rate)?;
                step += 1;
                curve = self
                    .curve(a, &bends, b)
                    .map_err(|e| self.explained(e, step))?;
                progress.part(step, steps);
            }
        }
        Ok(curve)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::invalid("the batch size is 0: use at least 1 sample"));
        }
        check_positive(self.learning_rate, "the learning rate")?;
        if self.shape == PathShape::Chain(0) {
            return Err(Error::invalid(
                "a chain without bends is the straight line: use at least 1 bend",
            ));
        }
        Ok(())
    }

    /// Returns the objective with batch normalisation by each batch's own statistics, if the model has any.
    fn in_training(&self, objective: &Objective) -> Result<Objective> {
        if !objective.uses_running_statistics() {
            return Ok(objective.clone());
        }
        let samples = objective.data().len();
        if samples % self.batch_size == 1 {
            return Err(Error::invalid(format!(
                "batches of {} out of {samples} samples leave a last batch of one, which batch normalisation cannot normalise: \
                 choose another batch size",
                self.batch_size
            )));
        }
        objective.clone().with_batch_statistics(self.batch_size)
    }

    fn curve(&self, a: &[f64], bends: &Parameters, b: &[f64]) -> Result<Curve> {
        let bends = bends.to_flat()?;
        let mut points = vec![a.to_vec()];
        points.extend(bends.chunks_exact(a.len()).map(<[f64]>::to_vec));
        points.push(b.to_vec());
        match self.shape {
            PathShape::Bezier => Curve::bezier(&points[0], &points[1], &points[2]),
            PathShape::Chain(_) => Curve::chain(points),
        }
    }

    fn explained(&self, error: Error, step: usize) -> Error {
        match error {
            Error::NotFinite(_) => Error::NotFinite(format!(
                "training the path diverged: the loss is no longer finite at step {step} with a \
                 learning rate of {:?}; use a smaller one",
                self.learning_rate
            )),
            other => other,
        }
    }
}

/// Draws random t, stratified: each [`STRATA`] consecutive ones fall into different parts of the path.
struct Times {
    rng: ChaCha8Rng,
    parts: Vec<usize>,
}

impl Times {
    fn new(seed: u64) -> Self {
        Self {
            rng: generator(Purpose::PathTimes, seed, 0),
            parts: Vec::new(),
        }
    }

    fn next(&mut self) -> f64 {
        if self.parts.is_empty() {
            self.parts = (0..STRATA).collect();
            self.parts.shuffle(&mut self.rng);
        }
        let part = self.parts.pop().unwrap_or(0) as f64;
        (part + self.rng.random::<f64>()) / STRATA as f64
    }
}
