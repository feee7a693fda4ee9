//! `landscape analyze`

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde::Serialize;
use loss_landscape::serde_json;

use crate::network_args::Network;
use crate::output::{Report, prepare_dir, print_error, save_weights, write_table, write_text};
use crate::path_args::path;
use crate::training_args::{TRAINING, Training};
use crate::{Ignored, config_file, mpi_context, signals};

/// Snapshots of a training that is tracked.
const SNAPSHOTS: usize = 20;

#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct Analyze {
    #[command(flatten)]
    #[serde(flatten)]
    network: Network,
    /// Also eigenvalues, trace, and what follows of them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set, help_heading = "Analysis")]
    compute_hessian: bool,
    /// Also the loss over a plane, in surface.html and .csv, and the ends of the spectrum, in spectrum.html
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set, help_heading = "Analysis")]
    visualize: bool,
    /// Also loss, gradient, extreme eigenvalues and sharpness in the course of the training, in evolution.html and .csv
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set, help_heading = "Analysis", conflicts_with = "weights")]
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
    #[arg(long, value_name = "FILE", value_parser = path(), help_heading = "Analysis")]
    #[serde(skip_serializing_if = "config_file::has_no_place")]
    weights: Option<PathBuf>,
    /// Directory for all results: report.json, report.csv, weights.safetensors, and config.toml to do it again
    #[arg(
        long,
        value_name = "DIR",
        value_parser = path(),
        default_value = "results",
        help_heading = "Analysis"
    )]
    #[serde(skip_serializing_if = "config_file::is_no_text")]
    save_dir: PathBuf,
    /// TOML file with any of these flags as keys, such as results/config.toml; flags override it
    #[arg(long, value_name = "FILE", value_parser = path(), help_heading = "Analysis")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    training: Training,
}

/// The weights of a training whose analysis is not finished.
const UNFINISHED: &str = "unfinished.safetensors";

/// All that an analysis may leave in its directory.
const FILES: [&str; 12] = [
    "weights.safetensors",
    "config.toml",
    "report.json",
    "report.csv",
    "report.parquet",
    "surface.html",
    "surface.csv",
    "surface.parquet",
    "spectrum.html",
    "evolution.html",
    "evolution.csv",
    "evolution.parquet",
];

impl Analyze {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.network.ignored();
        if self.weights.is_some() {
            ignored.push((&TRAINING, "with --weights nothing is trained"));
        }
        if !self.visualize {
            ignored.push((&["grid"], "only --visualize makes a plane"));
        }
        if !self.compute_hessian && !self.track_trajectory {
            ignored.push((&["top"], "only --compute-hessian computes eigenvalues"));
        }
        if !self.compute_hessian {
            ignored.push((
                &["damping"],
                "only --compute-hessian gives a condition number",
            ));
        }
        ignored
    }

    pub fn run(&self) -> Result<Report, Error> {
        mpi_context::require_single_process("analyze")?;
        let dir = &self.save_dir;
        prepare_dir(dir, &FILES)?;
        let (seed, trainer) = (self.training.seed, self.training.trainer()?);
        let model = self.network.model(seed)?;
        let data = self.network.data()?;
        if let Some(path) = &self.weights {
            model.parameters().load(path)?;
        }
        let samples = self.samples.min(data.train.len());
        let mut analyzer = Analyzer::new(&model, &data.train, &data.test, Loss::CrossEntropy)?
            .with_samples(samples, seed)?
            .with_seed(seed)
            .with_eigenvalues(self.top)
            .with_radius(self.radius);
        if let Some(damping) = self.damping {
            analyzer = analyzer.with_damping(damping)?;
        }
        if !self.compute_hessian {
            analyzer = analyzer.with_hessian(false);
        }
        if self.visualize {
            // A grid that makes no sense is refused before the training.
            Grid::square(1.0, self.grid)?;
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
        // Results of a run before stay until all of this one is computed.
        let unfinished = dir.join(UNFINISHED);
        let trained = self.weights.is_none();
        let kept = format!("the trained weights are in {}", unfinished.display());
        if trained {
            save_weights(model.parameters(), &unfinished)?;
            signals::on_interrupt(&kept);
        }
        let with_place = |error: Error| match trained {
            true => Error::Invalid(format!("{error} ({kept})")),
            false => error,
        };

        let report = analyzer.full_analysis().map_err(with_place)?;
        let plane = match self.visualize {
            true => Some(analyzer.plane(1.0, self.grid).map_err(with_place)?),
            false => None,
        };
        self.clear()?;
        save_weights(model.parameters(), &dir.join(FILES[0]))?;
        config_file::write(&dir.join(FILES[1]), self)?;
        self.warn_of_paths();
        let _ = std::fs::remove_file(&unfinished);
        signals::on_interrupt(format!("weights and settings are in {}", dir.display()));
        let json = serde_json::to_value(&report)
            .map_err(|e| Error::Invalid(format!("the report cannot be written: {e}")))?;
        write_text(&dir.join("report.json"), &format!("{json:#}\n"))?;
        write_table(dir, "report", &mut report.table()?)?;
        let mut pages = Vec::new();
        if let Some(evolution) = &evolution {
            write_table(dir, "evolution", &mut evolution.table()?)?;
            pages.push(("evolution.html", figure::evolution(evolution)));
        }
        if let Some(plane) = &plane {
            let ends = report.hessian.as_ref().map(figure::spectrum_ends);
            pages.extend(ends.map(|figure| ("spectrum.html", figure)));
            write_table(dir, "surface", &mut plane.table()?)?;
            pages.push(("surface.html", figure::surface(plane)));
        }
        for (name, figure) in &pages {
            write_text(&dir.join(name), &figure.page())?;
        }
        let mut text = format!("{report}\n");
        for name in pages.iter().map(|(name, _)| *name).chain(["report.json"]) {
            text += &format!("{}\n", dir.join(name).display());
        }
        Ok(Report { text, json })
    }

    /// Says which paths are not in the file of settings.
    fn warn_of_paths(&self) {
        let paths = [
            self.weights.as_ref(),
            self.network.data.as_ref(),
            Some(&self.save_dir),
        ];
        for path in paths
            .into_iter()
            .flatten()
            .filter(|path| config_file::is_no_text(path))
        {
            print_error(format_args!(
                "warning: config.toml leaves out {}, which is not UTF-8: give it as a flag",
                path.display()
            ));
        }
    }

    /// Removes what an earlier run has left beside weights and settings.
    fn clear(&self) -> Result<(), Error> {
        for name in &FILES[2..] {
            let path = self.save_dir.join(name);
            if let Err(e) = std::fs::remove_file(&path)
                && e.kind() != ErrorKind::NotFound
            {
                let problem = format!("{} cannot be replaced: {e}", path.display());
                return Err(Error::Invalid(problem));
            }
        }
        Ok(())
    }
}
