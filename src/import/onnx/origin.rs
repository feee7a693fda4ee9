//! [`untrained`]: initialisers that are no parameters of the network, by the metadata that PyTorch's exporter on `torch.export` writes.

use std::collections::HashSet;

use super::messages::{GraphProto, ValueInfoProto};

/// Whether an initialiser is a parameter, a buffer or a constant of the network.
const KIND: &str = "pkg.torch.export.graph_signature.InputSpec.kind";

/// The names of the values from which the exporter computed an initialiser, as Python writes a list.
const FOLDED_FROM: &str = "pkg.onnxscript.optimizer.folded_from";

/// Operations that make a tensor, whose names the exporter gives to their outputs. Numbers in the network's code are
/// `scalar_tensor_default`.
const SOURCES: [&str; 10] = [
    "arange",
    "eye",
    "full",
    "full_like",
    "linspace",
    "ones",
    "ones_like",
    "scalar_tensor",
    "zeros",
    "zeros_like",
];

/// Operations on the way from such a tensor to a constant, as in masks and tables of angles. Names that a parameter could have, such
/// as `t` or `scale`, are left out.
const STEPS: [&str; 59] = [
    "abs",
    "add",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bmm",
    "cat",
    "clamp",
    "clone",
    "convert_element_type",
    "cos",
    "cumsum",
    "div",
    "einsum",
    "eq",
    "exp",
    "expand",
    "floor",
    "floor_divide",
    "ge",
    "gt",
    "index",
    "index_select",
    "le",
    "lift_fresh_copy",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "masked_fill",
    "matmul",
    "maximum",
    "minimum",
    "mm",
    "mul",
    "ne",
    "neg",
    "outer",
    "permute",
    "pow",
    "reciprocal",
    "remainder",
    "repeat",
    "repeat_interleave",
    "reshape",
    "rsqrt",
    "rsub",
    "select",
    "sin",
    "slice",
    "sqrt",
    "squeeze",
    "stack",
    "sub",
    "transpose",
    "tril",
    "triu",
    "unsqueeze",
];

/// Names of the initialisers that are buffers or constants of the network, or that the exporter computed from its constants alone.
pub(super) fn untrained(graph: &GraphProto) -> HashSet<String> {
    let values = graph.value_info.iter();
    let untrained = values.filter(|value| {
        let is_buffer = metadata(value, KIND).is_some_and(|kind| kind != "PARAMETER");
        is_buffer || metadata(value, FOLDED_FROM).is_some_and(is_constant)
    });
    untrained.filter_map(|value| value.name.clone()).collect()
}

fn metadata<'a>(value: &'a ValueInfoProto, key: &str) -> Option<&'a str> {
    let mut entries = value.metadata_props.iter();
    let entry = entries.find(|entry| entry.key.as_deref() == Some(key))?;
    entry.value.as_deref()
}

/// Whether a value was computed from constants alone: the names in the list are those of operations, and a parameter's is not
/// among them.
fn is_constant(folded_from: &str) -> bool {
    let names = folded_from.trim_matches(['[', ']']).split(", ");
    let names: Vec<&str> = names.map(|name| name.trim_matches(['\'', '"'])).collect();
    let is_source =
        |name: &&str| matches!(operation(name), "val") || SOURCES.contains(&operation(name));
    names.iter().any(is_source)
        && names
            .iter()
            .all(|name| is_source(name) || STEPS.contains(&operation(name)))
}

/// The operation in the name of its output: `arange` in `arange_1`, `scalar_tensor` in `scalar_tensor_default`. `val_12` is the output
/// of an operator that the exporter adds.
fn operation(name: &str) -> &str {
    let is_number = |end: &str| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
    let stem = match name.rsplit_once('_') {
        Some((stem, end)) if is_number(end) => stem,
        _ => name,
    };
    stem.strip_suffix("_default").unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::super::messages::StringStringEntryProto;
    use super::*;

    fn value(name: &str, key: &str, value: &str) -> ValueInfoProto {
        ValueInfoProto {
            name: Some(name.into()),
            metadata_props: vec![StringStringEntryProto {
                key: Some(key.into()),
                value: Some(value.into()),
            }],
            ..ValueInfoProto::default()
        }
    }

    #[test]
    fn buffers_and_values_of_constants_are_not_trained() {
        let graph = GraphProto {
            value_info: vec![
                value("h.weight", KIND, "PARAMETER"),
                value("h.table", KIND, "BUFFER"),
                value("lifted", KIND, "CONSTANT_TENSOR"),
                value("scalar_tensor_default", FOLDED_FROM, "['val_0']"),
                value(
                    "cos",
                    FOLDED_FROM,
                    "['arange', 'cat_2', 'convert_element_type_default_1', 'val_14', 'mul_2']",
                ),
                // Transposed, normalised or computed parameters, of modules and of the network itself.
                value("val_7", FOLDED_FROM, "['h.weight']"),
                value("div_1", FOLDED_FROM, "['clamp_min_1', 'val_10', 'w']"),
                value("exp", FOLDED_FROM, "['t', 'val_1']"),
                value("mul", FOLDED_FROM, "['exp']"),
                value("embedding", FOLDED_FROM, "['arange', 'positions.weight']"),
            ],
            ..GraphProto::default()
        };
        let mut names: Vec<String> = untrained(&graph).into_iter().collect();
        names.sort_unstable();
        assert_eq!(names, ["cos", "h.table", "lifted", "scalar_tensor_default"]);
    }
}
