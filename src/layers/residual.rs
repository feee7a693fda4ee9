//! [`Residual`]: y = body(x) + shortcut(x).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::{GraphBuilder, Join};
use super::{Layer, LayerKind, Misfit, Pass, Shape, UnitGraph, forward, output_shape};
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// A residual block: y = body(x) + shortcut(x) (He et al., "Deep Residual Learning for Image Recognition", 2016).
///
/// # Shapes
/// Both branches must have the same output shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    /// Layers of the residual branch.
    pub body: Vec<LayerKind>,
    /// Layers of the shortcut, such as a projection where shapes change. Empty: the identity.
    pub shortcut: Vec<LayerKind>,
}

impl Residual {
    /// A block with the identity as its shortcut.
    pub fn new(body: Vec<LayerKind>) -> Self {
        Self {
            body,
            shortcut: Vec::new(),
        }
    }

    /// Sets the layers of the shortcut.
    #[must_use]
    pub fn with_shortcut(mut self, shortcut: Vec<LayerKind>) -> Self {
        self.shortcut = shortcut;
        self
    }

    fn same_shape(&self, input: &Shape, ends: [&Shape; 2]) -> Result<Shape, Misfit> {
        match ends[0] == ends[1] {
            true => Ok(ends[0].clone()),
            false => Err(Misfit::new(
                self,
                input,
                format!("branches of one shape, not {} and {}", ends[0], ends[1]),
            )),
        }
    }
}

impl Layer for Residual {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let [body, shortcut] =
            [&self.body, &self.shortcut].map(|branch| output_shape(branch, input, parameters));
        self.same_shape(input, [&body?, &shortcut?])
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        forward(&self.body, x, parameters, pass)? + forward(&self.shortcut, x, parameters, pass)?
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let ends = network.branch(&[&self.body, &self.shortcut])?;
        let shape = self.same_shape(network.shape(), [&ends[0].shape, &ends[1].shape])?;
        network.join(Join::Sum { len: shape.len() }, &ends, shape);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        self.output_shape(graph.shape(), graph.parameters())?;
        let ends = graph.branch(&[&self.body, &self.shortcut])?;
        graph.sum(self, &ends);
        Ok(())
    }
}
