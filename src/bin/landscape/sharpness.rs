//! `landscape sharpness`

use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::landscape::Flatness;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::limits::{at_least, positive};
use crate::network_args::PointArgs;
use crate::output::{Report, number};

#[derive(Args)]
pub struct Sharpness {
    #[command(flatten)]
    pub point: PointArgs,
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
    /// Seed of the perturbations
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Sharpness {
    pub fn check(&self) -> Result<(), Error> {
        positive("radius", self.radius)?;
        at_least(2, "perturbations", self.perturbations)?;
        at_least(1, "starts", self.starts)?;
        positive("tolerance", self.tolerance)?;
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        let objective = self.point.distributed()?;
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
        let seconds = started.elapsed().as_secs_f64();
        Ok(Report::new(
            &objective,
            format!(
                "loss           {}\n\
                 random search  {random}\n\
                 sphere         {average}\n\
                 Gaussian       {gaussian}\n\
                 worst case     {worst}\n\
                 SAM            {sam}\n\
                 flatness       {flat}\n\
                 learning rate  {rate}\n\
                 {seconds:.2} s\n",
                number(random.center, 6)
            ),
            json!({
                "loss": random.center,
                "rounding": random.rounding,
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
            }),
        ))
    }
}
