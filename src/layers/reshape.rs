//! [`Flatten`] and [`Unflatten`]: the same values in another shape.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::error::counted;
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// Flattens each sample into a vector.
///
/// # Shapes
/// Samples of any shape to (values,).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flatten;

/// Reshapes each sample, for example to (channels, height, width).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unflatten(pub Vec<usize>);

impl Layer for Flatten {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        Ok(Shape::new([input.len()]))
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        x.flatten_from(1)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        network.reshape(Shape::new([network.shape().len()]));
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        graph.flatten();
        Ok(())
    }
}

impl Layer for Unflatten {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        let output = Shape::new(self.0.clone());
        match output.len() == input.len() && input.len() > 0 {
            true => Ok(output),
            false => Err(Misfit::new(
                self,
                input,
                format!("{}, for {output}", counted(output.len(), "number")),
            )),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        x.reshape([&[x.dim(0)?], &self.0[..]].concat())
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        network.reshape(self.output_shape(network.shape(), network.parameters())?);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        graph.unflatten(self, shape);
        Ok(())
    }
}
