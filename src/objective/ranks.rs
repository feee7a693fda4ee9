//! Objectives whose samples are divided among several processes.

use std::sync::Arc;

use super::Objective;
use crate::error::{Error, Result, counted};
use crate::ranks::{Ranks, partition};

impl Objective {
    /// The same loss with the samples divided among `ranks`: each rank stores and evaluates a share of them, and
    /// losses, gradients and products are sums over all ranks. Every rank must hold all of the data, or at least its
    /// length, when it makes this call, and must make all later calls together with the others.
    ///
    /// If a call fails on one rank, the others wait for it: terminate them, as `landscape` does.
    ///
    /// # Errors
    /// Fewer samples than ranks.
    pub fn with_ranks(mut self, ranks: Arc<dyn Ranks>) -> Result<Self> {
        self.needs_all_samples("dividing the samples a second time")?;
        if self.batch_statistics().is_some() {
            return Err(Error::invalid(
                "batches that normalise their samples cannot be divided among ranks: compute with them in one process",
            ));
        }
        let (all, rank, size) = (self.data.len(), ranks.rank(), ranks.size());
        if all < size {
            return Err(Error::invalid(format!(
                "{} cannot be divided among {size} ranks: start fewer, or take more samples",
                counted(all, "sample")
            )));
        }
        let mine = partition(all, rank, size);
        self.data = self.data.narrow(mine.start, mine.len())?;
        self.ranks = Some(ranks);
        Ok(self)
    }

    /// Number of samples in the mean L, over all ranks and parts.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Whether this process has all samples in memory: they are not divided among ranks or read in parts.
    pub(crate) fn has_all_samples(&self) -> bool {
        self.ranks.is_none() && self.parts.is_none()
    }

    /// Returns an error that names `what` if the samples are divided among ranks or read in parts.
    pub(crate) fn needs_all_samples(&self, what: &str) -> Result<()> {
        self.needs_one_rank(what)?;
        match &self.parts {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "{what} needs all samples in memory: use an objective on a dataset, without with_source"
            ))),
        }
    }

    /// Returns an error that names `what` if the samples are divided among ranks.
    pub(crate) fn needs_one_rank(&self, what: &str) -> Result<()> {
        match &self.ranks {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "{what} needs all samples on one rank: use the objective from before with_ranks(ranks)"
            ))),
        }
    }

    /// Turns means over this rank's samples into means over all samples, on every rank.
    pub(super) fn over_ranks(&self, means: &mut [f64]) -> Result<()> {
        let Some(ranks) = &self.ranks else {
            return Ok(());
        };
        let share = self.data.len() as f64 / self.samples as f64;
        means.iter_mut().for_each(|mean| *mean *= share);
        ranks.sum(means)
    }
}
