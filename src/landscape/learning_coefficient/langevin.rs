//! Stochastic gradient Langevin dynamics with gradients of batches (Welling and Teh, 2011). Its distribution is biased: the bias
//! is proportional to the step size.

use rand_distr::{Distribution, StandardNormal};

use super::chains::mean;
use super::sampling::{Advance, Chain, Found, Sampler, Target, count};
use crate::error::Result;
use crate::progress::Progress;
use crate::vector::{axpy, dot};

/// Number of blocks of steps of each chain while the step size is adapted.
const ADAPTATION: usize = 60;

/// Number of steps of a block, whose means are one sample.
const BLOCK: usize = 10;

/// Gradient of nβ(L_B(w* + x) − L_B(w*)) and its value, for a batch B that a generator draws.
pub(super) type BatchExcess<'a> =
    dyn Fn(&[f64], &mut Chain) -> Result<Option<(f64, Vec<f64>)>> + Sync + 'a;

/// Samples with gradients of batches.
pub(super) struct Langevin<'a> {
    /// The loss of all samples.
    pub(super) target: Target<'a>,
    pub(super) excess: &'a BatchExcess<'a>,
    /// Bias of the coefficient, relative to it, for which the step size is adapted.
    pub(super) relative_bias: f64,
}

impl Sampler for Langevin<'_> {
    fn target(&self) -> &Target<'_> {
        &self.target
    }

    /// Chooses the step size ε from the bias ε E‖g‖²/8 that it causes.
    fn adapt(
        &self,
        chains: &mut [Chain],
        each: &Advance,
        budget: usize,
        progress: &mut Progress,
    ) -> Result<(f64, Vec<Found>)> {
        let mut step = 1e-6 / self.target.localization;
        let mut all = Vec::new();
        // Logarithms of the step sizes.
        let mut logarithms = Vec::new();
        for round in 0..ADAPTATION {
            let found = each(chains, step)?;
            progress.tick(|| format!("adapts the step size, {round} of {ADAPTATION}"));
            let average =
                |f: fn(&Found) -> f64| found.iter().map(f).sum::<f64>() / found.len() as f64;
            let (bias, excess) = (average(|f| f.step_bias), average(|f| f.excess));
            let wanted = self.relative_bias * excess.max(0.5) / bias;
            let factor = match found.iter().any(|f| f.diverged) {
                true => 0.1,
                false if wanted.is_finite() => wanted.clamp(0.1, 2.0),
                false => 2.0,
            };
            all.extend(found);
            step *= factor;
            logarithms.push(step.ln());
            if count(&all) + BLOCK * chains.len() > budget {
                break;
            }
        }
        Ok((mean(&logarithms[logarithms.len() / 2..]).exp(), all))
    }

    /// Takes a block of steps x ← x − ½ε g + √ε ξ.
    fn advance(&self, chain: &mut Chain, step: f64) -> Result<Found> {
        let mut found = Found {
            excess: 0.0,
            virial: 0.0,
            step_bias: 0.0,
            lowest: f64::INFINITY,
            acceptance: 1.0,
            gradients: BLOCK,
            diverged: false,
        };
        for _ in 0..BLOCK {
            let x = std::mem::take(&mut chain.point.x);
            let Some((excess, mut slope)) = (self.excess)(&x, chain)? else {
                // The chain starts again at w*.
                chain.point.x = vec![0.0; x.len()];
                found.diverged = true;
                continue;
            };
            axpy(self.target.localization, &x, &mut slope);
            let share = 1.0 / BLOCK as f64;
            found.excess += share * excess;
            found.virial += share * dot(&x, &slope);
            found.step_bias += share * step / 8.0 * dot(&slope, &slope);
            let mut x = x;
            axpy(-0.5 * step, &slope, &mut x);
            let root = step.sqrt();
            for x in &mut x {
                let noise: f64 = StandardNormal.sample(&mut chain.generator);
                *x += root * noise;
            }
            chain.point.x = x;
        }
        Ok(found)
    }

    fn vary(&self, _: &mut Chain, step: f64) -> f64 {
        step
    }
}
