//! [`Optimizer`]: how a gradient becomes a step.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use serde::Serialize;

use crate::error::{Error, Result};

/// The rule of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum Method {
    /// b ← μb + g, θ ← θ − ηb; with Nesterov's correction θ ← θ − η(g + μb).
    Sgd { momentum: f64, nesterov: bool },
    /// With weights that shrink by the factor 1 − η `decay` in a step.
    Adam { decay: f64 },
}

/// A rule and what it remembers.
pub(super) enum Optimizer {
    Sgd {
        momentum: f64,
        nesterov: bool,
        vars: Vec<Var>,
        /// b of each variable, none before the first step.
        memory: Vec<Option<Tensor>>,
    },
    Adam(AdamW),
}

impl Optimizer {
    pub(super) fn new(method: Method, vars: Vec<Var>) -> Result<Self> {
        Ok(match method {
            Method::Sgd { momentum, nesterov } => Self::Sgd {
                momentum,
                nesterov,
                memory: vec![None; vars.len()],
                vars,
            },
            Method::Adam { decay } => Self::Adam(adam(vars, 0.0, decay)?),
        })
    }

    /// A step down the gradient.
    pub(super) fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        match self {
            Self::Adam(optimizer) => {
                optimizer.set_learning_rate(learning_rate);
                Ok(optimizer.step(gradients)?)
            }
            Self::Sgd {
                momentum,
                nesterov,
                vars,
                memory,
            } => {
                for (var, memory) in vars.iter().zip(memory) {
                    let Some(gradient) = gradients.get(var) else {
                        continue;
                    };
                    let mut step = gradient.clone();
                    if *momentum > 0.0 {
                        let kept = match memory.take() {
                            Some(kept) => ((kept * *momentum)? + gradient)?,
                            None => gradient.clone(),
                        };
                        step = match nesterov {
                            true => (gradient + (&kept * *momentum)?)?,
                            false => kept.clone(),
                        };
                        *memory = Some(kept.detach());
                    }
                    var.set(&(var.as_tensor() - (step * learning_rate)?)?)?;
                }
                Ok(())
            }
        }
    }
}

/// Adam (Kingma and Ba, 2015) with its usual constants, and decoupled weight decay (Loshchilov and Hutter, 2019).
pub(crate) fn adam(vars: Vec<Var>, learning_rate: f64, decay: f64) -> Result<AdamW> {
    let settings = ParamsAdamW {
        lr: learning_rate,
        weight_decay: decay,
        ..ParamsAdamW::default()
    };
    Ok(AdamW::new(vars, settings)?)
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
