//! Objectives whose samples are read in parts, because they do not fit into memory.

use std::ops::Range;
use std::sync::Arc;

use super::Objective;
use crate::data::SampleSource;
use crate::error::{Error, Result};
use crate::progress::{self, Progress};

/// Samples that are read in parts of at most `size`.
#[derive(Clone)]
pub(super) struct Parts {
    source: Arc<dyn SampleSource>,
    size: usize,
}

impl Objective {
    /// The loss of the same model on the samples of a `source`, of which at most `part` are in memory at a time. Each loss,
    /// gradient and product, or block of products, reads all samples once.
    ///
    /// Results are those of a dataset in memory up to rounding, because the sums of the parts are added one after another, each
    /// in order. The forward pass is not cached between products, so a product takes about half as long again, plus the time
    /// to read. [`Lanczos::with_block_size`](crate::spectral::Lanczos::with_block_size) reads the samples once for several
    /// vectors.
    ///
    /// [`Objective::data`] returns the first part. What needs all samples in memory, such as training, is an error.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?; // a source too
    /// let model =
    ///     Mlp::new(&[2, 4, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let whole = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let in_parts = whole.with_source(data, 25)?;
    /// assert_eq!(in_parts.samples(), 60);
    /// assert!((whole.loss()? - in_parts.loss()?).abs() < 1e-14);
    /// let [a, b] = [&whole, &in_parts].map(|objective| objective.hessian().top(1));
    /// assert!((a?.pairs[0].value - b?.pairs[0].value).abs() < 1e-10);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A `part` of 0; a source without samples; samples that do not fit the model or the loss, of which the first part is read;
    /// a cross-entropy that weights or ignores labels; an objective [with ranks](Self::with_ranks) or
    /// [with batch statistics](Self::with_batch_statistics).
    pub fn with_source(&self, source: impl SampleSource + 'static, part: usize) -> Result<Self> {
        self.needs_all_samples("reading samples in parts")?;
        if self.batch_statistics().is_some() {
            return Err(Error::invalid(
                "batches that normalise their samples cannot be read in parts: compute with a dataset in memory",
            ));
        }
        if self.loss.depends_on_data() {
            return Err(Error::invalid(
                "a cross-entropy that weights or ignores labels needs the labels of all samples: use Loss::CrossEntropy, or \
                 a dataset in memory",
            ));
        }
        let samples = source.len();
        if part == 0 || samples == 0 {
            return Err(Error::invalid(format!(
                "parts of {part} of {samples} samples: both must be at least 1"
            )));
        }
        let first = source.read(0..part.min(samples))?;
        let parts = Parts {
            source: Arc::new(source),
            size: part,
        };
        Ok(Self {
            samples,
            parts: Some(parts),
            ..self.with_data(&first)?
        })
    }

    /// Evaluates `f` for these samples. If they are read in parts, evaluates it for each part and adds the results to `zero` with
    /// `add`, which gets each part's share of the samples.
    pub(super) fn over_parts<T>(
        &self,
        zero: impl FnOnce() -> T,
        f: impl Fn(&Self) -> Result<T>,
        add: impl Fn(&mut T, f64, T),
    ) -> Result<T> {
        let Some(parts) = &self.parts else {
            return f(self);
        };
        let mut progress = Progress::start("samples read in parts");
        let mut total = zero();
        for range in parts.ranges(self.samples) {
            progress::check()?;
            let (share, end) = (range.len() as f64 / self.samples as f64, range.end);
            let part = parts.read(self, range)?;
            add(&mut total, share, f(&part)?);
            progress.part(end, self.samples);
        }
        Ok(total)
    }
}

impl Parts {
    fn ranges(&self, samples: usize) -> impl Iterator<Item = Range<usize>> {
        let starts = (0..samples).step_by(self.size);
        starts.map(move |start| start..(start + self.size).min(samples))
    }

    /// The same objective on a part of the samples. Its forward pass is not cached, because no later call uses it.
    fn read(&self, objective: &Objective, range: Range<usize>) -> Result<Objective> {
        let data = self.source.read(range.clone())?;
        if data.len() != range.len() {
            return Err(Error::invalid(format!(
                "the source returned {} samples for the range {range:?}",
                data.len()
            )));
        }
        let part = objective.with_data(&data).map_err(|error| match error {
            Error::Invalid(problem) => {
                Error::invalid(format!("samples {range:?} cannot be used: {problem}"))
            }
            error => error,
        })?;
        Ok(part.with_memory(0))
    }
}
