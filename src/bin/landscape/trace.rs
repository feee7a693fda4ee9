//! `landscape trace`

use std::time::Instant;

use clap::{Args, ValueEnum};
use loss_landscape::Error;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::limits::{at_least, positive};
use crate::matrix_args::MatrixArgs;
use crate::output::Report;

#[derive(Args)]
pub struct Trace {
    #[command(flatten)]
    pub matrix: MatrixArgs,
    /// Estimator
    #[arg(long, value_enum, default_value = "krylov")]
    method: MethodName,
    /// Stop at this relative standard error
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    relative_error: f64,
    /// Maximum number of products
    #[arg(long, default_value_t = 300)]
    max_products: usize,
    /// Seed of the random vectors
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodName {
    /// Random sign vectors
    Hutchinson,
    /// Random sign vectors plus an exact trace on a low-rank range
    #[value(name = "hutch++")]
    HutchPlusPlus,
    /// As Hutch++, on a block Krylov space
    Krylov,
}

impl Trace {
    pub fn check(&self) -> Result<(), Error> {
        positive("relative-error", self.relative_error)?;
        at_least(12, "max-products", self.max_products)?;
        self.matrix.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        let matrix = self.matrix.build()?;
        let settings = loss_landscape::spectral::Trace::default()
            .with_method(match self.method {
                MethodName::Hutchinson => TraceMethod::Hutchinson,
                MethodName::HutchPlusPlus => TraceMethod::HutchPlusPlus,
                MethodName::Krylov => TraceMethod::Krylov,
            })
            .with_relative_error(self.relative_error)
            .with_max_products(self.max_products)
            .with_seed(self.seed);
        let started = Instant::now();
        let trace = settings.trace(matrix.operator.as_ref())?;
        let squares = settings.frobenius_squared(matrix.operator.as_ref())?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(matrix.report(
            format!("trace   {trace}\n‖A‖²_F  {squares}\n{seconds:.2} s\n"),
            json!({
                "trace": trace,
                "frobenius_squared": squares,
                "products": trace.products + squares.products,
                "seconds": seconds,
            }),
        ))
    }
}
