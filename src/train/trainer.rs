//! [`Trainer`]: mini-batch training.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::checkpoint::TrainingCheckpoint;
use super::stepper::{StepRule, stepper};
use super::{
    Adam, Epoch, History, ObservedStep, Optimizer, Sam, Schedule, Sgd, StepObserver, Trajectory,
    clip, optimizer,
};
use crate::data::{Dataset, Targets};
use crate::engine::BatchScore;
use crate::error::{Error, Result, check_positive};
use crate::model::Model;
use crate::objective::{Loss, Objective, check_l2};
use crate::parameters::{Parameters, Restore};
use crate::progress::{self, Progress};
use crate::vector::stream;

/// Settings of a mini-batch training. [`fit`](Self::fit) trains a model: with cross-entropy on labels, with mean squared
/// error on values. [`fit_objective`](Self::fit_objective) trains any [`Objective`], such as one with a loss of your own.
///
/// Steps go through the model's [`forward_training`](Model::forward_training), with the batch's own statistics in batch
/// normalisation and with dropout. Test losses and accuracies go through its forward pass.
///
/// The same seed, model and data give the same bits on a CPU.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::train::{Schedule, Sgd};
///
/// # fn main() -> Result<(), Error> {
/// let data = two_moons(200, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 8, 1], Activation::Tanh, 1, data.device())?.to_dtype(DType::F64)?;
/// let history = Trainer::new(Sgd::default().with_momentum(0.9), 0.1)
///     .with_sam(0.05)
///     .with_batch_size(20)
///     .with_epochs(30)
///     .with_schedule(Schedule::Cosine)
///     .fit(&model, &data, &data)?;
/// assert_eq!(history.epochs.len(), 30);
/// assert!(history.epochs[29].test_loss < history.epochs[0].test_loss);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trainer {
    /// Update rule.
    // The names in files are those of their first version, so that checkpoints still match.
    #[serde(
        rename = "method",
        serialize_with = "optimizer::serialize",
        deserialize_with = "optimizer::deserialize"
    )]
    pub optimizer: Arc<dyn Optimizer>,
    /// η, before schedule and warm-up.
    pub learning_rate: f64,
    /// How the learning rate changes during training.
    pub schedule: Schedule,
    /// Number of warm-up steps.
    pub warmup: usize,
    /// Sharpness-aware steps.
    #[serde(rename = "ascent")]
    pub sam: Option<Sam>,
    /// Norm to which larger gradients are clipped; `None` for no clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// λ of the penalty λ‖θ‖².
    pub l2: f64,
    /// Largest number of passes over the training data.
    pub epochs: u32,
    /// Largest number of steps, instead of `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Number of epochs without a lower training loss after which the training ends.
    pub patience: Option<u32>,
    /// Samples per step.
    pub batch_size: usize,
    /// Seed of shuffling and dropout.
    pub seed: u64,
    /// File from which the training resumes.
    #[serde(skip)]
    pub checkpoint: Option<PathBuf>,
}

/// Two trainers are equal if their optimizers' [settings](Optimizer::settings) and all other fields are.
impl PartialEq for Trainer {
    fn eq(&self, other: &Self) -> bool {
        let fields = |trainer: &Self| {
            let schedule = (trainer.learning_rate, trainer.schedule, trainer.warmup);
            let length = (
                trainer.epochs,
                trainer.steps,
                trainer.patience,
                trainer.batch_size,
            );
            let rest = (
                trainer.sam,
                trainer.clip_norm,
                trainer.l2,
                trainer.seed,
                trainer.checkpoint.clone(),
            );
            (trainer.optimizer.settings(), schedule, length, rest)
        };
        fields(self) == fields(other)
    }
}

impl Trainer {
    /// A training with this optimizer and learning rate: constant rate, 1 epoch, batches of 128, no penalty, seed 0.
    ///
    /// See [`Sgd`], [`Adam`] and [`Optimizer`] for examples.
    pub fn new(optimizer: impl Optimizer + 'static, learning_rate: f64) -> Self {
        Self {
            optimizer: Arc::new(optimizer),
            learning_rate,
            schedule: Schedule::Constant,
            warmup: 0,
            sam: None,
            clip_norm: None,
            l2: 0.0,
            epochs: 1,
            steps: None,
            patience: None,
            batch_size: 128,
            seed: 0,
            checkpoint: None,
        }
    }

    /// Stochastic gradient descent without momentum, θ ← θ − ηg. For momentum pass an [`Sgd`] to [`Trainer::new`].
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
        Self::new(Sgd::default(), learning_rate)
    }

    /// [`Adam`] with its default settings.
    pub fn adam(learning_rate: f64) -> Self {
        Self::new(Adam::default(), learning_rate)
    }

    /// [`Adam`] with decoupled weight decay: θ ← (1 − η `weight_decay`) θ before each step (Loshchilov and Hutter, 2019).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // The input is 0, so that the gradient is 0 and only the decay changes the weight.
    /// let x = Tensor::new(&[[0.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[0.0, 1.0])?;
    /// Trainer::adamw(0.1, 0.5).fit(&line, &data, &data)?;
    /// assert!((line.parameters().to_flat()?[1] - 0.95).abs() < 1e-12); // (1 − 0.1 · 0.5) w
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adamw(learning_rate: f64, weight_decay: f64) -> Self {
        Self::new(
            Adam::default().with_weight_decay(weight_decay),
            learning_rate,
        )
    }

    /// Sharpness-aware minimisation (Foret et al., 2021): each step uses the gradient at θ + ρg/‖g‖. It takes two gradients
    /// per step.
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
        self.sam = Some(Sam { radius, adaptive });
        self
    }

    /// Adaptive sharpness-aware minimisation (Kwon et al., 2021): each step uses the gradient at θ + ρT²g/‖Tg‖ with
    /// T = diag|θ|, which does not depend on the scale of each layer's weights.
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
        self.sam = Some(Sam { radius, adaptive });
        self
    }

    /// Clips each gradient to a norm c: g ← g · min(1, c/(‖g‖ + 10⁻⁶)), like PyTorch's `clip_grad_norm_` (Pascanu, Mikolov and
    /// Bengio, "On the difficulty of training recurrent neural networks", 2013).
    ///
    /// ‖g‖ is over all parameters, and g contains the gradient of the penalty [`with_l2`](Self::with_l2). With sharpness-aware
    /// steps, only the second gradient, which the step uses, is clipped. The [`History`] has the norms before clipping.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // One step on L(b, w) = b² + 4w² from (3, ½): the gradient (6, 4) has the norm √52 and is clipped to 1.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[3.0, 0.5])?;
    /// Trainer::sgd(0.125).with_clip_norm(1.0).fit(&line, &data, &data)?;
    /// let theta = line.parameters().to_flat()?;
    /// let scale = 1.0 / (52f64.sqrt() + 1e-6);
    /// assert!((theta[0] - (3.0 - 0.125 * 6.0 * scale)).abs() < 1e-12);
    /// assert!((theta[1] - (0.5 - 0.125 * 4.0 * scale)).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_clip_norm(mut self, norm: f64) -> Self {
        self.clip_norm = Some(norm);
        self
    }

    /// Sets how the learning rate changes during training.
    #[must_use]
    pub fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Sets the number of warm-up steps (Goyal et al., "Accurate, Large Minibatch SGD", 2017): step i of these, counted from
    /// 1, has i/`steps` of the learning rate.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let trainer = Trainer::sgd(0.5).with_warmup(4).with_epochs(5); // one step per epoch
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
    /// // The input is 0, so that only the penalty λ‖θ‖² moves the weight, with the gradient 2λw.
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

    /// Sets the number of passes over the training data [default: 1].
    #[must_use]
    pub fn with_epochs(mut self, epochs: u32) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets the number of steps, instead of the number of epochs. The last epoch ends with the last step; its losses are means
    /// over the samples that it used.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let mut trajectory = Trajectory::every(2)?;
    /// let trainer = Trainer::sgd(0.1).with_batch_size(20).with_steps(5); // an epoch has 3 steps
    /// let history = trainer.fit_recorded(&model, &data, &data, &mut trajectory)?;
    /// assert_eq!(history.epochs.len(), 2);
    /// assert_eq!(trajectory.steps(), [0, 2, 4, 5]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = Some(steps);
        self
    }

    /// Ends the training after this many epochs in a row without a lower training loss, and restores the weights of the
    /// epoch with the lowest.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// // The learning rate is too large: L(b, w) = b² + 4w² increases in each step.
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

    /// Sets the number of samples per step [default: 128].
    #[must_use]
    pub fn with_batch_size(mut self, size: usize) -> Self {
        self.batch_size = size;
        self
    }

    /// Sets the seed of shuffling and dropout [default: 0].
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets a checkpoint file, from which the training resumes if it exists.
    ///
    /// It is written after epochs, at most once per second, and at the end. Called again with the same settings, data and
    /// initial θ, the training resumes after the last epoch in the file and ends with the same bits as without an
    /// interruption. A training that has ended is read from the file.
    ///
    /// A file that belongs to another training, is damaged, or cannot be read or written is an error of
    /// [`fit`](Self::fit); a write that fails later is a warning.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let file = dir.path().join("training");
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let new = || Mlp::new(&[2, 8, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64);
    /// let trainer = Trainer::adam(0.01).with_epochs(3).with_checkpoint(&file);
    /// let (model, again) = (new()?, new()?);
    /// let history = trainer.fit(&model, &data, &data)?;
    /// assert_eq!(trainer.fit(&again, &data, &data)?, history); // read, not trained
    /// assert_eq!(model.parameters().to_flat()?, again.parameters().to_flat()?);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_checkpoint(mut self, file: impl Into<PathBuf>) -> Self {
        self.checkpoint = Some(file.into());
        self
    }

    /// Trains `model` on `train` and returns the loss of each epoch on `train` and on `test`.
    ///
    /// # Errors
    /// Settings outside their range; a loss that is not finite, with the step at which it appeared; a
    /// [checkpoint](Self::with_checkpoint) that cannot be used; errors of [`Objective::of`];
    /// [`Error::Interrupted`]. The model keeps the parameters after the last finished step.
    pub fn fit<M>(&self, model: &M, train: &Dataset, test: &Dataset) -> Result<History>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        self.check()?;
        let (train, test) = objectives(model, train, test)?;
        self.run(&train, &test, None, None)
    }

    /// As [`Trainer::fit`], and adds snapshots of θ and the running statistics to `trajectory`, the last one after the last
    /// step. A trajectory that already has snapshots continues counting steps from its last one.
    ///
    /// # Errors
    /// As [`Trainer::fit`] and [`Trajectory::push`], after which the snapshots taken so far remain; a trainer with a
    /// [checkpoint](Self::with_checkpoint), which holds no snapshots.
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
        self.check()?;
        let (train, test) = objectives(model, train, test)?;
        self.run(&train, &test, Some(trajectory), None)
    }

    /// Trains the model of an objective, with the objective's own loss, and returns the losses of each epoch on `train` and
    /// on `test`, an objective of the same model.
    ///
    /// The penalties of `train` and of [`with_l2`](Self::with_l2) add up.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// // A loss of one's own: the mean of |z − y|^1.5.
    /// let x = Tensor::new(&[[-2.0], [1.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &(&x * 3.0)?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let network = line.clone();
    /// let objective = Objective::from_loss(
    ///     line.parameters().clone(),
    ///     &data,
    ///     move |x| network.forward(x),
    ///     |z, targets| {
    ///         let Targets::Values(y) = targets else { candle::bail!("expected values") };
    ///         (z - y)?.sqr()?.powf(0.75)?.squeeze(1)
    ///     },
    /// )?;
    /// let before = objective.loss()?;
    /// let trainer = Trainer::adam(0.1).with_epochs(50);
    /// let history = trainer.fit_objective(&objective, &objective)?;
    /// assert!(objective.loss()? < 0.1 * before);
    /// assert_eq!(history.epochs[49].test_loss, objective.loss()?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::fit`]; objectives of different models; an objective whose samples are distributed over ranks.
    pub fn fit_objective(&self, train: &Objective, test: &Objective) -> Result<History> {
        self.check()?;
        self.run(train, test, None, None)
    }

    /// As [`Trainer::fit_objective`], with a trajectory as in [`Trainer::fit_recorded`].
    ///
    /// # Errors
    /// As [`Trainer::fit_objective`] and [`Trainer::fit_recorded`].
    pub fn fit_objective_recorded(
        &self,
        train: &Objective,
        test: &Objective,
        trajectory: &mut Trajectory,
    ) -> Result<History> {
        self.check()?;
        self.run(train, test, Some(trajectory), None)
    }

    /// As [`Trainer::fit_objective`], and shows some of the steps to `observer`.
    pub(crate) fn fit_observed(
        &self,
        train: &Objective,
        test: &Objective,
        observer: &mut dyn StepObserver,
    ) -> Result<History> {
        self.check()?;
        self.run(train, test, None, Some(observer))
    }

    /// Checks that all settings are in their ranges, as the methods that train do before any work.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// assert!(Trainer::adam(1e-3).check().is_ok());
    /// assert!(Trainer::adam(-1e-3).check().is_err());
    /// ```
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn check(&self) -> Result<()> {
        check_positive(self.learning_rate, "the learning rate")?;
        self.optimizer.check()?;
        check_l2(self.l2)?;
        if let Some(sam) = self.sam {
            sam.check()?;
        }
        if let Some(norm) = self.clip_norm {
            clip::check(norm)?;
        }
        if self.patience == Some(0) {
            return Err(Error::invalid(
                "a patience of 0 epochs would end every training: give at least 1",
            ));
        }
        if self.batch_size == 0 {
            return Err(Error::invalid("the batch size is 0: give at least 1"));
        }
        self.schedule.check()
    }

    fn run(
        &self,
        train: &Objective,
        test: &Objective,
        mut trajectory: Option<&mut Trajectory>,
        mut observer: Option<&mut dyn StepObserver>,
    ) -> Result<History> {
        check_pair(train, test)?;
        let train = train.clone().with_l2(train.l2() + self.l2)?;
        let (data, parameters) = (train.data(), train.parameters());
        self.check_last_batch(&train)?;
        let rule = StepRule {
            optimizer: self.optimizer.clone(),
            sam: self.sam,
            clip_norm: self.clip_norm,
        };
        let mut stepper = stepper(&train, rule)?;
        let mut progress = Progress::start("training");
        let mut history = History::default();
        let steps_per_epoch = data.len().div_ceil(self.batch_size);
        let total = self.steps.unwrap_or(steps_per_epoch * self.epochs as usize);
        let epochs = total.div_ceil(steps_per_epoch) as u32;
        if let Some(trajectory) = &mut trajectory {
            if self.checkpoint.is_some() {
                return Err(Error::invalid(
                    "a checkpoint holds no snapshots, so a resumed trajectory would lack some: train without \
                     with_checkpoint, or without a trajectory",
                ));
            }
            trajectory.start(total, parameters)?;
        }
        if observer.is_some() && self.checkpoint.is_some() {
            return Err(Error::invalid(
                "a checkpoint holds no measurements, so a resumed training would lack some: train without with_checkpoint",
            ));
        }
        let checkpoint = self.checkpoint.as_deref();
        let checkpoint = checkpoint.map(|file| TrainingCheckpoint::new(file, self, &train, test));
        let mut checkpoint = checkpoint.transpose()?;
        let mut best = match &checkpoint {
            Some(checkpoint) => checkpoint.resume(&mut *stepper, &mut history)?,
            None => None,
        };
        for epoch in history.epochs.len() as u32..epochs {
            if self.is_out_of_patience(&history, best.as_ref()) {
                break;
            }
            let mut sums = EpochSums::default();
            let order = data.order(stream(self.seed, epoch.into()));
            let first = epoch as usize * steps_per_epoch;
            for (rows, step) in order.chunks(self.batch_size).zip(first..total) {
                let rate = self.rate(step, total, steps_per_epoch);
                // The complement of the seed, because the seed itself is that of the orders.
                let dropout_seed = stream(!self.seed, step as u64);
                let started = Instant::now();
                let before = match &observer {
                    Some(observer) if observer.is_due(step) => Some(stepper.theta()?),
                    _ => None,
                };
                let reading = started.elapsed();
                let batch = progress::check().and_then(|()| stepper.step(rows, dropout_seed, rate));
                let batch = batch.map_err(|error| {
                    // The model gets the parameters of the last step, even if they are not finite.
                    let _ = stepper.update_model();
                    diverged(error, step, rate)
                })?;
                sums.add(&batch, rows.len());
                if let Some(observer) = &mut observer
                    && let Some(before) = before
                {
                    let started = Instant::now();
                    stepper.update_model()?;
                    let (after, moments) = (stepper.theta()?, stepper.moments()?);
                    observer.observe(ObservedStep {
                        objective: &train,
                        rows,
                        steps: step,
                        learning_rate: rate,
                        loss: batch.loss,
                        before,
                        after,
                        moments,
                        reading: reading + started.elapsed(),
                    })?;
                }
                if let Some(trajectory) = &mut trajectory
                    && trajectory.is_due(step + 1)
                {
                    stepper.update_model()?;
                    trajectory.offer(step + 1, parameters)?;
                }
                progress.part_with(step + 1, total, || {
                    let loss = sums.loss / sums.samples as f64;
                    format!("epoch {} of {epochs}, loss {loss:.3}", epoch + 1)
                });
            }
            let steps = (first + steps_per_epoch).min(total);
            let rate = self.rate(steps - 1, total, steps_per_epoch);
            let score = stepper.update_model().and_then(|()| test.score());
            let score = score.map_err(|error| diverged(error, steps, rate))?;
            let train_loss = sums.loss / sums.samples as f64;
            let share = sums.samples as f64 / data.len() as f64;
            history.epochs.push(Epoch {
                epoch: epoch + 1,
                train_loss,
                train_accuracy: match data.targets() {
                    Targets::Labels(_) => Some(sums.correct as f64 / (share * train.num_labels())),
                    Targets::Values(_) => None,
                },
                gradient_norm: (sums.squared_norms / (steps - first) as f64).sqrt(),
                test_loss: score.loss,
                test_accuracy: score.accuracy,
                learning_rate: rate,
                seconds: progress.seconds(),
            });
            if self.patience.is_some() && best.as_ref().is_none_or(|best| train_loss < best.loss) {
                best = Some(Best::of_model(parameters, epoch + 1, train_loss)?);
            }
            if let Some(checkpoint) = &mut checkpoint {
                checkpoint.update(&*stepper, &history, best.as_ref());
            }
        }
        if let Some(checkpoint) = &mut checkpoint {
            checkpoint.finish(&*stepper, &history, best.as_ref());
        }
        if let Some(best) = best {
            best.restore(parameters)?;
            history.best = Some(best.epoch);
        }
        Ok(history)
    }

    /// Refuses a last batch of one sample if batch normalisation cannot use it: before the training instead of at the end of
    /// an epoch.
    fn check_last_batch(&self, train: &Objective) -> Result<()> {
        let (data, statistics) = (train.data(), train.parameters().statistics());
        let size = self.batch_size.min(data.len());
        if statistics.len() == 0 || (size > 1 && data.len() % size != 1) {
            return Ok(());
        }
        let _restore = Restore::new(statistics.map(|(_, var)| var))?;
        let one = data.select(&[0])?;
        match train.training_pass()(one.inputs()).map_err(Error::from) {
            Ok(_) => Ok(()),
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(e) => Err(Error::invalid(format!(
                "the last batch has a single sample, with {} samples in batches of {size}: choose another batch size ({e})",
                data.len()
            ))),
        }
    }

    fn is_out_of_patience(&self, history: &History, best: Option<&Best>) -> bool {
        let (Some(patience), Some(best)) = (self.patience, best) else {
            return false;
        };
        history.epochs.len() as u32 - best.epoch >= patience
    }

    fn rate(&self, step: usize, total: usize, steps_per_epoch: usize) -> f64 {
        let warmup = match step < self.warmup {
            true => (step + 1) as f64 / self.warmup as f64,
            false => 1.0,
        };
        let factor = self
            .schedule
            .factor(step, total, steps_per_epoch, self.warmup);
        self.learning_rate * warmup * factor
    }
}

/// The losses of `model` on both datasets.
fn objectives<M>(model: &M, train: &Dataset, test: &Dataset) -> Result<(Objective, Objective)>
where
    M: Model + Clone + Send + Sync + 'static,
{
    let loss = Loss::default_for(train.targets());
    Ok((
        Objective::of(model, train, loss.clone())?,
        Objective::of(model, test, loss)?,
    ))
}

/// Refuses objectives of different models, and those that a single process cannot train.
fn check_pair(train: &Objective, test: &Objective) -> Result<()> {
    train.needs_all_samples("training")?;
    let ids = |objective: &Objective| -> Vec<_> {
        let vars = objective.parameters().vars().into_iter();
        vars.map(|var| var.as_tensor().id()).collect()
    };
    match ids(train) == ids(test) {
        true => Ok(()),
        false => Err(Error::invalid(
            "the objectives for training and test have different models: make the second with on(&test_data)",
        )),
    }
}

/// Sums over the batches of an epoch.
#[derive(Default)]
struct EpochSums {
    samples: usize,
    loss: f64,
    correct: usize,
    squared_norms: f64,
}

impl EpochSums {
    fn add(&mut self, batch: &BatchScore, samples: usize) {
        self.samples += samples;
        self.loss += batch.loss * samples as f64;
        self.correct += batch.correct;
        self.squared_norms += batch.squared_norm;
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
    fn of_model(parameters: &Parameters, epoch: u32, loss: f64) -> Result<Self> {
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
