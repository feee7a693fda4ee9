//! [`Sam`]: sharpness-aware minimisation.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_positive};
use crate::kernels::Scalar;

/// Sharpness-aware minimisation (Foret et al., 2021): a step follows the gradient at θ + ρg/‖g‖ instead of that at θ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sam {
    /// ρ, the length of the perturbation.
    pub radius: f64,
    /// Whether lengths are relative to each weight, as in adaptive SAM (Kwon et al., 2021): the perturbation is then
    /// ρT²g/‖Tg‖ with T = diag|θ|.
    pub adaptive: bool,
}

impl Sam {
    pub(super) fn check(self) -> Result<()> {
        check_positive(self.radius, "the radius of sharpness-aware steps")
    }

    /// Returns the perturbed θ, where `point` starts with θ; `None` if the gradient is 0.
    pub(super) fn perturbed<T: Scalar>(
        self,
        point: &[T],
        gradient: &[T],
    ) -> Result<Option<Vec<T>>> {
        let scale = |t: f64| if self.adaptive { t.abs() } else { 1.0 };
        let pairs = || point.iter().zip(gradient).map(|(t, g)| (t.f64(), g.f64()));
        let squares = pairs().map(|(t, g)| (scale(t) * g).powi(2));
        let length = squares.sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(not_finite());
        }
        if length == 0.0 {
            return Ok(None);
        }
        let mut perturbed = point.to_vec();
        for (x, (t, g)) in perturbed.iter_mut().zip(pairs()) {
            *x = T::from_f64(t + self.radius / length * scale(t).powi(2) * g);
        }
        Ok(Some(perturbed))
    }

    /// Perturbs the variables and returns their values from before; `None` if the gradient is 0.
    pub(super) fn perturb(
        self,
        vars: &[Var],
        gradients: &GradStore,
    ) -> Result<Option<Vec<(Var, Tensor)>>> {
        let mut directions = Vec::with_capacity(vars.len());
        let mut squares = 0.0;
        for var in vars {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            let scale = var.as_tensor().abs()?.detach();
            let scaled = match self.adaptive {
                true => (gradient * &scale)?,
                false => gradient.clone(),
            };
            let square = scaled.sqr()?.sum_all()?.to_dtype(DType::F64)?;
            squares += square.to_scalar::<f64>()?;
            let direction = match self.adaptive {
                true => (scaled * scale)?,
                false => scaled,
            };
            directions.push((var, direction));
        }
        if !squares.is_finite() {
            return Err(not_finite());
        }
        if squares == 0.0 {
            return Ok(None);
        }
        let factor = self.radius / squares.sqrt();
        let mut before = Vec::with_capacity(directions.len());
        for (var, direction) in directions {
            before.push((var.clone(), var.as_tensor().copy()?.detach()));
            var.set(&(var.as_tensor() + (direction * factor)?)?)?;
        }
        Ok(Some(before))
    }
}

fn not_finite() -> Error {
    Error::NotFinite("the gradient is not finite".into())
}
