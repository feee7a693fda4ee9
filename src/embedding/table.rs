//! Results as tables.

use polars::df;
use polars::prelude::DataFrame;

use super::{ComparedEmbedding, Comparison, Pca};
use crate::error::Result;
use crate::spectral::Estimate;

impl Pca {
    /// One row per component: explained variance, its ratio to the total, and the cumulative ratio.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let sums = self.explained_ratio.iter().scan(0.0, |sum, ratio| {
            *sum += ratio;
            Some(*sum)
        });
        Ok(df!(
            "component" => (1..=self.components.len() as u64).collect::<Vec<_>>(),
            "explained variance" => &self.explained_variance,
            "ratio" => &self.explained_ratio,
            "cumulative" => sums.collect::<Vec<f64>>(),
        )?)
    }
}

impl Comparison {
    /// One row per embedding.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let rows = &self.embeddings;
        let column = |f: fn(&ComparedEmbedding) -> f64| rows.iter().map(f).collect::<Vec<_>>();
        let held_out = |f: fn(Estimate) -> f64| {
            let errors = rows.iter().map(|e| e.held_out_error.map(f));
            errors.collect::<Vec<_>>()
        };
        Ok(df!(
            "method" => rows.iter().map(|e| e.name.clone()).collect::<Vec<_>>(),
            "trustworthiness" => column(|e| e.trustworthiness),
            "continuity" => column(|e| e.continuity),
            "neighbour error" => column(|e| e.neighbor_error),
            "in-sample error" => rows.iter().map(|e| e.reconstruction_error).collect::<Vec<_>>(),
            "held-out error" => held_out(|e| e.value),
            "± held-out error" => held_out(|e| e.standard_error),
            "seconds" => column(|e| e.seconds),
        )?)
    }
}
