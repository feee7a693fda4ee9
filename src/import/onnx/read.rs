//! [`read`]: a file's messages as a [`Graph`].

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use prost::Message;
use prost::bytes::Bytes;

use super::functions::{Functions, inline};
use super::graph::{Attribute, Graph, Kind, Node, Value};
use super::messages::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    ValueInfoProto,
};
use super::origin::untrained;
use super::sequences;
use super::tensors::{self, Type};

/// Versions of ONNX's operators whose meaning is known.
const OPSETS: std::ops::RangeInclusive<i64> = 11..=24;

/// Reads a model. All floating initialisers become weights. Tensors in other files are read from `directory`.
pub(super) fn read(bytes: Vec<u8>, directory: &Path) -> Result<Graph, String> {
    let model = ModelProto::decode(Bytes::from(bytes))
        .map_err(|e| format!("is damaged, or not an ONNX model ({e})"))?;
    let opsets = opsets(&model.opset_import)?;
    let functions = Functions::new(model.functions)?;
    let proto = model
        .graph
        .ok_or("holds no graph: it is damaged, or not an ONNX model")?;
    let nodes = inline(&proto.node, &functions, &opsets)?;
    let mut graph = Graph {
        untrained: untrained(&proto),
        ..Graph::default()
    };
    add_initialisers(&mut graph, &proto, directory)?;
    let is_given =
        |name: &str| graph.weights.contains_key(name) || graph.constants.contains_key(name);
    let values = |infos: &[ValueInfoProto]| infos.iter().map(value).collect::<Result<_, _>>();
    let inputs: Vec<Value> = values(&proto.input)?;
    let outputs: Vec<Value> = values(&proto.output)?;
    graph.inputs = inputs
        .into_iter()
        .filter(|input| !is_given(&input.name))
        .collect();
    graph.outputs = outputs;
    for (proto, opset) in nodes {
        let node = node(proto, opset, directory)?;
        match (&node.domain[..], &node.op[..]) {
            ("", "Constant") => {
                let tensor = constant(&node)?;
                let output = node.output()?.to_owned();
                if graph.constants.insert(output.clone(), tensor).is_some() {
                    return Err(format!("the value `{output}` is defined twice"));
                }
            }
            _ => {
                check_flow(&node)?;
                graph.nodes.push(node);
            }
        }
    }
    graph.check_order()?;
    sequences::resolve(&mut graph)?;
    Ok(graph)
}

/// Returns an error for a node with a graph in it: its values are not among the inputs of the node.
fn check_flow(node: &Node) -> Result<(), String> {
    let mut attributes = node.attributes.values();
    match attributes.any(|attribute| matches!(attribute, Attribute::Other("a graph"))) {
        true => Err(node.problem(
            "is not supported, because it contains a graph: export the model without branches and loops that depend on values",
        )),
        false => Ok(()),
    }
}

/// Versions by domain.
pub(super) fn opsets(imports: &[OperatorSetIdProto]) -> Result<HashMap<String, i64>, String> {
    let mut opsets = HashMap::new();
    for import in imports {
        let domain = domain(import.domain.as_deref());
        let version = import.version.unwrap_or(1);
        if domain.is_empty() && !OPSETS.contains(&version) {
            return Err(format!(
                "uses version {version} of ONNX's operators, and versions {} to {} are supported: export it with another opset_version",
                OPSETS.start(),
                OPSETS.end()
            ));
        }
        opsets.insert(domain, version);
    }
    Ok(opsets)
}

/// ONNX's own operators have two names for their domain.
pub(super) fn domain(domain: Option<&str>) -> String {
    match domain.unwrap_or_default() {
        "ai.onnx" => String::new(),
        domain => domain.to_owned(),
    }
}

fn add_initialisers(graph: &mut Graph, proto: &GraphProto, directory: &Path) -> Result<(), String> {
    if let Some(sparse) = proto.sparse_initializer.first() {
        let values = sparse.values.as_ref();
        let name = values.and_then(|values| values.name.as_deref());
        return Err(format!(
            "has the sparse tensor `{}`, and sparse tensors are not supported",
            name.unwrap_or_default()
        ));
    }
    let mut names = HashSet::new();
    for proto in &proto.initializer {
        let name = proto.name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err("has an initialiser without a name".into());
        }
        if !names.insert(name.clone()) {
            return Err(format!("has two initialisers `{name}`"));
        }
        let tensor = tensors::read(proto, directory)?;
        match Kind::of(&tensor) {
            Kind::Float => graph.weights.insert(name, tensor),
            _ => graph.constants.insert(name, tensor),
        };
    }
    Ok(())
}

fn value(proto: &ValueInfoProto) -> Result<Value, String> {
    let name = proto.name.clone().unwrap_or_default();
    let tensor = proto.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| {
        format!(
            "has the input or output `{name}`, which is a sequence, a map or optional, not a tensor"
        )
    })?;
    let kind = Type::of(tensor.elem_type.unwrap_or_default());
    let kind = kind.map_err(|problem| format!("has the input or output `{name}` of {problem}"))?;
    let sizes = |shape: &TensorShapeProto| {
        let dims = shape.dim.iter();
        dims.map(|dim| dim.dim_value.and_then(|d| usize::try_from(d).ok()))
            .collect()
    };
    Ok(Value {
        name,
        kind: kind.kind(),
        dims: tensor.shape.as_ref().map(sizes),
    })
}

fn node(proto: NodeProto, opset: i64, directory: &Path) -> Result<Node, String> {
    let mut node = Node {
        name: proto.name.unwrap_or_default(),
        op: proto.op_type.unwrap_or_default(),
        domain: domain(proto.domain.as_deref()),
        opset,
        inputs: proto.input,
        outputs: proto.output,
        attributes: HashMap::new(),
    };
    for proto in &proto.attribute {
        let name = proto.name.clone().unwrap_or_default();
        let value = attribute(proto, directory).map_err(|problem| {
            node.problem(format_args!("has the attribute `{name}`: {problem}"))
        })?;
        node.attributes.insert(name, value);
    }
    Ok(node)
}

fn attribute(proto: &AttributeProto, directory: &Path) -> Result<Attribute, String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let number = match proto.r#type.unwrap_or(0) {
        // Old files have no type.
        0 if proto.f.is_some() => 1,
        0 if proto.i.is_some() => 2,
        0 if proto.s.is_some() => 3,
        0 if proto.t.is_some() => 4,
        0 if !proto.floats.is_empty() => 6,
        0 if !proto.ints.is_empty() => 7,
        0 if !proto.strings.is_empty() => 8,
        number => number,
    };
    Ok(match number {
        1 => Attribute::Float(proto.f.unwrap_or(0.0).into()),
        2 => Attribute::Int(proto.i.unwrap_or(0)),
        3 => Attribute::Text(proto.s.as_ref().map(text).unwrap_or_default()),
        4 => {
            let tensor = proto.t.as_ref().ok_or("it has no value")?;
            Attribute::Tensor(tensors::read(tensor, directory)?)
        }
        6 => Attribute::Floats(proto.floats.iter().map(|f| f64::from(*f)).collect()),
        7 => Attribute::Ints(proto.ints.clone()),
        8 => Attribute::Other("texts"),
        5 | 10 => Attribute::Other("a graph"),
        9 => Attribute::Other("tensors"),
        11 | 12 => Attribute::Other("a sparse tensor"),
        13 | 14 => Attribute::Other("a type"),
        _ => Attribute::Other("a value without a type"),
    })
}

/// The value of a `Constant` node.
fn constant(node: &Node) -> Result<Tensor, String> {
    let values = [
        "value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
    ];
    let mut found = values.iter().filter_map(|name| node.attributes.get(*name));
    let value = found
        .next()
        .ok_or_else(|| node.problem("has no tensor or numbers as its value"))?;
    let cpu = &Device::Cpu;
    let tensor = match value {
        Attribute::Tensor(tensor) => return Ok(tensor.clone()),
        Attribute::Float(value) => Tensor::new(*value as f32, cpu),
        Attribute::Floats(values) => {
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            let len = values.len();
            Tensor::from_vec(values, len, cpu)
        }
        Attribute::Int(value) => Tensor::new(*value, cpu),
        Attribute::Ints(values) => Tensor::from_vec(values.clone(), values.len(), cpu),
        _ => return Err(node.problem("has a value that is not a tensor or numbers")),
    };
    tensor.map_err(|e| node.problem(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_refused_by_their_node() {
        let branch = NodeProto {
            op_type: Some("If".into()),
            name: Some("choice".into()),
            input: vec!["x".into()],
            output: vec!["y".into()],
            attribute: vec![AttributeProto {
                name: Some("then_branch".into()),
                r#type: Some(5),
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        };
        let model = ModelProto {
            graph: Some(GraphProto {
                node: vec![branch],
                ..GraphProto::default()
            }),
            opset_import: vec![OperatorSetIdProto {
                domain: None,
                version: Some(18),
            }],
            functions: vec![],
        };
        let error = read(model.encode_to_vec(), Path::new(".")).unwrap_err();
        assert!(
            error.contains("`If` of node `choice` is not supported"),
            "{error}"
        );
    }
}
