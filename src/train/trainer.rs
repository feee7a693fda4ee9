//! [`Trainer`]: mini-batch training.

use std::path::Path;

use serde::Serialize;

use super::descent::descent;
use super::optimizer::{Ascent, Method};
use super::passes::Passes;
use super::{Epoch, History, Schedule, Trajectory};
use crate::data::{Dataset, Targets};
use crate::error::{Error, Result};
use crate::model::{Model, Parameters, Restore};
use crate::objective::{Batch, Loss, Objective};
use crate::progress::Progress;
use crate::vector::stream;

/// Trains a model in mini-batches: cross-entropy on labels, mean squared error on values.
///
/// Steps go through the model's [`forward_training`](Model::forward_training), with batch normalisation by the batch's
/// own statistics and dropout, scores through its forward pass.
///
/// The same seed, model and data give the same bits on a CPU.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// # fn main() -> Result<(), Error> {
/// let data = two_moons(200, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 8, 1], Activation::Tanh, 1, data.device())?.to_dtype(DType::F64)?;
/// let trainer = Trainer::sgd(0.1).with_momentum(0.9).with_sam(0.05).with_batch_size(20).with_epochs(30);
/// let history = trainer.with_schedule(Schedule::Cosine).fit(&model, &data, &data)?;
/// assert_eq!(history.epochs.len(), 30);
/// assert!(history.epochs[29].test_loss < history.epochs[0].test_loss);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trainer {
    method: Method,
    learning_rate: f64,
    schedule: Schedule,
    warmup: usize,
    ascent: Option<Ascent>,
    l2: f64,
    epochs: u32,
    patience: Option<u32>,
    batch_size: usize,
    seed: u64,
}

impl Trainer {
    /// Stochastic gradient descent, θ ← θ − ηg.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // One step on L(b, w) = b² + 4w².
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.5])?;
    /// Trainer::sgd(0.125).fit(&line, &data, &data)?;
    /// assert_eq!(line.parameters().to_flat()?, [0.75, 0.0]); // θ − η (2, 4)
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sgd(learning_rate: f64) -> Self {
        let method = Method::Sgd {
            momentum: 0.0,
            nesterov: false,
        };
        Self::new(method, learning_rate)
    }

    /// Adam (Kingma and Ba, 2015) with β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // The first step is as long as the learning rate in each parameter, whatever the gradient.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.5])?;
    /// Trainer::adam(0.1).fit(&line, &data, &data)?;
    /// let theta = line.parameters().to_flat()?;
    /// assert!((theta[0] - 0.9).abs() < 1e-6 && (theta[1] - 0.4).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adam(learning_rate: f64) -> Self {
        Self::new(Method::Adam { decay: 0.0 }, learning_rate)
    }

    /// Adam with decoupled weight decay, θ ← (1 − η `decay`) θ before each step (Loshchilov and Hutter, 2019).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // Data that say nothing of the bias and weight: only the decay is left.
    /// let x = Tensor::new(&[[0.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[0.0, 1.0])?;
    /// Trainer::adamw(0.1, 0.5).fit(&line, &data, &data)?;
    /// assert!((line.parameters().to_flat()?[1] - 0.95).abs() < 1e-12); // (1 − 0.1 · 0.5) w
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adamw(learning_rate: f64, decay: f64) -> Self {
        Self::new(Method::Adam { decay }, learning_rate)
    }

    fn new(method: Method, learning_rate: f64) -> Self {
        Self {
            method,
            learning_rate,
            schedule: Schedule::Constant,
            warmup: 0,
            ascent: None,
            l2: 0.0,
            epochs: 1,
            patience: None,
            batch_size: 128,
            seed: 0,
        }
    }

    /// With momentum μ in [0, 1): b ← μb + g, θ ← θ − ηb (Polyak, 1964). Adam has its own.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // Two steps on L(b, w) = b² + 4w² from (1, 0): g = 2 and b ← 0.5 · 2 + 1.5.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.0])?;
    /// Trainer::sgd(0.125)
    ///     .with_momentum(0.5)
    ///     .with_epochs(2)
    ///     .fit(&line, &data, &data)?;
    /// let expected = 1.0 - 0.125 * 2.0 - 0.125 * (0.5 * 2.0 + 1.5);
    /// assert!((line.parameters().to_flat()?[0] - expected).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_momentum(self, momentum: f64) -> Self {
        self.set_momentum(momentum, false)
    }

    /// With Nesterov's momentum μ in (0, 1): b ← μb + g, θ ← θ − η(g + μb) (Sutskever et al., 2013).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // One step on L(b, w) = b² + 4w² from (1, 0), where b ← g: θ − η (g + μg).
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.0])?;
    /// Trainer::sgd(0.125).with_nesterov(0.5).fit(&line, &data, &data)?;
    /// assert!((line.parameters().to_flat()?[0] - (1.0 - 0.125 * 1.5 * 2.0)).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_nesterov(self, momentum: f64) -> Self {
        self.set_momentum(momentum, true)
    }

    fn set_momentum(mut self, momentum: f64, nesterov: bool) -> Self {
        // For Adam it stays for `fit` to refuse.
        self.method = match self.method {
            Method::Sgd { .. } => Method::Sgd { momentum, nesterov },
            Method::Adam { .. } => Method::Adam { decay: f64::NAN },
        };
        self
    }

    /// Sharpness-aware minimisation (Foret et al., 2021): each step goes down the gradient at θ + ρg/‖g‖, which takes
    /// two gradients.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // One step on L(b, w) = b² + 4w² from (1, 0): the gradient is that at (1 + ρ, 0).
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.0])?;
    /// Trainer::sgd(0.125).with_sam(0.5).fit(&line, &data, &data)?;
    /// assert!((line.parameters().to_flat()?[0] - (1.0 - 0.125 * 2.0 * 1.5)).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_sam(mut self, radius: f64) -> Self {
        let adaptive = false;
        self.ascent = Some(Ascent { radius, adaptive });
        self
    }

    /// Adaptive sharpness-aware minimisation (Kwon et al., 2021): the gradient at θ + ρT²g/‖Tg‖ with T = diag|θ|, which
    /// does not see rescalings of the layers.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // One step on L(b, w) = b² + 4w² from (3, 0), where w = 0 does not move: the gradient is that at
    /// // b + ρ b²g/|bg| = 3 + 0.5 · 3.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[3.0, 0.0])?;
    /// Trainer::sgd(0.125).with_asam(0.5).fit(&line, &data, &data)?;
    /// assert!((line.parameters().to_flat()?[0] - (3.0 - 0.125 * 2.0 * 4.5)).abs() < 1e-9);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_asam(mut self, radius: f64) -> Self {
        let adaptive = true;
        self.ascent = Some(Ascent { radius, adaptive });
        self
    }

    /// How the learning rate changes; constant if not said.
    #[must_use]
    pub fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Warms up (Goyal et al., "Accurate, Large Minibatch SGD", 2017): the i-th of the first `steps`
    /// steps, counted from 1, has i/`steps` of the learning rate.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let trainer = Trainer::sgd(0.5).with_warmup(4).with_epochs(5); // a step each
    /// let history = trainer.fit(&model, &data, &data)?;
    /// let rates: Vec<_> = history.epochs.iter().map(|epoch| epoch.learning_rate).collect();
    /// assert_eq!(rates, [0.125, 0.25, 0.375, 0.5, 0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_warmup(mut self, steps: usize) -> Self {
        self.warmup = steps;
        self
    }

    /// Adds λ‖θ‖² to the loss, and 2λθ to its gradient.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // Data that say nothing of the weight: only λ‖θ‖² is left, with the gradient 2λw.
    /// let x = Tensor::new(&[[0.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[0.0, 1.0])?;
    /// Trainer::sgd(0.25).with_l2(0.5).fit(&line, &data, &data)?;
    /// assert_eq!(line.parameters().to_flat()?, [0.0, 0.75]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_l2(mut self, strength: f64) -> Self {
        self.l2 = strength;
        self
    }

    /// Passes over the training data; 1 if not said.
    #[must_use]
    pub fn with_epochs(mut self, epochs: u32) -> Self {
        self.epochs = epochs;
        self
    }

    /// Ends the training when so many epochs in a row have not lowered the training loss, and brings back the weights of the
    /// epoch with the lowest.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // A learning rate that leads nowhere: L(b, w) = b² + 4w² rises from step to step.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 1.0])?;
    /// let history = Trainer::sgd(0.5)
    ///     .with_epochs(50)
    ///     .with_patience(3)
    ///     .fit(&line, &data, &data)?;
    /// assert_eq!(history.best, Some(1));
    /// assert_eq!(history.epochs.len(), 1 + 3);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_patience(mut self, epochs: u32) -> Self {
        self.patience = Some(epochs);
        self
    }

    /// Samples a step; 128 if not said.
    #[must_use]
    pub fn with_batch_size(mut self, size: usize) -> Self {
        self.batch_size = size;
        self
    }

    /// Seed of the order in which samples come, and of dropout; 0 if not said.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Trains `model` on `train` and watches `test`.
    ///
    /// # Errors
    /// Settings that make no sense; a loss that is not finite, with the step at which it appeared;
    /// those of [`Objective::of`]. The model keeps what it has learned until then.
    pub fn fit<M>(&self, model: &M, train: &Dataset, test: &Dataset) -> Result<History>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        self.run(model, train, test, None, None)
    }

    /// As [`Trainer::fit`], and goes on from `file` after an interruption: it is written after passes over the data, at
    /// most once a second, and at the end. Called again with the same settings, data and a model that stands where it
    /// stood, the training goes on after the last pass in the file, and ends with the same bits; once it has ended, it is
    /// over at once.
    ///
    /// # Errors
    /// As [`Trainer::fit`]; a file that belongs to another training, is damaged, or cannot be read or written. If it can no
    /// longer be written during the training, that is a warning.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let file = dir.path().join("training");
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let new = || Mlp::new(&[2, 8, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64);
    /// let trainer = Trainer::adam(0.01).with_epochs(3);
    /// let (model, again) = (new()?, new()?);
    /// let history = trainer.fit_resuming(&model, &data, &data, &file)?;
    /// assert_eq!(trainer.fit_resuming(&again, &data, &data, &file)?, history); // read, not trained
    /// assert_eq!(model.parameters().to_flat()?, again.parameters().to_flat()?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn fit_resuming<M>(
        &self,
        model: &M,
        train: &Dataset,
        test: &Dataset,
        file: impl AsRef<Path>,
    ) -> Result<History>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        self.run(model, train, test, None, Some(file.as_ref()))
    }

    /// As [`Trainer::fit`], with snapshots of θ and running statistics added to `trajectory`, one after the last step in any
    /// case. A trajectory that has snapshots already goes on counting its steps from the last one.
    ///
    /// # Errors
    /// As [`Trainer::fit`] and [`Trajectory::push`]; the snapshots taken until then stay.
    pub fn fit_recorded<M>(
        &self,
        model: &M,
        train: &Dataset,
        test: &Dataset,
        trajectory: &mut Trajectory,
    ) -> Result<History>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        self.run(model, train, test, Some(trajectory), None)
    }

    /// Refuses settings that make no sense.
    pub(crate) fn check(&self) -> Result<()> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.learning_rate) {
            return Err(Error::invalid(format!(
                "a learning rate of {} does not train: give a finite number above 0",
                self.learning_rate
            )));
        }
        match self.method {
            Method::Sgd { momentum, .. } if !(0.0..1.0).contains(&momentum) => {
                return Err(Error::invalid(format!(
                    "a momentum of {momentum} does not settle: give a number from 0 to below 1"
                )));
            }
            Method::Adam { decay } if decay.is_nan() => {
                return Err(Error::invalid(
                    "Adam has a momentum of its own: leave it out, or train with sgd",
                ));
            }
            Method::Adam { decay } if !(decay >= 0.0 && decay.is_finite()) => {
                return Err(Error::invalid(format!(
                    "a weight decay of {decay} makes no sense: give a finite number ≥ 0"
                )));
            }
            _ => {}
        }
        if let Some(ascent) = &self.ascent
            && !positive(ascent.radius)
        {
            return Err(Error::invalid(format!(
                "a radius of {} gives sharpness-aware steps no direction: give a finite number above 0",
                ascent.radius
            )));
        }
        if self.patience == Some(0) {
            return Err(Error::invalid(
                "a patience of 0 epochs would end every training: give at least 1",
            ));
        }
        if self.batch_size == 0 {
            return Err(Error::invalid("a batch needs at least one sample"));
        }
        self.schedule.check()
    }

    fn run<M>(
        &self,
        model: &M,
        train: &Dataset,
        test: &Dataset,
        mut trajectory: Option<&mut Trajectory>,
        file: Option<&Path>,
    ) -> Result<History>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        self.check()?;
        let loss = Loss::of(train.targets());
        let learned = Objective::of(model, train, loss)?.with_l2(self.l2)?;
        let watched = Objective::of(model, test, loss)?;
        let parameters = model.parameters();
        self.try_smallest_batch(model, train)?;
        let mut descent = descent(&learned, self.method, self.ascent)?;
        let mut progress = Progress::start("training");
        let mut history = History::default();
        let per_epoch = train.len().div_ceil(self.batch_size);
        let total = per_epoch * self.epochs as usize;
        if let Some(trajectory) = &mut trajectory {
            trajectory.start(total, parameters)?;
        }
        let passes = file.map(|file| Passes::new(file, self, &learned, &watched));
        let mut passes = passes.transpose()?;
        let mut best = match &passes {
            Some(passes) => passes.read(&mut *descent, &mut history)?,
            None => None,
        };
        for epoch in history.epochs.len() as u32..self.epochs {
            if self.is_over(&history, best.as_ref()) {
                break;
            }
            let mut sums = Sums::default();
            let order = train.order(stream(self.seed, epoch.into()));
            let first = epoch as usize * per_epoch;
            for (rows, step) in order.chunks(self.batch_size).zip(first..) {
                let rate = self.rate(step, total, per_epoch);
                // The complement is never the seed of an order.
                let draws = stream(!self.seed, step as u64);
                let found = descent.step(rows, draws, rate).map_err(|error| {
                    // What is not finite stays behind.
                    let _ = descent.settle();
                    diverged(error, step, rate)
                })?;
                sums.add(&found, rows.len());
                if let Some(trajectory) = &mut trajectory
                    && trajectory.is_due(step + 1)
                {
                    descent.settle()?;
                    trajectory.offer(step + 1, parameters)?;
                }
                progress.part(step + 1, total);
            }
            let steps = (epoch as usize + 1) * per_epoch;
            let rate = self.rate(steps - 1, total, per_epoch);
            let score = descent.settle().and_then(|()| watched.score());
            let score = score.map_err(|error| diverged(error, steps, rate))?;
            let train_loss = sums.loss / train.len() as f64;
            history.epochs.push(Epoch {
                epoch: epoch + 1,
                train_loss,
                train_accuracy: match train.targets() {
                    Targets::Labels(_) => Some(sums.right as f64 / train.len() as f64),
                    Targets::Values(_) => None,
                },
                gradient_norm: (sums.squares / per_epoch as f64).sqrt(),
                test_loss: score.loss,
                test_accuracy: score.accuracy,
                learning_rate: rate,
                seconds: progress.seconds(),
            });
            if self.patience.is_some() && best.as_ref().is_none_or(|best| train_loss < best.loss) {
                best = Some(Best::here(parameters, epoch + 1, train_loss)?);
            }
            if let Some(passes) = &mut passes {
                passes.offer(&*descent, &history, best.as_ref());
            }
        }
        if let Some(passes) = &mut passes {
            passes.finish(&*descent, &history, best.as_ref());
        }
        if let Some(best) = best {
            best.restore(parameters)?;
            history.best = Some(best.epoch);
        }
        Ok(history)
    }

    /// Refuses batches of which the last has one sample, if batch normalisation cannot take it: before the training rather
    /// than at the end of a pass.
    fn try_smallest_batch(&self, model: &impl Model, train: &Dataset) -> Result<()> {
        let size = self.batch_size.min(train.len());
        let statistics = model.parameters().statistics();
        if statistics.len() == 0 || (size > 1 && train.len() % size != 1) {
            return Ok(());
        }
        let _restore = Restore::of(statistics.map(|(_, var)| var))?;
        let one = train.select(&[0])?;
        model.forward_training(one.inputs(), 0).map_err(|e| {
            Error::invalid(format!(
                "batches of {size} of {} samples end with one of a single sample: take another batch size ({})",
                train.len(),
                Error::from(e)
            ))
        })?;
        Ok(())
    }

    /// Whether patience is at an end.
    fn is_over(&self, history: &History, best: Option<&Best>) -> bool {
        let (Some(patience), Some(best)) = (self.patience, best) else {
            return false;
        };
        history.epochs.len() as u32 - best.epoch >= patience
    }

    fn rate(&self, step: usize, total: usize, per_epoch: usize) -> f64 {
        let warm = match step < self.warmup {
            true => (step + 1) as f64 / self.warmup as f64,
            false => 1.0,
        };
        self.learning_rate * warm * self.schedule.factor(step, total, per_epoch)
    }
}

/// Over the batches of an epoch.
#[derive(Default)]
struct Sums {
    loss: f64,
    right: usize,
    squares: f64,
}

impl Sums {
    fn add(&mut self, found: &Batch, samples: usize) {
        self.loss += found.loss * samples as f64;
        self.right += found.right;
        self.squares += found.square;
    }
}

/// The model after the epoch with the lowest training loss.
pub(super) struct Best {
    pub(super) epoch: u32,
    pub(super) loss: f64,
    pub(super) theta: Vec<f64>,
    pub(super) statistics: Vec<f64>,
}

impl Best {
    fn here(parameters: &Parameters, epoch: u32, loss: f64) -> Result<Self> {
        Ok(Self {
            epoch,
            loss,
            theta: parameters.to_flat()?,
            statistics: parameters.flat_statistics()?,
        })
    }

    fn restore(&self, parameters: &Parameters) -> Result<()> {
        parameters.set_flat(&self.theta)?;
        parameters.set_flat_statistics(&self.statistics)
    }
}

fn diverged(error: Error, step: usize, learning_rate: f64) -> Error {
    match error {
        Error::NotFinite(_) => Error::NotFinite(format!(
            "training diverged: the loss is no longer finite at step {step} with a learning rate of \
             {learning_rate:?}. Try a smaller one"
        )),
        other => other,
    }
}
