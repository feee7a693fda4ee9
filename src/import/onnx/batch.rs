//! [`free`]: makes a graph that was exported with a fixed batch size take batches of any size.
//!
//! The batch axis is followed from the input through the nodes. Constant shapes in which its size appears are replaced.

use std::collections::HashMap;

use candle_core::Tensor;

use super::graph::{Graph, Node, index};

/// Operators that broadcast their inputs against each other.
const ELEMENTWISE: [&str; 13] = [
    "Add", "Sub", "Mul", "Div", "Pow", "Where", "Equal", "Greater", "Less", "Min", "Max", "Sum",
    "Mean",
];

/// Whether a node takes an axis of size 1 for any size along the axes `open` of an input of rank `rank`.
pub(super) fn broadcasts(node: &Node, rank: usize, open: &[usize]) -> bool {
    let op = node.op.as_str();
    let axis = node.axis_or(0, rank).ok().flatten();
    // A sum of values that are all the same for each sample has no batch axis.
    let has_others = node.inputs.iter().filter(|name| !name.is_empty()).count() > 1;
    has_others
        && (ELEMENTWISE.contains(&op) || op == "Concat" && !open.iter().any(|i| Some(*i) == axis))
}

/// Replaces the batch size in the constant shapes of a graph. `dims` holds the shape of every value for a batch of `size` samples.
///
/// # Errors
/// A node at which the batch axis cannot be followed.
pub(super) fn free(
    graph: &mut Graph,
    dims: HashMap<String, Vec<usize>>,
    size: usize,
) -> Result<(), String> {
    let mut axes: HashMap<String, usize> = HashMap::from([(graph.inputs[0].name.clone(), 0)]);
    let mut targets: Vec<(usize, Vec<i64>)> = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if matches!(node.op.as_str(), "Shape" | "Size") {
            continue;
        }
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            // Optional outputs are not computed.
            let Some(out) = dims.get(output) else {
                continue;
            };
            let Some(axis) = output_axis(node, &axes, &dims, out, size)? else {
                continue;
            };
            if let Some(target) = open_target(graph, node, &dims, out, axis) {
                targets.push((i, target));
            }
            axes.insert(output.clone(), axis);
        }
    }
    for (i, target) in targets {
        graph.set_target_shape(i, target)?;
    }
    if size > 1 {
        shrink_repeated(graph, &axes, &dims, size)?;
    }
    Ok(())
}

/// The batch axis of a node's output, if it has one.
fn output_axis(
    node: &Node,
    axes: &HashMap<String, usize>,
    dims: &HashMap<String, Vec<usize>>,
    out: &[usize],
    size: usize,
) -> Result<Option<usize>, String> {
    let input = |i: usize| {
        let name = node.input(i)?;
        Some((*axes.get(name)?, dims.get(name)?.as_slice()))
    };
    let lost = || {
        node.problem(format_args!(
            "joins the batch axis of {size} samples with others or removes it, so the batch size cannot be changed: export the \
             model with a dynamic batch axis (dynamic_axes or dynamic_shapes)"
        ))
    };
    let aligned = |(axis, dims): (usize, &[usize])| (axis + out.len()).checked_sub(dims.len());
    let found = match node.op.as_str() {
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            let Some((axis, dims)) = input(0) else {
                return Ok(None);
            };
            let before: usize = dims[..axis].iter().product();
            let is_batch = |j: &usize| {
                out[..*j].iter().product::<usize>() == before && out[*j].is_multiple_of(size)
            };
            (0..out.len()).find(is_batch)
        }
        "Transpose" => {
            let Some((axis, dims)) = input(0) else {
                return Ok(None);
            };
            match node.ints("perm")? {
                Some(perm) => perm.iter().position(|from| *from == axis as i64),
                None => Some(dims.len() - 1 - axis),
            }
        }
        "Gather" => {
            let (data, indices) = (node.required_input(0)?, node.required_input(1)?);
            let rank = |name: &str| dims.get(name).map_or(0, Vec::len);
            let along = node.axis_or(0, rank(data))?.ok_or_else(lost)?;
            match (axes.get(data), axes.get(indices)) {
                (None, None) => return Ok(None),
                (None, Some(axis)) => Some(along + axis),
                (Some(axis), None) if *axis < along => Some(*axis),
                (Some(axis), None) if *axis > along => Some(axis + rank(indices) - 1),
                _ => None,
            }
        }
        "MatMul" => match (input(0), input(1)) {
            (None, None) => return Ok(None),
            (Some((axis, left)), None) if axis + 1 < left.len() => {
                let is_vector = node
                    .input(1)
                    .and_then(|name| dims.get(name))
                    .is_some_and(|right| right.len() == 1);
                if is_vector {
                    Some(axis)
                } else {
                    aligned((axis, left))
                }
            }
            (None, Some((axis, right))) if axis + 2 != right.len() => aligned((axis, right)),
            (Some((axis, left)), Some(_)) if axis + 2 < left.len() => aligned((axis, left)),
            _ => None,
        },
        "Gemm" => match (input(0), node.int_or("transA", 0)?) {
            (None, _) => return Ok(None),
            (Some((axis, _)), transposed) => (axis == usize::from(transposed != 0)).then_some(0),
        },
        op if op.starts_with("Reduce") => {
            let Some((axis, dims)) = input(0) else {
                return Ok(None);
            };
            // Without axes of size 1, the batch axis moves to where the sizes before it end.
            match out.len() == dims.len() {
                true => Some(axis),
                false => {
                    let reduced = node.ints("axes")?.unwrap_or_default();
                    let is_before = |i: &&i64| index(**i, dims.len()).is_some_and(|i| i < axis);
                    match axis {
                        0 => Some(0),
                        _ if reduced.is_empty() => None,
                        _ => Some(axis - reduced.iter().filter(is_before).count()),
                    }
                }
            }
        }
        _ => {
            let inputs = (0..node.inputs.len()).filter_map(input);
            let mut found = inputs.map(aligned);
            match found.next() {
                None => return Ok(None),
                Some(first) => first.filter(|axis| found.all(|other| other == Some(*axis))),
            }
        }
    };
    let found = found.filter(|axis| out.get(*axis).is_some_and(|len| len % size == 0));
    found.map(Some).ok_or_else(lost)
}

/// The new shape of a `Reshape` or `Expand` whose shape is a constant.
fn open_target(
    graph: &Graph,
    node: &Node,
    dims: &HashMap<String, Vec<usize>>,
    out: &[usize],
    axis: usize,
) -> Option<Vec<i64>> {
    let open = match node.op.as_str() {
        "Reshape" => -1,
        // A size of 1 keeps the input's.
        "Expand" => 1,
        _ => return None,
    };
    graph.constants.get(node.input(1)?)?;
    dims.get(node.input(0)?)?;
    let mut target: Vec<i64> = out.iter().map(|size| *size as i64).collect();
    target[axis] = open;
    (!out.contains(&0)).then_some(target)
}

/// Values that are repeated for each sample, such as a class token, get a batch axis of size 1, which broadcasts. Exporters fold the
/// repetition of a parameter into the parameter.
fn shrink_repeated(
    graph: &mut Graph,
    axes: &HashMap<String, usize>,
    dims: &HashMap<String, Vec<usize>>,
    size: usize,
) -> Result<(), String> {
    let mut repeated: Vec<(String, usize)> = Vec::new();
    for node in &graph.nodes {
        let output = node.output()?;
        let (Some(axis), Some(out)) = (axes.get(output), dims.get(output)) else {
            continue;
        };
        if !broadcasts(node, out.len(), &[*axis]) {
            continue;
        }
        for name in node.inputs.iter().filter(|name| !axes.contains_key(*name)) {
            let Some(dims) = dims.get(name) else { continue };
            let own = (axis + dims.len()).checked_sub(out.len());
            if let Some(own) = own.filter(|own| dims[*own] == size) {
                repeated.push((name.clone(), own));
            }
        }
    }
    repeated.sort();
    repeated.dedup();
    for (name, axis) in repeated {
        let stuck = || {
            format!(
                "has a value `{name}` of {size} different samples: export it with a dynamic batch axis"
            )
        };
        let given = graph
            .constants
            .get_mut(&name)
            .or_else(|| graph.weights.get_mut(&name));
        if let Some(tensor) = given {
            *tensor = first_of_equals(tensor, axis).ok_or_else(stuck)?;
            continue;
        }
        let producer = graph
            .nodes
            .iter()
            .position(|node| node.outputs.contains(&name));
        let i = producer.ok_or_else(stuck)?;
        let is_expand = graph.nodes[i].op == "Expand";
        let target = graph.nodes[i].input(1).filter(|_| is_expand);
        let mut target = target
            .and_then(|target| graph.const_ints(target))
            .ok_or_else(stuck)?;
        *target.get_mut(axis).ok_or_else(stuck)? = 1;
        graph.set_target_shape(i, target)?;
    }
    Ok(())
}

/// The first entry of an axis, if all are equal.
fn first_of_equals(tensor: &Tensor, axis: usize) -> Option<Tensor> {
    let first = tensor.narrow(axis, 0, 1).ok()?;
    let all = first.broadcast_as(tensor.shape()).ok()?;
    let differ = all
        .ne(tensor)
        .ok()?
        .flatten_all()
        .ok()?
        .to_vec1::<u8>()
        .ok()?;
    match differ.contains(&1) {
        true => None,
        false => first.contiguous().ok(),
    }
}
