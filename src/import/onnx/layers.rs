//! [`from_graph`]: the layers with hand-derived rules that compute what a graph computes.
//!
//! The nodes are read in order. Each value is a [`View`] of a layer's output or of a weight, so that reshaping, transposing and slicing
//! never need a pattern; rows of operators that compute an activation or a normalisation are recognised by their values
//! ([`Function`]); the layers that result are arranged in branches ([`Network`]).
//!
//! | file | contents |
//! | --- | --- |
//! | `view`, `rearrangement` | entries of a layer's output or of a weight, in any arrangement, and the nodes that change it |
//! | `function`, `arithmetic` | activations and normalisations in many operators; sums of branches |
//! | `affine`, `images` | linear layers, embeddings, positions and biases; convolutions, pools and normalisation of channels |
//! | `attention`, `heads` | scores, masks and heads, and their nodes |
//! | `samples` | the samples or rows that a layer reads |
//! | `network` | branches |
//! | `parameters` | names, and where the file holds the values |
//! | `check` | the comparison of layers and graph |

mod affine;
mod arithmetic;
mod attention;
mod check;
mod function;
mod heads;
mod images;
mod network;
mod parameters;
mod rearrangement;
mod samples;
mod view;

pub(super) use parameters::Parameter;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use self::attention::Scores;
use self::network::{Network, Part, Step};
use self::parameters::Parameters;
use self::view::{Base, View};
use super::graph::{Dim, Graph, Node};
use crate::layers::{LayerKind, Shape};

/// Layers that compute what a graph computes, and their parameters.
#[derive(Debug)]
pub(super) struct Mapped {
    pub layers: Vec<LayerKind>,
    /// By name.
    pub parameters: BTreeMap<String, Parameter>,
    /// Running statistics: our names, and the file's.
    pub statistics: BTreeMap<String, String>,
}

/// Number of samples with which shapes are computed, if the file leaves it open.
const SAMPLES: usize = 2;

/// Maps a folded graph onto layers.
///
/// # Errors
/// The first node that no layer can compute, with the operator; layers with other outputs than the graph's.
pub(super) fn from_graph(graph: &Graph) -> Result<Mapped, String> {
    let mut mapper = Mapper::new(graph)?;
    for node in &graph.nodes {
        mapper.add(node)?;
    }
    let mapped = mapper.finish()?;
    mapped.check(graph)?;
    Ok(mapped)
}

/// A value of the graph.
#[derive(Clone, Debug)]
enum Value {
    View(View),
    Scores(Rc<Scores>),
    /// Whether a score is NaN.
    IsNan(Rc<Scores>),
    /// A value that does not depend on the input, or a shape.
    Known,
}

struct Mapper<'a> {
    graph: &'a Graph,
    samples: usize,
    values: HashMap<&'a str, Value>,
    network: Network,
    parameters: Parameters,
    statistics: BTreeMap<String, String>,
}

impl<'a> Mapper<'a> {
    fn new(graph: &'a Graph) -> Result<Self, String> {
        let ([input], [_]) = (&graph.inputs[..], &graph.outputs[..]) else {
            return Err(format!(
                "hand-derived rules need one input and one output, not {} and {}",
                graph.inputs.len(),
                graph.outputs.len()
            ));
        };
        let mut mapper = Self {
            graph,
            samples: SAMPLES,
            values: HashMap::new(),
            network: Network::new(Shape::new([])),
            parameters: Parameters::default(),
            statistics: BTreeMap::new(),
        };
        let dims = mapper.dims(&input.name)?;
        let Some((samples, rest)) = dims.split_first().filter(|(n, _)| **n > 0) else {
            return Err("hand-derived rules need an input with a batch axis".into());
        };
        mapper.samples = *samples;
        mapper.network = Network::new(Shape::new(rest));
        let view = View::whole(Base::Step(0), dims);
        mapper.values.insert(&input.name, Value::View(view));
        Ok(mapper)
    }

    fn finish(mut self) -> Result<Mapped, String> {
        let name = &self.graph.outputs[0].name;
        let Value::View(view) = self.value(name) else {
            return Err(format!("the output `{name}` is not that of a layer"));
        };
        let about = |problem: String| format!("the output `{name}` {problem}");
        let view = self.resolved(view).map_err(about)?;
        let output = self.samples_of(&view).map_err(about)?;
        let layers = self.network.layers(output)?;
        let names = names(&layers);
        self.statistics.retain(|name, _| names.contains(name));
        Ok(Mapped {
            layers,
            parameters: self.parameters.used(&names)?,
            statistics: self.statistics,
        })
    }

    /// The shape of a value, for `samples` samples.
    fn dims(&self, name: &str) -> Result<Vec<usize>, String> {
        let shape = self.graph.shape(name);
        let shape = shape.ok_or_else(|| format!("the shape of `{name}` is not known"))?;
        let sizes = shape.0.iter().map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Batch(times) => times * self.samples,
        });
        Ok(sizes.collect())
    }

    fn value(&self, name: &str) -> Value {
        match (self.values.get(name), self.graph.weights.get(name)) {
            (Some(value), _) => value.clone(),
            (None, Some(weight)) => {
                let base = Base::Weight(name.to_owned());
                Value::View(View::whole(base, weight.dims().to_vec()))
            }
            (None, None) => Value::Known,
        }
    }

    /// Input `i` of a node as a view.
    fn view(&self, node: &Node, i: usize) -> Result<View, String> {
        let name = node.required_input(i)?;
        match self.value(name) {
            Value::View(view) => Ok(view),
            _ if self.graph.constants.contains_key(name) => Err(node.problem(format_args!(
                "reads the constant `{name}`: hand-derived rules need a parameter in its place"
            ))),
            _ => Err(unmapped(node)),
        }
    }

    /// Reads the next node.
    fn add(&mut self, node: &'a Node) -> Result<(), String> {
        let inputs = node.inputs.iter().filter(|name| !name.is_empty());
        let is_known = inputs
            .map(|name| self.value(name))
            .all(|v| matches!(v, Value::Known));
        if is_known || matches!(&*node.op, "Shape" | "Size") {
            return Ok(());
        }
        let mut values = self.outputs(node)?.into_iter();
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            if let Some(value) = values.next() {
                self.values.insert(name, value);
            }
        }
        Ok(())
    }

    /// The values that a node computes.
    fn outputs(&mut self, node: &Node) -> Result<Vec<Value>, String> {
        if !node.domain.is_empty() {
            return Err(unmapped(node));
        }
        let op = node.op.as_str();
        let first = self.value(node.required_input(0)?);
        let view = match op {
            "Identity" | "Dropout" | "Cast" => return Ok(vec![first]),
            "Split" => return self.split(node),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" => return Ok(vec![self.binary(node)?]),
            "Softmax" | "IsNaN" | "Where" => return Ok(vec![self.attention(node)?]),
            "MatMul" => return Ok(vec![self.matmul(node)?]),
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
                if let Value::Scores(scores) = first {
                    return Ok(vec![self.reshaped_scores(node, scores)?]);
                }
                self.rearranged(node)?
            }
            "Transpose" | "Expand" | "Slice" => self.rearranged(node)?,
            "Gather" => self.gather(node)?,
            "Gemm" => self.gemm(node)?,
            "Conv" => self.conv(node)?,
            "BatchNormalization" => self.batch_norm(node)?,
            "LayerNormalization" => self.layer_norm(node)?,
            "LogSoftmax" => self.log_softmax(node)?,
            "GroupNormalization" => self.group_norm(node)?,
            "InstanceNormalization" => self.instance_norm(node)?,
            "MaxPool" | "AveragePool" | "GlobalAveragePool" => self.pool(node)?,
            "ReduceMean" => self.mean(node)?,
            "Concat" => self.concat(node)?,
            "Relu" | "Sigmoid" | "Tanh" | "Erf" | "Sqrt" | "Exp" | "Neg" | "Reciprocal" | "Abs"
            | "Log" | "Clip" | "Gelu" | "Softplus" | "HardSigmoid" | "HardSwish" | "Swish"
            | "Min" | "Max" => self.elementwise(node)?,
            _ => return Err(unmapped(node)),
        };
        Ok(vec![Value::View(view)])
    }

    /// Adds a layer that keeps the shape.
    fn push_layer(&mut self, node: &Node, kind: impl Into<LayerKind>, from: usize) -> usize {
        let shape = self.network.shape(from).clone();
        self.push_shaped(node, kind, from, shape)
    }

    /// Adds a layer with samples of a shape.
    fn push_shaped(
        &mut self,
        node: &Node,
        kind: impl Into<LayerKind>,
        from: usize,
        shape: Shape,
    ) -> usize {
        self.network.layer(kind, from, shape, &node.to_string())
    }

    /// Adds a part of a layer, which keeps the shape.
    fn push_part(&mut self, node: &Node, part: Part, from: usize) -> usize {
        let shape = self.network.shape(from).clone();
        self.network
            .push(Step::Part { part, from }, shape, node.to_string())
    }

    /// The parameter that a node reads.
    fn parameter(
        &mut self,
        node: &Node,
        view: &View,
        shape: impl Into<Vec<usize>>,
        part: &str,
    ) -> Result<String, String> {
        self.parameters
            .add(self.graph, node, view, shape.into(), part)
    }
}

/// The names of parameters and statistics in layers: all their texts.
fn names(layers: &[LayerKind]) -> BTreeSet<String> {
    fn collect(value: &serde_json::Value, names: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::String(name) => _ = names.insert(name.clone()),
            serde_json::Value::Array(values) => values.iter().for_each(|v| collect(v, names)),
            serde_json::Value::Object(fields) => fields.values().for_each(|v| collect(v, names)),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    if let Ok(value) = serde_json::to_value(layers) {
        collect(&value, &mut names);
    }
    names
}

fn is_step(view: &View) -> bool {
    matches!(view.base, Base::Step(_))
}

/// Whether a node acts along the last axis of an input of this rank, which is the default.
fn is_along_last_axis(node: &Node, rank: usize) -> Result<bool, String> {
    let axis = node.axis_or(-1, rank)?;
    Ok(axis.is_some_and(|axis| axis + 1 == rank))
}

fn unmapped(node: &Node) -> String {
    node.problem("has no hand-derived rules")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};

    use serde_json::Value as Json;

    use super::*;
    use crate::data::Dataset;
    use crate::import::onnx::Onnx;
    use crate::layers::{
        Activation, Conv2d, Embedding, Flatten, GlobalAveragePool, LayerNorm, Linear, MaxPool,
        Patches, PositionEmbedding, PositionMean, Residual, SelfAttention,
    };
    use crate::model::Model;
    use crate::objective::{Engine, Loss, Objective};
    use crate::tensor_functions::entries;
    use candle_core::{DType, Device, Tensor};

    /// Exports that have no hand-derived rules, and the operator that the reason names.
    const WITHOUT_RULES: [(&str, &str); 4] = [
        ("activations", "`LeakyRelu`"),
        ("conv1d", "`Conv`"),
        ("rotary", "`Mul`"),
        ("rotary_unoptimized", "`Mul`"),
    ];

    fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx")
    }

    fn cases() -> Vec<Json> {
        let text = std::fs::read_to_string(directory().join("cases.json")).unwrap();
        let cases: Vec<Json> = serde_json::from_str(&text).unwrap();
        cases
            .into_iter()
            .filter(|case| case["supported"] == true)
            .collect()
    }

    fn load(name: &str) -> Onnx {
        Onnx::load(directory().join(format!("{name}.onnx")), &Device::Cpu).unwrap()
    }

    fn mapped(name: &str) -> Result<Mapped, String> {
        from_graph(&load(name).graph)
    }

    #[test]
    fn exports_have_hand_derived_rules_or_a_reason() {
        let mut count = 0;
        for case in cases() {
            let name = case["name"].as_str().unwrap();
            let model = load(name);
            let rules = model.layers().ok_or_else(|| model.rules().unwrap_err());
            match WITHOUT_RULES.iter().find(|(other, _)| *other == name) {
                Some((_, operator)) => {
                    let reason = rules.unwrap_err();
                    assert!(reason.contains(operator), "{name}: {reason}");
                }
                None => {
                    rules.unwrap_or_else(|reason| panic!("{name}: {reason}"));
                    count += 1;
                }
            }
        }
        assert!(count >= 24, "{count}");
    }

    /// PyTorch's arrays of a kind as a vector of the parameters of layers.
    fn vector(
        mapped: &Mapped,
        case: &Json,
        arrays: &HashMap<String, Tensor>,
        kind: &str,
    ) -> Vec<f64> {
        let numbers = |tensor: &Tensor| entries(tensor).unwrap();
        let mut by_weight: HashMap<&str, Vec<f64>> = HashMap::new();
        for (name, parameter) in case["parameters"].as_object().unwrap() {
            let array = &arrays[&format!("{kind}/{name}")];
            for place in parameter["initializers"].as_array().unwrap() {
                let values = match place["transposed"] == true {
                    true => numbers(&array.t().unwrap()),
                    false => numbers(array),
                };
                by_weight.insert(place["name"].as_str().unwrap(), values);
            }
        }
        let mut vector = Vec::new();
        for parameter in mapped.parameters.values() {
            let values = &by_weight[&*parameter.weight];
            match &parameter.entries {
                None => vector.extend(values),
                Some(entries) => vector.extend(entries.iter().map(|e| values[*e])),
            }
        }
        vector
    }

    fn assert_close(found: &[f64], expected: &[f64], what: &str) {
        let size = expected.iter().fold(1e-3f64, |size, x| size.max(x.abs()));
        let differences = found
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).abs() / size);
        let largest = differences.fold(0.0, f64::max);
        assert!(
            found.len() == expected.len() && largest < 1e-4,
            "{what}: {largest:.1e}"
        );
    }

    #[test]
    fn gradients_and_products_by_layers_are_those_of_pytorch() {
        for case in cases() {
            let name = case["name"].as_str().unwrap();
            if WITHOUT_RULES.iter().any(|(other, _)| *other == name) {
                continue;
            }
            let model = load(name).to_dtype(DType::F64).unwrap();
            let mapped = from_graph(&model.graph).unwrap();
            let arrays = directory().join(format!("{name}.npz"));
            let arrays = crate::files::read_arrays(arrays, &Device::Cpu).unwrap();
            let arrays: HashMap<String, Tensor> = arrays.into_iter().collect();
            let inputs = match arrays["inputs"].dtype() {
                DType::I64 => arrays["inputs"].to_dtype(DType::U32),
                _ => arrays["inputs"].to_dtype(DType::F64),
            };
            let data = Dataset::classification(&inputs.unwrap(), &arrays["targets"]).unwrap();
            let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
            assert_eq!(objective.engine(), Engine::ByHand, "{name}");
            let theirs = |kind: &str| vector(&mapped, &case, &arrays, kind);
            let gradient = objective.gradient().unwrap();
            assert_close(
                &gradient,
                &theirs("gradient"),
                &format!("gradient of {name}"),
            );
            for i in 1..=case["directions"].as_u64().unwrap() {
                let product = objective.hvp(&theirs(&format!("direction{i}"))).unwrap();
                let expected = theirs(&format!("product{i}"));
                assert_close(&product, &expected, &format!("product of {name}"));
            }
        }
    }

    #[test]
    fn layers_are_those_that_a_model_of_layers_would_have() {
        let found = mapped("mlp").unwrap();
        let linear = |name: &str| Linear::new(format!("{name}.weight"), format!("{name}.bias"));
        let relu = || LayerKind::from(Activation::Relu);
        let expected = [
            linear("0").into(),
            relu(),
            linear("2").into(),
            relu(),
            linear("4").into(),
        ];
        assert_eq!(found.layers, expected);

        let found = mapped("resnet18_dynamo").unwrap();
        let conv = |name: &str| {
            Conv2d::new(format!("{name}.weight"))
                .with_bias(format!("{name}.weight_bias"))
                .with_padding(1)
        };
        let stem = conv("conv1").with_stride(2).with_padding(3);
        let pool = MaxPool::new(3, 2).with_padding(1);
        let body = |name: &str, stride: usize| {
            let [first, second] = ["conv1", "conv2"].map(|part| conv(&format!("{name}.{part}")));
            vec![first.with_stride(stride).into(), relu(), second.into()]
        };
        let shortcut = conv("layer2.0.downsample.0").with_stride(2).with_padding(0);
        let projected = Residual::new(body("layer2.0", 2)).with_shortcut(vec![shortcut.into()]);
        let start = [
            stem.into(),
            relu(),
            pool.into(),
            Residual::new(body("layer1.0", 1)).into(),
            relu(),
            Residual::new(body("layer1.1", 1)).into(),
            relu(),
            projected.into(),
        ];
        assert_eq!(found.layers[..start.len()], start);
        let end = [
            GlobalAveragePool.into(),
            Flatten.into(),
            linear("fc").into(),
        ];
        assert_eq!(found.layers[found.layers.len() - end.len()..], end);

        let found = mapped("vit_mean").unwrap();
        let norm = |name: &str| LayerNorm::new(format!("{name}.weight"), format!("{name}.bias"));
        let attention = |block: &str| SelfAttention {
            query: linear(&format!("{block}.attn.qkv.query")),
            key: linear(&format!("{block}.attn.qkv.key")),
            value: linear(&format!("{block}.attn.qkv.value")),
            output: linear(&format!("{block}.attn.proj")),
            heads: 2,
            causal: false,
        };
        let mut expected: Vec<LayerKind> = vec![
            Patches::new(4).into(),
            linear("patches").into(),
            PositionEmbedding::new("positions").into(),
        ];
        for block in ["blocks.0", "blocks.1"] {
            let name = |part: &str| format!("{block}.{part}");
            let first = vec![norm(&name("ln_1")).into(), attention(block).into()];
            let second = vec![
                norm(&name("ln_2")).into(),
                linear(&name("mlp.0")).into(),
                Activation::Gelu.into(),
                linear(&name("mlp.2")).into(),
            ];
            expected.extend([Residual::new(first).into(), Residual::new(second).into()]);
        }
        expected.extend([
            norm("norm").into(),
            PositionMean.into(),
            linear("head").into(),
        ]);
        assert_eq!(found.layers, expected);
    }

    #[test]
    fn tied_weights_are_one_parameter() {
        for name in ["gpt_tied", "gpt_tied_unfolded"] {
            let found = mapped(name).unwrap();
            let Some(LayerKind::Embedding(Embedding { weight })) = found.layers.first() else {
                panic!("{name}: {:?}", found.layers);
            };
            let head = Linear::without_bias(weight.clone());
            assert_eq!(found.layers.last(), Some(&head.into()), "{name}");
        }
    }
}
