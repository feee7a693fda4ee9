//! Results as named arrays.

use candle_core::{Device, Tensor};

use super::{DensityCurve, Spectrum};
use crate::error::Result;

impl Spectrum {
    /// Arrays for [`write_tensors`](crate::files::write_tensors), `f64`, of shape `(pairs)`: `eigenvalue` and `residual`.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// let arrays = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.eigen()?.arrays()?;
    /// let (name, eigenvalues) = &arrays[0];
    /// assert_eq!(name, "eigenvalue");
    /// assert!((eigenvalues.to_vec1::<f64>()?[0] - 3.0).abs() < 1e-12);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// candle errors.
    pub fn arrays(&self) -> Result<Vec<(String, Tensor)>> {
        named([
            ("eigenvalue", &self.values()),
            ("residual", &self.residuals()),
        ])
    }
}

impl DensityCurve {
    /// Arrays for [`write_tensors`](crate::files::write_tensors), `f64`, of shape `(points)`: `eigenvalue`, `density` and
    /// `standard_error`.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// let density = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.density()?;
    /// let arrays = density.smoothed(0.1, 400)?.arrays()?;
    /// let names: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
    /// assert_eq!(names, ["eigenvalue", "density", "standard_error"]);
    /// assert_eq!(arrays[1].1.dims(), [400]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// candle errors.
    pub fn arrays(&self) -> Result<Vec<(String, Tensor)>> {
        named([
            ("eigenvalue", &self.eigenvalues),
            ("density", &self.values),
            ("standard_error", &self.standard_errors),
        ])
    }
}

fn named<const N: usize>(columns: [(&str, &Vec<f64>); N]) -> Result<Vec<(String, Tensor)>> {
    let tensor = |(name, values): (&str, &Vec<f64>)| {
        let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        Ok((name.to_owned(), tensor))
    };
    columns.into_iter().map(tensor).collect()
}
