//! `landscape classes`

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{json, to_value};
use loss_landscape::spectral::OutlierTest;

use crate::figure_args::FigureArgs;
use crate::limits::{at_least, positive};
use crate::network_args::PointArgs;
use crate::output::{Report, prepare_dir, write_text};
use crate::path_args::path;
use crate::{Ignored, mpi_context};

/// Examples at the end of `--help`.
const EXAMPLES: &str = "Examples:
  landscape classes --weights W.safetensors --out classes/
  landscape classes --weights W.safetensors --samples 2000 --top 40 --significance 0.01
  landscape classes --dataset fashion-mnist --weights F.safetensors --max-products 300 --json";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Classes {
    #[command(flatten)]
    pub point: PointArgs,
    /// Number of eigenvalues of the Gauss–Newton matrix [default: K² + 20 for K classes, at most 120]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Largest residual, relative to the largest |λ|
    #[arg(long, default_value_t = 1e-5, allow_negative_numbers = true)]
    tolerance: f64,
    /// Largest probability of counting too many outliers
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true)]
    significance: f64,
    /// Stop estimates of traces at this relative standard error
    #[arg(long, default_value_t = 0.03, allow_negative_numbers = true)]
    relative_error: f64,
    /// Maximum number of products of each trace
    #[arg(long, default_value_t = 100)]
    max_products: usize,
    /// Seed of the random vectors and of the test for outliers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for classes.json and a figure
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
}

impl Classes {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.point.ignored();
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "top", self.top.unwrap_or(1))?;
        positive("tolerance", self.tolerance)?;
        positive("significance", self.significance)?;
        positive("relative-error", self.relative_error)?;
        at_least(12, "max-products", self.max_products)?;
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        mpi_context::require_single_process("classes")?;
        if let Some(dir) = &self.out {
            prepare_dir(
                dir,
                &["classes.json"],
                &self.figures.file_names(&["classes"])?,
            )?;
        }
        let objective = self.point.objective()?;
        let lanczos = Lanczos::default()
            .with_tolerance(self.tolerance)
            .with_seed(self.seed);
        let trace = Trace::default()
            .with_relative_error(self.relative_error)
            .with_max_products(self.max_products)
            .with_seed(self.seed);
        let outliers = OutlierTest::default()
            .with_significance(self.significance)
            .with_seed(self.seed);
        let settings = ClassStructure::default()
            .with_eigenvalues(self.top)
            .with_lanczos(lanczos)
            .with_trace(trace)
            .with_outliers(outliers);
        let started = Instant::now();
        let found = settings.run(&objective)?;
        let seconds = started.elapsed().as_secs_f64();
        let mut json = to_value(&found).map_err(|e| Error::Invalid(e.to_string()))?;
        json["seconds"] = json!(seconds);
        let mut report = Report::new(&objective, format!("{found}\n{seconds:.2} s\n"), json);
        if let Some(dir) = &self.out {
            write_text(&dir.join("classes.json"), &report.json.to_string())?;
            let figures = [("classes", figure::class_structure(&found))];
            self.figures.write_all(dir, &figures, &mut report.text)?;
        }
        Ok(report)
    }
}
