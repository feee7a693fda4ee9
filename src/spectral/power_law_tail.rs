//! The tail of a sorted list that is most like a power law.

/// Smallest number of values in a tail. With fewer, the distance hardly rejects anything.
pub(super) const MIN_TAIL: usize = 50;

/// Largest number of tails that are compared.
const MAX_TAILS: usize = 500;

/// Values between those at which a distance is computed first.
const STEP: usize = 16;

/// The values above some λ_min, and the power law of the largest likelihood for them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tail {
    /// Index of the smallest value above λ_min. The value before it is λ_min.
    pub(super) start: usize,
    /// Number of values above λ_min, n.
    pub(super) len: usize,
    /// α − 1 of the largest likelihood, n/S.
    pub(super) likeliest_rate: f64,
    /// Kolmogorov–Smirnov distance.
    pub(super) distance: f64,
}

impl Tail {
    /// Finds the tail with the smallest distance among ascending logarithms of values; of equal distances the longest tail. Starts
    /// with λ_min at index `hint`, where a good one saves time. `None` if no value has [`MIN_TAIL`] above it.
    pub(super) fn find(logs: &[f64], hint: usize) -> Option<Self> {
        let last = logs.len().checked_sub(MIN_TAIL + 1)?;
        let mut sums_above = vec![0.0; logs.len()];
        for i in (1..logs.len()).rev() {
            sums_above[i - 1] = sums_above[i] + logs[i];
        }
        let count = (last + 1).min(MAX_TAILS);
        let tails = (0..count).map(|i| i * last / (count - 1).max(1));
        let mut best: Option<Self> = None;
        for index in [hint.min(last)].into_iter().chain(tails) {
            // Values equal to λ_min are not above it.
            let start = index + logs[index..].partition_point(|log| *log <= logs[index]);
            let len = logs.len() - start;
            if len < MIN_TAIL {
                continue;
            }
            let log_sum = sums_above[start - 1] - len as f64 * logs[start - 1];
            let rate = len as f64 / log_sum;
            let bound = best.as_ref().map_or(f64::INFINITY, |best| best.distance);
            let Some(distance) = distance(&logs[start..], logs[start - 1], rate, bound) else {
                continue;
            };
            let is_better = best
                .as_ref()
                .is_none_or(|best| distance < best.distance || start < best.start);
            if is_better {
                best = Some(Self {
                    start,
                    len,
                    likeliest_rate: rate,
                    distance,
                });
            }
        }
        best
    }

    /// (n − 1)/S, the estimate of α − 1 without bias.
    pub(super) fn rate(&self) -> f64 {
        self.likeliest_rate * (self.len - 1) as f64 / self.len as f64
    }
}

/// Kolmogorov–Smirnov distance between ascending logarithms above `start` and an exponential distribution; `None` if it is above
/// `bound`.
fn distance(logs: &[f64], start: f64, rate: f64, bound: f64) -> Option<f64> {
    let n = logs.len() as f64;
    let at = |i: usize| {
        let model = -(-rate * (logs[i] - start)).exp_m1();
        (model - i as f64 / n).max((i + 1) as f64 / n - model)
    };
    // Distances are large in whole ranges of values.
    if (0..logs.len()).step_by(STEP).any(|i| at(i) > bound) {
        return None;
    }
    let mut largest: f64 = 0.0;
    for i in 0..logs.len() {
        largest = largest.max(at(i));
        if largest > bound {
            return None;
        }
    }
    Some(largest)
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, Exp1};

    use super::*;
    use crate::random::{Purpose, generator};

    fn exponential(n: usize, seed: u64) -> Vec<f64> {
        let draws = Exp1.sample_iter(generator(Purpose::PowerLaw, seed, 0));
        let mut logs: Vec<f64> = draws.take(n).collect();
        logs.sort_by(f64::total_cmp);
        logs
    }

    /// The definition, for each λ_min.
    fn brute_force(logs: &[f64]) -> (usize, f64) {
        let mut best = (0, f64::INFINITY);
        for j in 0..logs.len() - MIN_TAIL {
            let above: Vec<f64> = logs[j + 1..].iter().map(|l| l - logs[j]).collect();
            let n = above.len() as f64;
            let mean = above.iter().sum::<f64>() / n;
            let model = |y: &f64| 1.0 - (-y / mean).exp();
            let distances = above.iter().enumerate().map(|(i, y)| {
                let [below, at] = [i as f64 / n, (i + 1) as f64 / n];
                (model(y) - below).abs().max((model(y) - at).abs())
            });
            let distance = distances.fold(0.0, f64::max);
            if distance < best.1 {
                best = (j + 1, distance);
            }
        }
        best
    }

    #[test]
    fn the_tail_has_the_smallest_distance_of_all() {
        for seed in 0..20 {
            let mut logs = exponential(300, seed);
            // Not exponential below 0.3.
            logs.iter_mut()
                .filter(|l| **l < 0.3)
                .for_each(|l| *l = 0.3 - l.powi(2));
            logs.sort_by(f64::total_cmp);
            let (start, distance) = brute_force(&logs);
            for hint in [0, 100, 299] {
                let tail = Tail::find(&logs, hint).unwrap();
                assert_eq!(tail.start, start);
                assert!((tail.distance - distance).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn equal_values_and_few_values_have_no_tail() {
        assert_eq!(Tail::find(&[1.0; 200], 0), None);
        assert_eq!(Tail::find(&exponential(MIN_TAIL, 0), 0), None);
        let ties = [vec![0.0; 30], exponential(MIN_TAIL, 0)].concat();
        assert_eq!(Tail::find(&ties, 0).unwrap().start, 30);
        assert_eq!(Tail::find(&ties[..79], 0), None);
    }
}
