//! [`Concat`]: the outputs of several branches along one axis.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::{GraphBuilder, Join};
use super::{Layer, LayerKind, Misfit, Pass, Shape, UnitGraph, forward, output_shape};
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// The outputs of several branches, concatenated along an axis of the sample.
///
/// # Shapes
/// Branches may differ only in the size of that axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Concat {
    /// The layers of each branch. An empty branch is the identity.
    pub branches: Vec<Vec<LayerKind>>,
    /// Axis of a sample, from 0: the channels of an image, the features of a vector.
    #[serde(default)]
    pub axis: usize,
}

impl Concat {
    /// Concatenates the branches' outputs along the first axis of a sample.
    pub fn new(branches: Vec<Vec<LayerKind>>) -> Self {
        Self { branches, axis: 0 }
    }

    /// (x, body(x)) along the channels: a layer of a dense block (Huang et al., "Densely Connected Convolutional Networks", 2017).
    pub fn dense(body: Vec<LayerKind>) -> Self {
        Self::new(vec![Vec::new(), body])
    }

    /// Sets the axis of a sample.
    #[must_use]
    pub fn with_axis(mut self, axis: usize) -> Self {
        self.axis = axis;
        self
    }

    fn joined(&self, input: &Shape, ends: &[&Shape]) -> Result<Shape, Misfit> {
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        let Some((first, others)) = ends.split_first() else {
            return Err(misfit("at least one branch".into()));
        };
        let mut dims = first.dims().to_vec();
        if self.axis >= dims.len() {
            return Err(misfit(format!(
                "branches that have axis {}, not {first}",
                self.axis
            )));
        }
        for other in others {
            let mut expected = first.dims().to_vec();
            match other.dims().get(self.axis) {
                Some(size) => expected[self.axis] = *size,
                None => expected.clear(),
            }
            if expected != other.dims() {
                return Err(misfit(format!(
                    "branches that differ only along axis {}, not {first} and {other}",
                    self.axis
                )));
            }
            dims[self.axis] += other.dims()[self.axis];
        }
        Ok(Shape::new(dims))
    }
}

impl Layer for Concat {
    fn output_shape(&self, input: &Shape, parameters: &Parameters) -> Result<Shape, Misfit> {
        let ends = self.branches.iter();
        let ends = ends.map(|branch| output_shape(branch, input, parameters));
        let ends = ends.collect::<Result<Vec<_>, _>>()?;
        self.joined(input, &ends.iter().collect::<Vec<_>>())
    }

    fn forward(
        &self,
        x: &Tensor,
        parameters: &Parameters,
        pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let outputs = self.branches.iter();
        let outputs = outputs.map(|branch| forward(branch, x, parameters, pass));
        let outputs = outputs.collect::<candle_core::Result<Vec<_>>>()?;
        Tensor::cat(&outputs, self.axis + 1)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let branches: Vec<&[LayerKind]> = self.branches.iter().map(Vec::as_slice).collect();
        let ends = network.branch(&branches)?;
        let shapes: Vec<&Shape> = ends.iter().map(|end| &end.shape).collect();
        let shape = self.joined(network.shape(), &shapes)?;
        let outer = shape.dims()[..self.axis].iter().product();
        let blocks = ends.iter().map(|end| end.shape.len() / outer).collect();
        network.join(Join::Concat { outer, blocks }, &ends, shape);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let branches: Vec<&[LayerKind]> = self.branches.iter().map(Vec::as_slice).collect();
        let ends = graph.branch(&branches)?;
        graph.concat(self, &ends, self.axis, shape);
        Ok(())
    }
}
