//! `landscape sweep`

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::ranks::Share;
use loss_landscape::serde_json::json;

use crate::dataset::Needs;
use crate::figure_args::FigureArgs;
use crate::limits::at_least;
use crate::network_args::NetworkArgs;
use crate::output::{Report, number, path_text, prepare_dir, scientific};
use crate::path_args::path;
use crate::training_args::OptimizerArgs;
use crate::{Ignored, mpi_context, signals};

#[derive(Args)]
pub struct SweepCommand {
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Strengths λ of the penalty λ‖θ‖²: start:end:count for evenly spaced values, such as 0:0.09:451, or a comma-separated list
    #[arg(long, value_name = "λ", allow_hyphen_values = true)]
    l2: Strengths,
    #[command(flatten)]
    steps: OptimizerArgs,
    /// Maximum number of epochs
    #[arg(long, default_value_t = 100)]
    epochs: u32,
    /// Stop after this many epochs without a lower training loss, and restore the best weights
    #[arg(long, default_value_t = 5)]
    patience: u32,
    /// Number of eigenpairs [default: 30, or all if fewer]
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// Largest residual, relative to the largest |λ|
    #[arg(long, default_value_t = 1e-4, allow_negative_numbers = true)]
    tolerance: f64,
    /// Seed of initial weights, shuffling and Lanczos
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Use the first N training samples [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Directory for manifest.json and, for each strength, Model-{ID}.csv, gradients-{ID}-{L2}.csv,
    /// Hessian-eigenvalues-{ID}-{L2}.csv, Hessian-eigenvectors-{ID}-{L2}.csv and model_weights-{ID}-{L2}.safetensors or
    /// .pth; IDs start at 0. A run without --shard also writes a figure, sweep.html
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: PathBuf,
    #[command(flatten)]
    pub figures: FigureArgs,
    /// Resume the sweep in --out; settings must be the same
    #[arg(long)]
    resume: bool,
    /// Compute shard I of N; all shards share --out and need no --resume
    #[arg(long, value_name = "I/N")]
    shard: Option<Share>,
    /// Number of points computed at the same time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Write gradients and eigenpairs as Parquet instead of CSV; eigenvectors take a third of the space
    #[arg(long)]
    parquet: bool,
    /// File format of the weights
    #[arg(long, value_enum, default_value = "safetensors")]
    weights: WeightsFormat,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum WeightsFormat {
    Safetensors,
    /// PyTorch's format, for torch.load(path, weights_only=True)
    Pth,
}

#[derive(Clone)]
struct Strengths(Vec<f64>);

impl FromStr for Strengths {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |text: &str| {
            let wrong = |_| Error::Invalid(format!("`{text}` is not a number"));
            text.trim().parse::<f64>().map_err(wrong)
        };
        if let [start, end, count] = text.split(':').collect::<Vec<_>>()[..] {
            let wrong = |_| Error::Invalid(format!("`{count}` is not a count of strengths"));
            let count = count.trim().parse().map_err(wrong)?;
            return Ok(Self(
                Sweep::between(number(start)?, number(end)?, count)?.strengths,
            ));
        }
        text.split(',')
            .map(number)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl SweepCommand {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.network.ignored();
        let reason = "a shard draws nothing: run without --shard when all are finished";
        ignored.extend(self.figures.ignored(self.shard.is_none(), reason));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "top", self.top.unwrap_or(1))?;
        at_least(1, "samples", self.samples.unwrap_or(1))?;
        self.network.check()?;
        self.sweep()?.check()
    }

    /// The sweep, without the number of eigenpairs.
    fn sweep(&self) -> Result<Sweep, Error> {
        let trainer = self.steps.trainer()?;
        let trainer = trainer
            .with_epochs(self.epochs)
            .with_patience(self.patience);
        Ok(Sweep::new(&self.l2.0[..])
            .with_trainer(trainer)
            .with_tolerance(self.tolerance)
            .with_seed(self.seed)
            .with_jobs(self.jobs)
            .with_parquet(self.parquet)
            .with_pth(self.weights == WeightsFormat::Pth)
            .with_resume(self.resume))
    }

    pub fn run(&self) -> Result<Report, Error> {
        let needs = Needs::training(self.samples);
        if self.shard.is_none() {
            prepare_dir(&self.out, &[], &self.figures.file_names(&["sweep"])?)?;
        }
        let parameters = self.network.model(self.seed, needs)?.parameters().len();
        let sweep = self.sweep()?;
        let sweep = sweep
            .with_top(self.top.unwrap_or(parameters.min(30)))
            .with_share(mpi_context::share(self.shard.as_ref())?);
        let data = self.network.training_data(needs)?;
        let train = data.first_training_samples(self.samples)?;
        signals::on_interrupt(format!(
            "finished points are saved in {}: add --resume to resume",
            self.out.display()
        ));
        let report = sweep.run(
            &self.out,
            |seed| self.network.model(seed, needs),
            &train,
            &data.test,
        )?;

        let mut text = String::from(
            "        L2  training loss  test loss  test accuracy  epochs  largest eigenvalue\n",
        );
        for point in &report.points {
            text += &format!(
                "{:>10}  {:>13}  {:>9}  {:>13}  {:>6}  {:>10} ± {}{}\n",
                strength(point.l2),
                number(point.train_loss, 5),
                number(point.test_loss, 5),
                point
                    .test_accuracy
                    .map_or("–".to_owned(), |accuracy| format!(
                        "{:.2} %",
                        100.0 * accuracy
                    )),
                point.epochs,
                number(*point.eigenvalues.first().unwrap_or(&f64::NAN), 5),
                scientific(*point.residuals.first().unwrap_or(&f64::NAN), 0),
                if point.converged {
                    ""
                } else {
                    ", not converged"
                }
            );
        }
        let points = match report.points.len() {
            1 => "1 point".to_owned(),
            count => format!("{count} points"),
        };
        text += &match report.computed {
            0 => format!("{points}, all computed before\n"),
            new => format!("{points}, {new} of them new\n"),
        };
        if self.shard.is_none() {
            let figures = [("sweep", figure::sweep(&report))];
            self.figures.write_all(&self.out, &figures, &mut text)?;
        }
        let mut report = Report {
            text,
            json: json!({ "points": report.points, "computed": report.computed, "out": path_text(&self.out) }),
        };
        let model = self.network.model(self.seed, needs)?;
        let first = train.first(1)?;
        report.add_engine(&Objective::of(&model, &first, data.loss())?);
        report.add_dataset();
        Ok(report)
    }
}

/// As a decimal if it fits into its column.
fn strength(l2: f64) -> String {
    let decimal = l2.to_string();
    match decimal.len() <= 10 {
        true => decimal,
        false => format!("{l2:e}"),
    }
}
