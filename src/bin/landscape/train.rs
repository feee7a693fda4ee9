//! `landscape train`

use std::path::{Path, PathBuf};

use clap::Args;
use loss_landscape::Error;
use loss_landscape::files::check_writable;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::dataset::Needs;
use crate::limits::at_least;
use crate::network_args::NetworkArgs;
use crate::output::{Report, number, path_text, save_weights};
use crate::path_args::path;
use crate::training_args::TrainingArgs;
use crate::{Ignored, mpi_context, signals};

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    network: NetworkArgs,
    /// File for the weights: .pth or .pt (PyTorch), .npz, else safetensors
    #[arg(long, value_name = "FILE", value_parser = path())]
    save: Option<PathBuf>,
    /// Use the first N training samples [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    #[command(flatten)]
    training: TrainingArgs,
}

impl Train {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.network.ignored();
        ignored.extend(self.training.ignored());
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "samples", self.samples.unwrap_or(1))?;
        self.network.check()?;
        self.training.trainer()?.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        mpi_context::require_single_process("train")?;
        let trainer = self.training.trainer()?;
        let needs = Needs::training(self.samples);
        let model = self.network.model(self.training.seed, needs)?;
        let data = self.network.training_data(needs)?;
        let train = data.first_training_samples(self.samples)?;
        if let Some(path) = &self.save {
            check_writable(path, ADVICE)?;
        }
        let unfinished = self.save.as_deref().and_then(unfinished);
        let history = match &unfinished {
            None => {
                signals::on_interrupt("nothing is saved; use --save FILE to save each epoch");
                trainer.fit(&model, &train, &data.test)?
            }
            Some(file) => {
                signals::on_interrupt(format!(
                    "finished epochs are saved in {}: run the same command to resume",
                    file.display()
                ));
                let trainer = trainer.with_checkpoint(file);
                let history = trainer.fit(&model, &train, &data.test);
                if let Err(Error::NotFinite(_)) = history {
                    // The same training would diverge again.
                    let _ = std::fs::remove_file(file);
                }
                history?
            }
        };
        if let Some(path) = &self.save {
            save_weights(model.parameters(), path)?;
        }
        if let Some(file) = &unfinished {
            // The weights are saved: the checkpoint is no longer needed.
            let _ = std::fs::remove_file(file);
        }
        let mut text = String::new();
        for epoch in &history.epochs {
            let accuracy = epoch.test_accuracy.map_or_else(String::new, |accuracy| {
                format!("test accuracy {:.2} %, ", 100.0 * accuracy)
            });
            text += &format!(
                "epoch {}: training loss {}, test loss {}, {accuracy}{:.1} s\n",
                epoch.epoch,
                number(epoch.train_loss, 4),
                number(epoch.test_loss, 4),
                epoch.seconds
            );
        }
        if self.network.reads_text() {
            text += "loss and accuracy are means over characters\n";
        }
        if let Some(path) = &self.save {
            text += &format!("weights: {}\n", path.display());
        }
        let mut report = Report {
            text,
            json: json!({
                "epochs": history.epochs,
                "parameters": model.parameters().len(),
                "seconds": history.epochs.last().map_or(0.0, |epoch| epoch.seconds),
                "weights": self.save.as_deref().map(path_text),
            }),
        };
        let first = train.first(1)?;
        report.add_engine(&Objective::of(&model, &first, data.loss())?);
        report.add_dataset();
        Ok(report)
    }
}

const ADVICE: &str = "Give a path in an existing, writable directory with free space";

/// Checkpoint file of the training, next to the weights; `None` if the weights go to a device, pipe or descriptor.
fn unfinished(weights: &Path) -> Option<PathBuf> {
    if weights.metadata().is_ok_and(|found| !found.is_file()) {
        return None;
    }
    let mut name = weights.as_os_str().to_owned();
    name.push(".unfinished");
    let file = PathBuf::from(name);
    check_writable(&file, ADVICE).is_ok().then_some(file)
}
