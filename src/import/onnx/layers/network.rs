//! [`Network`]: the layers found so far as steps that read each other, and their arrangement as nested lists.

use std::collections::HashSet;

use crate::layers::{Concat, LayerKind, Residual, SelfAttention, Shape};

/// A value that layers compute, in the order of the graph.
#[derive(Debug)]
pub(super) enum Step {
    Input,
    Layer {
        kind: LayerKind,
        from: usize,
    },
    Sum([usize; 2]),
    Concat {
        from: Vec<usize>,
        /// The steps that are concatenated in all, if `from` begins with another concatenation.
        all: Vec<usize>,
        /// Axis of a sample.
        axis: usize,
    },
    /// A part of a layer, which later nodes complete.
    Part {
        part: Part,
        from: usize,
    },
}

/// A part of a layer.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// The heads' outputs of a layer whose output projection follows.
    Heads(SelfAttention),
    /// Groups of values with mean 0 and variance 1.
    Normal { norm: Norm, epsilon: f64 },
    /// These times the weight; a bias follows.
    Scaled {
        norm: Norm,
        epsilon: f64,
        weight: String,
    },
}

/// What a normalisation runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    LastAxis,
    Groups(usize),
}

/// Steps in topological order; step 0 is the input.
#[derive(Debug)]
pub(super) struct Network {
    steps: Vec<(Step, Shape, String)>,
}

impl Network {
    /// A network without layers, for samples of a shape.
    pub fn new(input: Shape) -> Self {
        Self {
            steps: vec![(Step::Input, input, "the input".into())],
        }
    }

    pub fn step(&self, index: usize) -> &Step {
        &self.steps[index].0
    }

    /// The shape of a sample of a step's output.
    pub fn shape(&self, index: usize) -> &Shape {
        &self.steps[index].1
    }

    /// The description of a step's node.
    pub fn node(&self, index: usize) -> &str {
        &self.steps[index].2
    }

    /// The layer on a step, which is added unless it is there.
    pub fn layer(
        &mut self,
        kind: impl Into<LayerKind>,
        from: usize,
        shape: Shape,
        node: &str,
    ) -> usize {
        let kind = kind.into();
        let is_same = |step: &Step| matches!(step, Step::Layer { kind: k, from: f } if *f == from && *k == kind);
        let found = self.steps.iter().position(|(step, ..)| is_same(step));
        found.unwrap_or_else(|| self.push(Step::Layer { kind, from }, shape, node.into()))
    }

    /// Adds a step with the description of its node, and returns its index.
    pub fn push(&mut self, step: Step, shape: Shape, node: String) -> usize {
        self.steps.push((step, shape, node));
        self.steps.len() - 1
    }

    /// An earlier concatenation along the same axis with which `from` begins, and the rest: the layers of a dense block each concatenate
    /// all outputs before them.
    pub fn begins_with(&self, from: &[usize], axis: usize) -> Vec<usize> {
        let earlier = self
            .steps
            .iter()
            .enumerate()
            .filter_map(|(i, step)| match &step.0 {
                Step::Concat { all, axis: a, .. } if *a == axis && from.len() > all.len() => {
                    from.starts_with(all).then_some((all.len(), i))
                }
                _ => None,
            });
        match earlier.max() {
            Some((len, i)) => [&[i], &from[len..]].concat(),
            None => from.to_vec(),
        }
    }

    /// The steps that a step reads.
    fn from(&self, index: usize) -> &[usize] {
        match self.step(index) {
            Step::Input => &[],
            Step::Layer { from, .. } | Step::Part { from, .. } => std::slice::from_ref(from),
            Step::Sum(from) => from,
            Step::Concat { from, .. } => from,
        }
    }

    /// For each step the last step before it through which all its values pass.
    fn dominators(&self) -> Vec<usize> {
        let mut dominators = vec![0; self.steps.len()];
        for index in 1..self.steps.len() {
            let from = self.from(index).iter().copied();
            let common = from.reduce(|mut a, mut b| {
                while a != b {
                    match a > b {
                        true => a = dominators[a],
                        false => b = dominators[b],
                    }
                }
                a
            });
            dominators[index] = common.unwrap_or(0);
        }
        dominators
    }

    /// The layers whose output is a step's.
    ///
    /// # Errors
    /// A step that is part of a layer only; branches that do not nest.
    pub fn layers(&self, output: usize) -> Result<Vec<LayerKind>, String> {
        let mut arrangement = Arrangement {
            network: self,
            dominators: self.dominators(),
            placed: HashSet::new(),
        };
        arrangement.between(0, output)
    }
}

struct Arrangement<'a> {
    network: &'a Network,
    dominators: Vec<usize>,
    placed: HashSet<usize>,
}

impl Arrangement<'_> {
    /// The layers from the output of `start` to that of `end`; all values of `end` pass through `start`.
    fn between(&mut self, start: usize, end: usize) -> Result<Vec<LayerKind>, String> {
        let network = self.network;
        let mut layers = Vec::new();
        let mut at = end;
        while at != start {
            let (step, _, node) = &network.steps[at];
            if !self.placed.insert(at) {
                return Err(format!(
                    "{node} feeds branches that cross: hand-derived rules need branches that nest"
                ));
            }
            let fork = self.dominators[at];
            layers.push(match step {
                Step::Input => break,
                Step::Layer { kind, .. } => kind.clone(),
                Step::Sum([a, b]) => {
                    let [a, b] = [self.between(fork, *a)?, self.between(fork, *b)?];
                    let (body, shortcut) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                    Residual { body, shortcut }.into()
                }
                Step::Concat { from, axis, .. } => {
                    let branches = from.iter().map(|end| self.between(fork, *end));
                    let branches = branches.collect::<Result<_, _>>()?;
                    Concat::new(branches).with_axis(*axis).into()
                }
                Step::Part { part, .. } => {
                    return Err(match part {
                        Part::Heads(_) => {
                            format!("{node} computes attention without a linear layer after it")
                        }
                        Part::Normal { .. } | Part::Scaled { .. } => {
                            format!("{node} normalises without a weight and a bias after it")
                        }
                    });
                }
            });
            at = fork;
        }
        layers.reverse();
        Ok(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Activation;

    fn network(steps: Vec<Step>) -> Network {
        let shape = Shape::new([4]);
        let mut network = Network::new(shape.clone());
        for (i, step) in steps.into_iter().enumerate() {
            network.push(step, shape.clone(), format!("step {}", i + 1));
        }
        network
    }

    fn layer(activation: Activation, from: usize) -> Step {
        Step::Layer {
            kind: activation.into(),
            from,
        }
    }

    fn concat(network: &Network, all: &[usize]) -> Step {
        Step::Concat {
            from: network.begins_with(all, 0),
            all: all.to_vec(),
            axis: 0,
        }
    }

    #[test]
    fn branches_nest() {
        use Activation::{Gelu, Relu, Tanh};
        // (relu x + tanh gelu x) + x, then gelu.
        let steps = vec![
            layer(Relu, 0),
            layer(Gelu, 0),
            layer(Tanh, 2),
            Step::Sum([1, 3]),
            Step::Sum([0, 4]),
            layer(Gelu, 5),
        ];
        let inner = Residual::new(vec![Gelu.into(), Tanh.into()]).with_shortcut(vec![Relu.into()]);
        let outer = Residual::new(vec![inner.into()]);
        let layers = network(steps).layers(6).unwrap();
        assert_eq!(layers, [outer.into(), Gelu.into()]);
    }

    #[test]
    fn a_dense_block_shares_what_it_concatenates() {
        use Activation::{Gelu, Relu, Tanh};
        let mut network = network(vec![layer(Relu, 0)]);
        let mut all = vec![1];
        for activation in [Gelu, Tanh] {
            let end = match &all[..] {
                [one] => *one,
                all => {
                    let step = concat(&network, all);
                    network.push(step, Shape::new([4]), "concat".into())
                }
            };
            all.push(network.push(layer(activation, end), Shape::new([4]), "layer".into()));
        }
        let step = concat(&network, &all);
        let end = network.push(step, Shape::new([4]), "concat".into());
        let dense =
            |activation: Activation| LayerKind::from(Concat::dense(vec![activation.into()]));
        let layers = network.layers(end).unwrap();
        assert_eq!(layers, [Relu.into(), dense(Gelu), dense(Tanh)]);
    }

    #[test]
    fn branches_that_cross_are_refused() {
        use Activation::{Gelu, Relu};
        // a = relu x, b = gelu x, (a + b) + a has a fork at x that ends at two sums.
        let steps = vec![
            layer(Relu, 0),
            layer(Gelu, 0),
            Step::Sum([1, 2]),
            Step::Sum([3, 1]),
        ];
        let error = network(steps).layers(4).unwrap_err();
        assert!(
            error.contains("step 1 feeds branches that cross"),
            "{error}"
        );
    }
}
