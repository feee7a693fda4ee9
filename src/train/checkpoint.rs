//! [`TrainingCheckpoint`]: the state of a training after a whole epoch, in a file from which it resumes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::stepper::Stepper;
use super::trainer::{Best, Trainer};
use super::{Epoch, History};
use crate::checkpoint::{Checkpoint, key};
use crate::error::{Error, Result};
use crate::files::{WRITABLE, check_writable};
use crate::objective::Objective;
use crate::progress::warn;

pub(super) struct TrainingCheckpoint {
    checkpoint: Checkpoint,
    /// Length of θ.
    parameters: usize,
    last_write: Option<Instant>,
    has_unsaved_epochs: bool,
}

/// Shortest time between two writes: writing a file to disk takes longer than an epoch on a small dataset.
const INTERVAL: Duration = Duration::from_secs(1);

/// Numbers saved per epoch.
const EPOCH_NUMBERS: usize = 8;

impl TrainingCheckpoint {
    /// The checkpoint of a training with these settings. It belongs to the model's current θ and to data with the current
    /// losses.
    pub(super) fn new(
        path: &Path,
        trainer: &Trainer,
        train: &Objective,
        test: &Objective,
    ) -> Result<Self> {
        let settings = serde_json::to_string(trainer)
            .map_err(|e| Error::invalid(format!("the settings cannot be serialised ({e})")))?;
        check_writable(path, WRITABLE)?;
        let parameters = train.parameters();
        let start = [parameters.to_flat()?, parameters.flat_statistics()?].concat();
        let losses = [train.loss()?, test.loss()?];
        let task = format!("training {settings} in {}", parameters.dtype().as_str());
        Ok(Self {
            checkpoint: Checkpoint::new(path, key(&task, &[&start, &losses])),
            parameters: parameters.len(),
            last_write: None,
            has_unsaved_epochs: false,
        })
    }

    /// Restores the stepper and the history from the file, if it exists, and returns the best epoch so far.
    pub(super) fn resume(
        &self,
        stepper: &mut dyn Stepper,
        history: &mut History,
    ) -> Result<Option<Best>> {
        let saved = self.checkpoint.read()?;
        if saved.is_empty() {
            return Ok(None);
        }
        let parsed = self.parse(&saved, stepper.state()?.len());
        let (epochs, best, state) = parsed.ok_or_else(|| self.checkpoint.misfit())?;
        history.epochs = epochs;
        stepper.restore(state)?;
        Ok(best)
    }

    /// Returns the epochs, the best of them, and the stepper's state of length `state_len`; `None` if the numbers have
    /// another layout.
    fn parse<'a>(
        &self,
        mut saved: &'a [f64],
        state_len: usize,
    ) -> Option<(Vec<Epoch>, Option<Best>, &'a [f64])> {
        let mut take = |count: usize| {
            let (numbers, rest) = saved.split_at_checked(count)?;
            saved = rest;
            Some(numbers)
        };
        let count = take(1)?[0] as usize;
        let epochs = take(count.checked_mul(EPOCH_NUMBERS)?)?;
        let epochs = epochs.as_chunks().0.iter().map(from_numbers).collect();
        let [best_len, saved_state_len] = [take(1)?[0] as usize, take(1)?[0] as usize];
        let best = match take(best_len)? {
            [] => None,
            [epoch, loss, rest @ ..] => {
                let (theta, statistics) = rest.split_at_checked(self.parameters)?;
                Some(Best {
                    epoch: *epoch as u32,
                    loss: *loss,
                    theta: theta.to_vec(),
                    statistics: statistics.to_vec(),
                })
            }
            _ => return None,
        };
        let state = take(saved_state_len)?;
        (saved_state_len == state_len).then_some((epochs, best, state))
    }

    /// Called after each epoch. Writes the file unless it was written less than a second ago.
    pub(super) fn update(&mut self, stepper: &dyn Stepper, history: &History, best: Option<&Best>) {
        self.has_unsaved_epochs = true;
        if self
            .last_write
            .is_none_or(|written| written.elapsed() >= INTERVAL)
        {
            self.finish(stepper, history, best);
        }
    }

    /// Writes the file if it lacks epochs. A full disk does not end the training: it gives a warning.
    pub(super) fn finish(&mut self, stepper: &dyn Stepper, history: &History, best: Option<&Best>) {
        if !self.has_unsaved_epochs {
            return;
        }
        if let Err(error) = self.write(stepper, history, best) {
            warn(&format!(
                "the checkpoint could not be written; the training continues, but cannot resume from here: {error}"
            ));
        }
        self.last_write = Some(Instant::now());
        self.has_unsaved_epochs = false;
    }

    fn write(&self, stepper: &dyn Stepper, history: &History, best: Option<&Best>) -> Result<()> {
        let best = best.map_or_else(Vec::new, |best| {
            let head = vec![f64::from(best.epoch), best.loss];
            [head, best.theta.clone(), best.statistics.clone()].concat()
        });
        let state = stepper.state()?;
        let epochs = history.epochs.iter().flat_map(to_numbers);
        let head = [history.epochs.len() as f64].into_iter().chain(epochs);
        let lengths = [best.len() as f64, state.len() as f64];
        let all = head.chain(lengths).chain(best).chain(state);
        self.checkpoint.write(&all.collect::<Vec<_>>())
    }
}

/// An accuracy that is missing is saved as NaN.
fn to_numbers(epoch: &Epoch) -> [f64; EPOCH_NUMBERS] {
    [
        f64::from(epoch.epoch),
        epoch.train_loss,
        epoch.train_accuracy.unwrap_or(f64::NAN),
        epoch.gradient_norm,
        epoch.test_loss,
        epoch.test_accuracy.unwrap_or(f64::NAN),
        epoch.learning_rate,
        epoch.seconds,
    ]
}

fn from_numbers(numbers: &[f64; EPOCH_NUMBERS]) -> Epoch {
    let accuracy = |x: f64| (!x.is_nan()).then_some(x);
    Epoch {
        epoch: numbers[0] as u32,
        train_loss: numbers[1],
        train_accuracy: accuracy(numbers[2]),
        gradient_norm: numbers[3],
        test_loss: numbers[4],
        test_accuracy: accuracy(numbers[5]),
        learning_rate: numbers[6],
        seconds: numbers[7],
    }
}
