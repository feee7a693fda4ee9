//! [`Descent`]: a model on its way down, step by step.

use candle_core::Var;
use rayon::prelude::*;

use super::optimizer::{Ascent, Method, Optimizer};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::simd::vectorised;
use crate::vector::norm;

/// What a step has found of its batch before it was made.
pub(super) struct Found {
    pub(super) loss: f64,
    pub(super) right: usize,
    pub(super) square: f64,
}

/// The steps of a training.
pub(super) trait Descent {
    /// A step on a batch; what is random in it is drawn from `draws`.
    fn step(&mut self, batch: &Dataset, draws: u64, rate: f64) -> Result<Found>;

    /// Brings the model to where the descent has come.
    fn settle(&mut self) -> Result<()>;
}

/// From where the objective's model stands.
pub(super) fn descent<'a>(
    objective: &'a Objective,
    method: Method,
    ascent: Option<Ascent>,
) -> Result<Box<dyn Descent + 'a>> {
    let parameters = objective.parameters();
    if objective.steps_by_hand() {
        let mut point = parameters.to_flat()?;
        point.extend(parameters.flat_statistics()?);
        let n = parameters.len();
        return Ok(Box::new(ByHand {
            objective,
            method,
            ascent,
            point,
            first: vec![0.0; n],
            second: vec![
                0.0;
                if let Method::Adam { .. } = method {
                    n
                } else {
                    0
                }
            ],
            steps: 0,
            single: parameters.dtype() == candle_core::DType::F32,
        }));
    }
    let vars = parameters.vars();
    Ok(Box::new(ByGraph {
        objective,
        ascent,
        optimizer: Optimizer::new(method, vars.clone())?,
        vars,
    }))
}

/// With the hand-derived rules: θ lies on the host, and the model is brought there when somebody wants to see it.
struct ByHand<'a> {
    objective: &'a Objective,
    method: Method,
    ascent: Option<Ascent>,
    /// θ, and after it the running statistics.
    point: Vec<f64>,
    /// b of SGD with momentum, m of Adam.
    first: Vec<f64>,
    /// v of Adam.
    second: Vec<f64>,
    steps: i32,
    /// Whether the model's numbers are `f32`.
    single: bool,
}

/// Numbers that a thread updates at a time.
const CHUNK: usize = 1 << 14;

impl Descent for ByHand<'_> {
    fn step(&mut self, batch: &Dataset, _draws: u64, rate: f64) -> Result<Found> {
        let found = self.objective.step_by_hand(&mut self.point, batch)?;
        let gradient = match self.ascent {
            None => found.gradient,
            Some(ascent) => match self.uphill(ascent, &found.gradient)? {
                None => found.gradient,
                Some(mut moved) => self.objective.step_by_hand(&mut moved, batch)?.gradient,
            },
        };
        self.steps += 1;
        let n = gradient.len();
        let theta = self.point[..n].par_chunks_mut(CHUNK);
        let parts = theta.zip(gradient.par_chunks(CHUNK));
        let parts = parts.zip(self.first.par_chunks_mut(CHUNK));
        let single = self.single;
        match self.method {
            Method::Sgd { momentum, nesterov } => {
                let rule = [rate, momentum, f64::from(u8::from(nesterov))];
                parts.for_each(|((theta, g), b)| sgd(theta, g, b, rule, single));
            }
            Method::Adam { decay } => {
                let scales = [0.9f64, 0.999].map(|beta| 1.0 / (1.0 - beta.powi(self.steps)));
                let rule = [rate, 1.0 - rate * decay, scales[0], scales[1]];
                let parts = parts.zip(self.second.par_chunks_mut(CHUNK));
                parts.for_each(|(((theta, g), m), v)| adam(theta, g, m, v, rule, single));
            }
        }
        Ok(Found {
            loss: found.loss,
            right: found.right,
            square: found.square,
        })
    }

    fn settle(&mut self) -> Result<()> {
        let parameters = self.objective.parameters();
        let (theta, statistics) = self.point.split_at(parameters.len());
        parameters.set_flat(theta)?;
        parameters.set_flat_statistics(statistics)
    }
}

impl ByHand<'_> {
    /// The point to take the gradient at; none where the gradient is 0.
    fn uphill(&self, ascent: Ascent, gradient: &[f64]) -> Result<Option<Vec<f64>>> {
        let theta = &self.point[..gradient.len()];
        let scale = |t: f64| if ascent.adaptive { t.abs() } else { 1.0 };
        let pairs = || theta.iter().zip(gradient);
        let pull: Vec<f64> = pairs().map(|(t, g)| scale(*t) * g).collect();
        let length = norm(&pull);
        if !length.is_finite() {
            return Err(Error::NotFinite("the gradient is not finite".into()));
        }
        if length == 0.0 {
            return Ok(None);
        }
        let mut moved = self.point.clone();
        for (t, pull) in moved.iter_mut().zip(&pull) {
            *t += ascent.radius / length * scale(*t) * pull;
        }
        Ok(Some(moved))
    }
}

vectorised! {
    /// With rate, momentum, and 1 for Nesterov's correction or 0.
    fn sgd(theta: &mut [f64], g: &[f64], b: &mut [f64], rule: [f64; 3], single: bool) {
        let [rate, momentum, nesterov] = rule;
        for ((t, g), b) in theta.iter_mut().zip(g).zip(b) {
            *b = momentum * *b + g;
            let step = *b + nesterov * (g + (momentum - 1.0) * *b);
            *t -= rate * step;
            if single {
                *t = f64::from(*t as f32);
            }
        }
    }

    /// With rate, the factor that weights shrink by, and 1/(1 − βᵏ) of both means in step k.
    fn adam(
        theta: &mut [f64],
        g: &[f64],
        m: &mut [f64],
        v: &mut [f64],
        rule: [f64; 4],
        single: bool,
    ) {
        let [rate, shrink, first, second] = rule;
        for (((t, g), m), v) in theta.iter_mut().zip(g).zip(m).zip(v) {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * (g * g);
            *t = shrink * *t - rate * (*m * first) / ((*v * second).sqrt() + 1e-8);
            if single {
                *t = f64::from(*t as f32);
            }
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
    fn step(&mut self, batch: &Dataset, draws: u64, rate: f64) -> Result<Found> {
        let found = self.objective.step_by_graph(batch, draws)?;
        let before = match self.ascent {
            None => None,
            Some(ascent) => ascent.climb(&self.vars, &found.gradient)?,
        };
        let gradient = match before {
            None => found.gradient,
            Some(before) => {
                let parameters = self.objective.parameters();
                let statistics = parameters.flat_statistics()?;
                let there = self.objective.step_by_graph(batch, draws);
                for (var, value) in &before {
                    var.set(value)?;
                }
                parameters.set_flat_statistics(&statistics)?;
                there?.gradient
            }
        };
        self.optimizer.step(&gradient, rate)?;
        Ok(Found {
            loss: found.loss,
            right: found.right,
            square: found.square,
        })
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}
