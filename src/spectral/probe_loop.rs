//! The loop of all estimates from random probes: a sampler draws a probe v, an integrand computes a sample from v and Av, and
//! an [`Estimator`] combines the samples and decides when to stop.

use crate::error::Result;
use crate::random::{Purpose, normal};

/// Number of vectors multiplied by an operator at once, where an algorithm can choose.
pub(super) const BLOCK_SIZE: usize = 8;

/// A sequence of independent random vectors for one purpose and seed.
pub(super) struct Sampler {
    purpose: Purpose,
    seed: u64,
    count: u64,
}

impl Sampler {
    pub(super) fn new(purpose: Purpose, seed: u64) -> Self {
        let count = 0;
        Self {
            purpose,
            seed,
            count,
        }
    }

    /// Draws a standard normal vector of length n.
    pub(super) fn gaussian(&mut self, n: usize) -> Vec<f64> {
        let index = self.count;
        self.count += 1;
        normal(n, self.purpose, self.seed, index)
    }

    /// Draws a vector of n random signs ±1 (Rademacher).
    pub(super) fn signs(&mut self, n: usize) -> Vec<f64> {
        self.gaussian(n)
            .into_iter()
            .map(|x| 1f64.copysign(x))
            .collect()
    }
}

/// Combines samples into an estimate.
pub(super) trait Estimator {
    /// What the integrand computes from one probe.
    type Sample;

    /// Returns the number of probes of the next round; 0 ends the loop.
    fn next_round(&mut self) -> Result<usize>;

    fn add(&mut self, sample: Self::Sample);
}

/// Runs the loop and returns the estimator with all samples. `integrand` computes a sample from each of several probes, and
/// may depend on the estimator, for example on a subspace that it has deflated.
pub(super) fn estimate<E: Estimator>(
    mut sampler: impl FnMut() -> Vec<f64>,
    integrand: impl Fn(&E, Vec<Vec<f64>>) -> Result<Vec<E::Sample>>,
    mut estimator: E,
) -> Result<E> {
    loop {
        let mut left = estimator.next_round()?;
        if left == 0 {
            return Ok(estimator);
        }
        while left > 0 {
            let count = BLOCK_SIZE.min(left);
            let probes = (0..count).map(|_| sampler()).collect();
            for sample in integrand(&estimator, probes)? {
                estimator.add(sample);
            }
            left -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for rounds of given sizes, and records the sizes of the blocks and the samples.
    struct Rounds {
        sizes: Vec<usize>,
        samples: Vec<f64>,
    }

    impl Estimator for Rounds {
        type Sample = f64;

        fn next_round(&mut self) -> Result<usize> {
            Ok(self.sizes.pop().unwrap_or(0))
        }

        fn add(&mut self, sample: f64) {
            self.samples.push(sample);
        }
    }

    #[test]
    fn each_probe_gives_one_sample_in_order() {
        let mut next = 0.0;
        let sampler = || {
            next += 1.0;
            vec![next]
        };
        let blocks = std::cell::RefCell::new(Vec::new());
        let integrand = |_: &Rounds, probes: Vec<Vec<f64>>| {
            blocks.borrow_mut().push(probes.len());
            Ok(probes.iter().map(|v| 10.0 * v[0]).collect())
        };
        let rounds = Rounds {
            sizes: vec![3, 20],
            samples: Vec::new(),
        };
        let found = estimate(sampler, integrand, rounds).unwrap();
        assert_eq!(*blocks.borrow(), [8, 8, 4, 3]);
        let expected: Vec<f64> = (1..=23).map(|i| 10.0 * f64::from(i)).collect();
        assert_eq!(found.samples, expected);
    }
}
