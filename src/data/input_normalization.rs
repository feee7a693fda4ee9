//! [`InputNormalization`]: mean and standard deviation of a dataset's inputs.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::{Dataset, SampleSource};
use crate::error::{Error, Result, counted};
use crate::progress;

/// Mean and standard deviation of inputs: one of each for every feature or channel, or one for all values.
///
/// Normalised inputs are (x − mean) / deviation. Compute both on the training set, and apply them to the test set too.
///
/// ```
/// use loss_landscape::data::InputNormalization;
/// use loss_landscape::prelude::*;
///
/// let inputs = Tensor::new(&[[0.0, 5.0], [2.0, 5.0]], &Device::Cpu)?;
/// let data = Dataset::classification(&inputs, &Tensor::new(&[0u32, 1], &Device::Cpu)?)?;
/// let normalization = InputNormalization::per_channel(&data)?;
/// assert_eq!(normalization.mean, [1.0, 5.0]);
/// // A constant feature is only centred.
/// assert_eq!(normalization.deviation, [1.0, 1.0]);
/// let data = data.normalized(&normalization)?;
/// assert_eq!(data.inputs().to_vec2::<f64>()?, [[-1.0, 0.0], [1.0, 0.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InputNormalization {
    /// Means.
    pub mean: Vec<f64>,
    /// Standard deviations, above 0.
    pub deviation: Vec<f64>,
}

impl InputNormalization {
    /// Given means and standard deviations.
    ///
    /// ```
    /// # use loss_landscape::data::InputNormalization;
    /// # use loss_landscape::prelude::*;
    /// assert!(InputNormalization::new([0.1307], [0.3081]).is_ok());
    /// assert!(InputNormalization::new([0.1307], [0.0]).is_err());
    /// ```
    ///
    /// # Errors
    /// Lists that are empty or of different lengths; numbers that are not finite; deviations that are not above 0.
    pub fn new(mean: impl Into<Vec<f64>>, deviation: impl Into<Vec<f64>>) -> Result<Self> {
        let (mean, deviation) = (mean.into(), deviation.into());
        if mean.is_empty() || mean.len() != deviation.len() {
            return Err(Error::invalid(format!(
                "{} and {}: give as many deviations as means, at least one",
                counted(mean.len(), "mean"),
                counted(deviation.len(), "deviation")
            )));
        }
        if let Some(bad) = mean.iter().find(|m| !m.is_finite()) {
            return Err(Error::invalid(format!(
                "the mean {bad} of inputs is not finite"
            )));
        }
        if let Some(bad) = deviation.iter().find(|d| !(d.is_finite() && **d > 0.0)) {
            return Err(Error::invalid(format!(
                "the deviation {bad} of inputs must be finite and above 0"
            )));
        }
        Ok(Self { mean, deviation })
    }

    /// Mean and deviation of each feature of inputs `(n, features)`, of each channel of images `(n, channels, height, width)`, or
    /// of all values of inputs of another rank. The variance is the mean squared difference from the mean. A deviation of 0
    /// becomes 1.
    ///
    /// # Errors
    /// Tokens; inputs so large that their variance is infinite; samples that cannot be read.
    pub fn per_channel(data: &dyn SampleSource) -> Result<Self> {
        let first = data.read(0..1)?;
        let (channels, _) = channels(first.inputs().dims());
        Self::measure(data, channels)
    }

    /// Mean and deviation of all values of all inputs.
    ///
    /// # Errors
    /// As [`InputNormalization::per_channel`].
    pub fn overall(data: &dyn SampleSource) -> Result<Self> {
        Self::measure(data, 1)
    }

    fn measure(data: &dyn SampleSource, channels: usize) -> Result<Self> {
        let first = data.read(0..1)?;
        check_values(&first)?;
        let width = first.inputs().elem_count();
        let per_channel = width / channels;
        let count = (data.len() * per_channel) as f64;
        // The mean over all samples of a function of channel and value.
        let mean_of = |f: &dyn Fn(usize, f64) -> f64| -> Result<Vec<f64>> {
            let mut sums = vec![0.0; channels];
            for start in (0..data.len()).step_by(BATCH) {
                progress::check()?;
                let batch = data.read(start..(start + BATCH).min(data.len()))?;
                let values = batch.inputs().to_dtype(DType::F64)?.flatten_all()?;
                for sample in values.to_vec1::<f64>()?.chunks_exact(width) {
                    for (channel, values) in sample.chunks_exact(per_channel).enumerate() {
                        let sum: f64 = values.iter().map(|x| f(channel, *x)).sum();
                        sums[channel] += sum;
                    }
                }
            }
            Ok(sums.into_iter().map(|sum| sum / count).collect())
        };
        let mean = mean_of(&|_, x| x)?;
        let variance = mean_of(&|channel, x| (x - mean[channel]).powi(2))?;
        let deviation = variance.into_iter().map(|v| match v.sqrt() {
            0.0 => 1.0,
            deviation => deviation,
        });
        Self::new(mean, deviation.collect::<Vec<_>>())
    }
}

/// Number of samples that are converted to `f64` at a time.
const BATCH: usize = 256;

/// Number of features or channels of inputs, and the shape that broadcasts a number for each over them.
fn channels(dims: &[usize]) -> (usize, Vec<usize>) {
    match dims.len() {
        2 | 4.. => {
            let mut shape = vec![1; dims.len()];
            shape[1] = dims[1];
            (dims[1], shape)
        }
        rank => (1, vec![1; rank]),
    }
}

fn check_values(data: &Dataset) -> Result<()> {
    match data.inputs().dtype().is_float() {
        true => Ok(()),
        false => Err(Error::invalid(
            "tokens cannot be normalised: inputs must be floating point",
        )),
    }
}

impl Dataset {
    /// The same samples with inputs (x − mean) / deviation.
    ///
    /// # Errors
    /// Tokens; a number of means that is neither 1 nor the number of features or channels.
    pub fn normalized(&self, normalization: &InputNormalization) -> Result<Self> {
        check_values(self)?;
        let inputs = self.inputs();
        let (channels, shape) = channels(inputs.dims());
        let count = normalization.mean.len();
        let shape = match count {
            1 => vec![1; inputs.rank()],
            count if count == channels => shape,
            _ => {
                return Err(Error::invalid(format!(
                    "{} for inputs of shape {:?}: give 1 or {channels}",
                    counted(count, "mean"),
                    &inputs.dims()[1..]
                )));
            }
        };
        let tensor = |values: &[f64]| -> Result<Tensor> {
            let values = Tensor::from_slice(values, shape.as_slice(), self.device())?;
            Ok(values.to_dtype(inputs.dtype())?)
        };
        let centred = inputs.broadcast_sub(&tensor(&normalization.mean)?)?;
        let scaled = centred.broadcast_div(&tensor(&normalization.deviation)?)?;
        self.with_inputs(&scaled)
    }
}
