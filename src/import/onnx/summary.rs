//! [`OnnxSummary`]: what an ONNX file holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Onnx;
use super::graph::Kind;
use crate::error::counted;
use crate::layers::Shape;

/// What an ONNX file holds. Its `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OnnxSummary {
    /// Name of the input.
    pub input: String,
    /// Whether inputs are tokens.
    pub reads_tokens: bool,
    /// Shape of a sample, without the batch axis.
    pub sample_shape: Vec<usize>,
    /// Name of the output.
    pub output: String,
    /// Shape of a sample's output.
    pub output_shape: Vec<usize>,
    /// The initialisers that are parameters, by name.
    pub parameters: Vec<OnnxParameter>,
    /// Number of all parameters.
    pub num_parameters: usize,
    /// Running statistics of batch normalisation: names and shapes.
    pub statistics: Vec<(String, Vec<usize>)>,
    /// Number of nodes of each operator, after constants are folded.
    pub operators: BTreeMap<String, usize>,
    /// Why derivatives are not hand-derived; `None` if they are.
    pub without_rules: Option<String>,
}

/// An initialiser that is a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OnnxParameter {
    /// Name in the file.
    pub initialiser: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Number of entries.
    pub count: usize,
    /// Names of the model's parameters that hold its values.
    pub names: Vec<String>,
}

impl OnnxSummary {
    pub(super) fn new(model: &Onnx) -> Self {
        let graph = &model.graph;
        let mut operators = BTreeMap::new();
        for node in &graph.nodes {
            *operators.entry(node.op.clone()).or_default() += 1;
        }
        let parameters: Vec<OnnxParameter> = graph
            .weights
            .iter()
            .map(|(name, tensor)| OnnxParameter {
                initialiser: name.clone(),
                shape: tensor.dims().to_vec(),
                count: tensor.elem_count(),
                names: model.names.get(name).cloned().unwrap_or_default(),
            })
            .collect();
        let output = graph.outputs.first().map(|output| output.name.clone());
        let output = output.unwrap_or_default();
        let output_shape = graph.shape(&output).and_then(|shape| shape.sample());
        let statistics = graph.statistics.iter();
        Self {
            input: graph.inputs[0].name.clone(),
            reads_tokens: graph.inputs[0].kind != Kind::Float,
            sample_shape: model.sample_shape(),
            output_shape: output_shape
                .map(|shape| shape.dims().to_vec())
                .unwrap_or_default(),
            output,
            num_parameters: parameters.iter().map(|parameter| parameter.count).sum(),
            parameters,
            statistics: statistics
                .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
                .collect(),
            operators,
            without_rules: model.rules().err(),
        }
    }
}

impl fmt::Display for OnnxSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |dims: &[usize]| Shape::new(dims).to_string();
        let kind = if self.reads_tokens {
            "tokens"
        } else {
            "numbers"
        };
        writeln!(
            f,
            "input `{}`: samples of shape {}, {kind}",
            self.input,
            shape(&self.sample_shape)
        )?;
        writeln!(
            f,
            "output `{}`: shape {} for each sample",
            self.output,
            shape(&self.output_shape)
        )?;
        match &self.without_rules {
            None => writeln!(f, "derivatives: by hand-derived rules")?,
            Some(reason) => writeln!(f, "derivatives: by candle's graph: {reason}")?,
        }
        let operators = self
            .operators
            .iter()
            .map(|(name, count)| format!("{count} {name}"));
        let nodes = self.operators.values().sum();
        let operators: Vec<_> = operators.collect();
        writeln!(
            f,
            "{} after folding: {}",
            counted(nodes, "node"),
            operators.join(", ")
        )?;
        if !self.statistics.is_empty() {
            writeln!(
                f,
                "{} of batch normalisation",
                counted(self.statistics.len(), "running statistic")
            )?;
        }
        writeln!(
            f,
            "{} in {}:",
            counted(self.num_parameters, "parameter"),
            counted(self.parameters.len(), "initialiser")
        )?;
        let rows = self.parameters.iter().map(|parameter| {
            let is_renamed = parameter.names != [parameter.initialiser.as_str()];
            let names = if is_renamed {
                parameter.names.join(", ")
            } else {
                String::new()
            };
            [
                parameter.initialiser.clone(),
                shape(&parameter.shape),
                parameter.count.to_string(),
                names,
            ]
        });
        let rows: Vec<[String; 4]> = rows.collect();
        let widths = [0, 1, 2].map(|i| {
            rows.iter()
                .map(|row| row[i].chars().count())
                .max()
                .unwrap_or(0)
        });
        for [name, shape, count, names] in &rows {
            let line = format!(
                "  {name:<0$}  {shape:<1$}  {count:>2$}  {names}",
                widths[0], widths[1], widths[2]
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
