//! [`run`]: the values of a graph's nodes, through candle's graph.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;

use super::graph::{Graph, Kind, Node, index};
use super::operators;
use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::progress;
use crate::tensor_functions::entries;

/// What a run is for.
pub(super) enum Mode<'a> {
    /// Analysis and prediction.
    Inference,
    /// A training step: batch normalisation uses the batch's statistics and updates those in `parameters`, and dropout draws from
    /// the generator.
    Training {
        parameters: &'a Parameters,
        rng: &'a mut ChaCha8Rng,
    },
}

/// Why an operator has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// A message that names the operator and the node.
    Text(String),
    /// An error of a tensor function.
    Candle(candle_core::Error),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Text(message)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

impl Failure {
    fn at(self, node: &Node, inputs: &[Option<Tensor>]) -> Error {
        let message = match self {
            Self::Text(message) => message,
            Self::Candle(error) => match Error::from(error) {
                Error::Interrupted => return Error::Interrupted,
                error => {
                    let shapes = inputs.iter().flatten().map(|x| format!("{:?}", x.dims()));
                    let shapes: Vec<_> = shapes.collect();
                    node.problem(format_args!(
                        "cannot take inputs of shape {}: {error}",
                        shapes.join(", ")
                    ))
                }
            },
        };
        Error::Invalid(message)
    }
}

/// One node and the values of its inputs.
pub(super) struct Call<'a, 'm> {
    pub node: &'a Node,
    pub inputs: Vec<Option<Tensor>>,
    /// Type and device of floats. Integers and booleans are on the host where they do not depend on data.
    pub dtype: DType,
    pub device: &'a Device,
    pub mode: &'a mut Mode<'m>,
}

/// Maximum number of entries of an output, unless the inputs are large too. Sizes in a damaged file are arbitrary.
const MAX_ENTRIES: usize = 1 << 24;

/// Maximum number of entries of an output per entry of the inputs.
const MAX_PER_ENTRY: usize = 512;

impl Call<'_, '_> {
    /// Input `i`.
    pub fn input(&self, i: usize) -> Result<&Tensor, Failure> {
        let missing = || self.problem(format_args!("has no input {i}, which it needs"));
        self.optional(i).ok_or_else(missing)
    }

    /// Input `i`, if it is there.
    pub fn optional(&self, i: usize) -> Option<&Tensor> {
        self.inputs.get(i)?.as_ref()
    }

    /// Input `i`, which must be floats.
    pub fn floats(&self, i: usize) -> Result<&Tensor, Failure> {
        let x = self.input(i)?;
        match Kind::of(x) {
            Kind::Float => Ok(x),
            kind => Err(self.problem(format_args!(
                "has input {i} of {kind:?} entries, expected floats"
            ))),
        }
    }

    /// The integers of input `i`.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>, Failure> {
        let x = self.input(i)?;
        match Kind::of(x) {
            Kind::Integer => Ok(x.flatten_all()?.to_vec1()?),
            kind => Err(self.problem(format_args!(
                "has input {i} of {kind:?} entries, expected integers"
            ))),
        }
    }

    /// Integers from an attribute, or from input `i` in later versions of ONNX.
    pub fn ints_of(&self, name: &str, i: usize) -> Result<Option<Vec<i64>>, Failure> {
        match self.node.ints(name)? {
            Some(values) => Ok(Some(values.to_vec())),
            None if self.optional(i).is_some() => Ok(Some(self.ints(i)?)),
            None => Ok(None),
        }
    }

    /// The number in input `i`, or `default` if it is absent.
    pub fn number(&self, i: usize, default: f64) -> Result<f64, Failure> {
        let Some(x) = self.optional(i) else {
            return Ok(default);
        };
        match entries(&x.detach())?[..] {
            [value] => Ok(value),
            _ => Err(self.problem(format_args!(
                "has input {i} of shape {:?}, expected one number",
                x.dims()
            ))),
        }
    }

    /// An error about the node.
    pub fn problem(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::Text(self.node.problem(problem))
    }

    /// The axis of a tensor of this rank; negative ones count from the end.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, Failure> {
        index(axis, rank).ok_or_else(|| {
            self.problem(format_args!(
                "has axis {axis}, and its input has {rank} axes"
            ))
        })
    }

    /// The attribute `axis` of input 0.
    pub fn axis_of_first(&self, default: i64) -> Result<usize, Failure> {
        let axis = self.node.int_or("axis", default)?;
        self.axis(axis, self.input(0)?.rank())
    }

    /// Returns an error for an output that is much larger than the inputs.
    pub fn check_size(&self, dims: &[usize]) -> Result<(), Failure> {
        let inputs = self.inputs.iter().flatten().map(Tensor::elem_count);
        let most = MAX_PER_ENTRY.saturating_mul(inputs.sum());
        let most = most.max(MAX_ENTRIES);
        let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        match count.is_some_and(|count| count <= most) {
            true => Ok(()),
            false => Err(self.problem(format_args!(
                "would have an output of shape {dims:?}, and at most {most} entries are computed from its inputs"
            ))),
        }
    }
}

/// Runs the nodes of `graph` on `input` and returns the value of its first output.
///
/// `given` looks up constants, weights and statistics. `observe` sees the outputs of each node.
///
/// # Errors
/// The first node that cannot be computed; an interrupt.
pub(super) fn run(
    graph: &Graph,
    given: &dyn Fn(&str) -> Option<Tensor>,
    input: Tensor,
    (dtype, device): (DType, &Device),
    mut mode: Mode,
    observe: &mut dyn FnMut(&Node, &[Tensor]),
) -> Result<Tensor> {
    let [first_input] = &graph.inputs[..] else {
        return Err(Error::invalid("the graph needs one input"));
    };
    let output = graph.outputs.first().map(|output| output.name.as_str());
    let output = output.ok_or_else(|| Error::invalid("the graph has no output"))?;
    let mut last_use: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        last_use.extend(node.inputs.iter().map(|name| (name.as_str(), i)));
    }
    last_use.insert(output, graph.nodes.len());
    let mut values: HashMap<&str, Tensor> = HashMap::from([(first_input.name.as_str(), input)]);
    for (i, node) in graph.nodes.iter().enumerate() {
        progress::check()?;
        let inputs = node.inputs.iter().map(|name| match name.as_str() {
            "" => Ok(None),
            name => match values.get(name).cloned().or_else(|| given(name)) {
                Some(value) => Ok(Some(value)),
                None => Err(Error::Invalid(
                    node.problem(format_args!("reads `{name}`, which has no value")),
                )),
            },
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut call = Call {
            node,
            inputs,
            dtype,
            device,
            mode: &mut mode,
        };
        let outputs = match operators::apply(&mut call) {
            Ok(outputs) => outputs,
            Err(failure) => return Err(failure.at(node, &call.inputs)),
        };
        observe(node, &outputs);
        for name in node
            .inputs
            .iter()
            .filter(|name| last_use.get(name.as_str()) == Some(&i))
        {
            values.remove(name.as_str());
        }
        let used = node
            .outputs
            .iter()
            .zip(outputs)
            .filter(|(name, _)| last_use.contains_key(name.as_str()));
        values.extend(used.map(|(name, value)| (name.as_str(), value)));
    }
    let value = values.remove(output).or_else(|| given(output));
    value.ok_or_else(|| Error::invalid(format!("the output `{output}` has no value")))
}

/// The value of one node on the host, outside of a graph.
pub(super) fn node(node: &Node, inputs: Vec<Option<Tensor>>) -> candle_core::Result<Tensor> {
    let floats = inputs.iter().flatten().find(|x| Kind::of(x) == Kind::Float);
    let mut call = Call {
        node,
        dtype: floats.map_or(DType::F32, Tensor::dtype),
        inputs,
        device: &Device::Cpu,
        mode: &mut Mode::Inference,
    };
    match operators::apply(&mut call) {
        Ok(outputs) => outputs
            .into_iter()
            .next()
            .ok_or_else(|| candle_core::Error::Msg(node.problem("has no output"))),
        Err(failure) => Err(failure.at(node, &call.inputs).into()),
    }
}
