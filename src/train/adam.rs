//! [`Adam`], with decoupled weight decay (AdamW) of a [`DecayGroup`].

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::optimizer::{Optimizer, SliceUpdate, Step};
use crate::error::{Error, Result, check_positive};
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;

/// Adam (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015), with decoupled weight decay (AdamW: Loshchilov
/// and Hutter, "Decoupled Weight Decay Regularization", 2019).
///
/// m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², θ ← (1 − ηδ)θ − η m̂/(√v̂ + ε), with m̂ = m/(1 − β₁ᵏ) and v̂ = v/(1 − β₂ᵏ) in
/// step k and the weight decay δ.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::train::Adam;
///
/// // The first step is as long as the learning rate in each parameter, whatever the gradient.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// line.parameters().set_flat(&[1.0, 0.5])?;
/// Trainer::new(Adam::default().with_beta2(0.99), 0.1).fit(&line, &data, &data)?;
/// let theta = line.parameters().to_flat()?;
/// assert!((theta[0] - 0.9).abs() < 1e-6 && (theta[1] - 0.4).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Adam {
    /// β₁, in [0, 1): decay of the mean gradient.
    #[serde(skip_serializing_if = "is_default_beta1")]
    pub beta1: f64,
    /// β₂, in [0, 1): decay of the mean squared gradient.
    #[serde(skip_serializing_if = "is_default_beta2")]
    pub beta2: f64,
    /// ε, added to the root of the mean squared gradient.
    #[serde(skip_serializing_if = "is_default_epsilon")]
    pub epsilon: f64,
    /// δ: the factor 1 − ηδ shrinks θ in each step.
    #[serde(rename = "decay", alias = "weight_decay")]
    pub weight_decay: f64,
    /// Parameters with weight decay.
    #[serde(skip_serializing_if = "is_default_decay_group")]
    pub decay_group: DecayGroup,
}

/// Parameters with weight decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DecayGroup {
    /// All parameters.
    #[default]
    All,
    /// Parameters with two or more axes, as in most trainings of language models: weights of linear layers, kernels of
    /// convolutions and embeddings, but not biases and the gains of normalisation layers.
    Matrices,
}

impl Default for Adam {
    /// β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸, no weight decay. A weight decay applies to all parameters.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decay_group: DecayGroup::All,
        }
    }
}

// Defaults are not written, so that checkpoints from before these settings still match.
fn is_default_beta1(beta1: &f64) -> bool {
    *beta1 == Adam::default().beta1
}

fn is_default_beta2(beta2: &f64) -> bool {
    *beta2 == Adam::default().beta2
}

fn is_default_epsilon(epsilon: &f64) -> bool {
    *epsilon == Adam::default().epsilon
}

fn is_default_decay_group(group: &DecayGroup) -> bool {
    *group == Adam::default().decay_group
}

impl Adam {
    /// Sets β₁, in [0, 1).
    #[must_use]
    pub fn with_beta1(mut self, beta1: f64) -> Self {
        self.beta1 = beta1;
        self
    }

    /// Sets β₂, in [0, 1).
    #[must_use]
    pub fn with_beta2(mut self, beta2: f64) -> Self {
        self.beta2 = beta2;
        self
    }

    /// Sets ε, above 0.
    #[must_use]
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Sets the weight decay δ, at least 0.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Sets the parameters with weight decay [default: all].
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # use loss_landscape::train::{Adam, DecayGroup};
    /// // One step on L(b, w) = b² + 4w² from (1, ½): Adam's first step is as long as the learning rate in each
    /// // parameter, and only the matrix w decays.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.5])?;
    /// let adam = Adam::default().with_weight_decay(0.5);
    /// let adam = adam.with_decay_group(DecayGroup::Matrices);
    /// Trainer::new(adam, 0.1).fit(&line, &data, &data)?;
    /// let theta = line.parameters().to_flat()?;
    /// assert!((theta[0] - (1.0 - 0.1)).abs() < 1e-6);
    /// assert!((theta[1] - ((1.0 - 0.1 * 0.5) * 0.5 - 0.1)).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_decay_group(mut self, group: DecayGroup) -> Self {
        self.decay_group = group;
        self
    }

    /// The factor 1 − ηδ of a step, or 1 for a parameter without decay.
    fn shrinkage(&self, step: Step) -> f64 {
        let decays = match self.decay_group {
            DecayGroup::All => true,
            DecayGroup::Matrices => step.num_axes >= 2,
        };
        match decays {
            true => 1.0 - step.learning_rate * self.weight_decay,
            false => 1.0,
        }
    }

    /// 1/(1 − β₁ᵏ) and 1/(1 − β₂ᵏ) in step k.
    fn bias_corrections(&self, step: Step) -> [f64; 2] {
        [self.beta1, self.beta2].map(|beta| 1.0 / (1.0 - beta.powi(step.number)))
    }
}

impl Optimizer for Adam {
    fn settings(&self) -> Value {
        json!({ "Adam": self })
    }

    fn check(&self) -> Result<()> {
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::invalid(format!(
                    "Adam's {name} is {beta}: give a number from 0 to below 1"
                )));
            }
        }
        check_positive(self.epsilon, "Adam's epsilon")?;
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(Error::invalid(format!(
                "the weight decay is {}: give a finite number, 0 or above",
                self.weight_decay
            )));
        }
        Ok(())
    }

    fn num_moments(&self) -> usize {
        2
    }

    fn update(
        &self,
        theta: &Tensor,
        gradient: &Tensor,
        moments: &mut [Tensor],
        step: Step,
    ) -> candle_core::Result<Tensor> {
        let m = ((&moments[0] * self.beta1)? + (gradient * (1.0 - self.beta1))?)?.detach();
        let v = ((&moments[1] * self.beta2)? + (gradient.sqr()? * (1.0 - self.beta2))?)?.detach();
        let scales = self.bias_corrections(step);
        let slope = ((&m * scales[0])? / ((&v * scales[1])?.sqrt()? + self.epsilon)?)?;
        (moments[0], moments[1]) = (m, v);
        let rate = step.learning_rate;
        (theta * self.shrinkage(step))? - (slope * rate)?
    }

    fn slice_update(&self) -> Option<&dyn SliceUpdate> {
        Some(self)
    }
}

impl Adam {
    fn update_slice<T: Scalar>(
        &self,
        theta: &mut [T],
        g: &[T],
        moments: &mut [&mut [T]],
        step: Step,
    ) {
        let [m, v] = moments else {
            unreachable!("Adam has two moments")
        };
        let scales = self.bias_corrections(step);
        let rate = step.learning_rate;
        let rule = [
            rate * scales[0],
            self.shrinkage(step),
            scales[1],
            self.beta1,
            complement(self.beta1),
            self.beta2,
            complement(self.beta2),
            self.epsilon,
        ];
        adam(theta, g, m, v, rule.map(Scalar::from_f64));
    }
}

/// 1 − β, rounded to 15 decimals: 0.1 for β = 0.9, where the difference of doubles is 0.09999999999999998.
fn complement(beta: f64) -> f64 {
    ((1.0 - beta) * 1e15).round() / 1e15
}

impl SliceUpdate for Adam {
    fn update_f32(
        &self,
        theta: &mut [f32],
        gradient: &[f32],
        moments: &mut [&mut [f32]],
        step: Step,
    ) {
        self.update_slice(theta, gradient, moments, step);
    }

    fn update_f64(
        &self,
        theta: &mut [f64],
        gradient: &[f64],
        moments: &mut [&mut [f64]],
        step: Step,
    ) {
        self.update_slice(theta, gradient, moments, step);
    }
}

vectorised! {
    /// `rule`: η/(1 − β₁ᵏ), 1 − ηδ, 1/(1 − β₂ᵏ), β₁, 1 − β₁, β₂, 1 − β₂, ε.
    fn adam<T: Scalar>(theta: &mut [T], g: &[T], m: &mut [T], v: &mut [T], rule: [T; 8]) {
        let [rate, shrink, second, beta1, rest1, beta2, rest2, epsilon] = rule;
        for (((t, g), m), v) in theta.iter_mut().zip(g).zip(m).zip(v) {
            *m = beta1 * *m + rest1 * *g;
            *v = beta2 * *v + rest2 * (*g * *g);
            *t = shrink * *t - rate * *m / ((*v * second).sqrt() + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// The two forms of the rule, on tensors and on slices, agree up to rounding.
    #[test]
    fn tensors_and_slices_agree() {
        let adam = Adam::default().with_beta1(0.8).with_weight_decay(0.1);
        let mut theta = vec![1.0, -2.0, 0.5];
        let (mut m, mut v) = (vec![0.0; 3], vec![0.0; 3]);
        let tensor = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap();
        let mut by_tensors = tensor(&theta);
        let mut moments = [tensor(&m), tensor(&v)];
        for number in 1..=5 {
            let step = Step {
                number,
                learning_rate: 0.1,
                num_axes: 1,
            };
            let g = [0.3 * f64::from(number), -1.0, 1e-3];
            by_tensors = adam
                .update(&by_tensors, &tensor(&g), &mut moments, step)
                .unwrap();
            adam.update_f64(&mut theta, &g, &mut [&mut m, &mut v], step);
        }
        let by_tensors = by_tensors.to_vec1::<f64>().unwrap();
        for (a, b) in by_tensors.iter().zip(&theta) {
            assert!((a - b).abs() < 1e-14, "{a} is not {b}");
        }
    }
}
