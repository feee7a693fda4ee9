//! [`Passes`]: what a training has come to after passes over the data, in a file that it goes on from.

use std::path::Path;
use std::time::{Duration, Instant};

use super::descent::Descent;
use super::trainer::{Best, Trainer};
use super::{Epoch, History};
use crate::checkpoint::{Checkpoint, key};
use crate::error::{Error, Result};
use crate::files::{WRITABLE, check_writable};
use crate::objective::Objective;
use crate::progress::warn;

pub(super) struct Passes {
    checkpoint: Checkpoint,
    parameters: usize,
    /// When the file was written last, and whether there have been passes since.
    written: Option<Instant>,
    is_behind: bool,
}

/// Between two writings: bringing a file to the disk takes longer than a pass over few data.
const INTERVAL: Duration = Duration::from_secs(1);

impl Passes {
    /// For a training with these settings, from where the model stands, on data with these losses there.
    pub(super) fn new(
        path: &Path,
        trainer: &Trainer,
        learned: &Objective,
        watched: &Objective,
    ) -> Result<Self> {
        let settings = serde_json::to_string(trainer)
            .map_err(|e| Error::invalid(format!("the settings cannot be written down ({e})")))?;
        check_writable(path, WRITABLE)?;
        let parameters = learned.parameters();
        let start = [parameters.to_flat()?, parameters.flat_statistics()?].concat();
        let losses = [learned.loss()?, watched.loss()?];
        let task = format!("training {settings} in {}", parameters.dtype().as_str());
        Ok(Self {
            checkpoint: Checkpoint::new(path, key(&task, &[&start, &losses])),
            parameters: parameters.len(),
            written: None,
            is_behind: false,
        })
    }

    /// Goes on from the last pass in the file, if there is one.
    pub(super) fn read(
        &self,
        descent: &mut dyn Descent,
        history: &mut History,
    ) -> Result<Option<Best>> {
        let kept = self.checkpoint.read()?;
        if kept.is_empty() {
            return Ok(None);
        }
        let parsed = self.parse(&kept, descent.memory()?.len());
        let (epochs, best, memory) = parsed.ok_or_else(|| self.checkpoint.misfit())?;
        history.epochs = epochs;
        descent.recall(memory)?;
        Ok(best)
    }

    /// The passes, the best of them, and a descent's memory of this length; nothing if the numbers are of another shape.
    fn parse<'a>(
        &self,
        mut kept: &'a [f64],
        memory: usize,
    ) -> Option<(Vec<Epoch>, Option<Best>, &'a [f64])> {
        let mut next = |count: usize| {
            let (numbers, rest) = kept.split_at_checked(count)?;
            kept = rest;
            Some(numbers)
        };
        let passes = next(1)?[0] as usize;
        let epochs = next(passes.checked_mul(8)?)?;
        let epochs = epochs.as_chunks().0.iter().map(epoch).collect();
        let [best, length] = [next(1)?[0] as usize, next(1)?[0] as usize];
        let best = match next(best)? {
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
        let rest = next(length)?;
        (length == memory).then_some((epochs, best, rest))
    }

    /// After a pass: writes the file if it is time to.
    pub(super) fn offer(&mut self, descent: &dyn Descent, history: &History, best: Option<&Best>) {
        self.is_behind = true;
        if self
            .written
            .is_none_or(|written| written.elapsed() >= INTERVAL)
        {
            self.finish(descent, history, best);
        }
    }

    /// Writes the file if there have been passes since. A disk that is full ends no training: that is a warning.
    pub(super) fn finish(&mut self, descent: &dyn Descent, history: &History, best: Option<&Best>) {
        if !self.is_behind {
            return;
        }
        if let Err(error) = self.write(descent, history, best) {
            warn(&format!(
                "the training goes on, but after an interruption it would not go on from here: {error}"
            ));
        }
        self.written = Some(Instant::now());
        self.is_behind = false;
    }

    fn write(&self, descent: &dyn Descent, history: &History, best: Option<&Best>) -> Result<()> {
        let best = best.map_or_else(Vec::new, |best| {
            let head = vec![f64::from(best.epoch), best.loss];
            [head, best.theta.clone(), best.statistics.clone()].concat()
        });
        let memory = descent.memory()?;
        let epochs = history.epochs.iter().flat_map(numbers);
        let head = [history.epochs.len() as f64].into_iter().chain(epochs);
        let lengths = [best.len() as f64, memory.len() as f64];
        let all = head.chain(lengths).chain(best).chain(memory);
        self.checkpoint.write(&all.collect::<Vec<_>>())
    }
}

fn numbers(epoch: &Epoch) -> [f64; 8] {
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

fn epoch(numbers: &[f64; 8]) -> Epoch {
    let share = |x: f64| (!x.is_nan()).then_some(x);
    Epoch {
        epoch: numbers[0] as u32,
        train_loss: numbers[1],
        train_accuracy: share(numbers[2]),
        gradient_norm: numbers[3],
        test_loss: numbers[4],
        test_accuracy: share(numbers[5]),
        learning_rate: numbers[6],
        seconds: numbers[7],
    }
}
