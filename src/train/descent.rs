//! [`Descent`]: a model on its way down, step by step.

use candle_core::{Var, WithDType};
use rayon::prelude::*;

use super::optimizer::{Ascent, Method, Optimizer};
use crate::error::{Error, Result};
use crate::objective::{Batch, Objective, Scalar, Steps};
use crate::simd::vectorised;

/// The steps of a training.
pub(super) trait Descent {
    /// A step on some samples of the training data; what is random in it is drawn from `draws`.
    fn step(&mut self, rows: &[usize], draws: u64, rate: f64) -> Result<Batch>;

    /// Brings the model to where the descent has come.
    fn settle(&mut self) -> Result<()>;

    /// All that the next step depends on: θ, running statistics, what the optimizer remembers.
    fn memory(&self) -> Result<Vec<f64>>;

    /// Goes to where a descent of the same model and method had this memory.
    fn recall(&mut self, memory: &[f64]) -> Result<()>;
}

/// From where the objective's model stands.
pub(super) fn descent<'a>(
    objective: &'a Objective,
    method: Method,
    ascent: Option<Ascent>,
) -> Result<Box<dyn Descent + 'a>> {
    if let Some(steps) = objective.steps::<f32>() {
        return Ok(Box::new(ByHand::new(objective, steps, method, ascent)?));
    }
    if let Some(steps) = objective.steps::<f64>() {
        return Ok(Box::new(ByHand::new(objective, steps, method, ascent)?));
    }
    let vars = objective.parameters().vars();
    Ok(Box::new(ByGraph {
        objective,
        ascent,
        optimizer: Optimizer::new(method, vars.clone())?,
        vars,
    }))
}

/// With the hand-derived rules: θ lies on the host, and the model is brought there when somebody wants to see it.
struct ByHand<'a, T> {
    objective: &'a Objective,
    gradients: Steps<'a, T>,
    method: Method,
    ascent: Option<Ascent>,
    /// θ, and after it the running statistics.
    point: Vec<T>,
    /// b of SGD with momentum, m of Adam.
    first: Vec<T>,
    /// v of Adam.
    second: Vec<T>,
    steps: i32,
}

/// Numbers that a thread updates at a time.
const CHUNK: usize = 1 << 14;

impl<'a, T: Scalar + WithDType> ByHand<'a, T> {
    fn new(
        objective: &'a Objective,
        gradients: Steps<'a, T>,
        method: Method,
        ascent: Option<Ascent>,
    ) -> Result<Self> {
        let parameters = objective.parameters();
        let n = parameters.len();
        let mut point = parameters.to_flat()?;
        point.extend(parameters.flat_statistics()?);
        let second = match method {
            Method::Adam { .. } => n,
            Method::Sgd { .. } => 0,
        };
        Ok(Self {
            objective,
            gradients,
            method,
            ascent,
            point: point.into_iter().map(Scalar::of).collect(),
            first: vec![Scalar::ZERO; n],
            second: vec![Scalar::ZERO; second],
            steps: 0,
        })
    }
}

impl<T: Scalar + WithDType> Descent for ByHand<'_, T> {
    fn step(&mut self, rows: &[usize], _draws: u64, rate: f64) -> Result<Batch> {
        // Inside the pool a step's many short parts need not wake it each time.
        rayon::scope(|_| self.step_inside(rows, rate))
    }

    fn settle(&mut self) -> Result<()> {
        let parameters = self.objective.parameters();
        let point: Vec<f64> = self.point.iter().map(|p| p.f64()).collect();
        let (theta, statistics) = point.split_at(parameters.len());
        parameters.set_flat(theta)?;
        parameters.set_flat_statistics(statistics)
    }

    fn memory(&self) -> Result<Vec<f64>> {
        let parts = [&self.point, &self.first, &self.second];
        let numbers = parts.into_iter().flatten().map(|x| x.f64());
        Ok([f64::from(self.steps)].into_iter().chain(numbers).collect())
    }

    fn recall(&mut self, memory: &[f64]) -> Result<()> {
        self.steps = memory[0] as i32;
        let parts = [&mut self.point, &mut self.first, &mut self.second];
        for (x, kept) in parts.into_iter().flatten().zip(&memory[1..]) {
            *x = T::of(*kept);
        }
        self.settle()
    }
}

impl<T: Scalar + WithDType> ByHand<'_, T> {
    fn step_inside(&mut self, rows: &[usize], rate: f64) -> Result<Batch> {
        let (found, mut gradient) = self.gradients.gradient(&mut self.point, rows)?;
        if let Some(ascent) = self.ascent
            && let Some(mut moved) = uphill(ascent, &self.point, gradient)?
        {
            gradient = self.gradients.gradient(&mut moved, rows)?.1;
        }
        self.steps += 1;
        let theta = self.point[..gradient.len()].par_chunks_mut(CHUNK);
        let parts = theta.zip(gradient.par_chunks(CHUNK));
        let parts = parts.zip(self.first.par_chunks_mut(CHUNK));
        match self.method {
            Method::Sgd { momentum, nesterov } => {
                let rule = [rate, momentum, f64::from(u8::from(nesterov))].map(Scalar::of);
                parts.for_each(|((theta, g), b)| sgd(theta, g, b, rule));
            }
            Method::Adam { decay } => {
                let scales = [0.9f64, 0.999].map(|beta| 1.0 / (1.0 - beta.powi(self.steps)));
                let rule = [rate * scales[0], 1.0 - rate * decay, scales[1]].map(Scalar::of);
                let parts = parts.zip(self.second.par_chunks_mut(CHUNK));
                parts.for_each(|(((theta, g), m), v)| adam(theta, g, m, v, rule));
            }
        }
        Ok(found)
    }
}

/// The point to take the gradient at; none where the gradient is 0.
fn uphill<T: Scalar>(ascent: Ascent, point: &[T], gradient: &[T]) -> Result<Option<Vec<T>>> {
    let scale = |t: f64| if ascent.adaptive { t.abs() } else { 1.0 };
    let pairs = || point.iter().zip(gradient).map(|(t, g)| (t.f64(), g.f64()));
    let squares = pairs().map(|(t, g)| (scale(t) * g).powi(2));
    let length = squares.sum::<f64>().sqrt();
    if !length.is_finite() {
        return Err(Error::NotFinite("the gradient is not finite".into()));
    }
    if length == 0.0 {
        return Ok(None);
    }
    let mut moved = point.to_vec();
    for (place, (t, g)) in moved.iter_mut().zip(pairs()) {
        *place = T::of(t + ascent.radius / length * scale(t).powi(2) * g);
    }
    Ok(Some(moved))
}

vectorised! {
    /// With rate, momentum, and 1 for Nesterov's correction or 0.
    fn sgd<T: Scalar>(theta: &mut [T], g: &[T], b: &mut [T], rule: [T; 3]) {
        let [rate, momentum, nesterov] = rule;
        for ((t, g), b) in theta.iter_mut().zip(g).zip(b) {
            *b = momentum * *b + *g;
            let step = *b + nesterov * (*g + (momentum - T::ONE) * *b);
            *t = *t - rate * step;
        }
    }

    /// With the rate over 1 − β₁ᵏ in step k, the factor that weights shrink by, and 1/(1 − β₂ᵏ).
    fn adam<T: Scalar>(theta: &mut [T], g: &[T], m: &mut [T], v: &mut [T], rule: [T; 3]) {
        let [rate, shrink, second] = rule;
        let [a, b] = [0.9, 0.999].map(T::of);
        let [c, d, epsilon] = [0.1, 0.001, 1e-8].map(T::of);
        for (((t, g), m), v) in theta.iter_mut().zip(g).zip(m).zip(v) {
            *m = a * *m + c * *g;
            *v = b * *v + d * (*g * *g);
            *t = shrink * *t - rate * *m / ((*v * second).sqrt() + epsilon);
        }
    }
}

/// With candle's graph and tensors, on any device.
struct ByGraph<'a> {
    objective: &'a Objective,
    ascent: Option<Ascent>,
    optimizer: Optimizer,
    vars: Vec<Var>,
}

impl Descent for ByGraph<'_> {
    fn step(&mut self, rows: &[usize], draws: u64, rate: f64) -> Result<Batch> {
        let (found, mut gradient) = self.objective.step_by_graph(rows, draws)?;
        if let Some(ascent) = self.ascent
            && let Some(before) = ascent.climb(&self.vars, &gradient)?
        {
            let parameters = self.objective.parameters();
            let statistics = parameters.flat_statistics()?;
            let there = self.objective.step_by_graph(rows, draws);
            for (var, value) in &before {
                var.set(value)?;
            }
            parameters.set_flat_statistics(&statistics)?;
            gradient = there?.1;
        }
        self.optimizer.step(&gradient, rate)?;
        Ok(found)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Result<Vec<f64>> {
        let parameters = self.objective.parameters();
        let optimizer = &self.optimizer;
        Ok([
            vec![f64::from(optimizer.steps)],
            parameters.to_flat()?,
            parameters.flatten(optimizer.first.iter())?,
            parameters.flatten(optimizer.second.iter())?,
            parameters.flat_statistics()?,
        ]
        .concat())
    }

    fn recall(&mut self, memory: &[f64]) -> Result<()> {
        let parameters = self.objective.parameters();
        let n = parameters.len();
        let (vectors, statistics) = memory[1..].split_at(3 * n);
        parameters.set_flat(&vectors[..n])?;
        parameters.set_flat_statistics(statistics)?;
        self.optimizer.steps = memory[0] as i32;
        self.optimizer.first = parameters.unflatten(&vectors[n..2 * n])?;
        self.optimizer.second = parameters.unflatten(&vectors[2 * n..])?;
        Ok(())
    }
}
