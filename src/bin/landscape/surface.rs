//! `landscape surface`

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::landscape::ExtremeEigenvalues;
use loss_landscape::landscape::direction::Normalization;
use loss_landscape::prelude::*;
use loss_landscape::ranks::Share;
use loss_landscape::serde_json::json;

use crate::figure_args::FigureArgs;
use crate::limits::{at_least, positive};
use crate::network_args::PointArgs;
use crate::output::{Report, number, prepare_dir, write_plane, write_text, write_vectors};
use crate::path_args::path;
use crate::{Ignored, mpi_context, signals};

#[derive(Args)]
pub struct Surface {
    #[command(flatten)]
    pub point: PointArgs,
    /// Directions of the plane
    #[arg(long, value_enum, default_value = "filter")]
    plane: PlaneName,
    /// Range of α and β: from −R to R
    #[arg(
        long,
        value_name = "R",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    range: f64,
    /// Number of points in each direction; the grid contains θ if N is odd
    #[arg(long, value_name = "N", default_value_t = 51)]
    grid: usize,
    /// Compute the smallest and largest eigenvalue of the Hessian at each point (5 to 100 products per point)
    #[arg(long)]
    eigenvalues: bool,
    /// Seed of the directions
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for surface.csv, .parquet, .npz, .vtk (ParaView) and .json, directions.safetensors (theta, d1, d2), and
    /// figures of the surface, its contours and eigenvalues; resumes an interrupted run
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
    /// Compute shard I of N and save it in --out; a run without --shard computes the rest and merges all
    #[arg(long, value_name = "I/N", requires = "out")]
    shard: Option<Share>,
}

/// All files that the command writes to --out, without figures.
const FILES: [&str; 6] = [
    "surface.csv",
    "surface.parquet",
    "surface.npz",
    "surface.vtk",
    "surface.json",
    "directions.safetensors",
];

#[derive(Clone, Copy, ValueEnum)]
enum PlaneName {
    /// Two orthogonal Gaussian directions with the norm of θ
    Random,
    /// Two filter-normalised Gaussian directions, orthogonal in each filter
    Filter,
    /// The first two eigenvectors of the Hessian, with norm 1
    Eigen,
}

impl Surface {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.point.ignored();
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        positive("range", self.range)?;
        at_least(2, "grid", self.grid)?;
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        let mut grid = Grid::square(self.range, self.grid)?;
        if let Some(dir) = &self.out {
            let figures: &[&str] = match self.eigenvalues {
                true => &["surface", "contour", "eigenvalues"],
                false => &["surface", "contour"],
            };
            prepare_dir(dir, &FILES, &self.figures.file_names(figures)?)?;
            self.check_unfinished(dir)?;
            grid = grid.with_checkpoint(dir.join("unfinished"));
            signals::on_interrupt(format!(
                "finished points are saved in {}: run the same command to resume",
                dir.display()
            ));
        }
        let grid = grid.with_share(mpi_context::share(self.shard.as_ref())?)?;
        let objective = self.point.objective()?;
        let [d1, d2] = self.directions(&objective)?;
        let started = Instant::now();
        let mut plane = Plane::on_grid(&objective, &d1, &d2, &grid);
        let seconds = started.elapsed().as_secs_f64();
        if self.eigenvalues && matches!(plane, Ok(_) | Err(Error::Unfinished { .. })) {
            let extremes = ExtremeEigenvalues::on_grid(&objective, &d1, &d2, &grid)?;
            // The last shard to finish merges all: others may have finished in the meantime.
            plane = plane.or_else(|_| Plane::on_grid(&objective, &d1, &d2, &grid));
            plane = plane.map(|plane| Plane {
                eigenvalues: Some(extremes),
                ..plane
            });
        }
        let plane = plane?;
        let points = plane.losses.len();
        let ms_per_point = 1e3 * seconds / points as f64;
        let min = plane.losses.iter().copied().fold(f64::INFINITY, f64::min);
        let max = plane.losses.iter().copied().fold(0.0, f64::max);
        let columns = plane.alphas.len();
        let losses = plane.losses.iter().enumerate();
        let holes = losses.filter(|(_, loss)| loss.is_nan());
        let holes = holes.map(|(i, _)| [plane.alphas[i % columns], plane.betas[i / columns]]);
        let holes: Vec<[f64; 2]> = holes.collect();
        let json = json!({
            "seconds": seconds,
            "ms_per_point": ms_per_point,
            "loss_center": plane.center,
            "loss_min": min,
            "loss_max": max,
            "grid": self.grid,
            "not_finite": holes,
        });
        let mut text = format!(
            "loss at θ          {}\n\
             loss on the plane  {} to {}\n\
             {points} points, {ms_per_point:.2} ms each, {seconds:.2} s\n",
            number(plane.center, 6),
            number(min, 6),
            number(max, 6)
        );
        if !holes.is_empty() {
            text += &format!("points without a finite loss: {}\n", holes.len());
        }
        if let Some(found) = &plane.eigenvalues {
            let low = found.smallest.iter().copied().fold(f64::INFINITY, f64::min);
            let high = found
                .largest
                .iter()
                .copied()
                .fold(f64::NEG_INFINITY, f64::max);
            text += &format!(
                "eigenvalues        {} to {}\n",
                number(low, 5),
                number(high, 5)
            );
        }
        let mut report = Report::new(&objective, text, json);
        if let Some(dir) = &self.out {
            let theta = objective.parameters().to_flat()?;
            let vectors = [("theta", &theta), ("d1", &d1), ("d2", &d2)];
            write_vectors(
                &dir.join("directions.safetensors"),
                vectors.map(|(name, vector)| (name.to_owned(), &vector[..])),
            )?;
            write_plane(dir, &plane)?;
            write_text(&dir.join("surface.json"), &report.json.to_string())?;
            let mut figures = vec![
                ("surface", figure::surface(&plane)),
                ("contour", figure::contour(&plane)),
            ];
            if plane.eigenvalues.is_some() {
                figures.push(("eigenvalues", figure::extreme_eigenvalues(&plane)));
            }
            self.figures.write_all(dir, &figures, &mut report.text)?;
            // All results are written: the checkpoint is no longer needed.
            if mpi_context::is_root() {
                grid.remove_checkpoint()?;
            }
        }
        Ok(report)
    }

    /// Refuses to discard rows of eigenvalues, and to divide the points otherwise than earlier shards.
    fn check_unfinished(&self, dir: &Path) -> Result<(), Error> {
        let unreadable = |e| Error::Invalid(format!("{}: cannot be read ({e})", dir.display()));
        // The last word of "shard 1 of 3" is the number of shards.
        let shard = self.shard.as_ref().map(|shard| format!("{shard:?}"));
        let shards = shard.as_deref().and_then(|name| name.rsplit(' ').next());
        for entry in std::fs::read_dir(dir).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let name = name.to_string_lossy();
            if !self.eigenvalues && name.starts_with("unfinished.eigenvalues") {
                return Err(Error::Invalid(format!(
                    "{} has finished rows of eigenvalues, which this run would discard: add --eigenvalues, or delete {name}",
                    dir.display()
                )));
            }
            let parts = name.split_once(".shard-");
            let there = parts.and_then(|(_, shard)| shard.rsplit('-').next());
            if let (Some(ours), Some(there)) = (shards, there)
                && name.starts_with("unfinished")
                && ours != there
            {
                return Err(Error::Invalid(format!(
                    "{} has points of {there} shards, not {ours}: use --shard I/{there}, or no --shard to compute the rest",
                    dir.display()
                )));
            }
        }
        Ok(())
    }

    fn directions(&self, objective: &Objective) -> Result<[Vec<f64>; 2], Error> {
        let parameters = objective.parameters();
        Ok(match self.plane {
            PlaneName::Filter => direction::filter_normalized_pair(parameters, self.seed)?,
            PlaneName::Random => {
                let draw = |seed: u64| {
                    let gaussian = direction::gaussian(parameters, seed);
                    direction::normalized(parameters, &gaussian, Normalization::Model)
                };
                let d1 = draw(self.seed)?;
                let d2 = draw(self.seed.wrapping_add(1 << 32))?;
                let d2 = direction::orthogonalized(&d2, &d1)?;
                [d1, d2]
            }
            PlaneName::Eigen => {
                let lanczos = Lanczos::default().with_seed(self.seed);
                let mut pairs = lanczos.run(&objective.hessian(), 2)?.pairs.into_iter();
                let mut vector = || pairs.next().map(|pair| pair.vector).unwrap_or_default();
                [vector(), vector()]
            }
        })
    }
}
