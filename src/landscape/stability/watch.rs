//! [`Watch`]: measures sharpness at some of the steps of a training.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::batch::ratio;
use super::critical::CriticalSharpness;
use super::report::{StabilityMeasure, StabilityPoint};
use super::thresholds::{inverse_root, stability_threshold};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::operator::Scaled;
use crate::spectral::{Bracket, Estimate, Followed, Following, Lanczos};
use crate::train::{BuiltIn, ObservedStep, Optimizer, StepObserver, Trainer};
use crate::vector::{dot, minus, norm};

/// Number of batches in the mean of a batch sharpness.
const WINDOW: usize = 20;

/// Largest error of the curvature along a step of all samples, relative to it, at which no shorter distance is tried.
const ACCURACY: f64 = 0.05;

/// Changes of the curvature up to this multiple of the estimated rounding may be rounding: shorter distances increase them.
const ROUNDING: f64 = 16.0;

/// Largest number of distances that are tried.
const DISTANCES: usize = 12;

/// Measures sharpness before some of the steps of a training.
pub(super) struct Watch {
    optimizer: Arc<dyn Optimizer>,
    measures: Vec<StabilityMeasure>,
    interval: usize,
    samples: Option<usize>,
    /// Seed of the samples.
    seed: u64,
    /// The loss whose λ_max is measured, known after the first step.
    sharpness_objective: Option<Objective>,
    following: Following,
    /// gᵀHg and ‖g‖² of the last batches.
    curvatures: VecDeque<(f64, f64)>,
    pub(super) points: Vec<StabilityPoint>,
    /// Seconds of all measurements.
    pub(super) seconds: f64,
}

impl Watch {
    pub(super) fn new(
        trainer: &Trainer,
        measures: Vec<StabilityMeasure>,
        interval: usize,
        samples: Option<usize>,
        lanczos: Lanczos,
    ) -> Self {
        Self {
            optimizer: trainer.optimizer.clone(),
            measures,
            interval,
            samples,
            seed: lanczos.seed,
            sharpness_objective: None,
            following: Following::new(lanczos, 1),
            curvatures: VecDeque::new(),
            points: Vec::new(),
            seconds: 0.0,
        }
    }

    /// The value with its error and threshold, or `None` if the step has none.
    fn measure(
        &mut self,
        measure: StabilityMeasure,
        step: &ObservedStep,
        batch: &Objective,
    ) -> Result<Option<StabilityPoint>> {
        let rate = step.learning_rate;
        let mut point = StabilityPoint {
            step: step.steps,
            loss: step.loss,
            learning_rate: rate,
            measure,
            value: f64::NAN,
            error: 0.0,
            threshold: 2.0 / rate,
            points_since_check: None,
        };
        match measure {
            StabilityMeasure::Sharpness => {
                let found = self.largest_eigenvalue(step)?;
                let pair = &found.spectrum.pairs[0];
                (point.value, point.error) = (pair.value, pair.residual);
                point.threshold = stability_threshold(&*self.optimizer, rate)?;
                point.points_since_check = Some(found.points_since_check);
            }
            StabilityMeasure::Batch => {
                let Some(found) = self.batch_sharpness(step, batch)? else {
                    return Ok(None);
                };
                (point.value, point.error) = (found.value, found.standard_error);
            }
            StabilityMeasure::Critical => {
                let Some(found) = critical_sharpness(step, batch)? else {
                    return Ok(None);
                };
                (point.value, point.error) = (found.value, found.error());
            }
        }
        Ok(Some(point))
    }

    /// λ_max in the metric of the step.
    fn largest_eigenvalue(&mut self, step: &ObservedStep) -> Result<Followed> {
        let objective = match &self.sharpness_objective {
            Some(objective) => objective,
            None => {
                let objective = match self.samples {
                    Some(n) => step
                        .objective
                        .with_subset(&step.objective.data().random(n, self.seed)?)?,
                    None => step.objective.clone(),
                };
                self.sharpness_objective.insert(objective)
            }
        };
        let hessian = objective.hessian().at(step.before.clone())?;
        match BuiltIn::of(&*self.optimizer) {
            Some(BuiltIn::Adam(adam)) => {
                let scales = inverse_root(&adam, &step.moments[1], step.steps + 1);
                self.following.next(&Scaled::new(&hessian, scales)?)
            }
            _ => self.following.next(&hessian),
        }
    }

    /// Batch sharpness over the last batches; `None` if there are too few. The step is −ηg of its batch.
    fn batch_sharpness(
        &mut self,
        step: &ObservedStep,
        batch: &Objective,
    ) -> Result<Option<Estimate>> {
        let difference = minus(&step.after, &step.before);
        let length = dot(&difference, &difference);
        if step.rows.len() == step.objective.samples() {
            let bend = (length > 0.0).then(|| whole_bend(step, batch, &difference));
            let bend = bend.transpose()?;
            return Ok(
                bend.map(|(bend, error)| Estimate::exact(bend / length).with_error(error / length))
            );
        }
        let part = first_part(batch);
        let points = [-part, 0.0, part].map(|at| [at, 0.0]);
        let scores = batch.scores_on_plane([&step.before, &difference, &[]], &points)?;
        let bend = second_difference([0, 1, 2].map(|i| scores[i].loss), part);
        let square = step.learning_rate.powi(2);
        let pair = (bend / square, length / square);
        if self.curvatures.len() == WINDOW {
            self.curvatures.pop_front();
        }
        self.curvatures.push_back(pair);
        let pairs: Vec<_> = self.curvatures.iter().copied().collect();
        let is_defined = pairs.len() >= 3 && pairs.iter().any(|(_, square)| *square > 0.0);
        Ok(is_defined.then(|| ratio(&pairs)))
    }
}

/// Part of a step that balances the rounding of the losses and their fourth derivative, for a step of the size of θ.
fn first_part(batch: &Objective) -> f64 {
    batch.parameters().epsilon().powf(0.125)
}

/// The second derivative at the middle of three losses, a distance apart.
fn second_difference([back, center, ahead]: [f64; 3], distance: f64) -> f64 {
    ((ahead - center) + (back - center)) / distance.powi(2)
}

/// dᵀHd for the whole step d, and its error. The losses are at two distances; the value of the larger one changes by ¾ of its error if
/// the distance is halved. Where the error is too large, shorter distances are tried: for long steps the fourth derivative is large.
fn whole_bend(step: &ObservedStep, batch: &Objective, difference: &[f64]) -> Result<(f64, f64)> {
    let mut best = (f64::NAN, f64::INFINITY);
    // A distance beyond the weights themselves would leave the region where the losses are smooth.
    let reach = norm(&step.before) / norm(difference);
    let mut part = first_part(batch) * if reach > 0.0 { reach.min(1.0) } else { 1.0 };
    for _ in 0..DISTANCES {
        let points = [0.0, -part, part, -0.5 * part, 0.5 * part].map(|at| [at, 0.0]);
        let scores = batch.scores_or_nan([&step.before, difference, &[]], &points)?;
        let center = scores[0].loss;
        let losses = |i: usize| [scores[i].loss, center, scores[i + 1].loss];
        let bend = second_difference(losses(1), part);
        let nearer = second_difference(losses(3), 0.5 * part);
        // Four losses, each with some roundings of its sum.
        let rounding = 16.0 * batch.parameters().epsilon() * center.abs() / part.powi(2);
        let error = rounding.hypot(2.0 * (bend - nearer));
        if error * best.0.abs() < best.1 * bend.abs() || best.0.is_nan() {
            best = (bend, error);
        }
        if error <= ACCURACY * bend.abs() || (bend - nearer).abs() <= ROUNDING * rounding {
            break;
        }
        part *= 0.25;
    }
    match best.0.is_finite() && best.1.is_finite() {
        true => Ok(best),
        false => Err(Error::NotFinite(
            "the losses along the step are not finite".into(),
        )),
    }
}

/// Critical sharpness along the step; `None` if the step is zero.
fn critical_sharpness(step: &ObservedStep, batch: &Objective) -> Result<Option<Bracket>> {
    let difference = minus(&step.after, &step.before);
    if difference.iter().all(|d| *d == 0.0) {
        return Ok(None);
    }
    let rate = step.learning_rate;
    let found = CriticalSharpness::along(batch, &step.before, &difference, rate)?;
    Ok(Some(found.sharpness))
}

impl StepObserver for Watch {
    fn is_due(&self, steps: usize) -> bool {
        steps.is_multiple_of(self.interval)
    }

    fn observe(&mut self, step: ObservedStep) -> Result<()> {
        let started = Instant::now();
        let batch = match step.rows.len() == step.objective.samples() {
            true => Cow::Borrowed(step.objective),
            false => {
                let data = step.objective.data().select(step.rows)?;
                Cow::Owned(step.objective.with_batch(data))
            }
        };
        for measure in self.measures.clone() {
            let point = self.measure(measure, &step, &batch);
            let point = point.map_err(|error| match error {
                Error::NotFinite(reason) => {
                    Error::NotFinite(format!("{measure} after {} steps: {reason}", step.steps))
                }
                error => error,
            })?;
            self.points.extend(point);
        }
        self.seconds += (step.reading + started.elapsed()).as_secs_f64();
        Ok(())
    }
}
