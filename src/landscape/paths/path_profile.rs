//! [`PathProfile`]: loss along a [`Curve`], and its barrier.

use serde::{Deserialize, Serialize};

use super::{Curve, RunningStatistics};
use crate::error::{Error, Result};
use crate::landscape::slices::{StatisticsSource, points_per_pass};
use crate::memory;
use crate::objective::{Objective, Score};
use crate::progress::Progress;
use crate::spectral::Bracket;
use crate::verdict::BARRIER;

/// Number of refinements around the largest value.
const REFINEMENTS: usize = 4;
/// Points per refinement. The interval that holds the maximum shrinks by 2/(POINTS + 1).
const POINTS: usize = 8;

/// Loss L(φ(t)) along a path φ from θ₁ to θ₂, and its barrier.
///
/// The maximum over t is taken over an even grid, ends included, and four refinements between the grid points next to the
/// largest value. It is a lower bound of the true maximum: a second peak narrower than the grid spacing can be missed. More
/// points find it.
///
/// ```
/// use loss_landscape::landscape::Curve;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² from (−1, 0) over (0, 1) to (1, 0).
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
    /// L(φ(t)) for each t.
    pub losses: Vec<f64>,
    /// Fraction of samples classified correctly for each t, for data with labels.
    pub accuracies: Option<Vec<f64>>,
    /// Barrier: max L(φ(t)) − max(L(θ₁), L(θ₂)), at least 0.
    pub barrier_height: f64,
    /// How much higher the maximum may be: twice the excess of a parabola through the neighbouring points; 0 at an end from
    /// which the loss decreases.
    pub barrier_error: f64,
    /// The t of the maximum.
    #[serde(alias = "barrier_at")]
    pub barrier_time: f64,
    /// The evaluated t next to the maximum on each side.
    #[serde(alias = "barrier_between")]
    pub barrier_interval: [f64; 2],
    /// Accuracy at the maximum.
    pub accuracy_at_barrier: Option<f64>,
    /// max over t of L(φ(t)) − ((1 − t)L(θ₁) + tL(θ₂)), at least 0: the barrier of Entezari et al. ("The Role of Permutation
    /// Invariance in Linear Mode Connectivity of Neural Networks", 2022). Between ends of equal loss it is the instability of
    /// Frankle et al. ("Linear Mode Connectivity and the Lottery Ticket Hypothesis", 2020).
    pub excess: f64,
    /// 1 / (1 + `barrier_height`): 1 without a barrier, near 0 for a high one.
    pub connectivity_score: f64,
    /// Length of the path; ‖θ₂ − θ₁‖ for a straight line.
    pub path_norm: f64,
    /// Source of the batch-normalisation statistics.
    #[serde(default)]
    pub statistics: StatisticsSource,
}

impl PathProfile {
    /// Returns the class of the barrier, and the other classes that its error allows: connected below 0.1, moderately connected
    /// up to 1, disconnected above.
    pub fn verdict(&self) -> String {
        BARRIER.verdict(&Bracket {
            value: self.barrier_height,
            low: self.barrier_height,
            high: self.barrier_height + self.barrier_error,
        })
    }
}

impl Curve {
    /// Computes the loss at `points` evenly spaced t, and the barrier. The model's parameters are unchanged afterwards, bit for
    /// bit.
    ///
    /// Running statistics of batch normalisation are estimated at each point from the objective's data, as by
    /// [`RunningStatistics::from_objective`].
    ///
    /// # Errors
    /// `points` is below 2; the path has the wrong dimension; a loss on it is not finite; the model has running statistics but
    /// the objective no forward pass in training mode, as with [`Objective::from_fn`] alone: add one with
    /// [`Objective::with_training_pass`], or use [`profile_with_statistics`](Self::profile_with_statistics).
    pub fn profile(&self, objective: &Objective, points: usize) -> Result<PathProfile> {
        if objective.uses_running_statistics() {
            let statistics = RunningStatistics::from_objective(objective)?;
            return self.profile_with_statistics(objective, points, &statistics);
        }
        let source = StatisticsSource::from_objective(objective);
        let batch = points_per_pass(objective);
        self.profile_by(objective, points, (batch, source), |times| {
            let positions: Vec<_> = times.iter().map(|t| self.position(*t)).collect();
            let mut scores = Vec::with_capacity(times.len());
            for group in positions.chunk_by(|a, b| a.0 == b.0) {
                let frame = self.frame(group[0].0);
                let vectors = [&frame.origin[..], &frame.d1, &frame.d2];
                let positions: Vec<[f64; 2]> =
                    group.iter().map(|(_, position)| *position).collect();
                scores.extend(objective.scores_on_plane(vectors, &positions)?);
            }
            Ok(scores)
        })
    }

    /// Computes the [profile](Curve::profile) with `statistics` estimated at each point. Parameters and statistics are restored
    /// bit for bit, also after an error.
    ///
    /// `objective` evaluates the model in evaluation mode.
    ///
    /// ```
    /// # use loss_landscape::landscape::{Curve, RunningStatistics};
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
    /// assert_ne!(profile.losses[0], objective.loss()?); // uses the data's own statistics
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
                    let saved = statistics.save()?;
                    statistics.estimate()?;
                    Ok(saved)
                })
            });
            scores.collect()
        })
    }

    /// Computes the profile from scores at ascending times, evaluated `batch` at a time with these `statistics`.
    fn profile_by(
        &self,
        objective: &Objective,
        points: usize,
        (batch, statistics): (usize, StatisticsSource),
        scores: impl Fn(&[f64]) -> Result<Vec<Score>>,
    ) -> Result<PathProfile> {
        check_points(points)?;
        for point in self.points() {
            objective.parameters().check_vector(point, "path's point")?;
        }
        let mut progress = Progress::start("path");
        let total = points + 2 * REFINEMENTS * POINTS;
        let mut done = 0;
        let mut evaluate = |times: &[f64]| -> Result<Vec<(f64, Score)>> {
            let mut evaluated = Vec::with_capacity(times.len());
            for chunk in times.chunks(batch) {
                evaluated.extend(chunk.iter().copied().zip(scores(chunk)?));
                done += chunk.len();
                progress.part(done, total);
            }
            Ok(evaluated)
        };

        let last = points as f64 - 1.0;
        let times: Vec<f64> = (0..points).map(|i| i as f64 / last).collect();
        let grid = evaluate(&times)?;
        let [first, second] = [grid[0], grid[points - 1]].map(|(_, score)| score.loss);
        let height = |(_, score): &(f64, Score)| score.loss - first.max(second);
        // Exactly 0 at the ends and on a path of constant loss.
        let excess = |(t, score): &(f64, Score)| {
            (1.0 - t) * (score.loss - first) + t * (score.loss - second)
        };
        let mut evaluated = grid.clone();
        for _ in 0..REFINEMENTS {
            let mut intervals = [
                interval_around(&evaluated, height),
                interval_around(&evaluated, excess),
            ]
            .to_vec();
            intervals.dedup();
            for [low, high] in intervals {
                let step = (high - low) / (POINTS as f64 + 1.0);
                let closer: Vec<f64> = (1..=POINTS).map(|i| low + i as f64 * step).collect();
                evaluated.extend(evaluate(&closer)?);
            }
            evaluated.sort_by(|a, b| a.0.total_cmp(&b.0));
            evaluated.dedup_by(|a, b| a.0 == b.0);
        }

        let at = argmax(&evaluated, height);
        let (barrier_time, worst) = evaluated[at];
        let barrier_height = height(&evaluated[at]);
        let neighbors = neighbors(&evaluated, at);
        let lower = neighbors.map(|i| height(&evaluated[i]));
        // The vertex of a parabola is higher by at most an eighth of this; the rest allows for other shapes.
        let barrier_error = if neighbors.contains(&at) {
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
            barrier_interval: neighbors.map(|i| evaluated[i].0),
            accuracy_at_barrier: worst.accuracy,
            excess: excess(&evaluated[argmax(&evaluated, excess)]),
            connectivity_score: 1.0 / (1.0 + barrier_height),
            path_norm: self.length(),
            statistics,
        })
    }
}

/// Checks the number of points of a path.
pub(super) fn check_points(points: usize) -> Result<()> {
    memory::check(48.0 * points as f64, "the points of a path")?;
    match points >= 2 {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "a path needs at least 2 points, its ends, found {points}"
        ))),
    }
}

/// Returns the index of the first largest value.
fn argmax(evaluated: &[(f64, Score)], key: impl Fn(&(f64, Score)) -> f64) -> usize {
    let values: Vec<f64> = evaluated.iter().map(key).collect();
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better)
}

/// Returns the neighbouring indices, or the index itself at an end.
fn neighbors(evaluated: &[(f64, Score)], at: usize) -> [usize; 2] {
    [at.saturating_sub(1), (at + 1).min(evaluated.len() - 1)]
}

/// Returns the times next to the largest value.
fn interval_around(evaluated: &[(f64, Score)], key: impl Fn(&(f64, Score)) -> f64) -> [f64; 2] {
    neighbors(evaluated, argmax(evaluated, key)).map(|i| evaluated[i].0)
}
