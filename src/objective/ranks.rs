//! Objectives whose samples lie with several processes.

use std::sync::Arc;

use super::Objective;
use crate::error::{Error, Result};
use crate::ranks::{Ranks, partition};

impl Objective {
    /// The same loss with the samples divided among `ranks`: each keeps a share of them and computes with it, and losses,
    /// gradients and products are sums over all. Every rank has all of the data, or at least its length, when it makes
    /// this call, and makes all later calls together with the others.
    ///
    /// A call that fails on one rank leaves the others waiting: end them, as `landscape` does.
    ///
    /// # Errors
    /// Fewer samples than ranks.
    pub fn among(mut self, ranks: Arc<dyn Ranks>) -> Result<Self> {
        self.needs_all_samples("dividing the samples a second time")?;
        if self.batch_statistics().is_some() {
            return Err(Error::invalid(
                "batches that normalise their samples cannot be divided among ranks: compute with them in one process",
            ));
        }
        let (all, rank, size) = (self.data.len(), ranks.rank(), ranks.size());
        if all < size {
            return Err(Error::invalid(format!(
                "{all} samples cannot be divided among {size} ranks: start fewer, or take more samples"
            )));
        }
        let mine = partition(all, rank, size);
        self.data = self.data.narrow(mine.start, mine.len())?;
        self.ranks = Some(ranks);
        Ok(self)
    }

    /// The number of samples that L is a mean over; of an objective [among ranks](Self::among) all of them.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Refuses `what` where the samples lie with several ranks.
    pub(crate) fn needs_all_samples(&self, what: &str) -> Result<()> {
        match self.ranks {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "{what} needs all samples in one place: take the objective before among(ranks)"
            ))),
        }
    }

    /// From means over the samples here those over all samples, on every rank.
    pub(super) fn over_ranks(&self, means: &mut [f64]) -> Result<()> {
        let Some(ranks) = &self.ranks else {
            return Ok(());
        };
        let share = self.data.len() as f64 / self.samples as f64;
        means.iter_mut().for_each(|mean| *mean *= share);
        ranks.sum(means)
    }
}
