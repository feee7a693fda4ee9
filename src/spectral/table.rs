//! Results as tables.

use polars::df;
use polars::prelude::DataFrame;

use super::{DensityCurve, PowerResult, Spectrum};
use crate::error::Result;

impl PowerResult {
    /// One row per product: its number, the eigenvalue and the residual.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        Ok(df!(
            "product" => (1..=self.values.len() as u64).collect::<Vec<_>>(),
            "eigenvalue" => self.values.clone(),
            "residual" => self.residuals.clone(),
        )?)
    }
}

impl Spectrum {
    /// One row per eigenpair: rank, eigenvalue and residual.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        Ok(df!(
            "rank" => (1..=self.pairs.len() as u64).collect::<Vec<_>>(),
            "eigenvalue" => self.values(),
            "residual" => self.residuals(),
        )?)
    }
}

impl DensityCurve {
    /// One row per grid point: eigenvalue, density and its standard error.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        Ok(df!(
            "eigenvalue" => self.eigenvalues.clone(),
            "density" => self.values.clone(),
            "standard_error" => self.standard_errors.clone(),
        )?)
    }
}
