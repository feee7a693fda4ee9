//! [`DerivativeCheck`]: gradient and Hessian-vector product against central differences.
//!
//! candle differentiates some operations wrongly without an error: fused operations cut the graph,
//! `upsample_nearest` overwrites a sum. A model built on one of them is found out here, before a
//! number of its leaves this crate.

use candle_core::DType;
use serde::{Deserialize, Serialize};

use super::Objective;
use crate::error::{Error, Result};
use crate::model::LayerKind;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, norm, scale};

/// Samples that the check looks at.
const SAMPLES: usize = 8;

/// Largest relative error of the gradient that is put down to rounding and truncation.
const GRADIENT_TOLERANCE: f64 = 0.02;

/// Above this relative error of the Hessian-vector product a warning is printed. A kink (ReLU,
/// max) within reach of the differences makes them wrong and not the product, so it is no error.
const HVP_WARNING: f64 = 0.1;

/// Largest relative difference between a model's loss by its layers and by its forward pass.
const LAYERS_TOLERANCE: f64 = 1e-3;

/// Relative errors of the derivatives along the gradient's direction, the best over several step
/// sizes, on the first 8 samples. Zero where the derivative is below rounding.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 4, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let check = objective.derivative_check();
/// assert!(check.gradient < 1e-7 && check.hvp < 1e-7);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DerivativeCheck {
    /// |gᵀu − (L(θ + hu) − L(θ − hu)) / 2h| over the larger of the two plus h|uᵀHu|, u = g/‖g‖.
    pub gradient: f64,
    /// ‖Hu − (∇L(θ + hu) − ∇L(θ − hu)) / 2h‖ over the larger of the two norms.
    pub hvp: f64,
}

impl std::fmt::Display for DerivativeCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "against central differences: gradient off by {:.0e}, Hessian-vector product by {:.0e}",
            self.gradient, self.hvp
        )
    }
}

pub(super) fn check(
    objective: &Objective,
    layers: Option<&[LayerKind]>,
) -> Result<DerivativeCheck> {
    let data = objective.data.first(SAMPLES.min(objective.data.len()))?;
    let engine = objective.engine_for(layers, &data);
    let probe = Objective {
        data,
        engine,
        ..objective.clone()
    };
    let by_graph = probe.clone().by_autograd();
    let plain = by_graph.loss()?;
    if by_graph.loss()?.to_bits() != plain.to_bits() {
        return Err(Error::invalid(
            "the model gives another loss for the same inputs: switch dropout and other \
             randomness off (forward_t with train = false)",
        ));
    }
    let loss = probe.loss()?;
    if (loss - plain).abs() > LAYERS_TOLERANCE * plain.abs() + 1e-9 {
        return Err(Error::invalid(format!(
            "the model's layers() describe another network than its forward(): on the first samples \
             the loss is {loss} by the one and {plain} by the other"
        )));
    }
    let gradient = probe.gradient()?;
    let mut direction = match norm(&gradient) {
        0.0 => normal(gradient.len(), Purpose::DerivativeCheck, 0, 0),
        _ => gradient.clone(),
    };
    let length = norm(&direction);
    scale(&mut direction, 1.0 / length);
    let slope = dot(&gradient, &direction);
    let product = probe.hvp(&direction)?;
    let bend = dot(&direction, &product);

    let theta = probe.parameters().to_flat()?;
    let epsilon = probe.parameters().epsilon();
    let steps: &[f64] = match probe.parameters().dtype() {
        DType::F64 => &[1e-3, 1e-4, 1e-5, 1e-6],
        _ => &[1e-1, 1e-2, 1e-3, 1e-4],
    };
    let mut best = DerivativeCheck {
        gradient: f64::INFINITY,
        hvp: f64::INFINITY,
    };
    for step in steps {
        let h = step * norm(&theta).max(1.0);
        let side = |sign: f64| {
            let mut moved = theta.clone();
            axpy(sign * h, &direction, &mut moved);
            probe.gradient_at(&moved)
        };
        // A step can leave the model's domain; a smaller one is then tried.
        let (Ok(ahead), Ok(behind)) = (side(1.0), side(-1.0)) else {
            continue;
        };
        let measured = (ahead.0 - behind.0) / (2.0 * h);
        let noise = epsilon * loss.abs() / h;
        // At a critical point the slope itself is zero, but not how it changes over the step.
        let size = slope.abs().max(measured.abs()) + h * bend.abs();
        let error = relative((slope - measured).abs(), size, noise);
        best.gradient = best.gradient.min(error);

        let mut measured = ahead.1;
        axpy(-1.0, &behind.1, &mut measured);
        scale(&mut measured, 0.5 / h);
        let mut difference = product.clone();
        axpy(-1.0, &measured, &mut difference);
        let noise = epsilon * norm(&gradient) / h;
        let size = norm(&product).max(norm(&measured));
        best.hvp = best.hvp.min(relative(norm(&difference), size, noise));
    }
    if best.gradient > GRADIENT_TOLERANCE {
        return Err(Error::invalid(format!(
            "the gradient is wrong: along its own direction the loss changes at another rate than \
             it says (relative error {:.0e}). An operation of the model cuts part of candle's \
             graph (fused LayerNorm, RmsNorm, softmax_last_dim, rotary embeddings, detach) or has \
             a wrong derivative (upsample_nearest): write it out",
            best.gradient
        )));
    }
    // Of hand-derived rules it is known that they are right: there it is kinks.
    if best.hvp > HVP_WARNING && !probe.is_hand_derived() {
        crate::progress::warn(&format!(
            "Hessian-vector products differ by {:.0} % from central differences of the gradient: \
             kinks (ReLU, max), or an operation with a wrong second derivative",
            100.0 * best.hvp
        ));
    }
    Ok(best)
}

/// `error / size`, or zero where both are rounding.
fn relative(error: f64, size: f64, noise: f64) -> f64 {
    if size <= 10.0 * noise {
        0.0
    } else {
        error / size
    }
}
