//! `landscape connect`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::landscape::PathShape;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::figure_args::FigureArgs;
use crate::limits::{at_least, positive};
use crate::network_args::SettingArgs;
use crate::output::{Report, number, prepare_dir, write_table, write_text};
use crate::path_args::path;
use crate::{Ignored, mpi_context};

#[derive(Args)]
pub struct Connect {
    /// Weights of the first network (.safetensors, .npz, .pth or .pt)
    #[arg(value_parser = path())]
    a: PathBuf,
    /// Weights of the second network
    #[arg(value_parser = path())]
    b: PathBuf,
    #[command(flatten)]
    setting: SettingArgs,
    /// Number of points per path; the barrier is then refined around the highest point
    #[arg(long, default_value_t = 51)]
    points: usize,
    /// Number of epochs to train a curved path; 0 trains none
    #[arg(long, default_value_t = 10)]
    epochs: u32,
    /// Learning rate of the path training
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    lr: f64,
    /// Also train a polygonal chain with N bends
    #[arg(long, value_name = "N")]
    bends: Option<usize>,
    /// Seed of the path training
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for connect.csv, .parquet, .json and a figure
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
}

impl Connect {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.setting.ignored();
        if self.epochs == 0 {
            ignored.push((
                &["lr", "bends", "seed"],
                "no path is trained with --epochs 0",
            ));
        }
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(2, "points", self.points)?;
        positive("lr", self.lr)?;
        at_least(1, "bends", self.bends.unwrap_or(1))?;
        self.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        mpi_context::require_single_process("connect")?;
        if let Some(dir) = &self.out {
            let names = ["connect.csv", "connect.parquet", "connect.json"];
            prepare_dir(dir, &names, &self.figures.file_names(&["connect"])?)?;
        }
        let needs = self.setting.needs(false);
        let (a, b) = (
            self.setting.model(Some(&self.a), needs)?,
            self.setting.model(Some(&self.b), needs)?,
        );
        let objective = self.setting.objective(&a, needs)?;
        let (samples, batch) = (objective.data().len(), PathTrainer::default().batch_size);
        let normalised = a.parameters().statistics().len() > 0;
        if normalised && self.epochs > 0 && samples % batch == 1 {
            return Err(Error::Invalid(format!(
                "{samples} samples in batches of {batch} leave a last batch of one, which batch normalisation cannot normalise: \
                 use another --samples, or --epochs 0"
            )));
        }
        let trainer = |shape: PathShape| {
            PathTrainer::default()
                .with_shape(shape)
                .with_epochs(self.epochs)
                .with_learning_rate(self.lr)
                .with_seed(self.seed)
        };
        let chain = self.bends.map(PathShape::Chain);
        let shapes = [Some(PathShape::Bezier), chain].into_iter().flatten();
        let trainers: Vec<_> = match self.epochs {
            0 => Vec::new(),
            _ => shapes.map(trainer).collect(),
        };
        let started = Instant::now();
        let found = Connectivity::between(&objective, &a, &b, &trainers, self.points)?;
        let seconds = started.elapsed().as_secs_f64();
        let json = json!({
            "paths": found.paths.iter().map(|(name, profile)| json!({
                "name": name,
                "barrier_height": profile.barrier_height,
                "excess": profile.excess,
                "connectivity_score": profile.connectivity_score,
                "path_norm": profile.path_norm,
                "accuracy": profile.accuracy_at_barrier,
            })).collect::<Vec<_>>(),
            "unmatched": found.unmatched,
            "seconds": seconds,
        });
        let mut text = format!(
            "{:<34}{:>9}{:>9}{:>9}{:>10}{:>11}\n",
            "path", "barrier", "excess", "score", "length", "accuracy"
        );
        for (name, profile) in &found.paths {
            let accuracy = profile.accuracy_at_barrier.unwrap_or(f64::NAN);
            text += &format!(
                "{name:<34}{:>9}{:>9}{:>9}{:>10}{:>9.2} %\n",
                number(profile.barrier_height, 4),
                number(profile.excess, 4),
                number(profile.connectivity_score, 4),
                number(profile.path_norm, 2),
                100.0 * accuracy
            );
        }
        text += &format!("accuracy at the worst point; {seconds:.2} s\n");
        for note in found.notes() {
            text += &format!("{note}\n");
        }
        let mut report = Report::new(&objective, text, json);
        if let Some(dir) = &self.out {
            let paths: Vec<_> = found.paths.iter().map(|(n, p)| (n.as_str(), p)).collect();
            write_table(dir, "connect", &mut found.table()?)?;
            write_text(&dir.join("connect.json"), &report.json.to_string())?;
            let figures = [("connect", figure::paths(&paths))];
            self.figures.write_all(dir, &figures, &mut report.text)?;
        }
        Ok(report)
    }
}
