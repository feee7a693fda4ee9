//! `landscape analyze`

use std::path::PathBuf;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde::Serialize;
use loss_landscape::serde_json;

use crate::config;
use crate::network::Network;
use crate::output::{Report, make_directory, write_table, write_text};
use crate::together;
use crate::training::Training;

/// Snapshots of a training that is tracked.
const SNAPSHOTS: usize = 20;

#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct Analyze {
    #[command(flatten)]
    #[serde(flatten)]
    network: Network,
    /// Also eigenvalues, trace, and what follows of them
    #[arg(long, help_heading = "Analysis")]
    compute_hessian: bool,
    /// Also the loss over a plane, in surface.html and .csv, and the ends of the spectrum, in spectrum.html
    #[arg(long, help_heading = "Analysis")]
    visualize: bool,
    /// Also loss, gradient, extreme eigenvalues and sharpness in the course of the training, in evolution.html and .csv
    #[arg(long, help_heading = "Analysis", conflicts_with = "weights")]
    track_trajectory: bool,
    /// Number of random training samples to measure curvature and sharpness on, or all if there are fewer
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000,
        help_heading = "Analysis"
    )]
    samples: usize,
    /// Eigenvalues from each end of the spectrum
    #[arg(
        long,
        value_name = "K",
        default_value_t = 10,
        help_heading = "Analysis"
    )]
    top: usize,
    /// Distance within which sharpness is measured; adaptive sharpness within ten times it
    #[arg(
        long,
        value_name = "R",
        default_value_t = 0.05,
        allow_negative_numbers = true,
        help_heading = "Analysis"
    )]
    radius: f64,
    /// Also the condition number of H + λI; λ damps the Newton step as well
    #[arg(
        long,
        value_name = "λ",
        allow_negative_numbers = true,
        help_heading = "Analysis"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    damping: Option<f64>,
    /// Points of the plane are N × N
    #[arg(
        long,
        value_name = "N",
        default_value_t = 25,
        help_heading = "Analysis"
    )]
    grid: usize,
    /// Weights in safetensors format; with them nothing is trained
    #[arg(long, value_name = "FILE", help_heading = "Analysis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<PathBuf>,
    /// Directory for all results: report.json, report.csv, weights.safetensors, and config.toml to do it again
    #[arg(
        long,
        value_name = "DIR",
        default_value = "results",
        help_heading = "Analysis"
    )]
    save_dir: PathBuf,
    /// TOML file with any of these flags as keys, such as results/config.toml; flags override it
    #[arg(long, value_name = "FILE", help_heading = "Analysis")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    training: Training,
}

impl Analyze {
    pub fn run(&self) -> Result<Report, Error> {
        together::alone("analyze")?;
        let dir = &self.save_dir;
        make_directory(dir)?;
        config::write(&dir.join("config.toml"), self)?;
        let (seed, trainer) = (self.training.seed, self.training.trainer()?);
        let model = self.network.model(seed)?;
        let data = self.network.data()?;
        if let Some(path) = &self.weights {
            model.parameters().load(path)?;
        }
        let samples = self.samples.min(data.train.len());
        let mut analyzer = Analyzer::new(&model, &data.train, &data.test, Loss::CrossEntropy)?
            .samples(samples, seed)?
            .seed(seed)
            .eigenvalues(self.top)
            .radius(self.radius);
        if let Some(damping) = self.damping {
            analyzer = analyzer.damping(damping)?;
        }
        if !self.compute_hessian {
            analyzer = analyzer.without_hessian();
        }
        let mut evolution = None;
        if self.track_trajectory {
            let steps = data.train.len().div_ceil(self.training.steps.batch.max(1));
            let steps = steps * self.training.epochs as usize;
            let interval = steps.div_ceil(SNAPSHOTS).max(1);
            evolution = Some(analyzer.trajectory(&trainer, interval)?);
        } else if self.weights.is_none() {
            trainer.fit(&model, &data.train, &data.test)?;
        }
        let report = analyzer.full_analysis()?;

        let mut pages = Vec::new();
        if self.visualize {
            let plane = analyzer.plane(1.0, self.grid)?;
            write_table(dir, "surface", &mut plane.table()?)?;
            pages.push(("surface.html", figure::surface(&plane)));
            let ends = report.hessian.as_ref().map(figure::ends);
            pages.extend(ends.map(|figure| ("spectrum.html", figure)));
        }
        if let Some(evolution) = &evolution {
            write_table(dir, "evolution", &mut evolution.table()?)?;
            pages.push(("evolution.html", figure::evolution(evolution)));
        }
        for (name, figure) in &pages {
            write_text(&dir.join(name), &figure.page())?;
        }
        let json = serde_json::to_value(&report)
            .map_err(|e| Error::Invalid(format!("the report cannot be written: {e}")))?;
        write_text(&dir.join("report.json"), &format!("{json:#}\n"))?;
        write_table(dir, "report", &mut report.table()?)?;
        model.parameters().save(dir.join("weights.safetensors"))?;
        let mut text = format!("{report}\n");
        for name in pages.iter().map(|(name, _)| *name).chain(["report.json"]) {
            text += &format!("{}\n", dir.join(name).display());
        }
        Ok(Report { text, json })
    }
}
