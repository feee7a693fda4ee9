//! [`PathProfile`]: the loss along a [`Curve`], and what stands in the way.

use serde::{Deserialize, Serialize};

use super::{Curve, RunningStatistics};
use crate::error::{Error, Result};
use crate::landscape::slices::{StatisticsSource, points_per_pass};
use crate::memory;
use crate::objective::{Objective, Score};
use crate::progress::Progress;
use crate::spectral::Bracket;
use crate::verdict::BARRIER;

/// Times that the surroundings of the largest value are looked at more closely.
const REFINEMENTS: usize = 4;
/// Points of a closer look: the interval that holds the maximum shrinks by 2/(POINTS + 1).
const POINTS: usize = 8;

/// L(φ(t)) along a path φ from θ₁ to θ₂.
///
/// The maximum over t is that of an even grid, both ends included, and of four closer looks between the grid
/// points beside the largest value. It is a lower bound of the true one: a second hump that is narrower than
/// the grid can hide between its points, which more points show.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w², from (−1, 0) over (0, 1) to (1, 0).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let detour = Curve::chain(vec![vec![-1.0, 0.0], vec![0.0, 1.0], vec![1.0, 0.0]])?;
/// let profile = detour.profile(&objective, 11)?;
/// assert_eq!(profile.barrier_time, 0.5);
/// assert!((profile.barrier_height - 3.0).abs() < 1e-9); // 4 − max(1, 1)
/// assert!(profile.verdict().starts_with("disconnected"));
/// let straight = Curve::linear(&[-1.0, 0.0], &[1.0, 0.0])?.profile(&objective, 11)?;
/// assert_eq!(
///     (straight.barrier_height, straight.connectivity_score),
///     (0.0, 1.0)
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathProfile {
    /// t, evenly spaced from 0 to 1.
    pub times: Vec<f64>,
    /// L(φ(t)), one for each time.
    pub losses: Vec<f64>,
    /// The share of the samples that is classified right, if they have labels.
    pub accuracies: Option<Vec<f64>>,
    /// max L(φ(t)) − max(L(θ₁), L(θ₂)), at least 0.
    pub barrier_height: f64,
    /// How much higher this maximum may be: twice what it is for a parabola between the points that are known,
    /// and 0 at an end from which the loss falls.
    pub barrier_error: f64,
    /// The time of the maximum.
    #[serde(alias = "barrier_at")]
    pub barrier_time: f64,
    /// The times nearest to it at which the loss is known, between which this maximum lies.
    #[serde(alias = "barrier_between")]
    pub barrier_interval: [f64; 2],
    /// The accuracy there.
    pub accuracy_at_barrier: Option<f64>,
    /// max over t of L(φ(t)) − ((1 − t)L(θ₁) + tL(θ₂)), at least 0: the barrier of Entezari et al. ("The role
    /// of permutation invariance in linear mode connectivity of neural networks", 2022); between ends of equal
    /// loss it is the instability of Frankle et al. ("Linear mode connectivity and the lottery ticket
    /// hypothesis", 2020).
    pub excess: f64,
    /// 1 / (1 + `barrier_height`): 1 where nothing is in the way, 0 far apart.
    pub connectivity_score: f64,
    /// The length of the path; ‖θ₂ − θ₁‖ if it is straight.
    pub path_norm: f64,
    /// How batch normalisation was computed on the path.
    #[serde(default)]
    pub statistics: StatisticsSource,
}

impl PathProfile {
    /// A word for the barrier: connected below 0.1, moderately connected up to 1, disconnected above; and what its error
    /// allows besides.
    pub fn verdict(&self) -> String {
        BARRIER.verdict(&Bracket {
            value: self.barrier_height,
            low: self.barrier_height,
            high: self.barrier_height + self.barrier_error,
        })
    }
}

impl Curve {
    /// The loss at `points` evenly spaced times, and the barrier. The model is the same afterwards, to the bit.
    ///
    /// Running statistics of batch normalisation are estimated at each point on the objective's data, as by
    /// [`RunningStatistics::from_objective`].
    ///
    /// # Errors
    /// Fewer than 2 points; a path that is not in θ-space; a loss that is not finite somewhere on it. Running statistics
    /// without a forward pass in training mode, as with [`Objective::from_fn`] alone: give that to
    /// [`Objective::with_training_pass`] or [`profile_with_statistics`](Self::profile_with_statistics).
    pub fn profile(&self, objective: &Objective, points: usize) -> Result<PathProfile> {
        if objective.uses_running_statistics() {
            let statistics = RunningStatistics::from_objective(objective)?;
            return self.profile_with_statistics(objective, points, &statistics);
        }
        let source = StatisticsSource::of(objective);
        let together = points_per_pass(objective);
        self.profile_by(objective, points, (together, source), |times| {
            let places: Vec<_> = times.iter().map(|t| self.place(*t)).collect();
            let mut scores = Vec::with_capacity(times.len());
            for same in places.chunk_by(|a, b| a.0 == b.0) {
                let frame = self.frame(same[0].0);
                let vectors = [&frame.origin[..], &frame.d1, &frame.d2];
                let places: Vec<[f64; 2]> = same.iter().map(|(_, place)| *place).collect();
                scores.extend(objective.scores_on_plane(vectors, &places)?);
            }
            Ok(scores)
        })
    }

    /// [`Curve::profile`] with `statistics` estimated anew at each point. Parameters and statistics have the
    /// bits they had before, error or not.
    ///
    /// `objective` is the model's in evaluation mode.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let design = Architecture::Toy.design().normalization(Norm::Batch);
    /// let model = |seed| {
    ///     design
    ///         .build(&[2], 1, seed, &Device::Cpu)?
    ///         .to_dtype(DType::F64)
    /// };
    /// let (a, b) = (model(0)?, model(1)?);
    /// let objective = Objective::of(&a, &data, Loss::CrossEntropy)?;
    /// let moved = a.clone();
    /// let forward = move |x: &Tensor| moved.forward_training(x, 0);
    /// let statistics = RunningStatistics::new(a.parameters(), &data, 60, forward)?;
    /// let before = statistics.values()?;
    /// let path = Curve::linear(&a.parameters().to_flat()?, &b.parameters().to_flat()?)?;
    /// let profile = path.profile_with_statistics(&objective, 5, &statistics)?;
    /// assert_ne!(profile.losses[0], objective.loss()?); // by the data's own statistics
    /// assert_eq!(statistics.values()?, before);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Curve::profile`] and [`RunningStatistics::estimate`].
    pub fn profile_with_statistics(
        &self,
        objective: &Objective,
        points: usize,
        statistics: &RunningStatistics,
    ) -> Result<PathProfile> {
        let source = StatisticsSource::Estimated {
            samples: statistics.data.len(),
        };
        self.profile_by(objective, points, (1, source), |times| {
            let scores = times.iter().map(|t| {
                objective.score_prepared(&self.at(*t)?, || {
                    let kept = statistics.keep()?;
                    statistics.estimate()?;
                    Ok(kept)
                })
            });
            scores.collect()
        })
    }

    /// The profile from scores at ascending times, of which `together` are asked for at once, by these `statistics`.
    fn profile_by(
        &self,
        objective: &Objective,
        points: usize,
        (together, statistics): (usize, StatisticsSource),
        scores: impl Fn(&[f64]) -> Result<Vec<Score>>,
    ) -> Result<PathProfile> {
        memory::check(48.0 * points as f64, "the points of a path")?;
        if points < 2 {
            return Err(Error::invalid(format!(
                "a path needs at least 2 points, its ends, and not {points}"
            )));
        }
        for point in self.points() {
            objective.parameters().check_vector(point, "path's point")?;
        }
        let mut progress = Progress::start("path");
        let total = points + 2 * REFINEMENTS * POINTS;
        let mut done = 0;
        let mut known_at = |times: &[f64]| -> Result<Vec<(f64, Score)>> {
            let mut known = Vec::with_capacity(times.len());
            for some in times.chunks(together) {
                known.extend(some.iter().copied().zip(scores(some)?));
                done += some.len();
                progress.part(done, total);
            }
            Ok(known)
        };

        let last = points as f64 - 1.0;
        let times: Vec<f64> = (0..points).map(|i| i as f64 / last).collect();
        let grid = known_at(&times)?;
        let [first, second] = [grid[0], grid[points - 1]].map(|(_, score)| score.loss);
        let height = |(_, score): &(f64, Score)| score.loss - first.max(second);
        // Written so that it is exactly 0 at the ends, and along a path of one loss.
        let excess = |(t, score): &(f64, Score)| {
            (1.0 - t) * (score.loss - first) + t * (score.loss - second)
        };
        let mut known = grid.clone();
        for _ in 0..REFINEMENTS {
            let mut brackets = [around(&known, height), around(&known, excess)].to_vec();
            brackets.dedup();
            for [low, high] in brackets {
                let step = (high - low) / (POINTS as f64 + 1.0);
                let closer: Vec<f64> = (1..=POINTS).map(|i| low + i as f64 * step).collect();
                known.extend(known_at(&closer)?);
            }
            known.sort_by(|a, b| a.0.total_cmp(&b.0));
            known.dedup_by(|a, b| a.0 == b.0);
        }

        let at = largest(&known, height);
        let (barrier_time, worst) = known[at];
        let barrier_height = height(&known[at]);
        let beside = beside(&known, at);
        let lower = beside.map(|i| height(&known[i]));
        // A parabola's vertex is higher by an eighth of this at most; the rest is for what is not quite one.
        let barrier_error = if beside.contains(&at) {
            0.0
        } else {
            (barrier_height - lower[0].min(lower[1])) / 4.0
        };
        Ok(PathProfile {
            losses: grid.iter().map(|(_, score)| score.loss).collect(),
            accuracies: grid.iter().map(|(_, score)| score.accuracy).collect(),
            times,
            barrier_height,
            barrier_error,
            barrier_time,
            barrier_interval: beside.map(|i| known[i].0),
            accuracy_at_barrier: worst.accuracy,
            excess: excess(&known[largest(&known, excess)]),
            connectivity_score: 1.0 / (1.0 + barrier_height),
            path_norm: self.length(),
            statistics,
        })
    }
}

/// The first of the largest.
fn largest(known: &[(f64, Score)], key: impl Fn(&(f64, Score)) -> f64) -> usize {
    let values: Vec<f64> = known.iter().map(key).collect();
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better)
}

/// The places beside one, or its own at an end.
fn beside(known: &[(f64, Score)], at: usize) -> [usize; 2] {
    [at.saturating_sub(1), (at + 1).min(known.len() - 1)]
}

/// The times beside the largest.
fn around(known: &[(f64, Score)], key: impl Fn(&(f64, Score)) -> f64) -> [f64; 2] {
    beside(known, largest(known, key)).map(|i| known[i].0)
}
