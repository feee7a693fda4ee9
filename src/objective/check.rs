//! [`DerivativeCheck`]: compares the gradient and Hessian-vector product with central differences.
//!
//! candle differentiates some operations wrongly without an error: fused operations cut the graph, `upsample_nearest`
//! overwrites a sum. This check rejects a model built on one of them before it returns any number.
//!
//! Differences are taken where they are well conditioned. Hand-derived rules are the same for both floating-point
//! types, so they are checked in `f64`, on a copy of the model. The points are a small distance from the model's own,
//! so that no unit is exactly at a kink and neither the gradient nor the Hessian is zero. Kinks within a step and
//! rounding make differences wrong at some points, a wrong rule at all of them.

use std::slice::from_ref;

use candle_core::{DType, Module};
use serde::{Deserialize, Serialize};

use super::autograd::FUSED;
use super::differences::{ComparisonPoint, GradientError, ProductError};
use super::rounding::rounded;
use super::{Objective, passes};
use crate::data::Targets;
use crate::error::{Error, Result};
use crate::layers::LayerKind;
use crate::model::{Layered, Model};
use crate::vector::{largest, minus};

/// Largest number of samples in the check.
const SAMPLES: usize = 8;

/// Largest number of labels of these samples, unless a single sample has more: candle's graph of long sequences takes much
/// memory.
const LABELS: usize = 512;

/// Number of points at which a derivative must disagree before it counts as wrong.
const POINTS: u64 = 6;

/// A gradient counts as wrong only if at least this many differences of the loss are certain.
const FEWEST: usize = 3;

/// Relative error of a gradient that kinks or rounding do not cause at every point.
const LARGE: f64 = 0.02;

/// Tolerance for the outputs, in units of the change they show when each parameter changes by its rounding.
const OUTPUT_ROUNDING: f64 = 100.0;

/// Relative errors of the derivatives along one direction, on the first 8 samples, at a point near the model's own.
///
/// If the 8 samples have more than 512 labels, fewer samples are used.
///
/// Hand-derived rules are checked in `f64`, whatever the model's dtype.
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
    /// |gᵀu − D| over the larger of the two, with the extrapolated central differences D of the loss. Along u each
    /// parameter moves along its own gradient, and all contribute to the change of the loss.
    pub gradient: f64,
    /// ‖Hu − D‖ over the larger of the two norms, with the central differences D of the gradient.
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

pub(super) fn check(objective: &Objective) -> Result<DerivativeCheck> {
    let data = &objective.data;
    let labels = match data.targets() {
        Targets::Labels(labels) => labels.elem_count() / data.len(),
        Targets::Values(_) => 1,
    };
    let most = (LABELS / labels.max(1)).clamp(1, SAMPLES);
    let samples = objective.loss.first_samples(data, most)?;
    let probe = objective.with_batch(samples);
    let by_graph = probe.clone().by_autograd();
    probe.loss()?;
    let outputs = outputs(&by_graph)?;
    if self::outputs(&by_graph)? != outputs {
        return Err(Error::invalid(
            "the model returns different outputs for the same inputs: switch dropout and other \
             randomness off (forward_t with train = false)",
        ));
    }
    match &probe.layers {
        Ok(layers) if probe.is_hand_derived() => {
            let copy = in_f64(&probe, layers)?;
            check_layers(&copy, &outputs, probe.parameters.epsilon())?;
            differences(&copy)
        }
        _ => differences(&by_graph),
    }
}

/// The outputs of the model's forward pass for all samples.
fn outputs(probe: &Objective) -> Result<Vec<f64>> {
    probe.in_place(|probe| {
        let outputs = probe.on_workers(from_ref(&probe.data), |batch| probe.outputs(batch))?;
        let outputs = outputs.into_iter().collect::<Result<Vec<_>>>()?;
        probe.parameters.flatten(outputs.iter())
    })
}

/// The same loss for these layers with a copy of the parameters in `f64`.
fn in_f64(probe: &Objective, layers: &[LayerKind]) -> Result<Objective> {
    let model = Layered::new(layers.to_vec(), probe.parameters.clone()).to_dtype(DType::F64)?;
    let parameters = model.parameters().clone();
    let (forward, training) = passes(move |x| model.forward(x));
    let mut copy = Objective {
        forward,
        training,
        parameters,
        ..probe.with_batch(probe.data.to_dtype(DType::F64)?)
    };
    copy.engine = copy.engine_for(&copy.data);
    Ok(copy)
}

/// Returns an error if the layers do not reproduce the `outputs` of the model's forward pass, which were rounded by
/// ε.
fn check_layers(copy: &Objective, outputs: &[f64], epsilon: f64) -> Result<()> {
    let Ok(engine) = &copy.engine else {
        return Ok(());
    };
    let point = copy.point(None)?;
    let by_layers = engine.outputs(&point, &copy.data)?;
    let near = engine.outputs(&rounded(&point, epsilon, 0), &copy.data)?;
    let size = largest(&by_layers);
    let rounding = OUTPUT_ROUNDING * (largest(&minus(&near, &by_layers)) + epsilon * size);
    let difference = largest(&minus(outputs, &by_layers));
    if difference <= rounding {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the model's layers() describe a different network from its forward(): on the first samples the outputs differ by \
         {difference:.1e}. Rounding explains {rounding:.1e}, and the largest output is {size:.1e}"
    )))
}

/// Compares the derivatives at one point after another, until they agree.
fn differences(objective: &Objective) -> Result<DerivativeCheck> {
    let [gradient_tolerance, product_tolerance] = tolerances(objective);
    let mut gradients: Vec<GradientError> = Vec::new();
    let mut products: Vec<ProductError> = Vec::new();
    for number in 0..POINTS {
        let gradient = gradients.last();
        let gradient = gradient.is_some_and(|error| error.is_within(gradient_tolerance));
        // In `f32` every point has kinks within the steps, so another point does not help.
        let single = objective.parameters.dtype() != DType::F64;
        let product = products.last();
        let product = product.is_some_and(|error| single || error.is_within(product_tolerance));
        if gradient && product {
            break;
        }
        let point = ComparisonPoint::new(objective, number)?;
        if !gradient {
            gradients.push(point.gradient_error(gradient_tolerance)?);
        }
        if !product {
            products.push(point.product_error(product_tolerance)?);
        }
    }
    if !gradients
        .iter()
        .any(|error| error.is_within(gradient_tolerance))
    {
        judge_gradients(&gradients)?;
    }
    let least = products
        .into_iter()
        .min_by(|a, b| a.judged.total_cmp(&b.judged));
    if let Some(error) = least.filter(|error| !error.is_within(product_tolerance)) {
        judge_product(objective, error)?;
    }
    let gradient = gradients.iter().map(|error| error.value.abs());
    Ok(DerivativeCheck {
        gradient: gradient.fold(f64::INFINITY, f64::min),
        hvp: least.map_or(0.0, |error| error.whole),
    })
}

/// Largest accepted relative errors: of the gradient, and of the Hessian-vector product.
fn tolerances(objective: &Objective) -> [f64; 2] {
    match (objective.parameters.dtype(), objective.is_hand_derived()) {
        (DType::F64, true) => [1e-7, 1e-4],
        // candle's own derivatives use constants of six digits.
        (DType::F64, false) => [1e-5, 1e-4],
        _ => [2e-4, 0.1],
    }
}

/// Returns an error if the errors are large at all points, or too similar to come from kinks or rounding.
fn judge_gradients(errors: &[GradientError]) -> Result<()> {
    let errors: Vec<_> = errors.iter().filter(|error| error.is_certain()).collect();
    if errors.len() < FEWEST {
        return Ok(());
    }
    let large = errors.iter().all(|error| !error.is_within(LARGE));
    let n = errors.len() as f64;
    let mean = errors.iter().map(|error| error.value).sum::<f64>() / n;
    let squares = errors.iter().map(|error| (error.value - mean).powi(2));
    let deviation = (squares.sum::<f64>() / (n - 1.0)).sqrt();
    if !large && mean.abs() <= 3.0 * deviation {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the gradient is wrong: it does not match differences of the loss (relative error {:.0e}). An operation of the \
         model has a wrong derivative (upsample_nearest), or cuts part of candle's graph (detach). {FUSED}",
        mean.abs()
    )))
}

/// Returns an error if a product is wrong at all points. In `f32` it only warns: no step avoids the kinks of many
/// ReLUs.
fn judge_product(objective: &Objective, error: ProductError) -> Result<()> {
    let (name, _) = &objective.parameters.blocks()[error.parameter];
    let message = format!(
        "Hessian-vector products differ by {:.2} % from central differences of the gradient, most for parameter `{name}`",
        100.0 * error.judged
    );
    if objective.parameters.dtype() == DType::F64 {
        return Err(Error::invalid(format!(
            "the Hessian is wrong: {message}. An operation of the model has a wrong second derivative: write it out"
        )));
    }
    crate::progress::warn(&format!(
        "{message}: kinks (ReLU, max), or an operation with a wrong second derivative"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use candle_core::{Device, Tensor};

    use super::super::{Loss, Objective};
    use super::*;
    use crate::data::Dataset;
    use crate::engine::{CurvatureFactors, HandDerived, LayerTile, RootColumns};
    use crate::layers::Linear;
    use crate::losses::Curvature;
    use crate::model::{Activation, Architecture, Design, Norm};
    use crate::random::{Purpose, normal};

    /// An engine with one wrong rule: parts of its gradients and products are too large by a factor.
    struct Wrong {
        correct: Arc<dyn HandDerived>,
        range: Range<usize>,
        gradient: f64,
        product: f64,
    }

    impl Wrong {
        fn scaled(&self, mut vector: Vec<f64>, factor: f64) -> Vec<f64> {
            vector[self.range.clone()]
                .iter_mut()
                .for_each(|x| *x *= factor);
            vector
        }
    }

    impl HandDerived for Wrong {
        fn outputs(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>> {
            self.correct.outputs(point, data)
        }

        fn loss(&self, point: &[f64], data: &Dataset) -> Result<(f64, usize)> {
            self.correct.loss(point, data)
        }

        fn gradient(&self, point: &[f64], data: &Dataset) -> Result<(f64, Vec<f64>)> {
            let (loss, gradient) = self.correct.gradient(point, data)?;
            Ok((loss, self.scaled(gradient, self.gradient)))
        }

        fn on_plane(
            &self,
            _: &[f64],
            _: [&[f64]; 2],
            _: &Dataset,
            _: &[[f64; 2]],
            _: usize,
        ) -> Result<Option<Vec<(f64, usize)>>> {
            Ok(None)
        }

        fn products(
            &self,
            point: &[f64],
            data: &Dataset,
            directions: &[&[f64]],
            curvature: Curvature,
            block: Option<&[Range<usize>]>,
            budget: usize,
        ) -> Result<Vec<Vec<f64>>> {
            let products = self
                .correct
                .products(point, data, directions, curvature, block, budget)?;
            let products = products.into_iter();
            Ok(products
                .map(|product| self.scaled(product, self.product))
                .collect())
        }

        fn pullback(&self, point: &[f64], data: &Dataset, weights: &[f64]) -> Result<Vec<f64>> {
            self.correct.pullback(point, data, weights)
        }

        fn visit(
            &self,
            point: &[f64],
            data: &Dataset,
            visitor: &mut (dyn FnMut(LayerTile) + Send),
        ) -> Result<()> {
            self.correct.visit(point, data, visitor)
        }

        fn curvature_factors(
            &self,
            point: &[f64],
            data: &Dataset,
            columns: RootColumns,
        ) -> Result<CurvatureFactors> {
            self.correct.curvature_factors(point, data, columns)
        }

        fn diagonal_in_bases(
            &self,
            point: &[f64],
            data: &Dataset,
            columns: RootColumns,
            bases: &[[Vec<f64>; 2]],
        ) -> Result<Vec<Vec<f64>>> {
            self.correct.diagonal_in_bases(point, data, columns, bases)
        }

        fn sample_derivatives(
            &self,
            point: &[f64],
            data: &Dataset,
            direction: &[f64],
        ) -> Result<Vec<f64>> {
            self.correct.sample_derivatives(point, data, direction)
        }

        fn sample_gradient_norms(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>> {
            self.correct.sample_gradient_norms(point, data)
        }
    }

    /// Small networks on the samples that they classify with the largest margins, at least `margin` if one is given.
    fn networks(margin: Option<f64>) -> Vec<Objective> {
        let designs = [
            (Architecture::Shallow.design(), &[5][..]),
            (
                Architecture::Deep.design().activation(Activation::Tanh),
                &[5],
            ),
            (
                Architecture::Residual.design().activation(Activation::Gelu),
                &[5],
            ),
            (
                Architecture::Cnn.design().normalization(Norm::Group(4)),
                &[1, 8, 8],
            ),
        ];
        let network = |(design, shape): (Design, &[usize])| -> Result<Objective> {
            let model = design
                .build(shape, 3, 1, &Device::Cpu)?
                .to_dtype(DType::F64)?;
            let dims = [&[100], shape].concat();
            let inputs = normal(dims.iter().product(), Purpose::DerivativeCheck, 7, 0);
            let inputs = Tensor::from_vec(inputs, dims, &Device::Cpu)?;
            let layers = model.layers().unwrap_or_default();
            let Some(LayerKind::Linear(Linear {
                weight,
                bias: Some(bias),
            })) = layers.last()
            else {
                panic!("the last layer is dense and has a bias");
            };
            let [weight, bias] = [weight, bias].map(|name| model.parameters().get(name).unwrap());
            bias.set(&(bias.as_tensor() - model.forward(&inputs)?.mean(0)?)?)?;
            let z = model.forward(&inputs)?;
            let mut margins = Vec::new();
            for (i, mut z) in z.to_vec2::<f64>()?.into_iter().enumerate() {
                z.sort_by(|a, b| b.total_cmp(a));
                margins.push((z[0] - z[1], i as u32));
            }
            margins.sort_by(|a, b| b.0.total_cmp(&a.0));
            let clearest: Vec<u32> = margins[..12].iter().map(|(_, i)| *i).collect();
            let clearest = Tensor::new(&clearest[..], &Device::Cpu)?;
            let labels = z.argmax(1)?.index_select(&clearest, 0)?;
            let data = Dataset::classification(&inputs.index_select(&clearest, 0)?, &labels)?;
            let sharpness = margin.map_or(1.0, |margin| margin / margins[11].0);
            for var in [weight, bias] {
                var.set(&(var.as_tensor() * sharpness)?)?;
            }
            Objective::of(&model, &data, Loss::CrossEntropy)
        };
        designs.map(|design| network(design).unwrap()).into()
    }

    #[test]
    fn a_rule_that_is_wrong_by_a_thousandth_is_detected() {
        for (margin, losses) in [(None, 0.1..2.0), (Some(20.0), 0.0..1e-8)] {
            for correct in networks(margin) {
                let loss = correct.loss().unwrap();
                assert!(losses.contains(&loss), "{loss:e}");
                let engine = correct.engine.clone().unwrap();
                let found = differences(&correct).unwrap();
                assert!(found.gradient < 1e-6 && found.hvp < 1e-5, "{found:?}");
                let whole = 0..correct.dim();
                let ranges = [vec![whole], correct.parameters.ranges()].concat();
                for range in ranges {
                    for (gradient, product) in [(1.001, 1.0), (1.0, 1.001), (1.001, 1.001)] {
                        let wrong = Wrong {
                            correct: engine.clone(),
                            range: range.clone(),
                            gradient,
                            product,
                        };
                        let wrong = Objective {
                            engine: Ok(Arc::new(wrong)),
                            ..correct.clone()
                        };
                        let message = differences(&wrong).err().map(|e| e.to_string());
                        assert!(
                            message.is_some_and(|message| message.contains("is wrong")),
                            "{range:?} of {}: {gradient}, {product}",
                            correct.dim()
                        );
                    }
                }
            }
        }
    }
}
