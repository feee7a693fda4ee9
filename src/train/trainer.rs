//! [`Trainer`]: mini-batch training with candle's optimizers.

use candle_core::Var;
use candle_core::backprop::GradStore;
use candle_nn::{AdamW, Optimizer, ParamsAdamW, SGD};

use super::{Epoch, History, Trajectory};
use crate::data::{Dataset, Targets};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::objective::{Loss, Objective};
use crate::progress::Progress;
use crate::vector::stream;

/// Trains a model in mini-batches: cross-entropy on labels, mean squared error on values.
///
/// The same seed, model and data give the same bits on a CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Trainer {
    method: Method,
    epochs: u32,
    batch_size: usize,
    seed: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Method {
    Sgd { learning_rate: f64 },
    Adam { learning_rate: f64 },
}

impl Trainer {
    /// Stochastic gradient descent, θ ← θ − ηg.
    pub fn sgd(learning_rate: f64) -> Self {
        Self::new(Method::Sgd { learning_rate })
    }

    /// Adam (Kingma and Ba, 2015) with β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸.
    pub fn adam(learning_rate: f64) -> Self {
        Self::new(Method::Adam { learning_rate })
    }

    fn new(method: Method) -> Self {
        Self {
            method,
            epochs: 1,
            batch_size: 128,
            seed: 0,
        }
    }

    /// Passes over the training data; 1 if not said.
    pub fn epochs(mut self, epochs: u32) -> Self {
        self.epochs = epochs;
        self
    }

    /// Samples a step; 128 if not said.
    pub fn batch_size(mut self, size: usize) -> Self {
        self.batch_size = size;
        self
    }

    /// Seed of the order in which samples come, and of dropout; 0 if not said.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Trains `model` on `train` and watches `test`.
    ///
    /// # Errors
    /// A learning rate that is not positive; a batch size of 0; a loss that is not finite, with
    /// the step at which it appeared; those of [`Objective::of`]. The model keeps what it has
    /// learned until then.
    pub fn fit<M>(&self, model: &M, train: &Dataset, test: &Dataset) -> Result<History>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        self.run(model, train, test, None)
    }

    /// As [`Trainer::fit`], with snapshots of θ added to `trajectory`, one after the last step in any
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
        self.run(model, train, test, Some(trajectory))
    }

    fn run<M>(
        &self,
        model: &M,
        train: &Dataset,
        test: &Dataset,
        mut trajectory: Option<&mut Trajectory>,
    ) -> Result<History>
    where
        M: Model + Clone + Send + Sync + 'static,
    {
        let (Method::Sgd { learning_rate } | Method::Adam { learning_rate }) = self.method;
        if !(learning_rate > 0.0 && learning_rate.is_finite()) {
            return Err(Error::invalid(format!(
                "a learning rate of {learning_rate} does not train: give a finite number above 0"
            )));
        }
        let loss = match train.targets() {
            Targets::Labels(_) => Loss::CrossEntropy,
            Targets::Values(_) => Loss::Mse,
        };
        let learned = Objective::of(model, train, loss)?;
        let watched = Objective::of(model, test, loss)?;
        let mut optimizer = Stepper::new(&self.method, model)?;
        let mut progress = Progress::start("training");
        let mut history = History { epochs: Vec::new() };
        let steps = train.len().div_ceil(self.batch_size.max(1));
        let total_steps = steps * self.epochs as usize;
        if let Some(trajectory) = &mut trajectory {
            trajectory.start(total_steps, model.parameters())?;
        }
        for epoch in 0..self.epochs {
            let mut total = 0.0;
            let order = stream(self.seed, epoch.into());
            for (step, batch) in train.shuffled_batches(self.batch_size, order)?.enumerate() {
                let batch = batch?;
                let step = epoch as usize * steps + step;
                // The complement is never the seed of an order.
                let draws = stream(!self.seed, step as u64);
                let (value, gradients) = match learned.on_batch(&batch, draws) {
                    Err(Error::NotFinite(_)) => return Err(diverged(step, learning_rate)),
                    found => found?,
                };
                total += value * batch.len() as f64;
                optimizer.step(&gradients)?;
                if let Some(trajectory) = &mut trajectory {
                    trajectory.offer(step + 1, model.parameters())?;
                }
                progress.part(step + 1, total_steps);
            }
            history.epochs.push(Epoch {
                epoch: epoch + 1,
                train_loss: total / train.len() as f64,
                test_loss: watched.loss().map_err(|error| match error {
                    Error::NotFinite(_) => diverged((epoch as usize + 1) * steps, learning_rate),
                    other => other,
                })?,
                test_accuracy: match test.targets() {
                    Targets::Labels(_) => Some(watched.accuracy()?),
                    Targets::Values(_) => None,
                },
                seconds: progress.seconds(),
            });
        }
        Ok(history)
    }
}

fn diverged(step: usize, learning_rate: f64) -> Error {
    Error::NotFinite(format!(
        "training diverged: the loss is no longer finite at step {step} with a learning rate of \
         {learning_rate:?}. Try a smaller one"
    ))
}

enum Stepper {
    Sgd(SGD),
    Adam(AdamW),
}

impl Stepper {
    fn new(method: &Method, model: &impl Model) -> Result<Self> {
        let vars = model.parameters().vars();
        Ok(match *method {
            Method::Sgd { learning_rate } => Self::Sgd(SGD::new(vars, learning_rate)?),
            Method::Adam { learning_rate } => Self::Adam(adam(vars, learning_rate)?),
        })
    }

    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        match self {
            Self::Sgd(optimizer) => optimizer.step(gradients)?,
            Self::Adam(optimizer) => optimizer.step(gradients)?,
        }
        Ok(())
    }
}

/// Adam (Kingma and Ba, 2015) with its usual constants.
pub(crate) fn adam(vars: Vec<Var>, learning_rate: f64) -> Result<AdamW> {
    let settings = ParamsAdamW {
        lr: learning_rate,
        weight_decay: 0.0,
        ..ParamsAdamW::default()
    };
    Ok(AdamW::new(vars, settings)?)
}
