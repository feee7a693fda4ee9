//! [`Optimizer`]: how a gradient becomes a step. candle's own do not show what they remember, which a training that
//! is to go on later needs.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use serde::Serialize;

use crate::error::{Error, Result};

/// The rule of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Method {
    /// b ← μb + g, θ ← θ − ηb; with Nesterov's correction θ ← θ − η(g + μb).
    Sgd { momentum: f64, nesterov: bool },
    /// Adam (Kingma and Ba, 2015) with its usual constants, and weights that shrink by the factor 1 − η `decay` in a
    /// step (Loshchilov and Hutter, 2019).
    Adam { decay: f64 },
}

/// A rule and what it remembers.
pub(crate) struct Optimizer {
    method: Method,
    vars: Vec<Var>,
    /// b of SGD with momentum, m of Adam.
    pub(super) first: Vec<Tensor>,
    /// v of Adam.
    pub(super) second: Vec<Tensor>,
    pub(super) steps: i32,
}

impl Optimizer {
    pub(super) fn new(method: Method, vars: Vec<Var>) -> Result<Self> {
        let zeros = vars.iter().map(|var| var.zeros_like());
        let zeros = zeros.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Self {
            method,
            first: zeros.clone(),
            second: zeros,
            steps: 0,
            vars,
        })
    }

    pub(crate) fn adam(vars: Vec<Var>) -> Result<Self> {
        Self::new(Method::Adam { decay: 0.0 }, vars)
    }

    /// A step down the gradient.
    pub(crate) fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        self.steps += 1;
        for (i, var) in self.vars.iter().enumerate() {
            let Some(g) = gradients.get(var) else {
                continue;
            };
            let theta = var.as_tensor();
            let next = match self.method {
                Method::Sgd { momentum: 0.0, .. } => (theta - (g * rate)?)?,
                Method::Sgd { momentum, nesterov } => {
                    let b = ((&self.first[i] * momentum)? + g)?.detach();
                    let step = if nesterov {
                        (g + (&b * momentum)?)?
                    } else {
                        b.clone()
                    };
                    self.first[i] = b;
                    (theta - (step * rate)?)?
                }
                Method::Adam { decay } => {
                    let m = ((&self.first[i] * 0.9)? + (g * (1.0 - 0.9))?)?.detach();
                    let v = ((&self.second[i] * 0.999)? + (g.sqr()? * (1.0 - 0.999))?)?.detach();
                    let scales = [0.9f64, 0.999].map(|beta| 1.0 / (1.0 - beta.powi(self.steps)));
                    let slope = ((&m * scales[0])? / ((&v * scales[1])?.sqrt()? + 1e-8)?)?;
                    (self.first[i], self.second[i]) = (m, v);
                    ((theta * (1.0 - rate * decay))? - (slope * rate)?)?
                }
            };
            var.set(&next)?;
        }
        Ok(())
    }
}

/// The step uphill of sharpness-aware minimisation (Foret et al., 2021): where the gradient is taken that a step then goes
/// down.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Ascent {
    pub(super) radius: f64,
    /// Distances relative to each weight's size, as in adaptive SAM (Kwon et al., 2021).
    pub(super) adaptive: bool,
}

impl Ascent {
    /// Moves the variables by ε = ρ g/‖g‖, or ε = ρ T²g/‖Tg‖ with T = |θ|, and gives their values before; none where the
    /// gradient is 0.
    pub(super) fn climb(
        self,
        vars: &[Var],
        gradients: &GradStore,
    ) -> Result<Option<Vec<(Var, Tensor)>>> {
        let mut pulls = Vec::with_capacity(vars.len());
        let mut squares = 0.0;
        for var in vars {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            let scale = var.as_tensor().abs()?.detach();
            let pull = match self.adaptive {
                true => (gradient * &scale)?,
                false => gradient.clone(),
            };
            let square = pull.sqr()?.sum_all()?.to_dtype(DType::F64)?;
            squares += square.to_scalar::<f64>()?;
            let pull = match self.adaptive {
                true => (pull * scale)?,
                false => pull,
            };
            pulls.push((var, pull));
        }
        if !squares.is_finite() {
            return Err(Error::NotFinite("the gradient is not finite".into()));
        }
        if squares == 0.0 {
            return Ok(None);
        }
        let factor = self.radius / squares.sqrt();
        let mut before = Vec::with_capacity(pulls.len());
        for (var, pull) in pulls {
            before.push((var.clone(), var.as_tensor().copy()?.detach()));
            var.set(&(var.as_tensor() + (pull * factor)?)?)?;
        }
        Ok(Some(before))
    }
}
