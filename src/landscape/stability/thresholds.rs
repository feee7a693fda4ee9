//! [`stability_threshold`]: the largest sharpness for which an optimizer is stable on the quadratic model of the loss.

use crate::error::{Error, Result, check_positive};
use crate::train::{Adam, BuiltIn, Optimizer, Sgd};

/// Returns the largest sharpness λ for which a training of all samples with `optimizer` is stable on the quadratic model.
///
/// On ½λx² each optimizer is a linear recurrence, which diverges exactly if λ is above:
///
/// | optimizer | λ | threshold |
/// | --- | --- | --- |
/// | gradient descent | λ_max(H) | 2/η |
/// | momentum β | λ_max(H) | 2(1 + β)/η |
/// | Nesterov's momentum β | λ_max(H) | 2(1 + β)/((1 + 2β)η) |
/// | [`Adam`] | λ_max(P⁻¹H) | (2/η − δ)(1 + β₁)/(1 − β₁), 38/η by default |
///
/// For Adam, P = (1 − β₁ᵏ)(√v̂ + ε) in step k, with its bias correction, and δ is the decoupled weight decay (Cohen et al., "Adaptive
/// Gradient Methods at the Edge of Stability", 2022, for δ = 0). P changes slowly if β₂ is near 1; the theory takes it as constant. If
/// only some parameters decay, the threshold is that of those. With β₁ = 0, Adam is RMSProp with bias correction, and the threshold is
/// 2/η. A penalty λ‖θ‖² belongs to the loss, so that H contains it.
///
/// ```
/// use loss_landscape::landscape::stability_threshold;
/// use loss_landscape::prelude::*;
/// use loss_landscape::train::{Adam, Sgd};
///
/// let rate = 0.1;
/// let sgd = Sgd::default();
/// assert!((stability_threshold(&sgd, rate)? - 20.0).abs() < 1e-12);
/// assert!((stability_threshold(&sgd.with_momentum(0.9), rate)? - 38.0).abs() < 1e-12);
/// assert!((stability_threshold(&Adam::default(), rate)? - 380.0).abs() < 1e-10);
///
/// // L(b, w) = b² + 4w² with λ_max = 8: momentum 0.9 is stable below η = 3.8/8 and diverges above.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let end = |rate: f64| {
///     line.parameters().set_flat(&[0.0, 1.0])?;
///     let trainer = Trainer::new(sgd.with_momentum(0.9), rate).with_epochs(2000);
///     trainer.fit(&line, &data, &data)?;
///     Ok::<_, Error>(line.parameters().to_flat()?[1].abs())
/// };
/// assert!(end(0.99 * 3.8 / 8.0)? < 1e-3 && end(1.01 * 3.8 / 8.0)? > 1e3);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A learning rate that is not a finite number above 0; a weight decay of 2/η or more; an optimizer with a setting outside its range, or not of this crate.
pub fn stability_threshold(optimizer: &dyn Optimizer, learning_rate: f64) -> Result<f64> {
    check_positive(learning_rate, "the learning rate")?;
    optimizer.check()?;
    match BuiltIn::of(optimizer) {
        Some(BuiltIn::Sgd(sgd)) => Ok(of_sgd(&sgd, learning_rate)),
        Some(BuiltIn::Adam(adam)) if adam.weight_decay * learning_rate >= 2.0 => {
            Err(Error::invalid(format!(
                "the weight decay {} alone makes steps of {learning_rate} unstable: their product must be below 2",
                adam.weight_decay
            )))
        }
        Some(BuiltIn::Adam(adam)) => Ok(of_adam(&adam, learning_rate)),
        None => Err(Error::invalid(format!(
            "the stability threshold of the optimizer {optimizer:?} is not known: measure the critical sharpness, whose \
             threshold is 2/η for any step"
        ))),
    }
}

fn of_sgd(sgd: &Sgd, learning_rate: f64) -> f64 {
    let beta = sgd.momentum;
    let step = match sgd.nesterov {
        true => 1.0 + 2.0 * beta,
        false => 1.0,
    };
    2.0 * (1.0 + beta) / (step * learning_rate)
}

fn of_adam(adam: &Adam, learning_rate: f64) -> f64 {
    let beta = adam.beta1;
    (2.0 / learning_rate - adam.weight_decay) * (1.0 + beta) / (1.0 - beta)
}

/// The diagonal of P^−½ in step number `k`, counted from 1, where P is [`stability_threshold`]'s for this average of squared gradients.
pub(super) fn inverse_root(adam: &Adam, squares: &[f64], k: usize) -> Vec<f64> {
    let correction = |beta: f64| 1.0 - beta.powf(k as f64);
    let (first, second) = (correction(adam.beta1), correction(adam.beta2));
    let entry = |v: &f64| (first * ((v / second).sqrt() + adam.epsilon)).powf(-0.5);
    squares.iter().map(entry).collect()
}
