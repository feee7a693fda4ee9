//! `landscape density`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::memory;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::Ignored;
use crate::figure_args::FigureArgs;
use crate::limits::{at_least, positive};
use crate::matrix_args::MatrixArgs;
use crate::output::{Report, number, prepare_dir, write_arrays, write_table, write_text};
use crate::path_args::path;

#[derive(Args)]
pub struct Density {
    #[command(flatten)]
    pub matrix: MatrixArgs,
    /// Number of random vectors
    #[arg(long, default_value_t = 10)]
    probes: usize,
    /// Lanczos steps per random vector
    #[arg(long, default_value_t = 60)]
    steps: usize,
    /// Standard deviation of the Gaussian that smooths the density; takes only the products that it needs [default: 1 % of the spectrum's width, with all products]
    #[arg(long, allow_negative_numbers = true)]
    width: Option<f64>,
    /// Number of points of the curve
    #[arg(long, default_value_t = 400)]
    points: usize,
    /// Seed of the random vectors
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for density.csv, .parquet, .npz, .json and a figure
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
}

/// All files that the command writes to --out, without figures.
const FILES: [&str; 4] = [
    "density.csv",
    "density.parquet",
    "density.npz",
    "density.json",
];

impl Density {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.matrix.ignored();
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(2, "probes", self.probes)?;
        at_least(2, "steps", self.steps)?;
        positive("width", self.width.unwrap_or(1.0))?;
        at_least(2, "points", self.points)?;
        // A value of λ, the density or the cumulative density, and its error at each point.
        let curves = 48.0 * self.points as f64;
        memory::check(curves, &format!("curves of {} points", self.points))?;
        self.matrix.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        if let Some(dir) = &self.out {
            prepare_dir(dir, &FILES, &self.figures.file_names(&["density"])?)?;
        }
        let matrix = self.matrix.build()?;
        let settings = DensitySettings::default()
            .with_probes(self.probes)
            .with_steps(self.steps)
            .with_seed(self.seed)
            .with_width(self.width);
        let started = Instant::now();
        let density = settings.run(&matrix.operator)?;
        let seconds = started.elapsed().as_secs_f64();
        let [low, high] = density.range();
        // The spectrum of a zero matrix has no width.
        let default_width = if high > low {
            (high - low) / 100.0
        } else {
            0.01
        };
        let curve = density.smoothed(self.width.unwrap_or(default_width), self.points)?;
        let cumulative = density.cumulative(curve.width, self.points)?;
        let (trace, squares) = (density.trace(), density.frobenius_squared());
        let negative = density.negative();
        let ends = match density.is_exact() {
            true => "smallest and largest, all are computed",
            false => "smallest and largest node",
        };
        let mut report = matrix.report(
            format!(
                "eigenvalues        {} to {} ({ends})\n\
                 negative           {negative}, of {}\n\
                 trace              {trace}\n\
                 ‖A‖²_F             {squares}\n\
                 {} products, {seconds:.2} s; use --json or --out for the curve\n",
                number(low, 5),
                number(high, 5),
                density.dim,
                density.products
            ),
            json!({
                "density": curve,
                "cumulative": cumulative,
                "negative": negative,
                "trace": trace,
                "frobenius_squared": squares,
                "quadratures": density.probes,
                "exact": density.is_exact(),
                "products": density.products,
                "seconds": seconds,
            }),
        );
        if let Some(dir) = &self.out {
            write_table(dir, "density", &mut curve.table()?)?;
            write_arrays(&dir.join("density.npz"), curve.arrays()?)?;
            write_text(&dir.join("density.json"), &report.json.to_string())?;
            let figures = [("density", figure::density(&curve))];
            self.figures.write_all(dir, &figures, &mut report.text)?;
        }
        Ok(report)
    }
}
