//! [`Mapped::check`]: layers compute what the graph computes.

use candle_core::{DType, Device, Module, Tensor, Var};

use super::Mapped;
use crate::error::{Error, Result};
use crate::import::onnx::evaluate::{Mode, run};
use crate::import::onnx::fold;
use crate::import::onnx::graph::{Graph, Kind};
use crate::layers::{Shape, output_shape};
use crate::model::{Layered, Parameters};
use crate::tensor_functions::entries;
use crate::vector::gaussian;

/// Largest relative difference of outputs in `f64`. The graph's constants are rounded to `f32`.
const TOLERANCE: f64 = 1e-5;

/// Relative change of the weights.
const CHANGE: f64 = 0.1;

impl Mapped {
    /// Compares the outputs of the layers and of the graph. Both get the same random changes of all weights, so that a weight in the
    /// wrong place is found even if it is 0 or 1 in the file.
    ///
    /// # Errors
    /// Layers that do not fit; a difference that rounding does not explain.
    pub(super) fn check(&self, graph: &Graph) -> std::result::Result<(), String> {
        let name = &graph.inputs[0].name;
        let sample = graph.shape(name).and_then(|shape| shape.sample());
        let sample =
            sample.ok_or_else(|| format!("the shape of a sample of `{name}` is not known"))?;
        match self.difference(graph, &sample) {
            Err(problem) => Err(format!(
                "the layers that were recognised do not fit: {problem}"
            )),
            Ok(difference) if difference <= TOLERANCE => Ok(()),
            Ok(difference) => Err(format!(
                "the layers that were recognised have other outputs: they differ by {difference:.1e}"
            )),
        }
    }

    /// The largest difference of outputs, relative to their size.
    fn difference(&self, graph: &Graph, sample: &Shape) -> Result<f64> {
        let graph = changed(graph)?;
        let parameters = self.parameters(&graph)?;
        output_shape(&self.layers, sample, &parameters)
            .map_err(|e| Error::invalid(e.to_string()))?;
        let input = fold::samples(&graph, sample.dims())?;
        let setting = (DType::F64, &Device::Cpu);
        let expected = run(
            &graph,
            &|name| graph.initialiser(name),
            input.clone(),
            setting,
            Mode::Inference,
            &mut |_, _| {},
        )?;
        let input = match input.dtype() {
            DType::I64 => input.to_dtype(DType::U32)?,
            _ => input,
        };
        let found = Layered::new(self.layers.clone(), parameters).forward(&input)?;
        if found.dims() != expected.dims() {
            return Ok(f64::INFINITY);
        }
        let (found, expected) = (entries(&found)?, entries(&expected)?);
        let size = expected.iter().fold(1e-3f64, |size, e| size.max(e.abs()));
        let differences = found
            .iter()
            .zip(&expected)
            .map(|(f, e)| (f - e).abs() / size);
        // The result is not a number if any difference is not.
        Ok(differences.fold(
            0.0,
            |largest: f64, d| if d <= largest { largest } else { d },
        ))
    }

    /// The layers' parameters, with the values that a graph has.
    fn parameters(&self, graph: &Graph) -> Result<Parameters> {
        let parameters = self.parameters.iter().map(|(name, parameter)| {
            let var = Var::from_tensor(&parameter.tensor(graph)?)?;
            Ok((name.clone(), var))
        });
        let statistics = self.statistics.iter().map(|(name, source)| {
            let var = Var::from_tensor(&graph.statistics[source])?;
            Ok((name.clone(), var))
        });
        let statistics = statistics.collect::<Result<Vec<_>>>()?;
        Parameters::new(parameters.collect::<Result<Vec<_>>>()?)?.with_statistics(statistics)
    }
}

/// A graph with other weights, in `f64`.
fn changed(graph: &Graph) -> Result<Graph> {
    let mut changed = graph.clone();
    let constants = changed
        .constants
        .values_mut()
        .chain(changed.statistics.values_mut());
    for constant in constants.filter(|constant| Kind::of(constant) == Kind::Float) {
        *constant = constant.to_dtype(DType::F64)?;
    }
    for (weight, seed) in changed.weights.values_mut().zip(2..) {
        let factors = gaussian(weight.elem_count(), seed).into_iter();
        let factors = Tensor::from_iter(factors.map(|z| 1.0 + CHANGE * z), &Device::Cpu)?;
        *weight = (weight.to_dtype(DType::F64)? * factors.reshape(weight.shape())?)?;
    }
    Ok(changed)
}
