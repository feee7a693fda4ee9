//! [`GraphBuilder`]: turns a model's list of layers into a graph of [`Rules`].

use std::ops::Range;

use super::rules::Rules;
use super::{Layer, LayerKind, Misfit, Shape};
use crate::kernels::Scalar;
use crate::kernels::elementwise::{add, sum};
use crate::parameters::Parameters;

/// A step of the network. Boundary 0 is the input; node l reads boundaries up to l and writes boundary l + 1.
pub(crate) enum Node<T> {
    /// A layer, and the boundary that it reads.
    Layer {
        rules: Box<dyn Rules<T>>,
        from: usize,
    },
    /// Several boundaries combined.
    Join { join: Join, from: Vec<usize> },
}

/// How a node combines the rows of its inputs.
#[derive(Clone)]
pub(crate) enum Join {
    /// The sum of rows of `len` numbers.
    Sum { len: usize },
    /// Concatenation along an axis: `outer` times, a block of `blocks` values from each side.
    Concat { outer: usize, blocks: Vec<usize> },
}

impl<T: Scalar> Node<T> {
    /// Number of values in a row of the output.
    pub(crate) fn output_len(&self) -> usize {
        match self {
            Self::Layer { rules, .. } => rules.output_len(),
            Self::Join { join, .. } => join.output_len(),
        }
    }

    pub(crate) fn rules(&self) -> Option<&dyn Rules<T>> {
        match self {
            Self::Layer { rules, .. } => Some(rules.as_ref()),
            Self::Join { .. } => None,
        }
    }

    /// The boundaries that the node reads.
    pub(crate) fn from(&self) -> &[usize] {
        match self {
            Self::Layer { from, .. } => std::slice::from_ref(from),
            Self::Join { from, .. } => from,
        }
    }
}

impl Join {
    fn output_len(&self) -> usize {
        match self {
            Self::Sum { len } => *len,
            Self::Concat { outer, blocks } => outer * blocks.iter().sum::<usize>(),
        }
    }

    /// Writes the combined rows; a missing side counts as 0.
    pub(crate) fn forward<T: Scalar>(&self, sides: &[Option<&[T]>], y: &mut [T]) {
        match self {
            Self::Sum { .. } => {
                let mut present = sides.iter().flatten();
                match (present.next(), present.next()) {
                    (Some(a), Some(b)) => sum(a, b, y),
                    (Some(a), None) => y.copy_from_slice(a),
                    (None, _) => y.fill(T::ZERO),
                }
                present.for_each(|x| add(x, y));
            }
            Self::Concat { blocks, .. } => {
                let mut start = 0;
                for (side, block) in sides.iter().zip(blocks) {
                    for (i, y) in y.chunks_exact_mut(blocks.iter().sum()).enumerate() {
                        let y = &mut y[start..start + block];
                        match side {
                            Some(x) => y.copy_from_slice(&x[i * block..][..*block]),
                            None => y.fill(T::ZERO),
                        }
                    }
                    start += block;
                }
            }
        }
    }

    /// The part of dy that belongs to one side: written to dx if it is the `first` part, otherwise added.
    pub(crate) fn backward<T: Scalar>(&self, side: usize, dy: &[T], dx: &mut [T], first: bool) {
        let put = |dy: &[T], dx: &mut [T]| match first {
            true => dx.copy_from_slice(dy),
            false => add(dy, dx),
        };
        match self {
            Self::Sum { .. } => put(dy, dx),
            Self::Concat { blocks, .. } => {
                let start = blocks[..side].iter().sum::<usize>();
                let rows = dy.chunks_exact(blocks.iter().sum());
                for (dy, dx) in rows.zip(dx.chunks_exact_mut(blocks[side])) {
                    put(&dy[start..start + blocks[side]], dx);
                }
            }
        }
    }
}

/// A graph of layers with the shape of a sample at its end.
pub(crate) struct Graph<T> {
    pub(crate) nodes: Vec<Node<T>>,
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    /// Whether training steps set values to zero at random.
    pub(crate) has_dropout: bool,
    /// Number of tokens that the inputs may hold, if they are tokens.
    pub(crate) num_tokens: Option<usize>,
}

/// Where the next layer is added: the boundary that it reads, and the shape of a sample there.
#[derive(Clone)]
pub(crate) struct Position {
    pub(crate) boundary: usize,
    pub(crate) shape: Shape,
}

/// The nodes so far.
pub(crate) struct GraphBuilder<'a, T> {
    parameters: &'a Parameters,
    nodes: Vec<Node<T>>,
    position: Position,
    has_dropout: bool,
    num_tokens: Option<usize>,
    sparse_inputs: bool,
}

impl<'a, T: Scalar> GraphBuilder<'a, T> {
    /// Builds the graph of these layers for samples of a shape, most of whose values are zero if `sparse_inputs`.
    ///
    /// # Errors
    /// The first layer that does not fit.
    pub(crate) fn build(
        layers: &[LayerKind],
        parameters: &'a Parameters,
        input: Shape,
        sparse_inputs: bool,
    ) -> Result<Graph<T>, Misfit> {
        let mut builder = Self {
            parameters,
            nodes: Vec::new(),
            position: Position {
                boundary: 0,
                shape: input.clone(),
            },
            has_dropout: false,
            num_tokens: None,
            sparse_inputs,
        };
        builder.add(layers)?;
        Ok(Graph {
            nodes: builder.nodes,
            input,
            output: builder.position.shape,
            has_dropout: builder.has_dropout,
            num_tokens: builder.num_tokens,
        })
    }

    /// Adds layers, one after another.
    pub(crate) fn add(&mut self, layers: &[LayerKind]) -> Result<(), Misfit> {
        layers.iter().try_for_each(|layer| layer.add_rules(self))
    }

    pub(crate) fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// The shape of a sample at the current position.
    pub(crate) fn shape(&self) -> &Shape {
        &self.position.shape
    }

    /// Declares that the inputs are tokens below `count`. Returns `false` if this is not the input.
    pub(crate) fn take_tokens(&mut self, count: usize) -> bool {
        let fewest = self.num_tokens.map_or(count, |other| other.min(count));
        self.num_tokens = Some(fewest);
        self.position.boundary == 0
    }

    /// Whether the next layer is the first one and may read inputs without their zeros.
    pub(crate) fn reads_sparse_inputs(&self) -> bool {
        self.sparse_inputs && self.nodes.is_empty()
    }

    /// Changes the shape of a sample without changing its values.
    pub(crate) fn reshape(&mut self, shape: Shape) {
        self.position.shape = shape;
    }

    /// Range in θ of a layer's parameter.
    pub(crate) fn range(&self, layer: &impl Layer, name: &str) -> Result<Range<usize>, Misfit> {
        let range = self.parameters.range(name);
        range.map_err(|e| Misfit::new(layer, self.shape(), format!("its parameters: {e}")))
    }

    /// Adds a layer that outputs samples of a shape.
    pub(crate) fn push(&mut self, rules: impl Rules<T> + 'static, shape: Shape) {
        self.nodes.push(Node::Layer {
            rules: Box::new(rules),
            from: self.position.boundary,
        });
        self.position = Position {
            boundary: self.nodes.len(),
            shape,
        };
    }

    /// Marks the graph as one whose training steps set values to zero at random. Adds no node: dropout is the identity in analysis.
    pub(crate) fn mark_dropout(&mut self) {
        self.has_dropout = true;
    }

    /// Adds each branch at the current position, and returns where they end. [`GraphBuilder::join`] combines them.
    pub(crate) fn branch(&mut self, branches: &[&[LayerKind]]) -> Result<Vec<Position>, Misfit> {
        let start = self.position.clone();
        let mut ends = Vec::with_capacity(branches.len());
        for branch in branches {
            self.position = start.clone();
            self.add(branch)?;
            ends.push(self.position.clone());
        }
        self.position = start;
        Ok(ends)
    }

    /// Combines the ends of branches.
    pub(crate) fn join(&mut self, join: Join, ends: &[Position], shape: Shape) {
        self.nodes.push(Node::Join {
            join,
            from: ends.iter().map(|end| end.boundary).collect(),
        });
        self.position = Position {
            boundary: self.nodes.len(),
            shape,
        };
    }
}
