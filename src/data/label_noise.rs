//! Label noise.

use candle_core::Tensor;
use rand::Rng;
use rand::seq::SliceRandom;

use super::Dataset;
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};

impl Dataset {
    /// The same samples with wrong labels for a `share` of them: ⌊`share` · n⌉ samples, drawn from `seed`, get
    /// another of the occurring classes, each with equal probability. Compare the labels with this dataset's to find
    /// them. With the same seed, a larger `share` corrupts a superset of the samples, with the same wrong labels.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let noisy = data.with_label_noise(0.25, 0)?;
    /// let wrong = data
    ///     .labels()?
    ///     .iter()
    ///     .zip(noisy.labels()?)
    ///     .filter(|(a, b)| **a != *b)
    ///     .count();
    /// assert_eq!(wrong, 15);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A `share` outside [0, 1]; a dataset without one label per sample, or with only one class.
    pub fn with_label_noise(&self, share: f64, seed: u64) -> Result<Self> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::invalid(format!(
                "a share of {share} wrong labels is out of range: give a number from 0 to 1"
            )));
        }
        let mut labels = self.labels_of_samples("label noise")?;
        let mut classes = labels.clone();
        classes.sort_unstable();
        classes.dedup();
        if classes.len() < 2 {
            return Err(Error::invalid(format!(
                "every sample is of class {}: wrong labels need at least two classes",
                classes[0]
            )));
        }
        let wrong = (share * self.len() as f64).round() as usize;
        // Different from the order of training with the same seed, which would show the wrong labels first.
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut generator(Purpose::LabelNoise, seed, 0));
        let mut rng = generator(Purpose::LabelNoise, seed, 1);
        for i in order.into_iter().take(wrong) {
            // One of the other classes: the last one replaces the sample's own.
            let drawn = classes[rng.random_range(0..classes.len() - 1)];
            let last = classes[classes.len() - 1];
            labels[i] = if drawn == labels[i] { last } else { drawn };
        }
        Self::classification(
            self.inputs(),
            &Tensor::from_vec(labels, self.len(), self.device())?,
        )
    }
}
