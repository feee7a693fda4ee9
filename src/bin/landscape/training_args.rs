//! Training flags.

use clap::{ArgAction, Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde::Serialize;
use loss_landscape::train::{Adam, DecayGroup, Schedule, Sgd};

use crate::{Ignored, config_file};

/// All training flags.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub steps: OptimizerArgs,
    /// Strength λ of the penalty λ‖θ‖² added to the loss
    #[arg(
        long,
        value_name = "LAMBDA",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub l2: f64,
    /// Stop after this many epochs without a lower training loss, and restore the best weights
    #[arg(long, value_name = "EPOCHS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Number of epochs
    #[arg(long, default_value_t = 3)]
    pub epochs: u32,
    /// Number of steps, instead of --epochs
    #[arg(long = "steps", value_name = "STEPS")]
    #[serde(rename = "steps", skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// Seed of all random numbers, such as initial weights and shuffling
    #[arg(long, default_value_t = 0)]
    #[serde(serialize_with = "config_file::seed")]
    pub seed: u64,
}

/// Names of the training flags, without the seed, which has other uses too.
pub const TRAINING: [&str; 17] = [
    "optimizer",
    "lr",
    "momentum",
    "nesterov",
    "weight-decay",
    "decay-group",
    "clip",
    "sam",
    "asam",
    "schedule",
    "min-lr",
    "warmup",
    "batch",
    "l2",
    "patience",
    "epochs",
    "steps",
];

/// Optimizer flags.
#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct OptimizerArgs {
    /// Optimizer
    #[arg(long, value_enum, default_value = "adam")]
    pub optimizer: OptimizerName,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3, allow_negative_numbers = true)]
    pub lr: f64,
    /// Momentum of SGD, at least 0 and below 1 [default: 0, or 0.9 with --nesterov]
    #[arg(long, value_name = "MU", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Use Nesterov momentum
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set)]
    pub nesterov: bool,
    /// Decoupled weight decay of AdamW [default: 0.01]
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Parameters with weight decay [default: all]
    #[arg(long, value_enum, value_name = "GROUP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_group: Option<DecayGroupName>,
    /// Clip gradients to this norm, taken over all parameters
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Sharpness-aware minimisation (SAM) with this radius; two gradients per step
    #[arg(
        long,
        value_name = "RHO",
        conflicts_with = "asam",
        allow_negative_numbers = true
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sam: Option<f64>,
    /// Adaptive SAM with this radius, relative to the weights
    #[arg(long, value_name = "RHO", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asam: Option<f64>,
    /// Learning-rate schedule
    #[arg(long, value_enum, default_value = "constant")]
    pub schedule: ScheduleName,
    /// Final learning rate of --schedule cosine, whose decay then starts after the warmup
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// Number of warmup steps, in which the learning rate increases linearly from 0
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    pub warmup: usize,
    /// Batch size
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent
    Sgd,
    /// Adam
    Adam,
    /// Adam with decoupled weight decay
    #[value(name = "adamw")]
    AdamW,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "lowercase")]
pub enum DecayGroupName {
    /// All parameters
    All,
    /// Parameters with two or more axes: no biases and no gains of normalisation layers
    Matrices,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "lowercase")]
pub enum ScheduleName {
    /// Constant learning rate
    Constant,
    /// Cosine decay to 0, or to --min-lr
    Cosine,
}

impl TrainingArgs {
    pub fn ignored(&self) -> Ignored {
        match self.max_steps {
            Some(_) => vec![(&["epochs"], "--steps sets the length of the training")],
            None => Vec::new(),
        }
    }

    /// Number of steps on this many samples.
    pub fn num_steps(&self, samples: usize) -> usize {
        let per_epoch = samples.div_ceil(self.steps.batch.max(1));
        self.max_steps.unwrap_or(per_epoch * self.epochs as usize)
    }

    pub fn trainer(&self) -> Result<Trainer, Error> {
        let mut trainer = self.steps.trainer()?.with_l2(self.l2);
        if let Some(patience) = self.patience {
            trainer = trainer.with_patience(patience);
        }
        if let Some(steps) = self.max_steps {
            trainer = trainer.with_steps(steps);
        }
        Ok(trainer.with_epochs(self.epochs).with_seed(self.seed))
    }
}

impl OptimizerArgs {
    pub fn trainer(&self) -> Result<Trainer, Error> {
        if self.weight_decay.is_some() && self.optimizer != OptimizerName::AdamW {
            return Err(Error::Invalid(
                "--weight-decay needs --optimizer adamw; for other optimizers use --l2".into(),
            ));
        }
        if self.decay_group.is_some() && self.optimizer != OptimizerName::AdamW {
            return Err(Error::Invalid(
                "--decay-group needs --optimizer adamw".into(),
            ));
        }
        let has_momentum = self.nesterov || self.momentum.is_some();
        if has_momentum && self.optimizer != OptimizerName::Sgd {
            return Err(Error::Invalid(
                "--momentum and --nesterov need --optimizer sgd".into(),
            ));
        }
        let momentum = match self.nesterov {
            true => self.momentum.unwrap_or(0.9),
            false => self.momentum.unwrap_or(0.0),
        };
        let sgd = Sgd::default()
            .with_momentum(momentum)
            .with_nesterov(self.nesterov);
        let mut trainer = match self.optimizer {
            OptimizerName::Sgd => Trainer::new(sgd, self.lr),
            OptimizerName::Adam => Trainer::adam(self.lr),
            OptimizerName::AdamW => Trainer::new(self.adamw(), self.lr),
        };
        if let Some(norm) = self.clip {
            trainer = trainer.with_clip_norm(norm);
        }
        trainer = match (self.sam, self.asam) {
            (Some(radius), _) => trainer.with_sam(radius),
            (None, Some(radius)) => trainer.with_asam(radius),
            (None, None) => trainer,
        };
        let trainer = trainer
            .with_schedule(self.schedule()?)
            .with_warmup(self.warmup);
        Ok(trainer.with_batch_size(self.batch))
    }

    fn adamw(&self) -> Adam {
        let group = match self.decay_group {
            None | Some(DecayGroupName::All) => DecayGroup::All,
            Some(DecayGroupName::Matrices) => DecayGroup::Matrices,
        };
        Adam::default()
            .with_weight_decay(self.weight_decay.unwrap_or(0.01))
            .with_decay_group(group)
    }

    fn schedule(&self) -> Result<Schedule, Error> {
        match (self.schedule, self.min_lr) {
            (ScheduleName::Constant, None) => Ok(Schedule::Constant),
            (ScheduleName::Cosine, None) => Ok(Schedule::Cosine),
            (ScheduleName::Constant, Some(_)) => {
                Err(Error::Invalid("--min-lr needs --schedule cosine".into()))
            }
            (ScheduleName::Cosine, Some(min)) if (0.0..=self.lr).contains(&min) => {
                let floor = min / self.lr;
                Ok(Schedule::CosineTo { floor })
            }
            (ScheduleName::Cosine, Some(min)) => Err(Error::Invalid(format!(
                "--min-lr is {min}: give a number from 0 to the learning rate, {}",
                self.lr
            ))),
        }
    }
}
