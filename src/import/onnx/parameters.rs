//! Which floating initialisers are parameters: [`assign`].
//!
//! The others are running statistics, constants of the computation, such as masks, or copies of a parameter.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Tensor};

use super::graph::{Attribute, Graph, Kind, Node};
use super::tensors::Type;
use crate::tensor_functions::entries;

/// Sorts the floating initialisers, all of them weights so far, into weights, statistics and constants.
///
/// `patterns` narrows the weights to those that match one of them; see [`matches`].
pub(super) fn assign(graph: &mut Graph, patterns: Option<&[String]>) -> Result<(), String> {
    resolve_identities(graph);
    drop_unused(graph);
    let dtype = match graph
        .weights
        .values()
        .any(|tensor| tensor.dtype() == DType::F64)
    {
        true => DType::F64,
        false => DType::F32,
    };
    let convert = |tensor: &mut Tensor| -> candle_core::Result<()> {
        if Kind::of(tensor) == Kind::Float {
            *tensor = tensor.to_dtype(dtype)?;
        }
        Ok(())
    };
    let all = graph
        .weights
        .values_mut()
        .chain(graph.constants.values_mut());
    all.into_iter()
        .try_for_each(convert)
        .map_err(|e| e.to_string())?;
    move_statistics(graph);
    let reached = reached_by_derivatives(graph);
    let untrained = std::mem::take(&mut graph.untrained);
    let is_constant = |name: &str, tensor: &Tensor| {
        !reached.contains(name) || untrained.contains(name) || is_generated_constant(name, tensor)
    };
    check_numbers(graph, &reached)?;
    move_to_constants(graph, is_constant);
    tie_transposes(graph);
    if let Some(patterns) = patterns {
        for pattern in patterns {
            if !graph.weights.keys().any(|name| matches(pattern, name)) {
                let names: Vec<&str> = graph.weights.keys().map(String::as_str).collect();
                return Err(format!(
                    "has no parameter that matches `{pattern}`: its parameters are {}",
                    names.join(", ")
                ));
            }
        }
        move_to_constants(graph, |name, _| {
            !patterns.iter().any(|pattern| matches(pattern, name))
        });
    }
    match graph.weights.is_empty() {
        true => Err("has no parameters: none of its floating initialisers changes the output differentiably".into()),
        false => Ok(()),
    }
}

/// Whether `pattern` matches a name, or its start up to a dot. `*` stands for any characters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let starts = name.match_indices('.').map(|(end, _)| &name[..end]);
    starts
        .chain([name])
        .any(|start| matches_whole(pattern, start))
}

fn matches_whole(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    // The first occurrence of each part leaves the most for the next ones.
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match name.split_once(part) {
            Some((_, rest)) => name = rest,
            None => return false,
        }
    }
    name.ends_with(end)
}

fn move_to_constants(graph: &mut Graph, is_constant: impl Fn(&str, &Tensor) -> bool) {
    let weights = std::mem::take(&mut graph.weights);
    for (name, tensor) in weights {
        match is_constant(&name, &tensor) {
            true => graph.constants.insert(name, tensor),
            false => graph.weights.insert(name, tensor),
        };
    }
}

/// Replaces the outputs of `Identity` nodes by their inputs.
///
/// An exporter writes equal initialisers of a network once, and the others as an `Identity` of it under their own names. They are one
/// parameter, unless all entries are the same number, as in scales and shifts before training: those are parameters of their own.
fn resolve_identities(graph: &mut Graph) {
    let mut names: HashMap<String, String> = HashMap::new();
    let nodes = std::mem::take(&mut graph.nodes);
    for mut node in nodes {
        rename_inputs(&mut node, &names);
        let is_identity = node.domain.is_empty() && node.op == "Identity";
        let (Some(input), Some(output)) = (
            node.input(0).map(str::to_owned),
            node.outputs.first().cloned(),
        ) else {
            graph.nodes.push(node);
            continue;
        };
        if !is_identity || graph.is_output(&output) {
            graph.nodes.push(node);
            continue;
        }
        match graph.weights.get(&input) {
            Some(tensor) if !output.starts_with('/') && is_uniform(tensor) => {
                let copy = tensor.clone();
                graph.weights.insert(output, copy);
            }
            _ => {
                names.insert(output, input);
            }
        }
    }
}

pub(super) fn rename_inputs(node: &mut Node, names: &HashMap<String, String>) {
    for input in &mut node.inputs {
        if let Some(name) = names.get(input) {
            input.clone_from(name);
        }
    }
}

/// Whether all entries are the same number.
fn is_uniform(tensor: &Tensor) -> bool {
    let values = numbers(tensor);
    values.windows(2).all(|pair| pair[0] == pair[1])
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    entries(tensor).unwrap_or_default()
}

/// Removes nodes, and initialisers, on which the first output does not depend.
pub(super) fn drop_unused(graph: &mut Graph) {
    graph.outputs.truncate(1);
    let mut used: HashSet<String> = graph
        .outputs
        .iter()
        .map(|output| output.name.clone())
        .collect();
    let mut kept: Vec<Node> = Vec::new();
    for node in std::mem::take(&mut graph.nodes).into_iter().rev() {
        if node.outputs.iter().any(|output| used.contains(output)) {
            used.extend(node.inputs.iter().filter(|name| !name.is_empty()).cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
    graph.weights.retain(|name, _| used.contains(name));
    graph.constants.retain(|name, _| used.contains(name));
    graph.statistics.retain(|name, _| used.contains(name));
}

/// Moves initialisers that only batch normalisations read, as means and variances.
fn move_statistics(graph: &mut Graph) {
    let is_statistic =
        |node: &Node, i: usize| node.domain.is_empty() && node.op == "BatchNormalization" && i >= 3;
    let (mut statistics, mut others) = (HashSet::new(), HashSet::new());
    for node in &graph.nodes {
        for (i, name) in node.inputs.iter().enumerate() {
            match is_statistic(node, i) {
                true => statistics.insert(name.clone()),
                false => others.insert(name.clone()),
            };
        }
    }
    for name in statistics.difference(&others) {
        if let Some(tensor) = graph.weights.remove(name) {
            graph.statistics.insert(name.clone(), tensor);
        }
    }
}

/// The values through which a derivative reaches the output.
fn reached_by_derivatives(graph: &Graph) -> HashSet<String> {
    let mut reached: HashSet<String> = graph
        .outputs
        .iter()
        .map(|output| output.name.clone())
        .collect();
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|output| reached.contains(output)) {
            let inputs = node.inputs.iter().enumerate();
            let inputs = inputs.filter(|(i, _)| is_differentiable(node, *i, graph));
            reached.extend(inputs.map(|(_, name)| name.clone()));
        }
    }
    reached
}

/// Whether the output of a node has a derivative in input `i`.
fn is_differentiable(node: &Node, i: usize, graph: &Graph) -> bool {
    let is_number = || {
        let tensor = node.input(i).and_then(|name| graph.weights.get(name));
        tensor.is_some_and(|tensor| tensor.elem_count() == 1)
    };
    match node.op.as_str() {
        "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" | "Xor"
        | "Not" | "IsNaN" | "IsInf" | "Shape" | "Size" | "Range" | "ConstantOfShape" | "ArgMax"
        | "ArgMin" | "NonZero" | "OneHot" | "Floor" | "Ceil" | "Round" | "Sign" => false,
        "Cast" => match node.attributes.get("to") {
            Some(Attribute::Int(to)) => {
                let kind = i32::try_from(*to)
                    .map_err(|e| e.to_string())
                    .and_then(Type::of);
                kind.is_ok_and(|kind| kind.kind() == Kind::Float)
            }
            _ => true,
        },
        "Where" => i > 0,
        "Clip" | "Pad" | "Dropout" | "Resize" | "CastLike" | "Gather" | "Slice" | "Expand"
        | "Reshape" | "Tile" => i == 0,
        "BatchNormalization" => i < 3,
        "Pow" => i == 0 || !is_number(),
        _ => true,
    }
}

/// Returns an error for a NaN in a weight that changes the output. Infinities are those of masks.
fn check_numbers(graph: &Graph, reached: &HashSet<String>) -> Result<(), String> {
    for (name, tensor) in &graph.weights {
        let values = numbers(tensor);
        if let Some(i) = values.iter().position(|value| value.is_nan())
            && reached.contains(name)
        {
            return Err(format!(
                "has an initialiser `{name}` that is not a number: entry {i} of {} is NaN. Export the model from before the training \
                 diverged",
                values.len()
            ));
        }
    }
    Ok(())
}

/// Whether an exporter made the initialiser from a constant of the network's code: a number, or equal numbers, under a generated name
/// such as `val_12`; or a tensor that is not finite, such as a mask.
fn is_generated_constant(name: &str, tensor: &Tensor) -> bool {
    let is_lifted = name.contains("lifted_tensor") || name.contains("tensor_constant");
    let number = name.trim_start_matches('_').strip_prefix("val_");
    let is_generated =
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let values = numbers(tensor);
    is_lifted
        || is_generated && (tensor.elem_count() <= 1 || tensor.rank() <= 1 && is_uniform(tensor))
        || values.iter().any(|value| !value.is_finite())
}

/// Replaces a weight that is the transpose of another by a `Transpose` node: exporters store a matrix that is shared between an
/// embedding and a linear layer twice.
fn tie_transposes(graph: &mut Graph) {
    let matrices: Vec<String> = graph
        .weights
        .iter()
        .filter(|(_, tensor)| tensor.rank() == 2 && tensor.dims().iter().all(|size| *size > 1))
        .map(|(name, _)| name.clone())
        .collect();
    let mut tied = Vec::new();
    for (i, first) in matrices.iter().enumerate() {
        for second in &matrices[i + 1..] {
            let (Some(a), Some(b)) = (graph.weights.get(first), graph.weights.get(second)) else {
                continue;
            };
            if !is_transpose(a, b) || is_uniform(a) {
                continue;
            }
            // The copy has a generated name.
            let is_copy = |name: &str| name.starts_with("val_") || name.starts_with("onnx::");
            let (original, copy) = match is_copy(first) && !is_copy(second) {
                true => (second, first),
                false => (first, second),
            };
            tied.push((original.clone(), copy.clone()));
            graph.weights.remove(copy);
        }
    }
    let transposes = tied.into_iter().map(|(original, copy)| Node {
        name: format!("{copy}#transpose"),
        op: "Transpose".into(),
        opset: 13,
        inputs: vec![original],
        outputs: vec![copy],
        attributes: HashMap::from([("perm".to_owned(), Attribute::Ints(vec![1, 0]))]),
        ..Node::default()
    });
    graph.nodes.splice(0..0, transposes);
}

fn is_transpose(a: &Tensor, b: &Tensor) -> bool {
    let [rows, columns] = *a.dims() else {
        return false;
    };
    if b.dims() != [columns, rows] {
        return false;
    }
    // The first row first: most matrices differ in it.
    let same = |rows: usize| -> candle_core::Result<bool> {
        let b = b.narrow(1, 0, rows)?.t()?;
        Ok(numbers(&b) == numbers(&a.narrow(0, 0, rows)?))
    };
    same(1).is_ok_and(|same| same) && same(rows).is_ok_and(|same| same)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::graph::{Value, node};
    use super::*;

    #[test]
    fn patterns_match_names_and_their_starts() {
        assert!(matches("head", "head.weight") && matches("head.weight", "head.weight"));
        assert!(!matches("head", "heads.weight") && !matches("weight", "head.weight"));
        assert!(matches("*.weight", "h.0.weight") && matches("h.*.attn", "h.11.attn.qkv.weight"));
        assert!(matches("onnx::MatMul_*", "onnx::MatMul_12") && !matches("*.bias", "h.0.weight"));
    }

    /// y = (relu(x E Eᵀ) + shift γ) val_1, with a mask that is only compared.
    fn graph() -> Graph {
        let tensor = |values: &[f32], dims: &[usize]| {
            Tensor::from_slice(values, dims, &Device::Cpu).unwrap()
        };
        let value = |name: &str| Value {
            name: name.into(),
            kind: Kind::Float,
            dims: None,
        };
        let weights = [
            (
                "embedding",
                tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]),
            ),
            ("val_9", tensor(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], &[3, 2])),
            ("gamma", tensor(&[1.0, 1.0], &[2])),
            ("val_1", tensor(&[0.5], &[1])),
            ("mask", tensor(&[0.0, 1.0], &[2])),
            ("unused", tensor(&[0.0, 1.0], &[2])),
        ];
        Graph {
            inputs: vec![value("x")],
            outputs: vec![value("y"), value("more")],
            nodes: vec![
                node("Identity", &["gamma"], "delta"),
                node("MatMul", &["x", "embedding"], "a"),
                node("MatMul", &["a", "val_9"], "b"),
                node("Mul", &["b", "gamma"], "c"),
                node("Add", &["c", "delta"], "d"),
                node("Equal", &["mask", "val_1"], "hidden"),
                node("Where", &["hidden", "d", "b"], "e"),
                node("Mul", &["e", "val_1"], "y"),
                node("Neg", &["unused"], "more"),
            ],
            weights: weights
                .map(|(name, tensor)| (name.to_owned(), tensor))
                .into(),
            ..Graph::default()
        }
    }

    #[test]
    fn parameters_are_what_derivatives_reach_without_copies_and_constants() {
        let mut found = graph();
        assign(&mut found, None).unwrap();
        let names: Vec<_> = found.weights.keys().map(String::as_str).collect();
        assert_eq!(names, ["delta", "embedding", "gamma"]);
        assert_eq!(found.const_scalar("val_1"), Some(0.5));
        assert!(found.constants.contains_key("mask") && !found.constants.contains_key("unused"));
        assert_eq!(found.check_order(), Ok(()));
        let transpose = &found.nodes[0];
        assert_eq!(transpose.outputs, ["val_9"]);
        assert_eq!(
            (transpose.op.as_str(), transpose.input(0)),
            ("Transpose", Some("embedding"))
        );
    }

    #[test]
    fn weights_that_the_file_calls_buffers_are_constants() {
        let mut found = graph();
        found.untrained = ["embedding".to_owned()].into();
        assign(&mut found, None).unwrap();
        assert!(found.constants.contains_key("embedding"));
        assert!(!found.weights.contains_key("embedding"));
    }

    #[test]
    fn a_nan_is_refused_with_its_initialiser() {
        let mut wrong = graph();
        let nan = Tensor::new(&[1.0f32, f32::NAN], &Device::Cpu).unwrap();
        wrong.weights.insert("gamma".into(), nan.clone());
        let error = assign(&mut wrong, None).unwrap_err();
        assert!(
            error.contains("`gamma`") && error.contains("entry 1 of 2"),
            "{error}"
        );
        let mut unused = graph();
        unused.weights.insert("unused".into(), nan);
        assert!(assign(&mut unused, None).is_ok());
    }

    #[test]
    fn patterns_narrow_the_parameters() {
        let mut narrowed = graph();
        assign(&mut narrowed, Some(&["emb*".to_owned()])).unwrap();
        assert!(
            narrowed.weights.keys().eq(["embedding"]) && narrowed.constants.contains_key("gamma")
        );
        let unknown = assign(&mut graph(), Some(&["head".to_owned()])).unwrap_err();
        assert!(unknown.contains("`head`") && unknown.contains("embedding"));
    }
}
