//! `landscape density`

use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::network_args::{Matrix, Point};
use crate::output::{Report, number};

#[derive(Args)]
pub struct Density {
    #[command(flatten)]
    pub point: Point,
    #[command(flatten)]
    matrix: Matrix,
    /// Random vectors
    #[arg(long, default_value_t = 10)]
    probes: usize,
    /// Products for each
    #[arg(long, default_value_t = 60)]
    steps: usize,
    /// Standard deviation of the smoothing Gaussian; a hundredth of the spectrum's width if not said
    #[arg(long, allow_negative_numbers = true)]
    width: Option<f64>,
    /// Places of the curve
    #[arg(long, default_value_t = 400)]
    points: usize,
    /// Seed of the random vectors
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Density {
    pub fn run(&self) -> Result<Report, Error> {
        let (objective, operator) = self.matrix.at(&self.point)?;
        let settings = DensitySettings::default()
            .with_probes(self.probes)
            .with_steps(self.steps)
            .with_seed(self.seed);
        let started = Instant::now();
        let density = settings.run(&operator)?;
        let seconds = started.elapsed().as_secs_f64();
        let [low, high] = density.range();
        // A zero matrix has no width of its own.
        let own = if high > low {
            (high - low) / 100.0
        } else {
            0.01
        };
        let curve = density.smoothed(self.width.unwrap_or(own), self.points)?;
        let cumulative = density.cumulative(curve.width, self.points)?;
        let (trace, squares) = (density.trace(), density.frobenius_squared());
        let negative = density.negative();
        Ok(Report::of(
            &objective,
            format!(
                "eigenvalues        {} to {} (smallest and largest node)\n\
                 negative           {negative}, of {}\n\
                 trace              {trace}\n\
                 ‖A‖²_F             {squares}\n\
                 {} products, {seconds:.2} s; the curve itself comes with --json\n",
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
                "products": density.products,
                "seconds": seconds,
            }),
        ))
    }
}
