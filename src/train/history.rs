//! [`History`]: how a training went.

use polars::df;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What is known after a pass over the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Passes made, counted from 1.
    pub epoch: u32,
    /// Mean loss of the pass's batches, each measured just before its step.
    pub train_loss: f64,
    /// Loss on the test data after the pass.
    pub test_loss: f64,
    /// Share of the test data that is classified right, if it has labels.
    pub test_accuracy: Option<f64>,
    /// Seconds since the start.
    pub seconds: f64,
}

/// One line for each pass over the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The passes, in order.
    pub epochs: Vec<Epoch>,
}

impl History {
    /// The history as a table.
    ///
    /// # Errors
    /// polars'.
    pub fn table(&self) -> Result<DataFrame> {
        let column = |f: fn(&Epoch) -> f64| self.epochs.iter().map(f).collect::<Vec<_>>();
        Ok(df!(
            "epoch" => self.epochs.iter().map(|e| e.epoch).collect::<Vec<_>>(),
            "train loss" => column(|e| e.train_loss),
            "test loss" => column(|e| e.test_loss),
            "test accuracy" => self.epochs.iter().map(|e| e.test_accuracy).collect::<Vec<_>>(),
            "seconds" => column(|e| e.seconds),
        )?)
    }
}
