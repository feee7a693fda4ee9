//! Local functions of ONNX files, such as the exporter of `torch.export` writes without optimisation: [`inline`] replaces their
//! calls by their nodes.

use std::collections::HashMap;

use super::messages::{AttributeProto, FunctionProto, NodeProto};
use super::read::{domain, opsets};

/// Maximum number of nodes, and of calls inside calls: functions that call each other twice double the nodes at each level.
const MAX_NODES: usize = 200_000;
const MAX_DEPTH: usize = 32;

/// The functions of a file.
pub(super) struct Functions(HashMap<Key, (FunctionProto, HashMap<String, i64>)>);

/// Domain, name and overload of a function.
type Key = (String, String, String);

impl Functions {
    pub(super) fn new(protos: Vec<FunctionProto>) -> Result<Self, String> {
        let mut functions = HashMap::new();
        for proto in protos {
            let key = (
                domain(proto.domain.as_deref()),
                proto.name.clone().unwrap_or_default(),
                proto.overload.clone().unwrap_or_default(),
            );
            let opsets = opsets(&proto.opset_import)?;
            functions.insert(key, (proto, opsets));
        }
        Ok(Self(functions))
    }

    fn of(&self, node: &NodeProto) -> Option<&(FunctionProto, HashMap<String, i64>)> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(
            domain(node.domain.as_deref()),
            node.op_type.clone().unwrap_or_default(),
            node.overload.clone().unwrap_or_default(),
        ))
    }
}

/// The nodes with the version of their operators, calls of functions replaced by the functions' nodes.
pub(super) fn inline(
    nodes: &[NodeProto],
    functions: &Functions,
    opsets: &HashMap<String, i64>,
) -> Result<Vec<(NodeProto, i64)>, String> {
    let mut found = Vec::new();
    add(nodes, functions, opsets, 0, &mut found)?;
    Ok(found)
}

fn add(
    nodes: &[NodeProto],
    functions: &Functions,
    opsets: &HashMap<String, i64>,
    depth: usize,
    found: &mut Vec<(NodeProto, i64)>,
) -> Result<(), String> {
    for node in nodes {
        if found.len() >= MAX_NODES || depth > MAX_DEPTH {
            return Err(format!(
                "has more than {MAX_NODES} nodes, or calls of functions that are nested more than {MAX_DEPTH} levels deep"
            ));
        }
        let Some((function, opsets)) = functions.of(node) else {
            let opset = opsets.get(&domain(node.domain.as_deref()));
            found.push((node.clone(), opset.copied().unwrap_or(1)));
            continue;
        };
        // Distinct for each call: the name of a value is unique.
        let call = format!(
            "{}#{}",
            node.op_type.as_deref().unwrap_or_default(),
            found.len()
        );
        let body = body(node, function, &call);
        add(&body, functions, opsets, depth + 1, found)?;
    }
    Ok(())
}

/// The nodes of a function for one call: names of values and nodes, and attributes, are the call's.
fn body(node: &NodeProto, function: &FunctionProto, call: &str) -> Vec<NodeProto> {
    fn pairs<'a>(
        inside: &'a [String],
        outside: &'a [String],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let outside = outside.iter().map(String::as_str);
        inside
            .iter()
            .map(String::as_str)
            .zip(outside.chain(std::iter::repeat("")))
    }
    let outer: HashMap<&str, &str> = pairs(&function.input, &node.input)
        .chain(pairs(&function.output, &node.output).filter(|(_, outside)| !outside.is_empty()))
        .collect();
    let rename = |name: &String| match outer.get(name.as_str()) {
        Some(outside) => (*outside).to_owned(),
        None if name.is_empty() => String::new(),
        None => format!("{call}/{name}"),
    };
    let given = |name: &str| {
        let both = node.attribute.iter().chain(&function.attribute_proto);
        both.into_iter().find(|a| a.name.as_deref() == Some(name))
    };
    let resolve = |attribute: &AttributeProto| match attribute.ref_attr_name.as_deref() {
        None | Some("") => Some(attribute.clone()),
        Some(reference) => given(reference).map(|value| AttributeProto {
            name: attribute.name.clone(),
            ..value.clone()
        }),
    };
    let copy = |inner: &NodeProto| NodeProto {
        input: inner.input.iter().map(rename).collect(),
        output: inner.output.iter().map(rename).collect(),
        name: Some(format!(
            "{call}/{}",
            inner.name.as_deref().unwrap_or_default()
        )),
        attribute: inner.attribute.iter().filter_map(resolve).collect(),
        ..inner.clone()
    };
    function.node.iter().map(copy).collect()
}
