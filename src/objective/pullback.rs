//! Linear functionals of a model's outputs, and the probabilities that the outputs give the classes.

use candle_core::Tensor;

use super::{Objective, autograd};
use crate::data::Dataset;
use crate::engine::HandDerived;
use crate::error::{Error, Result};
use crate::losses::{ClassProbabilities, Curvature};
use crate::tensor_functions::entries;
use crate::vector::{axpy, scale};

impl Objective {
    /// The probabilities of the classes for each row of the outputs at θ. A sample has a row per label.
    ///
    /// # Errors
    /// A loss other than cross-entropy; samples that are divided among ranks or read in parts; errors of candle.
    pub(crate) fn class_probabilities(&self, theta: &[f64]) -> Result<ClassProbabilities> {
        self.needs_all_samples("the probabilities of the classes")?;
        let outputs = self.by(
            Some(theta),
            |engine: &dyn HandDerived, point| engine.outputs(point, &self.data),
            |objective| {
                let mut outputs = Vec::new();
                objective.over_batches(
                    |batch| Ok(entries(&objective.outputs(batch)?)?),
                    |some| outputs.extend(some),
                )?;
                Ok(outputs)
            },
        )?;
        self.probabilities_of(&outputs, &self.data)
    }

    /// The same for outputs z of these samples.
    fn probabilities_of(&self, z: &[f64], data: &Dataset) -> Result<ClassProbabilities> {
        let found = self.loss.known().and_then(|loss| {
            let labels = data.labels().ok()?;
            let mut shape = data.targets().dims().to_vec();
            shape.push(z.len() / labels.len());
            let rules = loss.rules(&shape, data);
            rules.map(|r| r.class_probabilities(z, &labels)).transpose()
        });
        found.unwrap_or_else(|| {
            Err(Error::invalid(format!(
                "classes have probabilities only with cross-entropy, and the loss is {:?}: use Loss::CrossEntropy with labels",
                self.loss
            )))
        })
    }

    /// Returns (1/n) Σ Jᵢᵀuᵢ over the n samples of `data` at θ, with the Jacobian Jᵢ of a sample's outputs and weights uᵢ:
    /// the gradient of the mean of ⟨uᵢ, zᵢ⟩.
    ///
    /// # Shapes
    /// `weights` (n · outputs,), sample by sample.
    ///
    /// # Errors
    /// Weights or a result that are not finite; a parameter without a gradient; errors of candle.
    pub(crate) fn pullback(
        &self,
        theta: &[f64],
        data: &Dataset,
        weights: &[f64],
    ) -> Result<Vec<f64>> {
        let part = self.with_batch(data.clone());
        let gradient = part.by(
            Some(theta),
            |engine: &dyn HandDerived, point| engine.pullback(point, data, weights),
            |part| part.pullback_by_autograd(weights),
        )?;
        self.check_finite(&gradient, "gradient of a class")?;
        Ok(gradient)
    }

    fn pullback_by_autograd(&self, weights: &[f64]) -> Result<Vec<f64>> {
        let n = self.data.len();
        let weights = Tensor::from_slice(weights, (n, weights.len() / n), self.data.device())?;
        let weights = weights.to_dtype(self.parameters.dtype())?;
        let weighted = Dataset::regression(self.data.inputs(), &weights)?;
        let mut sum = vec![0.0; self.dim()];
        self.with_batch(weighted).over_batches(
            |batch| {
                let z = self.outputs(batch)?;
                let weights = batch.targets().tensor().reshape(z.shape())?;
                let mean = ((z * weights)?.sum_all()? / n as f64)?;
                autograd::gradient(&self.parameters, &mean)
            },
            |part| axpy(1.0, &part, &mut sum),
        )?;
        Ok(sum)
    }

    /// Multiplies rz by the curvature of the samples' own classes or of the others, for a batch with outputs z, divided by the
    /// number of samples.
    pub(super) fn class_product(
        &self,
        curvature: Curvature,
        [z, rz]: [&Tensor; 2],
        batch: &Dataset,
    ) -> Result<Tensor> {
        let probabilities = self.probabilities_of(&entries(z)?, batch)?;
        let (tangents, labels) = (entries(rz)?, batch.labels()?);
        let mut product = vec![0.0; tangents.len()];
        let rows = tangents.chunks_exact(probabilities.width);
        let rows = rows.zip(product.chunks_exact_mut(probabilities.width));
        for (row, ((rz, rdz), label)) in rows.zip(labels).enumerate() {
            probabilities.product(curvature, (row, label), rz, rdz);
        }
        scale(&mut product, 1.0 / self.data.len() as f64);
        let product = Tensor::from_vec(product, rz.shape(), rz.device())?;
        Ok(product.to_dtype(rz.dtype())?)
    }
}
