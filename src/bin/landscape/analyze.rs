//! `landscape analyze`

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use loss_landscape::Error;
use loss_landscape::figure::FigureFormat;
use loss_landscape::prelude::*;
use loss_landscape::serde::Serialize;
use loss_landscape::serde_json;

use crate::dataset::Needs;
use crate::figure_args::FigureArgs;
use crate::limits::{at_least, not_negative, positive};
use crate::network_args::NetworkArgs;
use crate::output::{
    Report, prepare_dir, print_error, save_weights, write_plane, write_table, write_text,
};
use crate::path_args::path;
use crate::training_args::{TRAINING, TrainingArgs};
use crate::view::PATH_FILE;
use crate::weight_args::{WEIGHTS, WeightArgs};
use crate::{Ignored, config_file, mpi_context, signals};

/// Number of snapshots with --track-trajectory.
const SNAPSHOTS: usize = 20;

#[derive(Args, Clone, Debug, Serialize)]
#[serde(crate = "loss_landscape::serde", rename_all = "kebab-case")]
pub struct Analyze {
    #[command(flatten)]
    #[serde(flatten)]
    network: NetworkArgs,
    /// Compute eigenvalues, trace and quantities derived from them
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set, help_heading = "Analysis")]
    compute_hessian: bool,
    /// Write the loss on a plane to surface.csv, .parquet, .npz and .vtk, with figures of the surface, its contours and the extreme eigenvalues
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set, help_heading = "Analysis")]
    visualize: bool,
    /// Measure loss, gradient, extreme eigenvalues and sharpness during training; writes evolution.csv, .parquet and a figure, and with --visualize also the training's path on a plane, path.csv, .parquet and .json
    #[arg(long, num_args = 0..=1, value_name = "BOOL", require_equals = true, default_missing_value = "true", default_value_t, action = ArgAction::Set, help_heading = "Analysis", conflicts_with = "weights")]
    track_trajectory: bool,
    /// Number of steps between two measurements of --track-trajectory [default: a twentieth of the training]
    #[arg(long, value_name = "STEPS", help_heading = "Analysis")]
    #[serde(skip_serializing_if = "Option::is_none")]
    track_interval: Option<usize>,
    /// Number of random training samples for curvature and sharpness; all samples if fewer
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000,
        help_heading = "Analysis"
    )]
    samples: usize,
    /// Number of eigenvalues at each end of the spectrum
    #[arg(
        long,
        value_name = "K",
        default_value_t = 10,
        help_heading = "Analysis"
    )]
    top: usize,
    /// Radius for sharpness; adaptive sharpness uses ten times this radius
    #[arg(
        long,
        value_name = "R",
        default_value_t = 0.05,
        allow_negative_numbers = true,
        help_heading = "Analysis"
    )]
    radius: f64,
    /// Damping λ: report also the condition number of H + λI, and damp the Newton step
    #[arg(
        long,
        value_name = "λ",
        allow_negative_numbers = true,
        help_heading = "Analysis"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    damping: Option<f64>,
    /// Number of points of the plane in each direction
    #[arg(
        long,
        value_name = "N",
        default_value_t = 25,
        help_heading = "Analysis"
    )]
    grid: usize,
    /// Analyse these weights (.safetensors, .npz, .pth or .pt) instead of training
    #[arg(long, value_name = "FILE", value_parser = path(), help_heading = "Analysis")]
    #[serde(skip_serializing_if = "config_file::is_missing_or_not_utf8")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    weight_names: WeightArgs,
    /// Directory for the results: report.json, report.csv, weights.safetensors, config.toml, which reproduces this run, and history.csv and a figure of the training
    #[arg(
        long,
        value_name = "DIR",
        value_parser = path(),
        default_value = "results",
        help_heading = "Analysis"
    )]
    #[serde(skip_serializing_if = "config_file::is_not_utf8")]
    save_dir: PathBuf,
    #[command(flatten)]
    #[serde(flatten)]
    figures: FigureArgs,
    /// TOML file with these flags as keys, such as results/config.toml; flags on the command line override it
    #[arg(long, value_name = "FILE", value_parser = path(), help_heading = "Analysis")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    training: TrainingArgs,
}

/// File for the trained weights until the analysis is finished.
const UNFINISHED: &str = "unfinished.safetensors";

/// Files that an analysis may write, without figures.
const FILES: [&str; 16] = [
    "weights.safetensors",
    "config.toml",
    "report.json",
    "report.csv",
    "report.parquet",
    "surface.csv",
    "surface.parquet",
    "surface.npz",
    "surface.vtk",
    "evolution.csv",
    "evolution.parquet",
    "history.csv",
    "history.parquet",
    "path.csv",
    "path.parquet",
    PATH_FILE,
];

/// Names of the figures that an analysis may write.
const FIGURES: [&str; 7] = [
    "history",
    "evolution",
    "path",
    "path_surface",
    "spectrum",
    "surface",
    "contour",
];

impl Analyze {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.network.ignored();
        if self.weights.is_some() {
            ignored.push((&TRAINING, "no training with --weights"));
        } else {
            ignored.push((&WEIGHTS, "it needs --weights"));
        }
        if !self.visualize {
            ignored.push((&["grid"], "it needs --visualize"));
        }
        if !self.compute_hessian && !self.track_trajectory {
            ignored.push((&["top"], "it needs --compute-hessian or --track-trajectory"));
        }
        if !self.track_trajectory {
            ignored.push((&["track-interval"], "it needs --track-trajectory"));
        }
        ignored.extend(self.training.ignored());
        if !self.compute_hessian {
            ignored.push((&["damping"], "it needs --compute-hessian"));
        }
        let has_figures = self.visualize || self.weights.is_none();
        let reason = "there is no figure without a training or --visualize";
        ignored.extend(self.figures.ignored(has_figures, reason));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "samples", self.samples)?;
        at_least(1, "top", self.top)?;
        at_least(1, "track-interval", self.track_interval.unwrap_or(1))?;
        self.network.check()?;
        positive("radius", self.radius)?;
        not_negative("damping", self.damping.unwrap_or(0.0))?;
        if self.visualize {
            Grid::square(1.0, self.grid)?;
        }
        self.training.trainer()?.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        mpi_context::require_single_process("analyze")?;
        let dir = &self.save_dir;
        prepare_dir(dir, &FILES, &self.figures.file_names(&FIGURES)?)?;
        let (seed, trainer) = (self.training.seed, self.training.trainer()?);
        let needs = Needs {
            has_samples_flag: false,
            ..Needs::training(None)
        };
        let model = self.network.model(seed, needs)?;
        let data = self.network.training_data(needs)?;
        if let Some(path) = &self.weights {
            self.weight_names.load(model.parameters(), path)?;
        }
        let samples = self.samples.min(data.train.len());
        let mut analyzer = Analyzer::new(&model, &data.train, &data.test, data.loss())?
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
        let (mut evolution, mut history, mut trajectory) = (None, None, None);
        if self.track_trajectory {
            let steps = self.training.num_steps(data.train.len());
            let interval = self.track_interval;
            let interval = interval.unwrap_or(steps.div_ceil(SNAPSHOTS).max(1));
            let mut recorded = Trajectory::every(interval)?;
            let (train, test) = (&data.train, &data.test);
            history = Some(trainer.fit_recorded(&model, train, test, &mut recorded)?);
            evolution = Some(analyzer.evolution(&recorded)?);
            trajectory = Some(recorded);
        } else if self.weights.is_none() {
            history = Some(trainer.fit(&model, &data.train, &data.test)?);
        }
        // Results of an earlier run stay until all new results are computed.
        let unfinished = dir.join(UNFINISHED);
        let trained = self.weights.is_none();
        let saved = format!("the trained weights are saved in {}", unfinished.display());
        if trained {
            save_weights(model.parameters(), &unfinished)?;
            signals::on_interrupt(&saved);
        }
        let with_saved_path = |error: Error| match trained {
            true => Error::Invalid(format!("{error} ({saved})")),
            false => error,
        };

        let report = analyzer.full_analysis().map_err(with_saved_path)?;
        let plane = match self.visualize {
            true => Some(analyzer.plane(1.0, self.grid).map_err(with_saved_path)?),
            false => None,
        };
        let path = match &trajectory {
            Some(trajectory) if self.visualize => self
                .path(&analyzer.objective(), trajectory)
                .map_err(with_saved_path)?,
            _ => None,
        };
        self.clear()?;
        save_weights(model.parameters(), &dir.join(FILES[0]))?;
        config_file::write(&dir.join(FILES[1]), self)?;
        self.warn_of_paths();
        let _ = std::fs::remove_file(&unfinished);
        signals::on_interrupt(format!(
            "weights and settings are saved in {}",
            dir.display()
        ));
        let mut json = serde_json::to_value(&report)
            .map_err(|e| Error::Invalid(format!("cannot write the report: {e}")))?;
        json["dataset"] = data.json();
        write_text(&dir.join("report.json"), &format!("{json:#}\n"))?;
        write_table(dir, "report", &mut report.table()?)?;
        let mut figures = Vec::new();
        if let Some(history) = &history {
            write_table(dir, "history", &mut history.table()?)?;
            figures.push(("history", figure::history(history)));
        }
        if let Some(evolution) = &evolution {
            write_table(dir, "evolution", &mut evolution.table()?)?;
            figures.push(("evolution", figure::evolution(evolution)));
        }
        if let Some((plane, path)) = &path {
            write_table(dir, "path", &mut path.table()?)?;
            let json = serde_json::json!({"plane": plane, "projection": path});
            write_text(&dir.join(PATH_FILE), &json.to_string())?;
            figures.push(("path", figure::trajectory(plane, path)));
            figures.push(("path_surface", figure::trajectory_animation(plane, path)));
        }
        if let Some(plane) = &plane {
            let ends = report.hessian.as_ref().map(figure::spectrum_ends);
            figures.extend(ends.map(|figure| ("spectrum", figure)));
            write_plane(dir, plane)?;
            figures.push(("surface", figure::surface(plane)));
            figures.push(("contour", figure::contour(plane)));
        }
        let mut text = format!("{report}\n{}", data.text());
        self.figures.write_all(dir, &figures, &mut text)?;
        text += &format!("{}\n", dir.join("report.json").display());
        Ok(Report { text, json })
    }

    /// The training on the plane of its first two principal components. `None` if there are too few snapshots, or if they have
    /// running statistics of their own, with which the plane would not agree.
    fn path(
        &self,
        objective: &Objective,
        trajectory: &Trajectory,
    ) -> Result<Option<(Plane, Projection)>, Error> {
        if trajectory.len() < 3 || objective.parameters().statistics().len() > 0 {
            return Ok(None);
        }
        let pca = Pca::fit(trajectory, 2)?;
        let [d1, d2] = &pca.components[..] else {
            return Ok(None);
        };
        let path = Projection::onto(objective, d1, d2, trajectory)?;
        let plane = Plane::on_grid(objective, d1, d2, &path.grid(self.grid)?)?;
        Ok(Some((plane, path)))
    }

    /// Warns of paths that config.toml cannot contain.
    fn warn_of_paths(&self) {
        let paths = [
            self.weights.as_deref(),
            self.network.dataset.path_not_utf8(),
            Some(self.save_dir.as_path()),
        ];
        for path in paths
            .into_iter()
            .flatten()
            .filter(|path| config_file::is_not_utf8(path))
        {
            print_error(format_args!(
                "warning: config.toml does not contain {}, which is not UTF-8: pass it as a flag",
                path.display()
            ));
        }
    }

    /// Removes the results of an earlier run, except weights and settings.
    fn clear(&self) -> Result<(), Error> {
        let figures = FIGURES.iter().flat_map(|name| {
            let formats = FigureFormat::ALL.iter();
            formats.map(move |format| format!("{name}.{}", format.extension()))
        });
        let files = FILES[2..].iter().map(|name| (*name).to_owned());
        for name in files.chain(figures) {
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
