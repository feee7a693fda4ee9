//! The no-U-turn sampler: Hamiltonian Monte Carlo whose trajectories end when they turn back (Hoffman and Gelman, "The No-U-Turn
//! Sampler", 2014), with a multinomial choice of the next state (Betancourt, "A Conceptual Introduction to Hamiltonian Monte
//! Carlo", 2017). Its distribution is exact for any step size.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::sampling::{Advance, Chain, Found, Point, Sampler, Target, count};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::vector::{axpy, dot};

/// Number of trajectories of each chain while the step size is adapted.
const ADAPTATION: usize = 40;

/// Mean acceptance probability for which the step size is adapted.
const ACCEPTANCE: f64 = 0.85;

/// Largest number of times that a trajectory doubles.
const MAX_DOUBLINGS: usize = 10;

/// Error of the energy at which a trajectory is not followed further.
const DIVERGENCE: f64 = 1e3;

/// Probability of each further halving of a trajectory's steps. Chains could not enter narrow parts of a valley with steps of
/// one size.
const HALVING: f64 = 1.0 / 3.0;

/// Largest number of halvings.
const MAX_HALVINGS: usize = 8;

/// Samples with the gradient of all samples.
pub(super) struct NoUTurn<'a> {
    pub(super) target: Target<'a>,
}

impl Sampler for NoUTurn<'_> {
    fn target(&self) -> &Target<'_> {
        &self.target
    }

    /// Chooses the step size by dual averaging of the acceptance probabilities of all chains (Hoffman and Gelman, 2014).
    fn adapt(
        &self,
        chains: &mut [Chain],
        each: &Advance,
        budget: usize,
        progress: &mut Progress,
    ) -> Result<(f64, Vec<Found>)> {
        let mut step = self.first_step(&mut chains[0])?;
        let center = (10.0 * step).ln();
        let (mut error, mut logarithm) = (0.0, 0.0);
        let mut all = Vec::new();
        for round in 1..=ADAPTATION {
            // Shorter trajectories still show the acceptance of a step size.
            let share = (budget - count(&all)) / chains.len();
            for chain in &mut *chains {
                chain.max_gradients = share.max(1);
            }
            let found = each(chains, step)?;
            progress.tick(|| format!("adapts the step size, {round} of {ADAPTATION}"));
            let acceptance = found.iter().map(|f| f.acceptance).sum::<f64>() / found.len() as f64;
            all.extend(found);
            let t = round as f64;
            error += (ACCEPTANCE - acceptance - error) / (t + 10.0);
            let current = center - t.sqrt() / 0.05 * error;
            logarithm += t.powf(-0.75) * (current - logarithm);
            step = current.exp();
            if count(&all) + chains.len() > budget {
                break;
            }
        }
        Ok((logarithm.exp(), all))
    }

    fn advance(&self, chain: &mut Chain, step: f64) -> Result<Found> {
        let momentum = momentum(chain);
        let mut run = Run {
            target: &self.target,
            energy: chain.point.potential + 0.5 * dot(&momentum, &momentum),
            acceptance: 0.0,
            gradients: 0,
            lowest: chain.point.excess,
            diverged: false,
        };
        let start = End {
            point: chain.point.clone(),
            momentum,
        };
        let mut tree = Segment::of(&start, 0.0);
        let mut ends = [start.clone(), start];
        let (mut newest, mut before) = (1, 0);
        for depth in 0..MAX_DOUBLINGS {
            if depth > 0 && run.gradients + (1 << depth) > chain.max_gradients {
                break;
            }
            let side = usize::from(chain.generator.random::<bool>());
            if side != newest {
                tree.momenta.swap(0, 1);
                newest = side;
            }
            let signed = if side == 1 { step } else { -step };
            (run.acceptance, before) = (0.0, run.gradients);
            let grown = run.grow(depth, &mut ends[side], signed, &mut chain.generator)?;
            let Some(grown) = grown else { break };
            let turns = tree.turns(&grown);
            // Prefers the new half, which moves farther.
            let chance = (grown.log_weight - tree.log_weight).exp();
            tree = tree.join(grown, chain.generator.random::<f64>() < chance);
            if turns {
                break;
            }
        }
        chain.point = tree.drawn;
        Ok(Found {
            excess: tree.excess,
            virial: tree.virial,
            step_bias: 0.0,
            lowest: run.lowest,
            acceptance: run.acceptance / (run.gradients - before) as f64,
            gradients: run.gradients,
            diverged: run.diverged,
        })
    }

    fn vary(&self, chain: &mut Chain, step: f64) -> f64 {
        let draws = (0..MAX_HALVINGS).take_while(|_| chain.generator.random::<f64>() < HALVING);
        step * 0.5f64.powi(draws.count() as i32)
    }
}

impl NoUTurn<'_> {
    /// Returns a step size whose first step is accepted with a probability of about a half.
    fn first_step(&self, chain: &mut Chain) -> Result<f64> {
        let mut accepts = |step: f64| {
            let mut end = End {
                momentum: momentum(chain),
                point: chain.point.clone(),
            };
            let energy = end.energy();
            let finite = end.advance(&self.target, step)?;
            Ok::<bool, Error>(finite && energy - end.energy() > 0.5f64.ln())
        };
        let mut step = 1.0 / self.target.localization.sqrt();
        let grows = accepts(step)?;
        while (1e-30..1e30).contains(&step) {
            let next = if grows { 2.0 * step } else { 0.5 * step };
            if accepts(next)? != grows {
                return Ok(step.min(next));
            }
            step = next;
        }
        Err(Error::NotFinite(
            "the loss is not finite, or jumps, at any distance from θ: there is nothing to sample"
                .into(),
        ))
    }
}

fn momentum(chain: &mut Chain) -> Vec<f64> {
    let normal = StandardNormal.sample_iter(&mut chain.generator);
    normal.take(chain.point.dim()).collect()
}

/// An end of a trajectory.
#[derive(Clone)]
struct End {
    point: Point,
    momentum: Vec<f64>,
}

impl End {
    fn energy(&self) -> f64 {
        self.point.potential + 0.5 * dot(&self.momentum, &self.momentum)
    }

    /// Takes one leapfrog step. Returns false if the loss is not finite there.
    fn advance(&mut self, target: &Target, step: f64) -> Result<bool> {
        axpy(-0.5 * step, &self.point.slope, &mut self.momentum);
        let mut x = std::mem::take(&mut self.point.x);
        axpy(step, &self.momentum, &mut x);
        let Some(point) = target.at(x)? else {
            return Ok(false);
        };
        self.point = point;
        axpy(-0.5 * step, &self.point.slope, &mut self.momentum);
        Ok(true)
    }
}

/// What all states of a trajectory share, and what is counted.
struct Run<'a> {
    target: &'a Target<'a>,
    /// Energy H₀ at the start.
    energy: f64,
    /// Sum of min(1, exp(H₀ − H)) over the last doubling.
    acceptance: f64,
    gradients: usize,
    lowest: f64,
    diverged: bool,
}

impl Run<'_> {
    /// Follows the trajectory for 2ᵈ steps from `end`. Returns `None` if a part of them turns back or diverges.
    fn grow(
        &mut self,
        depth: usize,
        end: &mut End,
        step: f64,
        generator: &mut ChaCha8Rng,
    ) -> Result<Option<Segment>> {
        if depth == 0 {
            self.gradients += 1;
            let log_weight = match end.advance(self.target, step)? {
                true => self.energy - end.energy(),
                false => f64::NEG_INFINITY,
            };
            if log_weight.is_nan() || log_weight < -DIVERGENCE {
                self.diverged = true;
                return Ok(None);
            }
            self.lowest = self.lowest.min(end.point.excess);
            self.acceptance += log_weight.exp().min(1.0);
            return Ok(Some(Segment::of(end, log_weight)));
        }
        let Some(first) = self.grow(depth - 1, end, step, generator)? else {
            return Ok(None);
        };
        let Some(second) = self.grow(depth - 1, end, step, generator)? else {
            return Ok(None);
        };
        if first.turns(&second) {
            return Ok(None);
        }
        let chance = 1.0 / (1.0 + (first.log_weight - second.log_weight).exp());
        let second_is_drawn = generator.random::<f64>() < chance;
        Ok(Some(first.join(second, second_is_drawn)))
    }
}

/// Consecutive states of a trajectory.
struct Segment {
    /// Momenta of the states at both ends, the older end first.
    momenta: [Vec<f64>; 2],
    /// Sum of all momenta.
    sum: Vec<f64>,
    /// A state drawn from the segment.
    drawn: Point,
    /// Logarithm of the sum of exp(H₀ − H) over the states.
    log_weight: f64,
    /// Weighted mean of nβ(L − L(w*)) over the states.
    excess: f64,
    /// Weighted mean of x·∇U over the states.
    virial: f64,
}

impl Segment {
    /// A single state.
    fn of(end: &End, log_weight: f64) -> Self {
        Self {
            momenta: [end.momentum.clone(), end.momentum.clone()],
            sum: end.momentum.clone(),
            drawn: end.point.clone(),
            log_weight,
            excess: end.point.excess,
            virial: end.point.virial(),
        }
    }

    /// Whether this segment followed by the next turns back: as a whole, or at the joint.
    fn turns(&self, next: &Self) -> bool {
        let ([start, joint], [after, end]) = (&self.momenta, &next.momenta);
        // Whether the momenta at both ends point along the sum of all momenta between them.
        let advances = |ends: [&[f64]; 2], parts: [&[f64]; 2]| {
            let mut ends = ends.iter();
            ends.all(|p| dot(p, parts[0]) + dot(p, parts[1]) > 0.0)
        };
        !(advances([start, end], [&self.sum, &next.sum])
            && advances([start, after], [&self.sum, after])
            && advances([joint, end], [joint, &next.sum]))
    }

    /// Appends the next segment.
    fn join(self, next: Self, next_is_drawn: bool) -> Self {
        let largest = self.log_weight.max(next.log_weight);
        let [a, b] = [self.log_weight, next.log_weight].map(|w| (w - largest).exp());
        let share = b / (a + b);
        let ([start, _], [_, end]) = (self.momenta, next.momenta);
        let mut sum = self.sum;
        axpy(1.0, &next.sum, &mut sum);
        Self {
            momenta: [start, end],
            sum,
            drawn: if next_is_drawn {
                next.drawn
            } else {
                self.drawn
            },
            log_weight: largest + (a + b).ln(),
            excess: self.excess + share * (next.excess - self.excess),
            virial: self.virial + share * (next.virial - self.virial),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_reversible() {
        let excess = |x: &[f64]| {
            let slope = x.iter().map(|x| x.powi(3)).collect();
            Ok(Some((x.iter().map(|x| x.powi(4) / 4.0).sum(), slope)))
        };
        let target = Target {
            excess: &excess,
            localization: 0.5,
        };
        let start = End {
            point: target.at(vec![0.7, -0.4]).unwrap().unwrap(),
            momentum: vec![0.3, 1.1],
        };
        let mut end = start.clone();
        for step in [0.2, 0.1, -0.1, -0.2] {
            assert!(end.advance(&target, step).unwrap());
            // The error of the energy is of third order.
            assert!((end.energy() - start.energy()).abs() < 1e-2);
        }
        let pairs = [
            (&end.point.x, &start.point.x),
            (&end.momentum, &start.momentum),
        ];
        for (found, expected) in pairs {
            let mut differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(differences.all(|difference| difference < 1e-14));
        }
    }
}
