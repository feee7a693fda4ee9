//! `landscape influence`

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::landscape::{InfluenceReport, InfluenceSolver};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{json, to_value};

use crate::figure_args::FigureArgs;
use crate::limits::{at_least, not_negative, positive};
use crate::network_args::PointArgs;
use crate::output::{Report, number, prepare_dir, scientific, write_table, write_text};
use crate::path_args::path;
use crate::{Ignored, mpi_context};

/// Examples at the end of `--help`.
const EXAMPLES: &str = "Examples:
  landscape influence --weights W.safetensors --dtype f64 --out influence/
  landscape influence --weights W.safetensors --test-sample 7 --samples 60000
  landscape influence --weights W.safetensors --l2 1e-4 --damping 0
  landscape influence --weights W.safetensors --solver plain        # products without the preconditioner";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct InfluenceCommand {
    #[command(flatten)]
    pub point: PointArgs,
    /// Number of test samples whose mean loss is explained [default: all]
    #[arg(long, value_name = "N", conflicts_with = "test_sample")]
    test_samples: Option<usize>,
    /// Explain the loss of one test sample, counted from 0
    #[arg(long, value_name = "I")]
    test_sample: Option<usize>,
    /// Strength λ of the L2 term λ‖θ‖² with which the weights were trained
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    l2: f64,
    /// Damping that is added to the Gauss–Newton matrix [default: a tenth of the mean eigenvalue of its EKFAC approximation]
    #[arg(long, allow_negative_numbers = true)]
    damping: Option<f64>,
    /// How the linear system is solved
    #[arg(long, value_enum, default_value = "preconditioned")]
    solver: SolverName,
    /// Relative residual at which the solver stops
    #[arg(long, default_value_t = 1e-4, allow_negative_numbers = true)]
    tolerance: f64,
    /// Maximum number of products with the Gauss–Newton matrix
    #[arg(long, default_value_t = 1000)]
    max_products: usize,
    /// Maximum number of backward passes per sample for the EKFAC approximation
    #[arg(long, default_value_t = 32)]
    max_passes: usize,
    /// Directory for influence.csv, .parquet and .json: the influence of each training sample and a bound on its error;
    /// and for a figure
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub figures: FigureArgs,
}

/// All files that the command writes to --out, without figures.
const FILES: [&str; 3] = ["influence.csv", "influence.parquet", "influence.json"];

/// Number of samples at each end of the ranking in the report.
const SHOWN: usize = 5;

#[derive(Clone, Copy, ValueEnum)]
enum SolverName {
    /// Conjugate gradients with an EKFAC preconditioner
    Preconditioned,
    /// Conjugate gradients without a preconditioner
    Plain,
    /// The inverse of the EKFAC approximation alone
    Ekfac,
}

impl InfluenceCommand {
    pub fn ignored(&self) -> Ignored {
        let mut ignored = self.point.ignored();
        ignored.extend(self.figures.ignored(self.out.is_some(), "it needs --out"));
        ignored
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "test-samples", self.test_samples.unwrap_or(1))?;
        not_negative("l2", self.l2)?;
        not_negative("damping", self.damping.unwrap_or(0.0))?;
        positive("tolerance", self.tolerance)?;
        at_least(2, "max-products", self.max_products)?;
        at_least(1, "max-passes", self.max_passes)?;
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        mpi_context::require_single_process("influence")?;
        if let Some(dir) = &self.out {
            prepare_dir(dir, &FILES, &self.figures.file_names(&["influence"])?)?;
        }
        let (objective, test) = self.point.with_test_samples()?;
        let objective = objective.with_l2(self.l2)?;
        let test = match (self.test_sample, self.test_samples) {
            (Some(i), _) if i >= test.len() => {
                return Err(Error::Invalid(format!(
                    "--test-sample must be below {}, the number of test samples, found {i}",
                    test.len()
                )));
            }
            (Some(i), _) => test.select(&[i])?,
            (None, Some(n)) => test.first(n)?,
            (None, None) => test,
        };
        let mut settings = Influence::default()
            .with_solver(match self.solver {
                SolverName::Preconditioned => InfluenceSolver::Preconditioned,
                SolverName::Plain => InfluenceSolver::Plain,
                SolverName::Ekfac => InfluenceSolver::Ekfac,
            })
            .with_tolerance(self.tolerance)
            .with_max_products(self.max_products)
            .with_kfac(Kfac::default().with_max_passes(self.max_passes));
        settings.damping = self.damping;
        let started = Instant::now();
        let found = settings.run(&objective, &test)?;
        let seconds = started.elapsed().as_secs_f64();
        let mut json = to_value(&found).map_err(|e| Error::Invalid(e.to_string()))?;
        json["l2"] = json!(self.l2);
        json["seconds"] = json!(seconds);
        let mut report = Report::new(&objective, self.text(&found, seconds), json);
        if let Some(dir) = &self.out {
            write_table(dir, "influence", &mut found.table()?)?;
            write_text(&dir.join("influence.json"), &report.json.to_string())?;
            report.text += &format!("{}\n", dir.join("influence.csv").display());
            let figures = [("influence", figure::influence(&found))];
            self.figures.write_all(dir, &figures, &mut report.text)?;
        }
        Ok(report)
    }

    fn text(&self, found: &InfluenceReport, seconds: f64) -> String {
        let ranking = found.ranking();
        let list = |indices: &mut dyn Iterator<Item = &usize>| {
            let items = indices.map(|i| format!("{i} ({})", scientific(found.values[*i], 2)));
            match items.collect::<Vec<_>>() {
                items if items.is_empty() => "none".into(),
                items => items.join(", "),
            }
        };
        let error = found.errors.iter().fold(0.0, |most: f64, e| most.max(*e));
        format!(
            "test loss        {}, test samples: {}\n\
             training         ‖∇L‖ = {}, which is 0 at a minimum\n\
             most harmful     {}\n\
             most helpful     {}\n\
             error            at most {} by the solver\n\
             solver           {}converged: relative residual {}, products {}, damping {}\n\
             {seconds:.2} s\n",
            number(found.test_loss, 6),
            found.test_samples,
            scientific(found.gradient_norm, 1),
            list(
                &mut ranking
                    .iter()
                    .rev()
                    .filter(|i| found.values[**i] > 0.0)
                    .take(SHOWN)
            ),
            list(
                &mut ranking
                    .iter()
                    .filter(|i| found.values[**i] < 0.0)
                    .take(SHOWN)
            ),
            scientific(error, 1),
            if found.converged { "" } else { "not " },
            scientific(found.relative_residual, 1),
            found.products,
            scientific(found.damping, 2),
        )
    }
}
