//! [`Parameters`]: our parameters, each made of the entries of a weight in the file, and their names.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::super::graph::{Graph, Node};
use super::view::{Base, View};

/// A parameter of the layers.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// Name in the file.
    pub weight: String,
    /// Index in the file's weight of each value; `None` for all in order.
    pub entries: Option<Vec<usize>>,
    pub shape: Vec<usize>,
}

impl Parameter {
    /// Its values in the dtype of the file's weight.
    pub fn tensor(&self, graph: &Graph) -> candle_core::Result<Tensor> {
        let flat = graph.weights[&self.weight].flatten_all()?;
        let values = match &self.entries {
            None => flat,
            Some(entries) => {
                let entries = entries.iter().map(|e| *e as u32);
                flat.index_select(&Tensor::from_iter(entries, flat.device())?, 0)?
            }
        };
        values.reshape(&self.shape[..])
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn shows_the_same(&self, other: &Self) -> bool {
        self.weight == other.weight && self.entries == other.entries
    }
}

/// Parameters by name.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    by_name: BTreeMap<String, Parameter>,
}

impl Parameters {
    pub fn get(&self, name: &str) -> &Parameter {
        &self.by_name[name]
    }

    /// Sets the shape of a parameter.
    pub fn reshape(&mut self, name: &str, shape: Vec<usize>) {
        if let Some(parameter) = self.by_name.get_mut(name) {
            parameter.shape = shape;
        }
    }

    /// The name of the parameter that a node reads as its `part`, "weight" or "bias".
    pub fn add(
        &mut self,
        graph: &Graph,
        node: &Node,
        view: &View,
        shape: Vec<usize>,
        part: &str,
    ) -> Result<String, String> {
        let Base::Weight(weight) = &view.base else {
            return Err(node.problem(format_args!("has a {part} that the network computes")));
        };
        if view.scale != 1.0 || view.function.is_some() {
            return Err(node.problem(format_args!("changes its {part} `{weight}`")));
        }
        let parameter = Parameter {
            weight: weight.clone(),
            entries: (!view.is_whole()).then(|| view.entries()),
            shape,
        };
        let mut others = self.by_name.iter();
        let same = others
            .find(|(_, other)| other.shape == parameter.shape && other.shows_the_same(&parameter));
        if let Some((name, _)) = same {
            return Ok(name.clone());
        }
        let name = self.free_name(weight_name(graph, node, weight, part));
        self.by_name.insert(name.clone(), parameter);
        Ok(name)
    }

    /// The rows of a parameter that belong to a part of a layer; all rows are the parameter itself.
    pub fn rows(&mut self, name: &str, rows: &[usize], part: &str) -> String {
        let parameter = self.get(name);
        if rows.len() == parameter.shape[0] && rows.iter().enumerate().all(|(i, row)| i == *row) {
            return name.to_owned();
        }
        let width = parameter.len() / parameter.shape[0];
        let places = rows.iter().flat_map(|row| row * width..(row + 1) * width);
        let entries = match &parameter.entries {
            None => places.collect(),
            Some(entries) => places.map(|i| entries[i]).collect(),
        };
        let piece = Parameter {
            weight: parameter.weight.clone(),
            entries: Some(entries),
            shape: [&[rows.len()], &parameter.shape[1..]].concat(),
        };
        let kind = ["weight", "bias"].into_iter().find(|k| name.ends_with(k));
        let stem = name.trim_end_matches(kind.unwrap_or_default());
        let stem = stem.trim_end_matches(['.', '_']);
        let name = format!("{stem}.{part}.{}", kind.unwrap_or("weight"));
        if let Some(other) = self.by_name.get(&name)
            && other.shows_the_same(&piece)
        {
            return name;
        }
        let name = self.free_name(name);
        self.by_name.insert(name.clone(), piece);
        name
    }

    fn free_name(&self, name: String) -> String {
        let is_free = |name: &String| !self.by_name.contains_key(name);
        let numbered = (2..).map(|i| format!("{name}.{i}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(is_free).unwrap_or(name)
    }

    /// Those parameters that layers use.
    ///
    /// # Errors
    /// Two parameters that share some entries of a weight.
    pub fn used(self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Parameter>, String> {
        let mut by_name = self.by_name;
        by_name.retain(|name, _| names.contains(name));
        let mut by_weight: BTreeMap<&str, Vec<(&str, &Parameter)>> = BTreeMap::new();
        for (name, parameter) in &by_name {
            let parts = by_weight.entry(&parameter.weight).or_default();
            parts.push((name, parameter));
        }
        for (weight, parts) in by_weight {
            let mut entries: Vec<usize> = parts
                .iter()
                .flat_map(|(_, p)| p.entries.clone().unwrap_or_else(|| (0..p.len()).collect()))
                .collect();
            let count = entries.len();
            entries.sort_unstable();
            entries.dedup();
            if entries.len() < count {
                let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "the layers' parameters {} share entries of `{weight}`",
                    names.join(", ")
                ));
            }
        }
        Ok(by_name)
    }
}

/// The name of a node's weight or bias: the file's, if it has a name, or that of the module.
fn weight_name(graph: &Graph, node: &Node, weight: &str, part: &str) -> String {
    if !is_numbered(weight) {
        return weight.to_owned();
    }
    let by_bias = || {
        let sums = graph.consumers(node.output().ok()?);
        let biases = sums
            .filter(|sum| sum.op == "Add")
            .flat_map(|sum| &sum.inputs);
        let own = node.inputs.iter().skip(2);
        let mut names = biases
            .chain(own)
            .filter(|name| graph.weights.contains_key(*name));
        let name = names.find(|name| !is_numbered(name))?;
        Some(format!("{}{part}", name.strip_suffix("bias")?))
    };
    let by_module = || Some(format!("{}.{part}", module(&node.name)?));
    by_bias()
        .or_else(by_module)
        .unwrap_or_else(|| weight.to_owned())
}

/// Whether an exporter made up the name of a value: `onnx::MatMul_12`, `val_12`.
fn is_numbered(name: &str) -> bool {
    let (stem, number) = name.rsplit_once('_').unwrap_or((name, ""));
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    is_number && (stem.contains("::") || stem == "val")
}

/// The module of a node called `/layer1/layer1.0/conv1/Conv`: `layer1.0.conv1`.
fn module(node: &str) -> Option<String> {
    let (path, _) = node.strip_prefix('/')?.rsplit_once('/')?;
    let mut modules: Vec<&str> = Vec::new();
    for part in path.split('/') {
        let parent = modules.last().copied().unwrap_or_default();
        if !parent.is_empty() && part.starts_with(&format!("{parent}.")) {
            modules.pop();
        }
        modules.push(part);
    }
    Some(modules.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_from_the_names_of_nodes() {
        assert_eq!(module("/fc/Gemm").as_deref(), Some("fc"));
        let block = module("/layer1/layer1.0/conv1/Conv");
        assert_eq!(block.as_deref(), Some("layer1.0.conv1"));
        let nested = module("/features/features.1/conv/conv.0/Conv");
        assert_eq!(nested.as_deref(), Some("features.1.conv.0"));
        assert_eq!(module("/Relu"), None);
        assert_eq!(module("node_linear"), None);
        assert!(is_numbered("onnx::MatMul_12") && is_numbered("val_3"));
        assert!(!is_numbered("layer_1") && !is_numbered("fc.weight"));
    }
}
