//! [`PreconditionedSharpness`]: the largest curvature in the metrics of SGD and of Adam.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::objective::Objective;
use crate::operator::{LinearOperator, Scaled};
use crate::spectral::{Bracket, DensitySettings, Estimate, Short};
use crate::train::{Adam, Optimizer};

/// The largest curvature in the metrics of SGD and of Adam, and its ratio to the mean |λ| in each metric.
///
/// SGD moves along −g, Adam along −P⁻¹g with P = diag(√v + ε). Their sharpness is λ_max(H) and λ_max(P^−½ H P^−½) (Cohen et al.,
/// "Adaptive Gradient Methods at the Edge of Stability", 2022): full-batch gradient descent is stable on the quadratic model for
/// η < 2/λ_max, Adam for η < (2 + 2β₁)/(1 − β₁)/λ_max. Here v is the mean of the squared gradients of the batches at θ, to
/// which Adam's average converges at a fixed θ.
///
/// The two have different units. Each is therefore compared with the mean |λ| of its matrix: λ_max / mean |λ| is 1 if the
/// curvature is the same in all directions. The ratio of Adam's to SGD's is below 1 if Adam evens out the curvature.
///
/// ```
/// use loss_landscape::landscape::PreconditionedSharpness;
/// use loss_landscape::prelude::*;
/// use loss_landscape::train::Adam;
///
/// // L(b, w) = b² + 4w² with H = diag(2, 8) and the gradient (2b, 8w).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[1.0, 0.25])?; // g = (2, 2), so that P = 2
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let found = PreconditionedSharpness::measure(&objective, 2, &Adam::default())?;
/// assert!((found.sgd.value - 8.0).abs() < 1e-6 && (found.adam.value - 4.0).abs() < 1e-6);
/// assert!((found.sgd_relative.value - 8.0 / 5.0).abs() < 1e-6);
/// assert!((found.ratio.value - 1.0).abs() < 1e-6); // P is a multiple of the identity
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PreconditionedSharpness {
    /// λ_max(H).
    pub sgd: Bracket,
    /// λ_max(P^−½ H P^−½).
    pub adam: Bracket,
    /// λ_max / mean |λ| of H; NaN for a zero matrix.
    pub sgd_relative: Estimate,
    /// λ_max / mean |λ| of P^−½ H P^−½; NaN for a zero matrix.
    pub adam_relative: Estimate,
    /// `adam_relative` / `sgd_relative`.
    pub ratio: Estimate,
}

impl PreconditionedSharpness {
    /// Measures both at the model's θ, for batches of `batch_size` consecutive samples and Adam's ε, with the default
    /// settings of [`DensitySettings`]. Errors of numerator and denominator are taken as independent.
    ///
    /// Use a model in `f64` if some gradients are almost 0: P^−½ on both sides multiplies the rounding of these rows by up to
    /// 1/ε, and the stated errors do not contain that.
    ///
    /// # Errors
    /// A batch size of 0; an objective distributed over ranks; a failed gradient or product.
    pub fn measure(objective: &Objective, batch_size: usize, adam: &Adam) -> Result<Self> {
        objective.needs_all_samples("preconditioned sharpness")?;
        adam.check()?;
        let theta = objective.parameters().to_flat()?;
        let mut squares = vec![0.0; theta.len()];
        let mut count = 0.0;
        for batch in objective.data().batches(batch_size)? {
            let gradient = objective.with_subset(&batch?)?.gradient_at(&theta)?.1;
            for (square, g) in squares.iter_mut().zip(gradient) {
                *square += g * g;
            }
            count += 1.0;
        }
        let scales = squares.iter().map(|square| {
            let root = (square / count).sqrt();
            (root + adam.epsilon).sqrt().recip()
        });
        let hessian = objective.hessian().at(theta)?;
        let scaled = Scaled::new(&hessian, scales.collect())?;
        let (sgd, sgd_relative) = sharpness(&hessian)?;
        let (adam, adam_relative) = sharpness(&scaled)?;
        Ok(Self {
            sgd,
            adam,
            sgd_relative,
            adam_relative,
            ratio: Estimate {
                products: adam_relative.products + sgd_relative.products,
                ..quotient(adam_relative, sgd_relative)
            },
        })
    }
}

/// λ_max, and λ_max / mean |λ|.
fn sharpness(operator: &dyn LinearOperator) -> Result<(Bracket, Estimate)> {
    let (density, [_, largest]) = DensitySettings::default().run_with_extremes(operator)?;
    let size = density.mean_magnitude();
    let numerator = Estimate {
        value: largest.value,
        standard_error: largest.error(),
        ..size
    };
    Ok((largest, quotient(numerator, size)))
}

/// a/b for independent errors.
fn quotient(a: Estimate, b: Estimate) -> Estimate {
    let value = a.value / b.value;
    let error = (a.standard_error / b.value).hypot(value * b.standard_error / b.value);
    Estimate {
        value,
        standard_error: error,
        ..a
    }
}

impl std::fmt::Display for PreconditionedSharpness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let relative = |estimate: Estimate| {
            let [value, error] = [estimate.value, estimate.standard_error].map(Short);
            format!("{value:.3} ± {error:.1}")
        };
        write!(
            f,
            "SGD: λ_max = {}, {} times the mean |λ|\nAdam: λ_max = {}, {} times the mean |λ|\nratio: {}",
            self.sgd,
            relative(self.sgd_relative),
            self.adam,
            relative(self.adam_relative),
            relative(self.ratio)
        )
    }
}
