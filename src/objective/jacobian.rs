//! The Jacobian of a model's outputs.

use ndarray::Array2;

use super::in_use::InUse;
use super::{Objective, autograd};
use crate::error::{Error, Result, check_finite};
use crate::progress::Progress;

/// Largest number of entries: 2 GiB of them.
const MOST: usize = 1 << 28;

impl Objective {
    /// J = ∂f(x; θ)/∂θ at the model's current point. Shape (samples × outputs, parameters), sample by sample. Each
    /// row takes a backward pass, so use it for small models and few samples.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    ///
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&line, &data, Loss::Mse)?;
    /// // Derivatives of wx + b in b and in w.
    /// assert_eq!(objective.jacobian()?, array![[1.0, -2.0], [1.0, 2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// More than 2²⁸ entries; entries that are not finite; a parameter without a gradient; errors of candle.
    pub fn jacobian(&self) -> Result<Array2<f64>> {
        self.needs_all_samples("a Jacobian")?;
        self.needs_independent_samples("a Jacobian")?;
        let _in_use = InUse::read(&self.parameters)?;
        let columns = self.dim();
        let rows = self.data.len() * self.outputs(&self.data.first(1)?)?.elem_count();
        if rows.saturating_mul(columns) > MOST {
            return Err(Error::invalid(format!(
                "a Jacobian of {rows} × {columns} numbers would take {:.1} GB: take fewer samples",
                rows as f64 * columns as f64 * 8e-9
            )));
        }
        let mut entries = Vec::with_capacity(rows * columns);
        let mut progress = Progress::start("Jacobian");
        // One sample at a time, because each backward pass goes through the whole batch.
        self.clone().with_batch_size(1)?.over_batches(
            |sample| {
                let outputs = self.outputs(sample)?.flatten_all()?;
                let row = |j| autograd::gradient(&self.parameters, &outputs.get(j)?);
                (0..outputs.dim(0)?).map(row).collect::<Result<Vec<_>>>()
            },
            |some| {
                entries.extend(some.concat());
                progress.part(entries.len() / columns, rows);
            },
        )?;
        check_finite(&entries, "the Jacobian")?;
        Array2::from_shape_vec((rows, columns), entries)
            .map_err(|e| Error::invalid(format!("samples differ in their outputs: {e}")))
    }
}
