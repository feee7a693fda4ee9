//! `landscape sharpness`

use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::landscape::{FisherRaoNorm, Flatness, NormalizedSharpness, RelativeFlatness};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{json, to_value};

use crate::limits::{at_least, not_negative, positive};
use crate::network_args::PointArgs;
use crate::output::{Report, number};

/// Examples at the end of `--help`.
const EXAMPLES: &str = "Examples:
  landscape sharpness --weights W.safetensors --radius 0.1
  landscape sharpness --weights W.safetensors --batch-size 64 --invariant";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Sharpness {
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
    /// Radius ρ of the ball around θ
    #[arg(
        long,
        value_name = "R",
        default_value_t = 0.05,
        allow_negative_numbers = true
    )]
    radius: f64,
    /// Scale the perturbation of each weight by its magnitude
    #[arg(long)]
    adaptive: bool,
    /// Number of pairs ±δ of random perturbations
    #[arg(long, default_value_t = 50)]
    perturbations: usize,
    /// Number of starts of the worst-case search
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Loss increase that defines flatness
    #[arg(long, default_value_t = 0.1, allow_negative_numbers = true)]
    tolerance: f64,
    /// Also m-sharpness: the mean of the worst case over batches of M samples
    #[arg(long, value_name = "M")]
    batch_size: Option<usize>,
    /// Number of batches of --batch-size
    #[arg(long, value_name = "N", default_value_t = 20, requires = "batch_size")]
    batches: usize,
    /// Also measures that do not change if layers are rescaled: Fisher-Rao norm, relative flatness, normalised sharpness
    #[arg(long)]
    invariant: bool,
    /// Seed of the perturbations
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Sharpness {
    pub fn check(&self) -> Result<(), Error> {
        not_negative("l2", self.l2)?;
        positive("radius", self.radius)?;
        at_least(2, "perturbations", self.perturbations)?;
        at_least(1, "starts", self.starts)?;
        positive("tolerance", self.tolerance)?;
        at_least(1, "batch-size", self.batch_size.unwrap_or(1))?;
        at_least(1, "batches", self.batches)?;
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        let objective = self.point.distributed()?.with_l2(self.l2)?;
        let sharpness = loss_landscape::landscape::Sharpness::new(self.radius)
            .with_adaptive(self.adaptive)
            .with_pairs(self.perturbations)
            .with_starts(self.starts)
            .with_seed(self.seed);
        let flatness = Flatness::new(self.tolerance).with_seed(self.seed);
        let started = Instant::now();
        let random = sharpness.random(&objective)?;
        let average = sharpness.average(&objective)?;
        let gaussian = sharpness.gaussian(&objective)?;
        let worst = sharpness.worst_case(&objective)?;
        let sam = sharpness.sam(&objective)?;
        let flat = flatness.run(&objective)?;
        let rate = StableRate::estimate(&objective)?;
        let of_batches = self
            .batch_size
            .map(|m| sharpness.m_sharpness(&objective, m, self.batches))
            .transpose()?;
        let invariant = match self.invariant {
            true => Some((
                FisherRaoNorm::measure(&objective)?,
                RelativeFlatness::measure(&objective)?,
                NormalizedSharpness::measure(&objective, self.seed)?,
            )),
            false => None,
        };
        let seconds = started.elapsed().as_secs_f64();
        let mut text = format!(
            "loss           {}\n\
             random search  {random}\n\
             sphere         {average}\n\
             Gaussian       {gaussian}\n\
             worst case     {worst}\n\
             SAM            {sam}\n\
             flatness       {flat}\n\
             learning rate  {rate}\n",
            number(random.center, 6)
        );
        let mut json = json!({
            "loss": random.center,
            "rounding": random.rounding,
            "l2": self.l2,
            "radius": self.radius,
            "adaptive": self.adaptive,
            "random": random,
            "sphere": average,
            "gaussian": gaussian,
            "worst": {
                "rise": worst.rise,
                "by_start": worst.by_start,
                "converged": worst.converged,
                "quadratic": worst.quadratic,
            },
            "sam": {
                "rise": sam.rise,
                "first_order": sam.first_order,
                "second_order": sam.second_order,
            },
            "flatness": flat,
            "stable_rate": rate,
            "seconds": seconds,
        });
        let invalid = |e: loss_landscape::serde_json::Error| Error::Invalid(e.to_string());
        if let Some(found) = of_batches {
            text += &format!("batches        {found}\n");
            json["m_sharpness"] = to_value(&found).map_err(invalid)?;
        }
        if let Some((norm, flatness, normalized)) = invariant {
            text += &format!("{norm}\n{flatness}\n{normalized}\n");
            json["fisher_rao"] = to_value(norm).map_err(invalid)?;
            json["relative_flatness"] = to_value(&flatness).map_err(invalid)?;
            json["normalized_sharpness"] = to_value(&normalized).map_err(invalid)?;
        }
        text += &format!("{seconds:.2} s\n");
        Ok(Report::new(&objective, text, json))
    }
}
