//! Results as tables.

use polars::df;
use polars::prelude::DataFrame;

use super::{BlockSpectra, BlockSpectrum, DensityCurve, JsDistances, PowerResult, Spectrum};
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

impl BlockSpectra {
    /// One row per block, and a last one for the whole matrix: name, dimension, extreme eigenvalues with the distance to their
    /// farther bound, trace and squared Frobenius norm with standard errors.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let all: Vec<&BlockSpectrum> = self.blocks.iter().chain([&self.whole]).collect();
        let names: Vec<&str> = all.iter().map(|block| block.name.as_str()).collect();
        let dims: Vec<u64> = all.iter().map(|block| block.dim() as u64).collect();
        let column =
            |f: fn(&BlockSpectrum) -> f64| all.iter().map(|block| f(block)).collect::<Vec<f64>>();
        Ok(df!(
            "block" => names,
            "dim" => dims,
            "largest" => column(|block| block.largest.value),
            "largest_error" => column(|block| block.largest.error()),
            "smallest" => column(|block| block.smallest.value),
            "smallest_error" => column(|block| block.smallest.error()),
            "trace" => column(|block| block.trace().value),
            "trace_standard_error" => column(|block| block.trace().standard_error),
            "frobenius_squared" => column(|block| block.frobenius_squared().value),
            "frobenius_squared_standard_error" => column(|block| block.frobenius_squared().standard_error),
        )?)
    }
}

impl JsDistances {
    /// One row per pair of blocks: their names, the distance and its standard error.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let count = self.names.len();
        let pairs = (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j)));
        let pairs: Vec<(usize, usize)> = pairs.collect();
        let names = |side: fn(&(usize, usize)) -> usize| {
            let names = pairs.iter().map(|pair| self.names[side(pair)].as_str());
            names.collect::<Vec<&str>>()
        };
        let entries = |matrix: &[Vec<f64>]| {
            let entries = pairs.iter().map(|(i, j)| matrix[*i][*j]);
            entries.collect::<Vec<f64>>()
        };
        Ok(df!(
            "first" => names(|pair| pair.0),
            "second" => names(|pair| pair.1),
            "distance" => entries(&self.values),
            "standard_error" => entries(&self.standard_errors),
        )?)
    }
}
