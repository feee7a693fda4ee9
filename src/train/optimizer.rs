//! [`Optimizer`]: the rule that turns a gradient into a step.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Adam, Sgd};
use crate::error::Result;

/// An update rule: how a gradient becomes a step.
///
/// [`Sgd`] and [`Adam`] implement it. An optimizer holds only its settings. The tensors that it keeps between steps, such as
/// Adam's two moments, belong to the trainer, which writes them to [checkpoints](super::Trainer::with_checkpoint): a training
/// with an optimizer of your own resumes like any other.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::train::{Optimizer, Step};
/// use loss_landscape::serde_json::{Value, json};
///
/// /// θ ← θ − η sign(g)
/// #[derive(Debug)]
/// struct SignSgd;
///
/// impl Optimizer for SignSgd {
///     fn settings(&self) -> Value {
///         json!("SignSgd")
///     }
///
///     fn update(
///         &self,
///         theta: &Tensor,
///         gradient: &Tensor,
///         _moments: &mut [Tensor],
///         step: Step,
///     ) -> candle::Result<Tensor> {
///         theta - (gradient.sign()? * step.learning_rate)?
///     }
/// }
///
/// // One step on L(b, w) = b² + 4w² from (1, ½), where both derivatives are positive.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// line.parameters().set_flat(&[1.0, 0.5])?;
/// Trainer::new(SignSgd, 0.25).fit(&line, &data, &data)?;
/// assert_eq!(line.parameters().to_flat()?, [0.75, 0.25]);
/// # Ok::<(), Error>(())
/// ```
pub trait Optimizer: Debug + Send + Sync {
    /// Returns the name and the settings, as JSON. They identify the optimizer in checkpoints and reports.
    fn settings(&self) -> Value;

    /// Checks the settings before the training.
    ///
    /// # Errors
    /// A setting outside its range.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Number of tensors kept between steps for each parameter, each of the parameter's shape: 2 for Adam.
    fn num_moments(&self) -> usize {
        0
    }

    /// Returns the new value of one parameter.
    ///
    /// # Shapes
    /// `theta`, `gradient`, each of the `moments` and the result have the parameter's shape. The moments are zeros before the
    /// first step; this method updates them.
    ///
    /// # Errors
    /// Errors of candle's operations.
    fn update(
        &self,
        theta: &Tensor,
        gradient: &Tensor,
        moments: &mut [Tensor],
        step: Step,
    ) -> candle_core::Result<Tensor>;

    /// The same rule on slices, if it has one. On a CPU the hand-derived engine then updates θ in place, without tensors.
    fn slice_update(&self) -> Option<&dyn SliceUpdate> {
        None
    }
}

/// An elementwise update rule on slices of θ in host memory, each a part of one parameter.
pub trait SliceUpdate: Sync {
    /// Updates `theta` and its `moments` in place. All slices have the same length.
    fn update_f32(
        &self,
        theta: &mut [f32],
        gradient: &[f32],
        moments: &mut [&mut [f32]],
        step: Step,
    );

    /// As [`update_f32`](Self::update_f32).
    fn update_f64(
        &self,
        theta: &mut [f64],
        gradient: &[f64],
        moments: &mut [&mut [f64]],
        step: Step,
    );
}

/// Position of a step in the training, its learning rate, and the number of axes of the parameter that it updates.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Number of this step, counted from 1.
    pub number: i32,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Number of axes of the parameter: 2 for a matrix.
    pub num_axes: usize,
}

/// Two optimizers are equal if their [settings](Optimizer::settings) are.
impl PartialEq for dyn Optimizer {
    fn eq(&self, other: &Self) -> bool {
        self.settings() == other.settings()
    }
}

/// An optimizer with the variables that it updates and their moments.
pub(crate) struct VarOptimizer {
    rule: Arc<dyn Optimizer>,
    vars: Vec<Var>,
    /// For each variable, its moments.
    pub(super) moments: Vec<Vec<Tensor>>,
    pub(super) steps: i32,
}

impl VarOptimizer {
    pub(crate) fn new(rule: Arc<dyn Optimizer>, vars: Vec<Var>) -> Result<Self> {
        let zeros = |var: &Var| -> candle_core::Result<Vec<Tensor>> {
            (0..rule.num_moments()).map(|_| var.zeros_like()).collect()
        };
        Ok(Self {
            moments: vars.iter().map(zeros).collect::<candle_core::Result<_>>()?,
            rule,
            vars,
            steps: 0,
        })
    }

    pub(crate) fn adam(vars: Vec<Var>) -> Result<Self> {
        Self::new(Arc::new(Adam::default()), vars)
    }

    pub(super) fn num_moments(&self) -> usize {
        self.rule.num_moments()
    }

    /// Takes one step. Variables without a gradient stay as they are.
    pub(crate) fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        for (var, moments) in self.vars.iter().zip(&mut self.moments) {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            let step = Step {
                number: self.steps,
                learning_rate,
                num_axes: var.rank(),
            };
            let next = self.rule.update(var.as_tensor(), gradient, moments, step)?;
            var.set(&next)?;
            // Without this the moments would hold the graphs of all steps before.
            for moment in moments {
                *moment = moment.detach();
            }
        }
        Ok(())
    }
}

/// An optimizer of this crate.
#[derive(Deserialize)]
pub(crate) enum BuiltIn {
    Sgd(Sgd),
    Adam(Adam),
}

impl BuiltIn {
    /// `None` for an optimizer that is not of this crate.
    pub(crate) fn of(optimizer: &dyn Optimizer) -> Option<Self> {
        Self::deserialize(&optimizer.settings()).ok()
    }
}

/// Writes an optimizer's settings.
pub(super) fn serialize<S: Serializer>(
    optimizer: &Arc<dyn Optimizer>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    optimizer.settings().serialize(serializer)
}

/// Reads the settings of this crate's optimizers.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Arc<dyn Optimizer>, D::Error> {
    let settings = Value::deserialize(deserializer)?;
    match BuiltIn::deserialize(&settings) {
        Ok(BuiltIn::Sgd(sgd)) => Ok(Arc::new(sgd)),
        Ok(BuiltIn::Adam(adam)) => Ok(Arc::new(adam)),
        Err(e) => Err(D::Error::custom(format!(
            "the optimizer {settings} cannot be read ({e}); build it in code and pass it to Trainer::new"
        ))),
    }
}
