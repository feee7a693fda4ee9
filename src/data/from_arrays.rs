//! Datasets from arrays of ndarray.

use std::fmt::Display;

use candle_core::{Device, Tensor, WithDType};
use ndarray::{Array, Dimension};

use super::Dataset;
use super::labels::to_labels;
use crate::error::{Error, Result};

impl Dataset {
    /// A dataset with classes as targets, from arrays of any memory order.
    ///
    /// # Shapes
    /// `inputs` `(n, …)`, floating point or `u32` tokens; `labels` `(n,)`, or `(n, …)` with a label per token, of any integer
    /// type.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// let inputs = array![[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]];
    /// let data = Dataset::from_labelled_arrays(&inputs, &array![0, 1, 1], &Device::Cpu)?;
    /// assert_eq!((data.len(), data.labels()?), (3, vec![0, 1, 1]));
    /// assert!(Dataset::from_labelled_arrays(&inputs, &array![-1, 1, 1], &Device::Cpu).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Dataset::classification`]; a label that is negative or ≥ 2³².
    pub fn from_labelled_arrays<T, L>(
        inputs: &Array<T, impl Dimension>,
        labels: &Array<L, impl Dimension>,
        device: &Device,
    ) -> Result<Self>
    where
        T: WithDType,
        L: Copy + Display + TryInto<u32>,
    {
        let classes = to_labels(labels.iter().copied()).map_err(Error::Invalid)?;
        let labels = Tensor::from_vec(classes, labels.shape(), device)?;
        Self::classification(&tensor(inputs, device)?, &labels)
    }

    /// A dataset with values as targets, from arrays of any memory order.
    ///
    /// # Shapes
    /// `inputs` `(n, …)`, floating point or `u32` tokens; `values` `(n, outputs)`, `(n,)` for one output, or the shape of the
    /// outputs `(n, …)`, floating point.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// let inputs = array![[0.0], [0.5], [1.0]];
    /// let data = Dataset::from_value_arrays(&inputs, &array![0.0, 0.25, 1.0], &Device::Cpu)?;
    /// assert!(matches!(data.targets(), Targets::Values(values) if values.dims() == [3, 1]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Dataset::regression`].
    pub fn from_value_arrays<T: WithDType, V: WithDType>(
        inputs: &Array<T, impl Dimension>,
        values: &Array<V, impl Dimension>,
        device: &Device,
    ) -> Result<Self> {
        Self::regression(&tensor(inputs, device)?, &tensor(values, device)?)
    }
}

fn tensor<T: WithDType>(array: &Array<T, impl Dimension>, device: &Device) -> Result<Tensor> {
    let values: Vec<T> = array.iter().copied().collect();
    Ok(Tensor::from_vec(values, array.shape(), device)?)
}
