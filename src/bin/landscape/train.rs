//! `landscape train`

use std::path::PathBuf;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::network::Network;
use crate::output::{Report, check_writable};
use crate::together;
use crate::training::Training;

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    network: Network,
    /// Where to write the weights, in safetensors format
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(flatten)]
    training: Training,
}

impl Train {
    pub fn run(&self) -> Result<Report, Error> {
        together::alone("train")?;
        let trainer = self.training.trainer()?;
        let model = self.network.model(self.training.seed)?;
        let data = self.network.data()?;
        // A path that cannot be written to is found out before the work.
        if let Some(path) = &self.save {
            check_writable(path)?;
        }
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
