//! [`TopSpace`]: the gradient in the span of the Hessian's leading eigenvectors, and the motion of this space.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::spectral::{Bracket, Spectrum};
use crate::vector::norm;

/// The span of the k leading eigenvectors of the Hessian at a snapshot of a training.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w²: the leading eigenvector is that of w everywhere.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let mut trajectory = Trajectory::every(1)?;
/// for (step, point) in [[1.0, 0.5], [2.0, 0.5]].iter().enumerate() {
///     model.parameters().set_flat(point)?;
///     trajectory.push(step, model.parameters())?;
/// }
/// let settings = EvolutionSettings::default()
///     .with_trace(None)
///     .with_sharpness(None)
///     .with_top_space(1);
/// let evolution = settings.run(&objective, &trajectory)?;
/// let space = |i: usize| evolution.snapshots[i].top_space.clone().unwrap();
/// // The gradients (2b, 8w) are (2, 4) and (4, 4).
/// let shares = [0, 1].map(|i| space(i).gradient.unwrap().value);
/// assert!((shares[0] - 16.0 / 20.0).abs() < 1e-6 && (shares[1] - 16.0 / 32.0).abs() < 1e-6);
/// assert!(space(0).overlap.is_none());
/// assert!((space(1).overlap.unwrap().value - 1.0).abs() < 1e-6);
/// assert!(space(1).angles[0].value < 1e-3);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopSpace {
    /// Fraction of the gradient's squared length in the space; `None` for a zero gradient. See [`Spectrum::overlap`] for the
    /// bounds.
    pub gradient: Option<Bracket>,
    /// Fraction of the space that lies in that of the last snapshot: [`Spectrum::subspace_overlap`]; `None` at the first one.
    pub overlap: Option<Bracket>,
    /// [Principal angles](Spectrum::principal_angles) to the space of the last snapshot, in radians, smallest first.
    pub angles: Vec<Bracket>,
}

impl TopSpace {
    pub(super) fn measure(
        top: &Spectrum,
        k: usize,
        gradient: &[f64],
        last: Option<&Spectrum>,
    ) -> Result<Self> {
        Ok(Self {
            gradient: match norm(gradient) > 0.0 {
                true => Some(top.overlap(gradient, k)?),
                false => None,
            },
            overlap: last.map(|last| top.subspace_overlap(last, k)).transpose()?,
            angles: match last {
                Some(last) => top.principal_angles(last, k)?,
                None => Vec::new(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use crate::error::Result;
    use crate::landscape::EvolutionSettings;
    use crate::model::{Activation, Mlp};
    use crate::objective::{Loss, Objective};
    use crate::operator::LinearOperator;
    use crate::prelude::two_moons;
    use crate::spectral::Lanczos;
    use crate::train::{Trainer, Trajectory};

    /// The numbers of each snapshot against those of whole spectra.
    #[test]
    fn spaces_along_a_training_are_those_of_dense_hessians() -> Result<()> {
        let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
        let model = Mlp::new(&[2, 6, 2], Activation::Tanh, 0, &Device::Cpu)?;
        let model = model.to_dtype(DType::F64)?;
        let mut trajectory = Trajectory::every(20)?;
        let trainer = Trainer::sgd(0.5).with_epochs(40).with_batch_size(60);
        trainer.fit_recorded(&model, &data, &data, &mut trajectory)?;
        let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
        let settings = EvolutionSettings::default()
            .with_lanczos(Lanczos::default().with_tolerance(1e-8))
            .with_trace(None)
            .with_sharpness(None);
        let evolution = settings
            .clone()
            .with_top_space(2)
            .run(&objective, &trajectory)?;
        let mut last = None;
        for (i, snapshot) in evolution.snapshots.iter().enumerate() {
            let theta = trajectory.snapshot(i)?;
            let hessian = objective.hessian().at(theta.clone())?;
            let spectrum = crate::operator::Dense::from_operator(&hessian)?.eigen()?;
            let found = snapshot.top_space.as_ref().unwrap();
            let gradient = objective.gradient_at(&theta)?.1;
            let expected = spectrum.overlap(&gradient, 2)?.value;
            let overlap = found.gradient.unwrap();
            assert!(
                (overlap.value - expected).abs() < 1e-6,
                "{overlap} {expected}"
            );
            assert!(overlap.low <= expected + 1e-12 && expected <= overlap.high + 1e-12);
            match &last {
                None => assert!(found.overlap.is_none() && found.angles.is_empty()),
                Some(last) => {
                    let expected = spectrum.principal_angles(last, 2)?;
                    for (a, b) in found.angles.iter().zip(&expected) {
                        assert!((a.value - b.value).abs() < 1e-4, "{a} {b}");
                    }
                    let squares: f64 = found.angles.iter().map(|a| a.value.cos().powi(2)).sum();
                    assert!((found.overlap.unwrap().value - squares / 2.0).abs() < 1e-12);
                }
            }
            last = Some(spectrum);
        }
        let too_many = objective.hessian().dim() + 1;
        for k in [0, too_many] {
            let refused = settings
                .clone()
                .with_top_space(k)
                .run(&objective, &trajectory);
            assert!(refused.unwrap_err().to_string().contains("ask for 1 to 32"));
        }
        Ok(())
    }
}
