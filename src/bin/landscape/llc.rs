//! `landscape llc`

use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::landscape::LearningCoefficientVerdict;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{json, to_value};

use crate::limits::{at_least, not_negative, positive};
use crate::network_args::PointArgs;
use crate::output::Report;

/// Examples at the end of `--help`.
const EXAMPLES: &str = "Examples:
  landscape llc --weights W.safetensors --dtype f64
  landscape llc --weights W.safetensors --localization 100 --chains 4 --max-gradients 20000
  landscape llc --weights W.safetensors --samples 60000 --batch-size 512";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Llc {
    #[command(flatten)]
    pub point: PointArgs,
    /// Strength λ of the L2 term λ‖θ‖² that belongs to the loss
    #[arg(
        long,
        value_name = "LAMBDA",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    l2: f64,
    /// Inverse temperature β [default: 1/ln n for n samples]
    #[arg(long, allow_negative_numbers = true)]
    beta: Option<f64>,
    /// Localisation γ [default: number of parameters over ‖θ‖²]
    #[arg(long, value_name = "GAMMA", allow_negative_numbers = true)]
    localization: Option<f64>,
    /// Langevin dynamics with gradients of N samples, which is biased [default: exact sampling with all samples]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Number of chains
    #[arg(long, default_value_t = 8)]
    chains: usize,
    /// Stop at this relative standard error
    #[arg(long, default_value_t = 0.02, allow_negative_numbers = true)]
    relative_error: f64,
    /// Maximum number of gradients
    #[arg(long, default_value_t = 100_000)]
    max_gradients: usize,
    /// Seed of the chains
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Llc {
    pub fn check(&self) -> Result<(), Error> {
        not_negative("l2", self.l2)?;
        positive("beta", self.beta.unwrap_or(1.0))?;
        positive("localization", self.localization.unwrap_or(1.0))?;
        at_least(1, "batch-size", self.batch_size.unwrap_or(1))?;
        at_least(2, "chains", self.chains)?;
        positive("relative-error", self.relative_error)?;
        at_least(1, "max-gradients", self.max_gradients)?;
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        let objective = self.point.distributed()?.with_l2(self.l2)?;
        let mut settings = LearningCoefficient::default()
            .with_chains(self.chains)
            .with_relative_error(self.relative_error)
            .with_max_gradients(self.max_gradients)
            .with_seed(self.seed);
        settings.beta = self.beta;
        settings.localization = self.localization;
        settings.batch_size = self.batch_size;
        let started = Instant::now();
        let found = settings.run(&objective)?;
        let seconds = started.elapsed().as_secs_f64();
        let [low, high] = found.interval(0.95)?;
        // The error of chains that disagree, or that are not near a minimum, means nothing.
        let is_meaningful = matches!(
            found.verdict,
            LearningCoefficientVerdict::Converged | LearningCoefficientVerdict::TooFewSamples
        );
        let line = match is_meaningful {
            true => format!("95 % interval         {low:.5} to {high:.5}\n"),
            false => String::new(),
        };
        let mut json = to_value(&found).map_err(|e| Error::Invalid(e.to_string()))?;
        json["interval"] = json!([low, high]);
        json["l2"] = json!(self.l2);
        json["seconds"] = json!(seconds);
        Ok(Report::new(
            &objective,
            format!(
                "learning coefficient  {found}\n\
                 {line}{seconds:.2} s\n"
            ),
            json,
        ))
    }
}
