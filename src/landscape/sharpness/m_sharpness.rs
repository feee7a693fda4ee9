//! [`MSharpness`]: mean over small batches of the largest increase of their loss in a ball.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::{Sharpness, write_rounding};
use crate::error::{Error, Result, counted};
use crate::objective::Objective;
use crate::progress::Progress;
use crate::random::{Purpose, generator};
use crate::spectral::Estimate;

/// m-sharpness (Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization",
/// 2021): the mean over batches of m samples of
///
/// max L_batch(θ + Tu) − L_batch(θ) over ‖u‖ ≤ ρ.
///
/// It grows as m falls, because each batch has its own worst perturbation. With m = n it is [`WorstCase`](super::WorstCase).
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // Losses (b − 2w)² and (b + 2w)² with zero residuals: each rises by ‖(1, 2)‖²ρ², their mean by 4ρ².
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let by_sample = Sharpness::new(0.1).m_sharpness(&objective, 1, 2)?;
/// let whole = Sharpness::new(0.1).m_sharpness(&objective, 2, 1)?;
/// assert!((by_sample.mean.value - 0.05).abs() < 1e-9);
/// assert!((whole.mean.value - 0.04).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MSharpness {
    /// Mean over the batches of the largest rise found. Its error is that of the choice of batches, and includes
    /// [`rounding`](Self::rounding); it is exact up to rounding if one batch holds all samples. As each rise is a lower bound of
    /// the largest one, so is the mean.
    pub mean: Estimate,
    /// Largest rise found for each batch.
    pub rises: Vec<f64>,
    /// Number m of samples of a batch.
    pub batch_size: usize,
    /// Number of batches of which a start did not converge before its last step.
    pub unconverged: usize,
    /// Number of gradients computed, each of one batch.
    pub gradient_evaluations: usize,
    /// Mean rounding error of a rise in the model's dtype: smaller rises are not significant.
    pub rounding: f64,
    /// Radius ρ.
    pub radius: f64,
}

impl Sharpness {
    /// Computes m-sharpness from random batches of `batch_size` samples, which do not overlap: `batches` of them, or as many as
    /// there are. The searches start as those of [`worst_case`](Self::worst_case).
    ///
    /// # Errors
    /// As [`Sharpness::worst_case`]; no batches, or one that is not the whole dataset; a batch size of 0 or above the number of
    /// samples; samples that are not all in memory, or are distributed over ranks.
    pub fn m_sharpness(
        &self,
        objective: &Objective,
        batch_size: usize,
        batches: usize,
    ) -> Result<MSharpness> {
        objective.needs_all_samples("m-sharpness")?;
        let n = objective.samples();
        if !(1..=n).contains(&batch_size) {
            return Err(Error::invalid(format!(
                "batches of {} for m-sharpness from {n}: use 1 to half as many, or all",
                counted(batch_size, "sample")
            )));
        }
        let batches = batches.min(n / batch_size);
        if batches == 0 || (batches == 1 && batch_size < n) {
            return Err(Error::invalid(format!(
                "no standard error of m-sharpness from {} of {batch_size} of {n} samples: use smaller batches, and at least 2",
                counted(batches, "batch")
            )));
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut generator(Purpose::MSharpness, self.seed, 0));
        let mut progress = Progress::start("m-sharpness");
        let (mut rises, mut unconverged, mut gradients, mut rounding) = (Vec::new(), 0, 0, 0.0);
        for batch in order.chunks_exact(batch_size).take(batches) {
            let batch = objective.with_subset(&objective.data().select(batch)?)?;
            let ball = self.ball(&batch)?;
            let highest = self.highest(&batch, &ball, |_| ())?;
            rises.push(highest.rise);
            unconverged += usize::from(!highest.converged);
            gradients += highest.gradients;
            rounding += ball.rounding / batches as f64;
            progress.part(rises.len(), batches);
        }
        let mean = match rises[..] {
            [rise] => Estimate::exact(rise),
            _ => Estimate::from_samples(&rises),
        };
        Ok(MSharpness {
            mean: mean.with_error(rounding),
            rises,
            batch_size,
            unconverged,
            gradient_evaluations: gradients,
            rounding,
            radius: self.radius,
        })
    }
}

impl std::fmt::Display for MSharpness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "m-sharpness {:.5e} ± {:.1e} within {} ({} of {}, {} on average",
            self.mean.value,
            self.mean.standard_error,
            self.radius,
            counted(self.rises.len(), "batch"),
            counted(self.batch_size, "sample"),
            counted(self.gradient_evaluations / self.rises.len(), "gradient"),
        )?;
        if self.unconverged > 0 {
            write!(f, ", {} still rising", self.unconverged)?;
        }
        write!(f, ")")?;
        write_rounding(f, self.rounding, self.mean.standard_error)
    }
}
