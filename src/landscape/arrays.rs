//! Results as named arrays.

use candle_core::{Device, Tensor};
use ndarray::Array2;

use super::Plane;
use crate::error::Result;

impl Plane {
    /// Arrays for [`write_tensors`](crate::files::write_tensors), `f64`, named as the columns of the table: `alpha`, `beta`,
    /// `loss` and, if computed, `accuracy`, `smallest` and `largest` eigenvalue.
    ///
    /// # Shapes
    /// `alpha`: `(alphas)`; `beta`: `(betas)`; others: `(betas, alphas)`.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// use loss_landscape::files::{WRITABLE, write_tensors};
    ///
    /// # let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// # let model =
    /// #     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// # let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("plane.npz");
    /// let grid = Grid::new(vec![-1.0, 0.0, 1.0], vec![0.0, 1.0])?;
    /// let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0)?;
    /// let plane = Plane::on_grid(&objective, &d1, &d2, &grid)?;
    /// write_tensors(&path, WRITABLE, plane.arrays()?)?; // np.load("plane.npz")["loss"][β, α]
    /// let (name, losses) = &plane.arrays()?[2];
    /// assert_eq!((name.as_str(), losses.dims()), ("loss", &[2, 3][..]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// candle errors.
    pub fn arrays(&self) -> Result<Vec<(String, Tensor)>> {
        let vector = |values: &[f64]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let matrix = |values: &Array2<f64>| {
            let flat: Vec<f64> = values.iter().copied().collect();
            Tensor::from_vec(flat, values.dim(), &Device::Cpu)
        };
        let mut arrays = vec![
            ("alpha".to_owned(), vector(&self.alphas)?),
            ("beta".to_owned(), vector(&self.betas)?),
        ];
        for (name, values) in self.scores() {
            arrays.push((name.to_owned(), matrix(values)?));
        }
        Ok(arrays)
    }

    /// The computed values at the grid's points with their names in files; the loss first.
    pub(super) fn scores(&self) -> Vec<(&'static str, &Array2<f64>)> {
        let more = [
            ("accuracy", self.accuracies.as_ref()),
            ("smallest", self.eigenvalues.as_ref().map(|e| &e.smallest)),
            ("largest", self.eigenvalues.as_ref().map(|e| &e.largest)),
        ];
        let computed = |(name, values): (_, Option<_>)| Some((name, values?));
        let more = more.into_iter().filter_map(computed);
        [("loss", &self.losses)].into_iter().chain(more).collect()
    }
}
