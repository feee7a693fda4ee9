//! `landscape connect`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::network::Setting;
use crate::output::{Report, make_directory, write_table, write_text};
use crate::together;

#[derive(Args)]
pub struct Connect {
    /// Weights of the first network, in safetensors format
    a: PathBuf,
    /// Weights of the second
    b: PathBuf,
    #[command(flatten)]
    setting: Setting,
    /// Places along each path at which to look first; the highest is then looked at closely
    #[arg(long, default_value_t = 51)]
    points: usize,
    /// Passes over the samples to train a curved path in; none for 0
    #[arg(long, default_value_t = 10)]
    epochs: u32,
    /// Learning rate of that training
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    lr: f64,
    /// Also train a chain of straight lines with so many bends
    #[arg(long, value_name = "N")]
    bends: Option<usize>,
    /// Seed of that training
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write connect.csv, .parquet, .html and .json into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Connect {
    pub fn run(&self) -> Result<Report, Error> {
        together::alone("connect")?;
        if let Some(dir) = &self.out {
            make_directory(dir)?;
        }
        let (a, b) = (
            self.setting.model(Some(&self.a))?,
            self.setting.model(Some(&self.b))?,
        );
        let objective = self.setting.objective(&a)?;
        let trainer = |shape: PathShape| PathTrainer {
            shape,
            epochs: self.epochs,
            learning_rate: self.lr,
            seed: self.seed,
            ..PathTrainer::default()
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
            "seconds": seconds,
        });
        let mut text = format!(
            "{:<34}{:>9}{:>9}{:>9}{:>10}{:>11}\n",
            "path", "barrier", "excess", "score", "length", "accuracy"
        );
        for (name, profile) in &found.paths {
            let accuracy = profile.accuracy_at_barrier.unwrap_or(f64::NAN);
            text += &format!(
                "{name:<34}{:>9.4}{:>9.4}{:>9.4}{:>10.2}{:>9.2} %\n",
                profile.barrier_height,
                profile.excess,
                profile.connectivity_score,
                profile.path_norm,
                100.0 * accuracy
            );
        }
        text += &format!("accuracy at the worst point; {seconds:.2} s\n");
        let mut report = Report::of(&objective, text, json);
        if let Some(dir) = &self.out {
            let paths: Vec<_> = found.paths.iter().map(|(n, p)| (n.as_str(), p)).collect();
            write_text(&dir.join("connect.html"), &figure::paths(&paths).page())?;
            write_table(dir, "connect", &mut found.table()?)?;
            write_text(&dir.join("connect.json"), &report.json.to_string())?;
            report.text += &format!("{}\n", dir.join("connect.html").display());
        }
        Ok(report)
    }
}
