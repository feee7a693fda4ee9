//! `landscape hvp`

use std::time::Instant;

use clap::Args;
use loss_landscape::Error;
use loss_landscape::memory;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

use crate::limits::at_least;
use crate::mpi_context;
use crate::network_args::PointArgs;
use crate::output::Report;

#[derive(Args)]
pub struct Hvp {
    #[command(flatten)]
    pub point: PointArgs,
    /// Number of vectors per block
    #[arg(long, default_value_t = 8)]
    block: usize,
    /// Number of runs; reports the median
    #[arg(long, default_value_t = 9)]
    runs: usize,
}

impl Hvp {
    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "block", self.block)?;
        at_least(1, "runs", self.runs)?;
        memory::check(8.0 * self.runs as f64, "the times of all runs")?;
        self.point.setting.check()
    }

    pub fn run(&self) -> Result<Report, Error> {
        let objective = self.point.distributed()?;
        // Vectors and products.
        let block = 16.0 * self.block as f64 * objective.dim() as f64;
        memory::check(block, &format!("blocks of {} vectors", self.block))?;
        let hessian = objective.hessian();
        let theta = objective.parameters().to_flat()?;
        let v = direction(theta.len(), 0);
        let vectors: Vec<Vec<f64>> = (0..self.block).map(|i| direction(theta.len(), i)).collect();

        let loss_ms = self.median(|_| objective.loss().map(drop))?;
        let gradient_ms = self.median(|_| objective.gradient().map(drop))?;
        let fresh_hvp_ms = self.median(|run| {
            let mut moved = theta.clone();
            moved[0] += 1e-3 * (1.0 + run as f64);
            objective.parameters().set_flat(&moved)?;
            hessian.apply(&v).map(drop)
        })?;
        objective.parameters().set_flat(&theta)?;
        hessian.apply(&v)?;
        let hvp_ms = self.median(|_| hessian.apply(&v).map(drop))?;
        let block_ms = self.median(|_| hessian.apply_block(&vectors).map(drop))?;
        let block_hvp_ms_per_vector = block_ms / self.block as f64;
        let ranks = mpi_context::ranks();
        let sum_ms = match &ranks {
            Some(ranks) => self.median(|_| ranks.sum(&mut v.clone()))?,
            None => 0.0,
        };
        let mut text = format!(
            "loss                        {loss_ms:>9.2} ms\n\
                 gradient                    {gradient_ms:>9.2} ms\n\
                 Hessian-vector product      {hvp_ms:>9.2} ms\n\
                 … at a new point            {fresh_hvp_ms:>9.2} ms\n\
                 … in a block of {:<3}, each   {block_hvp_ms_per_vector:>9.2} ms\n",
            self.block
        );
        if let Some(ranks) = &ranks {
            text += &format!(
                "sum over {:<3} ranks          {sum_ms:>9.2} ms\n",
                ranks.size()
            );
        }
        Ok(Report::new(
            &objective,
            text,
            json!({
                "loss_ms": loss_ms,
                "gradient_ms": gradient_ms,
                "hvp_ms": hvp_ms,
                "fresh_hvp_ms": fresh_hvp_ms,
                "block_hvp_ms_per_vector": block_hvp_ms_per_vector,
                "block": self.block,
                "threads": rayon::current_num_threads(),
                "ranks": ranks.map_or(1, |ranks| ranks.size()),
                "sum_ms": sum_ms,
            }),
        ))
    }

    /// The median time of the runs in milliseconds, after one warm-up run.
    fn median(&self, mut work: impl FnMut(usize) -> Result<(), Error>) -> Result<f64, Error> {
        work(self.runs)?;
        let mut times = Vec::with_capacity(self.runs);
        for run in 0..self.runs {
            let started = Instant::now();
            work(run)?;
            times.push(1e3 * started.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[self.runs / 2])
    }
}

/// A deterministic test vector; different for each `i`.
fn direction(n: usize, i: usize) -> Vec<f64> {
    (0..n)
        .map(|j| ((j + 1) as f64 * (i + 2) as f64).sin())
        .collect()
}
