//! Chains of a sampler: their number of samples, their burn-in and their means.

use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::chains::{Agreement, mean};
use crate::error::Result;
use crate::progress::{Progress, check};
use crate::random::{Purpose, generator};
use crate::spectral::Estimate;
use crate::vector::{axpy, dot};

/// Smallest number of samples of each chain between two looks at the chains.
const ROUND: usize = 10;

/// Number of looks in succession at which the samples must suffice. Stopping at the first would favour samples that scatter too
/// little by chance.
const LOOKS: usize = 2;

/// Smallest effective number of samples.
const LEAST_EFFECTIVE: f64 = 400.0;

/// Largest R̂ of chains that agree.
const LARGEST_R_HAT: f64 = 1.02;

/// Largest distance of the mean of x·∇U from the number of dimensions, in standard errors.
const LARGEST_IMBALANCE: f64 = 4.0;

/// Maximum number of steps of the descent from w*.
const DESCENT: usize = 100;

/// The value nβ(L(w* + x) − L(w*)) and its gradient; `None` if they are not finite.
pub(super) type Excess<'a> = dyn Fn(&[f64]) -> Result<Option<(f64, Vec<f64>)>> + Sync + 'a;

/// The density exp(−U(x)) with U(x) = nβ(L(w* + x) − L(w*)) + γ/2 ‖x‖².
pub(super) struct Target<'a> {
    pub(super) excess: &'a Excess<'a>,
    /// γ
    pub(super) localization: f64,
}

/// A displacement x = w − w* and the values of the target there.
#[derive(Clone)]
pub(super) struct Point {
    pub(super) x: Vec<f64>,
    /// nβ(L(w) − L(w*)).
    pub(super) excess: f64,
    /// U(x).
    pub(super) potential: f64,
    /// ∇U(x).
    pub(super) slope: Vec<f64>,
}

impl Target<'_> {
    /// Evaluates the target; `None` where the loss is not finite.
    pub(super) fn at(&self, x: Vec<f64>) -> Result<Option<Point>> {
        let Some((excess, mut slope)) = (self.excess)(&x)? else {
            return Ok(None);
        };
        axpy(self.localization, &x, &mut slope);
        let potential = excess + 0.5 * self.localization * dot(&x, &x);
        Ok(Some(Point {
            x,
            excess,
            potential,
            slope,
        }))
    }
}

impl Point {
    pub(super) fn dim(&self) -> usize {
        self.x.len()
    }

    /// x·∇U(x). Its mean is the number of dimensions.
    pub(super) fn virial(&self) -> f64 {
        dot(&self.x, &self.slope)
    }
}

/// A chain: its current point and its random numbers.
pub(super) struct Chain {
    pub(super) point: Point,
    pub(super) generator: ChaCha8Rng,
    /// Largest number of gradients of a trajectory, at least 1.
    pub(super) max_gradients: usize,
}

/// A sample of a chain: a trajectory or a block of steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Mean of nβ(L − L(w*)) over the states. In equilibrium it has the expectation of a single state, and less variance.
    pub(super) excess: f64,
    /// Mean of x·∇U.
    pub(super) virial: f64,
    /// Half the amount by which finite steps enlarge the mean of x·∇U; on a quadratic loss, by which they enlarge the excess.
    pub(super) step_bias: f64,
    /// Smallest nβ(L − L(w*)), if all samples are evaluated.
    pub(super) lowest: f64,
    /// Mean acceptance probability.
    pub(super) acceptance: f64,
    /// Number of gradients.
    pub(super) gradients: usize,
    /// Whether the steps were unstable or the loss not finite.
    pub(super) diverged: bool,
}

/// Advances all chains by a sample with a given step size.
pub(super) type Advance<'a> = dyn Fn(&mut [Chain], f64) -> Result<Vec<Found>> + 'a;

/// A method that samples a target.
pub(super) trait Sampler: Sync {
    fn target(&self) -> &Target<'_>;

    /// Chooses the step size, with at most `budget` gradients, or one sample of the shortest length if fewer.
    fn adapt(
        &self,
        chains: &mut [Chain],
        each: &Advance,
        budget: usize,
        progress: &mut Progress,
    ) -> Result<(f64, Vec<Found>)>;

    /// Takes a sample with this step size.
    fn advance(&self, chain: &mut Chain, step: f64) -> Result<Found>;

    /// Draws the step size of a sample.
    fn vary(&self, chain: &mut Chain, step: f64) -> f64;
}

/// Settings of the chains.
pub(super) struct Sampling {
    pub(super) chains: usize,
    pub(super) relative_error: f64,
    pub(super) max_gradients: usize,
    pub(super) seed: u64,
    /// Whether threads share the chains.
    pub(super) parallel: bool,
}

/// What the chains found.
pub(super) struct Samples {
    /// Step size.
    pub(super) step: f64,
    pub(super) equilibrium: Equilibrium,
    /// Smallest nβ(L − L(w*)) of a descent from w* and of the chains.
    pub(super) lowest: f64,
    pub(super) gradients: usize,
    /// Whether the samples reached the requested accuracy.
    pub(super) is_accurate: bool,
}

impl Sampling {
    /// Samples until the mean has the requested accuracy, the gradients are used up, or the mean is negative.
    pub(super) fn run(&self, sampler: &dyn Sampler, start: &Point) -> Result<Samples> {
        let mut progress = Progress::start("learning coefficient");
        let mut chains: Vec<Chain> = (0..self.chains)
            .map(|i| Chain {
                point: start.clone(),
                generator: generator(Purpose::LearningCoefficient, self.seed, i as u64),
                max_gradients: usize::MAX,
            })
            .collect();
        let one = |chains: &mut [Chain], step| self.each(chains, |c| sampler.advance(c, step));
        let (step, adapting) =
            sampler.adapt(&mut chains, &one, self.max_gradients / 2, &mut progress)?;
        for chain in &mut chains {
            chain.max_gradients = usize::MAX;
        }
        let least = |found: &[Found]| found.iter().fold(f64::INFINITY, |l, f| l.min(f.lowest));
        let mut gradients = count(&adapting);
        let mut lowest = least(&adapting).min(descend(sampler.target(), start, step)?);

        let mut found: Vec<Vec<Found>> = vec![Vec::new(); self.chains];
        let mut passes = 0;
        loop {
            check()?;
            let round = ROUND.max(found[0].len() / 4);
            let more = self.each(&mut chains, |chain| {
                let samples = (0..round).map(|_| {
                    let step = sampler.vary(chain, step);
                    sampler.advance(chain, step)
                });
                samples.collect::<Result<Vec<_>>>()
            })?;
            for (found, more) in found.iter_mut().zip(more) {
                gradients += count(&more);
                lowest = lowest.min(least(&more));
                found.extend(more);
            }
            let equilibrium = Equilibrium::of(&found, start.dim());
            let is_accurate = equilibrium.is_accurate(self.relative_error);
            passes = if is_accurate { passes + 1 } else { 0 };
            let mean = gradients as f64 / (adapting.len() + self.chains * found[0].len()) as f64;
            let next = self.chains * ROUND.max(found[0].len() / 4);
            let is_used_up = gradients as f64 + next as f64 * mean > self.max_gradients as f64;
            progress.part_with(
                gradients.min(self.max_gradients),
                self.max_gradients,
                || equilibrium.to_string(),
            );
            if passes == LOOKS || is_used_up || equilibrium.is_negative() {
                return Ok(Samples {
                    step,
                    equilibrium,
                    lowest,
                    gradients,
                    is_accurate,
                });
            }
        }
    }

    /// Calls `f` on each chain. Chains have their own random numbers, so that the threads do not change the results.
    fn each<T: Send>(
        &self,
        chains: &mut [Chain],
        f: impl Fn(&mut Chain) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        match self.parallel {
            true => chains.par_iter_mut().map(&f).collect(),
            false => chains.iter_mut().map(f).collect(),
        }
    }
}

/// Returns the number of gradients of some samples.
pub(super) fn count(found: &[Found]) -> usize {
    found.iter().map(|f| f.gradients).sum()
}

/// Returns the smallest nβ(L − L(w*)) of a gradient descent on U from w*.
fn descend(target: &Target, start: &Point, step: f64) -> Result<f64> {
    let (mut point, mut lowest, mut rate) = (start.clone(), start.excess, step * step);
    for _ in 0..DESCENT {
        let mut x = point.x.clone();
        axpy(-rate, &point.slope, &mut x);
        match target.at(x)? {
            Some(next) if next.potential < point.potential => {
                lowest = lowest.min(next.excess);
                point = next;
                rate *= 1.5;
            }
            _ => rate *= 0.5,
        }
    }
    Ok(lowest)
}

/// The samples after the burn-in.
#[derive(Clone)]
pub(super) struct Equilibrium {
    /// Samples of each chain in the burn-in, without those that adapt the step size.
    pub(super) burn_in: usize,
    /// Samples of each chain after that.
    pub(super) kept: usize,
    /// Diagnostics of nβ(L − L(w*)).
    plain: Agreement,
    /// Diagnostics of nβ(L − L(w*)) with the control variate.
    controlled: Agreement,
    /// Mean of nβ(L − L(w*)), with the control variate. Its samples are the chains.
    pub(super) mean: Estimate,
    /// Mean of x·∇U without the effect of finite steps, divided by its expectation. Its samples are the chains.
    pub(super) balance: Estimate,
    /// Mean of [`Found::step_bias`].
    pub(super) step_bias: f64,
    /// Mean acceptance probability.
    pub(super) acceptance: f64,
    /// Share of the samples whose steps were unstable.
    pub(super) diverged: f64,
}

impl Equilibrium {
    /// Chooses the burn-in that leaves the most effective samples (Chodera, "A Simple Method for Automated Equilibration
    /// Detection in Molecular Simulations", 2016), at most half of all.
    ///
    /// For any density exp(−U) the mean of x·∇U is the dimension d. The mean of e − b(x·∇U − d) is therefore that of
    /// e = nβ(L − L(w*)) for each b. The b of least squares leaves the least variance: none on a quadratic loss without
    /// localisation, where e = x·∇U/2.
    fn of(found: &[Vec<Found>], dim: usize) -> Self {
        let n = found[0].len();
        let after = |burn_in: usize, f: &dyn Fn(&Found) -> f64| -> Vec<Vec<f64>> {
            let chains = found.iter();
            let kept = chains.map(|found| found[burn_in..].iter().map(f).collect());
            kept.collect()
        };
        let (mut burn_in, mut plain) = (0, Agreement::of(&after(0, &|f| f.excess)));
        for tenths in 1..=5 {
            let candidate = tenths * n / 10;
            let agreement = Agreement::of(&after(candidate, &|f| f.excess));
            if agreement.effective > plain.effective {
                (burn_in, plain) = (candidate, agreement);
            }
        }
        let kept = |f: &dyn Fn(&Found) -> f64| after(burn_in, f);
        let overall = |f: &dyn Fn(&Found) -> f64| mean(&kept(f).concat());
        let [excess, virial] = [overall(&|f| f.excess), overall(&|f| f.virial)];
        let variance = overall(&|f| (f.virial - virial).powi(2));
        let covariance = overall(&|f| (f.virial - virial) * (f.excess - excess));
        let slope = if variance > 0.0 {
            covariance / variance
        } else {
            0.0
        };
        let dim = dim as f64;
        let controlled = kept(&|f| f.excess - slope * (f.virial - dim));
        let balance = kept(&|f| (f.virial - 2.0 * f.step_bias) / dim);
        let agreement = Agreement::of(&controlled);
        Self {
            burn_in,
            kept: n - burn_in,
            plain,
            controlled: agreement,
            mean: agreement.estimate(&controlled),
            balance: Agreement::of(&balance).estimate(&balance),
            step_bias: overall(&|f| f.step_bias),
            acceptance: overall(&|f| f.acceptance),
            diverged: overall(&|f| f64::from(u8::from(f.diverged))),
        }
    }

    /// The larger split R̂: with or without the control variate.
    pub(super) fn r_hat(&self) -> f64 {
        match self.is_negligible(1e-6) {
            true => self.plain.r_hat,
            false => self.plain.r_hat.max(self.controlled.r_hat),
        }
    }

    /// The smaller effective number of samples: with or without the control variate.
    pub(super) fn effective(&self) -> f64 {
        match self.is_negligible(1e-6) {
            true => self.plain.effective,
            false => self.plain.effective.min(self.controlled.effective),
        }
    }

    /// Whether a single sample with the control variate is more accurate than this.
    fn is_negligible(&self, relative_error: f64) -> bool {
        self.controlled.variance.sqrt() <= relative_error * self.mean.value.abs()
    }

    /// Whether the chains agree.
    pub(super) fn agrees(&self, relative_error: f64) -> bool {
        let controlled =
            self.is_negligible(relative_error) || self.controlled.r_hat <= LARGEST_R_HAT;
        self.plain.r_hat <= LARGEST_R_HAT && controlled
    }

    /// Whether x·∇U has its expectation.
    pub(super) fn is_balanced(&self) -> bool {
        let distance = (self.balance.value - 1.0).abs();
        distance <= LARGEST_IMBALANCE * self.balance.standard_error
    }

    /// Whether the samples suffice for this accuracy. The error is that within the chains: a few chains can agree by chance.
    fn is_accurate(&self, relative_error: f64) -> bool {
        let error = (self.controlled.variance / self.controlled.effective).sqrt();
        let enough = |agreement: &Agreement| agreement.effective >= LEAST_EFFECTIVE;
        error <= relative_error * self.mean.value.abs()
            && enough(&self.plain)
            && (self.is_negligible(relative_error) || enough(&self.controlled))
            && self.agrees(relative_error)
            && self.is_balanced()
    }

    /// Whether the mean loss is significantly below L(w*).
    pub(super) fn is_negative(&self) -> bool {
        let error = (self.plain.variance / self.plain.effective).sqrt();
        self.plain.mean + 5.0 * error < 0.0
    }
}

impl std::fmt::Display for Equilibrium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "λ̂ = {:.4} ± {:.1}, R̂ {:.3}, {:.0} effective samples",
            crate::spectral::Short(self.mean.value),
            crate::spectral::Short(self.mean.standard_error),
            self.r_hat(),
            self.effective()
        )
    }
}
