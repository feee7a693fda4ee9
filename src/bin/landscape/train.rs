//! `landscape train`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::network::Network;
use crate::output::{Report, check_writable};

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    network: Network,
    /// How steps are made
    #[arg(long, value_enum, default_value = "adam")]
    optimizer: OptimizerName,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3, allow_negative_numbers = true)]
    lr: f64,
    /// Samples a step
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Passes over the training data
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Seed of the weights and of the order of the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write the weights, in safetensors format
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Sgd,
    Adam,
}

impl Train {
    pub fn run(&self) -> Result<Report, Error> {
        let model = self.network.model(self.seed)?;
        let data = self.network.data()?;
        // A path that cannot be written to is found out before the work.
        if let Some(path) = &self.save {
            check_writable(path)?;
        }
        let trainer = match self.optimizer {
            OptimizerName::Sgd => Trainer::sgd(self.lr),
            OptimizerName::Adam => Trainer::adam(self.lr),
        };
        let trainer = trainer
            .batch_size(self.batch)
            .epochs(self.epochs)
            .seed(self.seed);
        let history = trainer.fit(&model, &data.train, &data.test)?;
        if let Some(path) = &self.save {
            model.parameters().save(path)?;
        }
        let mut text = String::new();
        for epoch in &history.epochs {
            text += &format!(
                "epoch {}: training loss {:.4}, test loss {:.4}, test accuracy {:.2} %, {:.1} s\n",
                epoch.epoch,
                epoch.train_loss,
                epoch.test_loss,
                100.0 * epoch.test_accuracy.unwrap_or(f64::NAN),
                epoch.seconds
            );
        }
        if let Some(path) = &self.save {
            text += &format!("weights: {}\n", path.display());
        }
        Ok(Report {
            text,
            json: json!({
                "epochs": history.epochs,
                "parameters": model.parameters().len(),
                "seconds": history.epochs.last().map_or(0.0, |epoch| epoch.seconds),
                "weights": self.save,
            }),
        })
    }
}
