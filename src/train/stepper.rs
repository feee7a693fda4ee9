//! [`Stepper`]: the steps of a training, by the hand-derived engine or by candle's graph.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var, WithDType};
use rayon::prelude::*;

use super::CHUNK;
use super::clip::{clip, clip_tensors};
use super::optimizer::{Optimizer, SliceUpdate, Step, VarOptimizer};
use super::sam::Sam;
use crate::engine::{BatchScore, GradientSteps};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::model::Parameters;
use crate::objective::Objective;

/// Takes the steps of a training.
pub(super) trait Stepper {
    /// Takes a step on the samples `rows` of the training data. Dropout draws from `dropout_seed`.
    fn step(&mut self, rows: &[usize], dropout_seed: u64, learning_rate: f64)
    -> Result<BatchScore>;

    /// Writes θ and the running statistics to the model.
    fn update_model(&self) -> Result<()>;

    /// Returns θ.
    fn theta(&self) -> Result<Vec<f64>>;

    /// Returns the optimizer's moments, each of θ's length.
    fn moments(&self) -> Result<Vec<Vec<f64>>>;

    /// Returns all that the next step depends on: number of steps, θ, running statistics, moments.
    fn state(&self) -> Result<Vec<f64>>;

    /// Restores a state of a stepper of the same model and optimizer.
    fn restore(&mut self, state: &[f64]) -> Result<()>;
}

/// How the gradient of a batch becomes a step.
pub(super) struct StepRule {
    pub(super) optimizer: Arc<dyn Optimizer>,
    pub(super) sam: Option<Sam>,
    /// Norm to which larger gradients are clipped.
    pub(super) clip_norm: Option<f64>,
}

/// Returns the stepper for this objective, which starts at the model's θ.
pub(super) fn stepper<'a>(
    objective: &'a Objective,
    rule: StepRule,
) -> Result<Box<dyn Stepper + 'a>> {
    if let Some(steps) = objective.steps::<f32>() {
        return Ok(Box::new(EngineStepper::new(objective, steps, rule)?));
    }
    if let Some(steps) = objective.steps::<f64>() {
        return Ok(Box::new(EngineStepper::new(objective, steps, rule)?));
    }
    let vars = objective.parameters().vars();
    Ok(Box::new(GraphStepper {
        objective,
        sam: rule.sam,
        clip_norm: rule.clip_norm,
        optimizer: VarOptimizer::new(rule.optimizer, vars.clone())?,
        vars,
    }))
}

/// Steps with hand-derived gradients. θ is in host memory, and is written to the model only when it is needed there.
struct EngineStepper<'a, T> {
    objective: &'a Objective,
    gradients: GradientSteps<'a, T>,
    rule: StepRule,
    pieces: Vec<Piece>,
    /// θ, followed by the running statistics.
    point: Vec<T>,
    /// Each of θ's length.
    moments: Vec<Vec<T>>,
    steps: i32,
}

/// A type of θ in host memory.
trait HostFloat: Scalar + WithDType {
    fn update(
        rule: &dyn SliceUpdate,
        theta: &mut [Self],
        gradient: &[Self],
        moments: &mut [&mut [Self]],
        step: Step,
    );
}

impl HostFloat for f32 {
    fn update(
        rule: &dyn SliceUpdate,
        theta: &mut [f32],
        gradient: &[f32],
        moments: &mut [&mut [f32]],
        step: Step,
    ) {
        rule.update_f32(theta, gradient, moments, step);
    }
}

impl HostFloat for f64 {
    fn update(
        rule: &dyn SliceUpdate,
        theta: &mut [f64],
        gradient: &[f64],
        moments: &mut [&mut [f64]],
        step: Step,
    ) {
        rule.update_f64(theta, gradient, moments, step);
    }
}

/// A part of a parameter, updated by one thread.
struct Piece {
    /// Range in θ.
    range: Range<usize>,
    /// Number of axes of the parameter.
    num_axes: usize,
}

impl Piece {
    /// Splits θ into pieces, in order.
    fn split(parameters: &Parameters) -> Vec<Self> {
        let named = parameters.iter().zip(parameters.ranges());
        let pieces = named.flat_map(|((_, var), range)| {
            let (num_axes, end) = (var.rank(), range.end);
            range.step_by(CHUNK).map(move |start| Self {
                range: start..end.min(start + CHUNK),
                num_axes,
            })
        });
        pieces.collect()
    }
}

impl<'a, T: HostFloat> EngineStepper<'a, T> {
    fn new(
        objective: &'a Objective,
        gradients: GradientSteps<'a, T>,
        rule: StepRule,
    ) -> Result<Self> {
        let parameters = objective.parameters();
        let mut point = parameters.to_flat()?;
        point.extend(parameters.flat_statistics()?);
        Ok(Self {
            objective,
            gradients,
            moments: vec![vec![Scalar::ZERO; parameters.len()]; rule.optimizer.num_moments()],
            rule,
            pieces: Piece::split(parameters),
            point: point.into_iter().map(Scalar::from_f64).collect(),
            steps: 0,
        })
    }

    fn step_in_pool(&mut self, rows: &[usize], learning_rate: f64) -> Result<BatchScore> {
        let (batch, mut gradient) = self.gradients.gradient(&mut self.point, rows)?;
        let mut squared_norm = batch.squared_norm;
        if let Some(sam) = self.rule.sam
            && let Some(mut perturbed) = sam.perturbed(&self.point, gradient)?
        {
            let ahead = self.gradients.gradient(&mut perturbed, rows)?;
            (squared_norm, gradient) = (ahead.0.squared_norm, ahead.1);
        }
        clip(self.rule.clip_norm, gradient, squared_norm);
        self.steps += 1;
        let number = self.steps;
        let step = |num_axes| Step {
            number,
            learning_rate,
            num_axes,
        };
        let theta = &mut self.point[..gradient.len()];
        match self.rule.optimizer.slice_update() {
            Some(rule) => {
                update_slices(rule, &self.pieces, theta, gradient, &mut self.moments, step);
            }
            None => {
                let (rule, parameters) = (&*self.rule.optimizer, self.objective.parameters());
                update_tensors(rule, parameters, theta, gradient, &mut self.moments, step)?;
            }
        }
        Ok(batch)
    }
}

fn update_slices<T: HostFloat>(
    rule: &dyn SliceUpdate,
    pieces: &[Piece],
    mut theta: &mut [T],
    gradient: &[T],
    moments: &mut [Vec<T>],
    step: impl Fn(usize) -> Step + Sync,
) {
    let mut moments: Vec<_> = moments.iter_mut().map(Vec::as_mut_slice).collect();
    let slices = pieces.iter().map(|piece| {
        let len = piece.range.len();
        let theta = theta.split_off_mut(..len).unwrap_or_default();
        let moments = moments.iter_mut();
        let moments = moments.map(|moment| moment.split_off_mut(..len).unwrap_or_default());
        (piece, theta, moments.collect::<Vec<_>>())
    });
    let slices: Vec<_> = slices.collect();
    slices
        .into_par_iter()
        .for_each(|(piece, theta, mut moments)| {
            let gradient = &gradient[piece.range.clone()];
            T::update(rule, theta, gradient, &mut moments, step(piece.num_axes));
        });
}

fn update_tensors<T: HostFloat>(
    rule: &dyn Optimizer,
    parameters: &Parameters,
    theta: &mut [T],
    gradient: &[T],
    moments: &mut [Vec<T>],
    step: impl Fn(usize) -> Step,
) -> Result<()> {
    for ((_, shape), range) in parameters.shapes().into_iter().zip(parameters.ranges()) {
        let tensor = |numbers: &[T]| {
            Tensor::from_slice(&numbers[range.clone()], shape.as_slice(), &Device::Cpu)
        };
        let write = |tensor: &Tensor, to: &mut [T]| -> candle_core::Result<()> {
            to[range.clone()].copy_from_slice(&tensor.flatten_all()?.to_vec1()?);
            Ok(())
        };
        let old = moments.iter().map(|moment| tensor(moment));
        let mut new = old.collect::<candle_core::Result<Vec<_>>>()?;
        let step = step(shape.len());
        let next = rule.update(&tensor(theta)?, &tensor(gradient)?, &mut new, step)?;
        write(&next, theta)?;
        for (moment, to) in new.iter().zip(moments.iter_mut()) {
            write(moment, to)?;
        }
    }
    Ok(())
}

impl<T: HostFloat> Stepper for EngineStepper<'_, T> {
    fn step(
        &mut self,
        rows: &[usize],
        _dropout_seed: u64,
        learning_rate: f64,
    ) -> Result<BatchScore> {
        // Inside the pool the many short parts of a step need not wake it each time.
        rayon::scope(|_| self.step_in_pool(rows, learning_rate))
    }

    fn update_model(&self) -> Result<()> {
        let parameters = self.objective.parameters();
        let point: Vec<f64> = self.point.iter().map(|p| p.f64()).collect();
        let (theta, statistics) = point.split_at(parameters.len());
        parameters.set_flat(theta)?;
        parameters.set_flat_statistics(statistics)
    }

    fn theta(&self) -> Result<Vec<f64>> {
        let theta = &self.point[..self.objective.dim()];
        Ok(theta.iter().map(|t| t.f64()).collect())
    }

    fn moments(&self) -> Result<Vec<Vec<f64>>> {
        let numbers = |moment: &Vec<T>| moment.iter().map(|x| x.f64()).collect();
        Ok(self.moments.iter().map(numbers).collect())
    }

    fn state(&self) -> Result<Vec<f64>> {
        let numbers = self.point.iter().chain(self.moments.iter().flatten());
        let numbers = numbers.map(|x| x.f64());
        Ok([f64::from(self.steps)].into_iter().chain(numbers).collect())
    }

    fn restore(&mut self, state: &[f64]) -> Result<()> {
        self.steps = state[0] as i32;
        let numbers = self
            .point
            .iter_mut()
            .chain(self.moments.iter_mut().flatten());
        for (x, saved) in numbers.zip(&state[1..]) {
            *x = Scalar::from_f64(*saved);
        }
        self.update_model()
    }
}

/// Steps with candle's graph and tensors, on any device.
struct GraphStepper<'a> {
    objective: &'a Objective,
    sam: Option<Sam>,
    clip_norm: Option<f64>,
    optimizer: VarOptimizer,
    vars: Vec<Var>,
}

/// Checkpoints hold at least this many moments; those that an optimizer lacks are zeros.
const SAVED_MOMENTS: usize = 2;

impl Stepper for GraphStepper<'_> {
    fn step(
        &mut self,
        rows: &[usize],
        dropout_seed: u64,
        learning_rate: f64,
    ) -> Result<BatchScore> {
        let (batch, mut gradient) = self.objective.step_by_graph(rows, dropout_seed)?;
        let mut squared_norm = batch.squared_norm;
        if let Some(sam) = self.sam
            && let Some(before) = sam.perturb(&self.vars, &gradient)?
        {
            let parameters = self.objective.parameters();
            let statistics = parameters.flat_statistics()?;
            let perturbed = self.objective.step_by_graph(rows, dropout_seed);
            for (var, value) in &before {
                var.set(value)?;
            }
            parameters.set_flat_statistics(&statistics)?;
            let ahead = perturbed?;
            (squared_norm, gradient) = (ahead.0.squared_norm, ahead.1);
        }
        clip_tensors(self.clip_norm, &self.vars, &mut gradient, squared_norm)?;
        self.optimizer.step(&gradient, learning_rate)?;
        Ok(batch)
    }

    fn update_model(&self) -> Result<()> {
        Ok(())
    }

    fn theta(&self) -> Result<Vec<f64>> {
        self.objective.parameters().to_flat()
    }

    fn moments(&self) -> Result<Vec<Vec<f64>>> {
        let (parameters, optimizer) = (self.objective.parameters(), &self.optimizer);
        let moment = |i| parameters.flatten(optimizer.moments.iter().map(|moments| &moments[i]));
        (0..optimizer.num_moments()).map(moment).collect()
    }

    fn state(&self) -> Result<Vec<f64>> {
        let (parameters, optimizer) = (self.objective.parameters(), &self.optimizer);
        let mut state = vec![f64::from(optimizer.steps)];
        state.extend(parameters.to_flat()?);
        state.extend(self.moments()?.concat());
        let missing = SAVED_MOMENTS.saturating_sub(optimizer.num_moments());
        state.extend(vec![0.0; missing * parameters.len()]);
        state.extend(parameters.flat_statistics()?);
        Ok(state)
    }

    fn restore(&mut self, state: &[f64]) -> Result<()> {
        let (parameters, optimizer) = (self.objective.parameters(), &mut self.optimizer);
        let n = parameters.len();
        let count = optimizer.num_moments();
        let (theta, rest) = state[1..].split_at(n);
        let (moments, statistics) = rest.split_at(count.max(SAVED_MOMENTS) * n);
        parameters.set_flat(theta)?;
        parameters.set_flat_statistics(statistics)?;
        optimizer.steps = state[0] as i32;
        for i in 0..count {
            let tensors = parameters.unflatten(&moments[i * n..(i + 1) * n])?;
            for (moments, tensor) in optimizer.moments.iter_mut().zip(tensors) {
                moments[i] = tensor;
            }
        }
        Ok(())
    }
}
