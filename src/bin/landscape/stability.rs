//! `landscape stability`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::landscape::{StabilityMeasure, StabilityReport};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{json, to_value};

use crate::dataset::Needs;
use crate::figure_args::FigureArgs;
use crate::limits::at_least;
use crate::network_args::NetworkArgs;
use crate::output::{Report, number, prepare_dir, write_table, write_text};
use crate::path_args::path;
use crate::training_args::TrainingArgs;
use crate::{Ignored, mpi_context, signals};

/// Examples at the end of `--help`.
const EXAMPLES: &str = "Examples:
  landscape stability --layers 784,32,10 --activation tanh --samples 1000 --batch 1000 --optimizer sgd --lr 1 --epochs 200 --interval 5
  landscape stability --layers 784,32,10 --optimizer sgd --lr 0.1 --batch 32 --measure batch,critical --interval 100
  landscape stability --model cnn --optimizer adam --measure critical --epochs 1 --out stability";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct StabilityCommand {
    #[command(flatten)]
    network: NetworkArgs,
    /// Use the first N training samples [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Sharpness to compare with the threshold, one or more [default: batch for SGD with batches and without momentum, critical with --clip,
    /// --sam or --asam, otherwise sharpness]
    #[arg(long, value_enum, value_delimiter = ',')]
    measure: Vec<MeasureName>,
    /// Number of steps from one measurement to the next
    #[arg(long, value_name = "STEPS", default_value_t = 20)]
    interval: usize,
    /// Number of random training samples for the largest eigenvalue of --measure sharpness [default: all]
    #[arg(long, value_name = "N")]
    sharpness_samples: Option<usize>,
    /// Directory for stability.csv, .parquet, .json and a figure
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
    #[command(flatten)]
    training: TrainingArgs,
}

/// Files that `--out` writes, without figures.
const FILES: [&str; 3] = ["stability.csv", "stability.parquet", "stability.json"];

/// Largest number of rows that are printed.
const ROWS: usize = 20;

#[derive(Clone, Copy, ValueEnum)]
enum MeasureName {
    /// Largest eigenvalue of the Hessian; for Adam in the metric of its steps
    Sharpness,
    /// Batch sharpness: curvature along the gradients of batches, weighted by their squared norms
    Batch,
    /// Critical sharpness: from the largest learning rate that does not increase the loss
    Critical,
}

impl From<MeasureName> for StabilityMeasure {
    fn from(name: MeasureName) -> Self {
        match name {
            MeasureName::Sharpness => Self::Sharpness,
            MeasureName::Batch => Self::Batch,
            MeasureName::Critical => Self::Critical,
        }
    }
}

impl StabilityCommand {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.network.ignored();
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored.extend(self.training.ignored());
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "samples", self.samples.unwrap_or(1))?;
        at_least(1, "interval", self.interval)?;
        at_least(1, "sharpness-samples", self.sharpness_samples.unwrap_or(1))?;
        self.network.check()?;
        self.training.trainer()?.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        mpi_context::require_single_process("stability")?;
        if let Some(dir) = &self.out {
            prepare_dir(dir, &FILES, &self.figures.file_names(&["stability"])?)?;
        }
        let trainer = self.training.trainer()?;
        let needs = Needs::training(self.samples);
        let model = self.network.model(self.training.seed, needs)?;
        let data = self.network.training_data(needs)?;
        let train = data.first_training_samples(self.samples)?;
        let objective = Objective::of(&model, &train, data.loss())?;
        let measures: Vec<StabilityMeasure> = self.measure.iter().map(|m| (*m).into()).collect();
        if self.sharpness_samples.is_some() && !measures.contains(&StabilityMeasure::Sharpness) {
            return Err(Error::Invalid(
                "--sharpness-samples is for --measure sharpness: add that measure, or leave the option out".into(),
            ));
        }
        let mut settings = Stability::default()
            .with_interval(self.interval)
            .with_measures(measures);
        settings.samples = self.sharpness_samples;
        signals::on_interrupt("nothing is saved");
        let found = settings.train(&trainer, &objective)?;
        let mut json = to_value(&found).map_err(|e| Error::Invalid(e.to_string()))?;
        for (i, point) in found.points.iter().enumerate() {
            json["points"][i]["ratio"] = json!(point.ratio());
        }
        json["sharpness_samples"] = json["samples"].take();
        let mut report = Report::new(&objective, text(&found), json);
        if let Some(dir) = &self.out {
            write_table(dir, "stability", &mut found.table()?)?;
            write_text(&dir.join("stability.json"), &report.json.to_string())?;
            let figures = [("stability", figure::stability(&found))];
            self.figures.write_all(dir, &figures, &mut report.text)?;
        }
        Ok(report)
    }
}

fn text(found: &StabilityReport) -> String {
    let header = ["step", "loss", "value", "error", "threshold", "ratio"];
    let header = header.map(|name| format!("{name:>12}"));
    let mut text = format!("{}  measure\n", header.concat());
    let points = &found.points;
    let every = points.len().div_ceil(ROWS).max(1);
    let shown = points.iter().enumerate();
    let shown = shown.filter(|(i, _)| i % every == 0 || i + 1 == points.len());
    for (_, point) in shown {
        let numbers = [
            point.loss,
            point.value,
            point.error,
            point.threshold,
            point.ratio(),
        ];
        let numbers = numbers.map(|x| format!(" {:>11}", number(x, 4)));
        text += &format!(
            "{:>12}{}  {}\n",
            point.step,
            numbers.concat(),
            point.measure
        );
    }
    if every > 1 {
        text += &format!(
            "1 of {every} rows of {}; --json and --out have all\n",
            points.len()
        );
    }
    for note in found.notes() {
        text += &format!("{note}\n");
    }
    text
}
