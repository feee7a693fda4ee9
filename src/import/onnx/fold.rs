//! [`fold`]: computes what depends only on constants and on the shape of a sample, and makes the graph take batches of any size.
//!
//! The graph runs on batches of two sizes. A value that depends on no data and is the same in both runs is a constant. The axis of a
//! shape that differs is the batch axis.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Device, Tensor};

use super::batch;
use super::evaluate::{self, Mode, run};
use super::graph::{Dim, Graph, Kind, Node, ValueShape};
use super::parameters::{drop_unused, rename_inputs};
use crate::error::{Error, Result};
use crate::tensor_functions::entries;

/// Sizes of the two batches.
const SIZES: [usize; 2] = [2, 3];

/// Largest relative difference between outputs for the same sample in different batches.
const TOLERANCE: f64 = 1e-4;

/// What a run shows of a value.
struct Seen {
    dims: Vec<usize>,
    kind: Kind,
    /// The value, if it depends neither on data nor on weights.
    known: Option<Tensor>,
}

/// Folds a graph for samples of shape `sample`. With `fixed`, the file states this batch size.
pub(super) fn fold(graph: &mut Graph, sample: &[usize], fixed: Option<usize>) -> Result<()> {
    compute_constants(graph)?;
    if let Some(size) = fixed {
        let (seen, _) = observe(graph, &inputs(graph, sample, size)?)?;
        let dims = seen
            .into_iter()
            .map(|(name, seen)| (name, seen.dims))
            .collect();
        batch::free(graph, dims, size).map_err(Error::Invalid)?;
    }
    let [first, second] = SIZES.map(|size| inputs(graph, sample, size));
    let [first, second] = [first?, second?];
    let (seen, outputs) = observe(graph, &first)?;
    let (others, other_outputs) = observe(graph, &second)?;
    check_samples(graph, &outputs, &other_outputs)?;
    graph.shapes = shapes(&seen, &others)?;
    let batch_first = graph
        .outputs
        .first()
        .and_then(|output| graph.shapes.get(&output.name));
    if let Some(shape) = batch_first.filter(|shape| shape.sample().is_none()) {
        return Err(Error::invalid(format!(
            "has an output of shape {shape}, where n is the batch size: expected one output per sample, shape (n, …)"
        )));
    }
    replace_constants(graph, &seen, &others)?;
    fix_shapes(graph, &seen)?;
    remove_copies(graph, &seen);
    drop_unused(graph);
    graph.check_order().map_err(Error::Invalid)
}

/// Computes the nodes that read only constants.
fn compute_constants(graph: &mut Graph) -> Result<()> {
    let mut nodes = Vec::new();
    for node in std::mem::take(&mut graph.nodes) {
        let [output] = &node.outputs[..] else {
            nodes.push(node);
            continue;
        };
        let inputs = node.inputs.iter().map(|name| match name.as_str() {
            "" => Some(None),
            name => graph.constants.get(name).cloned().map(Some),
        });
        match inputs.collect::<Option<Vec<_>>>() {
            Some(inputs) if !graph.is_output(output) => {
                let value = evaluate::node(&node, inputs)?;
                let value = match Kind::of(&value) {
                    Kind::Float => value.to_dtype(dtype(graph))?,
                    _ => value,
                };
                graph.constants.insert(output.clone(), value);
            }
            _ => nodes.push(node),
        }
    }
    graph.nodes = nodes;
    Ok(())
}

/// A batch of `size` samples that alternate between two different ones.
fn inputs(graph: &Graph, sample: &[usize], size: usize) -> Result<Tensor> {
    let kind = graph.inputs[0].kind;
    let len: usize = sample.iter().product();
    // Tokens are 0 or 1, so that they are in every table.
    let entry = |parity: usize, i: usize| match kind {
        Kind::Float => (1.0 + i as f64 * (1.7 + parity as f64)).sin(),
        _ => (parity * (i % 2)) as f64,
    };
    // The smaller batch begins with the sample of parity 0, the larger one with the other.
    let parity = |j: usize| (j + size) % 2;
    let values = (0..size).flat_map(|j| (0..len).map(move |i| entry(parity(j), i)));
    let values: Vec<f64> = values.collect();
    let tensor = Tensor::from_vec(values, [&[size], sample].concat(), &Device::Cpu)?;
    Ok(match kind {
        Kind::Float => tensor.to_dtype(dtype(graph))?,
        Kind::Integer => tensor.to_dtype(DType::I64)?,
        Kind::Boolean => tensor.to_dtype(DType::U8)?,
    })
}

/// Two samples, in a batch of three.
pub(super) fn samples(graph: &Graph, sample: &[usize]) -> Result<Tensor> {
    inputs(graph, sample, SIZES[1])
}

/// The largest relative difference of two outputs, if it is more than rounding explains.
pub(super) fn difference(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return Some(f64::INFINITY);
    }
    let size = a.iter().fold(1.0f64, |size, x| size.max(x.abs()));
    let pairs = a.iter().zip(b);
    // Entries that are not numbers in both do not differ.
    let differences = pairs.map(|(a, b)| {
        if a.is_nan() && b.is_nan() {
            0.0
        } else {
            (a - b).abs() / size
        }
    });
    let largest = differences.fold(
        0.0,
        |largest: f64, d| if d <= largest { largest } else { d },
    );
    (largest.is_nan() || largest > TOLERANCE).then_some(largest)
}

/// The type of the floats of a graph.
pub(super) fn dtype(graph: &Graph) -> DType {
    let first = graph.weights.values().next();
    first.map_or(DType::F32, Tensor::dtype)
}

/// Runs the graph and returns what it shows of each value, and the output.
fn observe(graph: &Graph, input: &Tensor) -> Result<(HashMap<String, Seen>, Tensor)> {
    let seen_of = |tensor: &Tensor, known: Option<Tensor>| Seen {
        dims: tensor.dims().to_vec(),
        kind: Kind::of(tensor),
        known,
    };
    let mut seen = HashMap::from([(graph.inputs[0].name.clone(), seen_of(input, None))]);
    let unknown = graph.weights.iter().chain(&graph.statistics);
    seen.extend(unknown.map(|(name, tensor)| (name.clone(), seen_of(tensor, None))));
    let constants = graph.constants.iter();
    seen.extend(
        constants.map(|(name, tensor)| (name.clone(), seen_of(tensor, Some(tensor.clone())))),
    );
    let mut record = |node: &Node, outputs: &[Tensor]| {
        let is_shape = matches!(node.op.as_str(), "Shape" | "Size");
        // Only the type of the second input counts.
        let count = if node.op == "CastLike" {
            1
        } else {
            node.inputs.len()
        };
        let mut inputs = node
            .inputs
            .iter()
            .take(count)
            .filter(|name| !name.is_empty());
        let is_known =
            is_shape || inputs.all(|name| seen.get(name).is_some_and(|seen| seen.known.is_some()));
        for (name, tensor) in node.outputs.iter().zip(outputs) {
            let known = is_known.then(|| tensor.clone());
            seen.insert(name.clone(), seen_of(tensor, known));
        }
    };
    let setting = (dtype(graph), &Device::Cpu);
    let output = run(
        graph,
        &|name| graph.initialiser(name),
        input.clone(),
        setting,
        Mode::Inference,
        &mut record,
    )?;
    Ok((seen, output))
}

/// Returns an error if the outputs for the same samples differ between the two batches.
fn check_samples(graph: &Graph, first: &Tensor, second: &Tensor) -> Result<()> {
    let rows = |output: &Tensor, size: usize| -> Result<Vec<Vec<f64>>> {
        match output.dims() {
            [n, ..] if *n == size => Ok(output
                .flatten_from(1)
                .or_else(|_| output.unsqueeze(1))?
                .to_dtype(DType::F64)?
                .to_vec2()?),
            dims => Err(Error::invalid(format!(
                "has an output `{}` of shape {dims:?} for {size} samples: expected one output per sample, shape (n, …)",
                graph.outputs[0].name
            ))),
        }
    };
    let (first, second) = (rows(first, SIZES[0])?, rows(second, SIZES[1])?);
    // The batches alternate, and begin with different samples.
    let pairs = [
        (&first[0], &second[1]),
        (&first[1], &second[0]),
        (&first[1], &second[2]),
    ];
    for (a, b) in pairs {
        if difference(a, b).is_some() {
            return Err(Error::invalid(
                "has outputs for a sample that depend on the other samples of the batch: export it in evaluation mode, with a \
                 dynamic batch axis (dynamic_axes or dynamic_shapes)",
            ));
        }
    }
    Ok(())
}

/// Shapes from the sizes in both runs.
fn shapes(
    first: &HashMap<String, Seen>,
    second: &HashMap<String, Seen>,
) -> Result<HashMap<String, ValueShape>> {
    let mut shapes = HashMap::new();
    for (name, a) in first {
        let Some(b) = second.get(name) else { continue };
        if a.dims.len() != b.dims.len() {
            return Err(Error::invalid(format!(
                "has a value `{name}` whose number of axes depends on the batch size"
            )));
        }
        let sizes = a.dims.iter().zip(&b.dims).map(|(a, b)| match a == b {
            true => Some(Dim::Fixed(*a)),
            false => (a * SIZES[1] == b * SIZES[0]).then(|| Dim::Batch(a / SIZES[0])),
        });
        // A size such as n + 1 is computed at run time.
        if let Some(sizes) = sizes.collect() {
            shapes.insert(name.clone(), ValueShape(sizes));
        }
    }
    Ok(shapes)
}

/// Turns values that are known and the same in both runs into constants.
fn replace_constants(
    graph: &mut Graph,
    first: &HashMap<String, Seen>,
    second: &HashMap<String, Seen>,
) -> Result<()> {
    let mut folded = Vec::new();
    for node in &graph.nodes {
        for name in &node.outputs {
            let known =
                |seen: &HashMap<String, Seen>| seen.get(name).and_then(|seen| seen.known.clone());
            if let (Some(a), Some(b)) = (known(first), known(second))
                && are_equal(&a, &b)?
            {
                folded.push((name.clone(), a.contiguous()?));
            }
        }
    }
    let names: HashSet<&str> = folded.iter().map(|(name, _)| name.as_str()).collect();
    let is_folded = |name: &String| name.is_empty() || names.contains(name.as_str());
    graph
        .nodes
        .retain(|node| !node.outputs.iter().all(is_folded));
    // A node with some outputs that are not constant keeps all of them.
    let computed: HashSet<&String> = graph.nodes.iter().flat_map(|node| &node.outputs).collect();
    let folded: Vec<_> = folded
        .iter()
        .filter(|(name, _)| !computed.contains(name))
        .cloned()
        .collect();
    graph.constants.extend(folded);
    Ok(())
}

fn are_equal(a: &Tensor, b: &Tensor) -> Result<bool> {
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        return Ok(false);
    }
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
    Ok(match a.dtype() {
        DType::I64 => a.flatten_all()?.to_vec1::<i64>()? == b.flatten_all()?.to_vec1::<i64>()?,
        _ => entries(a)?.iter().zip(&entries(b)?).all(same),
    })
}

/// Replaces computed shapes of `Reshape` and `Expand` by constants: −1 for the axis that depends on the batch, and 1 for one that
/// `Expand` only repeats for it.
fn fix_shapes(graph: &mut Graph, seen: &HashMap<String, Seen>) -> Result<()> {
    let mut changes = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let (Some(input), Ok(output)) = (node.input(0), node.output()) else {
            continue;
        };
        let Some(shape) = graph.shapes.get(output) else {
            continue;
        };
        let mut target: Vec<i64> = shape
            .0
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => *size as i64,
                Dim::Batch(_) => -1,
            })
            .collect();
        let open = target.iter().filter(|size| **size == -1).count();
        match node.op.as_str() {
            "Reshape" if open <= 1 && !target.contains(&0) => {}
            "Expand" if open == 0 => {}
            "Expand" if is_repetition(graph, shape, output, seen.get(input)) => {
                for size in target.iter_mut().filter(|size| **size == -1) {
                    *size = 1;
                }
            }
            _ => continue,
        }
        changes.push((i, target));
    }
    for (i, target) in changes {
        let node = &graph.nodes[i];
        if node.op == "Expand" {
            let sizes = target.iter().map(|size| Dim::Fixed(*size as usize));
            graph
                .shapes
                .insert(node.outputs[0].clone(), ValueShape(sizes.collect()));
        }
        graph.set_target_shape(i, target).map_err(Error::Invalid)?;
    }
    Ok(())
}

/// Whether `Expand` repeats a value for each sample, and all nodes that read it broadcast.
fn is_repetition(graph: &Graph, shape: &ValueShape, output: &str, input: Option<&Seen>) -> bool {
    let Some(input) = input else { return false };
    let Some(added) = shape.rank().checked_sub(input.dims.len()) else {
        return false;
    };
    let is_repeated = |i: usize| i < added || input.dims[i - added] == 1;
    let open: Vec<usize> = (0..shape.rank())
        .filter(|i| matches!(shape.0[*i], Dim::Batch(_)))
        .collect();
    open.iter().all(|i| is_repeated(*i))
        && !graph.is_output(output)
        && graph
            .consumers(output)
            .all(|node| batch::broadcasts(node, shape.rank(), &open))
}

/// Removes nodes that return their input.
fn remove_copies(graph: &mut Graph, seen: &HashMap<String, Seen>) {
    let mut names: HashMap<String, String> = HashMap::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        rename_inputs(&mut node, &names);
        match copied(graph, &node, seen) {
            Some((input, output)) => {
                names.insert(output, input);
            }
            None => graph.nodes.push(node),
        }
    }
}

/// Names of the input and the output if they are the same.
fn copied(graph: &Graph, node: &Node, seen: &HashMap<String, Seen>) -> Option<(String, String)> {
    let (input, output) = (node.input(0)?, node.output().ok()?);
    if !node.domain.is_empty() || graph.is_output(output) || node.outputs.len() > 1 {
        return None;
    }
    let is_same = match node.op.as_str() {
        "Identity" => true,
        "Cast" | "CastLike" => seen.get(input)?.kind == seen.get(output)?.kind,
        "Reshape" | "Expand" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            graph.shapes.get(input)? == graph.shapes.get(output)?
        }
        "Transpose" => {
            let axes = node.ints("perm").ok()??;
            axes.iter().enumerate().all(|(i, axis)| i as i64 == *axis)
        }
        _ => false,
    };
    is_same.then(|| (input.to_owned(), output.to_owned()))
}
