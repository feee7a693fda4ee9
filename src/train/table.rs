//! Results as tables.

use polars::df;
use polars::prelude::DataFrame;

use super::{Epoch, History};
use crate::error::Result;

impl History {
    /// One row per epoch.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let column = |f: fn(&Epoch) -> f64| self.epochs.iter().map(f).collect::<Vec<_>>();
        let share = |f: fn(&Epoch) -> Option<f64>| self.epochs.iter().map(f).collect::<Vec<_>>();
        Ok(df!(
            "epoch" => self.epochs.iter().map(|e| e.epoch).collect::<Vec<_>>(),
            "train loss" => column(|e| e.train_loss),
            "train accuracy" => share(|e| e.train_accuracy),
            "gradient norm" => column(|e| e.gradient_norm),
            "test loss" => column(|e| e.test_loss),
            "test accuracy" => share(|e| e.test_accuracy),
            "learning rate" => column(|e| e.learning_rate),
            "seconds" => column(|e| e.seconds),
        )?)
    }
}
