//! [`Graph`]: an ONNX graph after folding, which [`evaluate`](super::evaluate) runs and the rules of [`layers`](super::layers) read.
//!
//! Functions return their errors as text that names the operator and the node; [`Onnx`](super::Onnx) adds the path of the file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use candle_core::{DType, Device, Tensor};

use crate::layers::Shape;
use crate::tensor_functions::entries;

/// A graph: nodes in topological order over named values.
///
/// Every value is exactly one of: an input, a constant, a weight, a statistic, or the output of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    /// Inputs, without the initialisers that some exporters repeat among them.
    pub inputs: Vec<Value>,
    /// Outputs.
    pub outputs: Vec<Value>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Initialisers that are not weights, and folded constants, on the host: floats `f32` or `f64`, integers `i64`, booleans `u8`.
    pub constants: HashMap<String, Tensor>,
    /// Floating initialisers that are parameters, in the file's layout, on the host in `f32` or `f64`.
    pub weights: BTreeMap<String, Tensor>,
    /// Weights of which the file says that they are no parameters of the network; see [`untrained`](super::origin::untrained).
    pub untrained: HashSet<String>,
    /// Running means and variances of batch normalisation, on the host in `f32` or `f64`.
    pub statistics: BTreeMap<String, Tensor>,
    /// Shape of every value, known after folding.
    pub shapes: HashMap<String, ValueShape>,
}

/// An input or output of a graph.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// Its name.
    pub name: String,
    /// Kind of its entries.
    pub kind: Kind,
    /// Size of each axis; `None` if the file leaves it open. `None` for all if the file states no shape.
    pub dims: Option<Vec<Option<usize>>>,
}

/// Kind of a tensor's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Integer,
    Boolean,
}

impl Kind {
    /// Kind of a constant.
    pub fn of(tensor: &Tensor) -> Self {
        match tensor.dtype() {
            DType::I64 => Self::Integer,
            DType::U8 => Self::Boolean,
            _ => Self::Float,
        }
    }
}

/// The shape of a value, with the batch axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueShape(pub Vec<Dim>);

/// Size of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    /// The same for every batch.
    Fixed(usize),
    /// This multiple of the batch size.
    Batch(usize),
}

impl ValueShape {
    /// The shape of one sample, if axis 0 is the batch axis and no other axis depends on the batch.
    pub fn sample(&self) -> Option<Shape> {
        let (Dim::Batch(1), rest) = self.0.split_first()? else {
            return None;
        };
        let fixed = rest.iter().map(|dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Batch(_) => None,
        });
        Some(Shape::new(fixed.collect::<Option<Vec<_>>>()?))
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for ValueShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = self.0.iter().map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Batch(1) => "n".to_owned(),
            Dim::Batch(times) => format!("{times}n"),
        });
        let dims: Vec<_> = dims.collect();
        match &dims[..] {
            [one] => write!(f, "({one},)"),
            dims => write!(f, "({})", dims.join(", ")),
        }
    }
}

/// A node: one operator on named values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// Name of the node; may be empty.
    pub name: String,
    /// The operator, such as `Conv`.
    pub op: String,
    /// Domain of the operator; empty for ONNX's own.
    pub domain: String,
    /// Version of the operator's domain.
    pub opset: i64,
    /// Names of the inputs; empty for one that is absent.
    pub inputs: Vec<String>,
    /// Names of the outputs; empty for one that is not used.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: HashMap<String, Attribute>,
}

/// An attribute of a node.
#[derive(Clone, Debug)]
pub(crate) enum Attribute {
    Float(f64),
    Int(i64),
    Text(String),
    Tensor(Tensor),
    Floats(Vec<f64>),
    Ints(Vec<i64>),
    /// A kind that no supported operator has, by its name.
    Other(&'static str),
}

impl fmt::Display for Node {
    /// The operator and the node: "`Conv` of node `/conv1/Conv`". A node without a name is called by its output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.domain[..], &self.op) {
            ("", op) => write!(f, "`{op}`")?,
            (domain, op) => write!(f, "`{domain}.{op}`")?,
        }
        match (&self.name[..], self.outputs.first()) {
            ("", Some(output)) => write!(f, " of the node with output `{output}`"),
            (name, _) => write!(f, " of node `{name}`"),
        }
    }
}

impl Node {
    /// The name of input `i`, if it is there.
    pub fn input(&self, i: usize) -> Option<&str> {
        let name = self.inputs.get(i).map(String::as_str);
        name.filter(|name| !name.is_empty())
    }

    /// The name of input `i`.
    pub fn required_input(&self, i: usize) -> Result<&str, String> {
        let missing = || format!("{self} has no input {i}, which it needs");
        self.input(i).ok_or_else(missing)
    }

    /// The name of the first output.
    pub fn output(&self) -> Result<&str, String> {
        let first = self.outputs.first().filter(|name| !name.is_empty());
        first
            .map(String::as_str)
            .ok_or_else(|| format!("{self} has no output"))
    }

    /// An error about the node: "`Conv` of node `/conv1/Conv` …".
    pub fn problem(&self, problem: impl fmt::Display) -> String {
        format!("{self} {problem}")
    }

    fn wrong_type(&self, name: &str, wanted: &str, found: &Attribute) -> String {
        let found = match found {
            Attribute::Float(_) => "a float",
            Attribute::Int(_) => "an integer",
            Attribute::Text(_) => "text",
            Attribute::Tensor(_) => "a tensor",
            Attribute::Floats(_) => "floats",
            Attribute::Ints(_) => "integers",
            Attribute::Other(kind) => kind,
        };
        self.problem(format_args!(
            "has the attribute `{name}` as {found}, expected {wanted}"
        ))
    }

    /// An integer attribute, if it is there.
    pub fn int(&self, name: &str) -> Result<Option<i64>, String> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Int(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong_type(name, "an integer", other)),
        }
    }

    /// An integer attribute, or its default.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64, String> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// The attribute `axis`, or its default, for a tensor of this rank; `None` if the tensor has no such axis.
    pub fn axis_or(&self, default: i64, rank: usize) -> Result<Option<usize>, String> {
        Ok(index(self.int_or("axis", default)?, rank))
    }

    /// A floating-point attribute, or its default.
    pub fn float_or(&self, name: &str, default: f64) -> Result<f64, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) => Ok(*value),
            Some(other) => Err(self.wrong_type(name, "a float", other)),
        }
    }

    /// A text attribute, or its default.
    pub fn text_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Text(value)) => Ok(value),
            Some(other) => Err(self.wrong_type(name, "text", other)),
        }
    }

    /// A list of integers, if the attribute is there. An empty list may come without a type.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>, String> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(other) => Err(self.wrong_type(name, "integers", other)),
        }
    }

    /// A list of sizes that are not negative, of length `len`, or `default` for each.
    pub fn sizes_or(&self, name: &str, len: usize, default: usize) -> Result<Vec<usize>, String> {
        let Some(values) = self.ints(name)? else {
            return Ok(vec![default; len]);
        };
        let sizes: Option<Vec<usize>> = values.iter().map(|v| usize::try_from(*v).ok()).collect();
        match sizes {
            Some(sizes) if sizes.len() == len => Ok(sizes),
            _ => Err(self.problem(format_args!(
                "has {name} {values:?}: expected {len} numbers, none negative"
            ))),
        }
    }
}

/// Index `i` counted from the start, also if it is negative and so counts from the end of `len` entries. It may be out of range.
pub(super) fn from_start(i: i64, len: usize) -> i64 {
    if i < 0 { i + len as i64 } else { i }
}

/// The entry or axis with index `i` among `len`, where negative indices count from the end; `None` if it is out of range.
pub(super) fn index(i: i64, len: usize) -> Option<usize> {
    let index = usize::try_from(from_start(i, len)).ok();
    index.filter(|index| *index < len)
}

impl Graph {
    /// The value of a constant, weight or statistic.
    pub fn initialiser(&self, name: &str) -> Option<Tensor> {
        let weight = || self.weights.get(name);
        let statistic = || self.statistics.get(name);
        let found = self.constants.get(name).or_else(weight).or_else(statistic);
        found.cloned()
    }

    /// Values of a constant of integers.
    pub fn const_ints(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.constants.get(name)?;
        let is_integer = Kind::of(tensor) == Kind::Integer;
        is_integer
            .then(|| tensor.flatten_all()?.to_vec1())
            .and_then(Result::ok)
    }

    /// Values of a constant of floats.
    pub fn const_floats(&self, name: &str) -> Option<Vec<f64>> {
        let tensor = self.constants.get(name)?;
        let is_float = Kind::of(tensor) == Kind::Float;
        is_float.then(|| entries(tensor)).and_then(Result::ok)
    }

    /// The number in a constant of one float, of any rank.
    pub fn const_scalar(&self, name: &str) -> Option<f64> {
        match self.const_floats(name)?[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// The shape of a value, known after folding.
    pub fn shape(&self, name: &str) -> Option<&ValueShape> {
        self.shapes.get(name)
    }

    /// The nodes that read `name`.
    pub fn consumers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Node> {
        let nodes = self.nodes.iter();
        nodes.filter(move |node| node.inputs.iter().any(|input| input == name))
    }

    /// Gives node `i`, a `Reshape` or `Expand`, a constant of its own as the shape to which it reshapes or expands.
    pub fn set_target_shape(&mut self, i: usize, target: Vec<i64>) -> Result<(), String> {
        let node = &mut self.nodes[i];
        let mut name = format!("{}#shape", node.output()?);
        while self.constants.contains_key(&name) {
            name.push('#');
        }
        let len = target.len();
        let tensor = Tensor::from_vec(target, len, &Device::Cpu).map_err(|e| node.problem(e))?;
        match node.inputs.get_mut(1) {
            Some(input) => input.clone_from(&name),
            None => return Err(node.problem("has no shape as input 1")),
        }
        node.attributes.remove("allowzero");
        self.constants.insert(name, tensor);
        Ok(())
    }

    /// Whether `name` is an output of the graph.
    pub fn is_output(&self, name: &str) -> bool {
        self.outputs.iter().any(|output| output.name == name)
    }

    /// Checks that every value has one origin and is there before a node reads it.
    pub fn check_order(&self) -> Result<(), String> {
        let mut known: HashSet<&str> = HashSet::new();
        let inputs = self.inputs.iter().map(|input| &input.name);
        let given = self.constants.keys().chain(self.weights.keys());
        for name in inputs.chain(given).chain(self.statistics.keys()) {
            if !known.insert(name) {
                return Err(format!("the value `{name}` is defined twice"));
            }
        }
        for node in &self.nodes {
            for name in node.inputs.iter().filter(|name| !name.is_empty()) {
                if !known.contains(name.as_str()) {
                    return Err(node.problem(format_args!(
                        "reads `{name}`, which no earlier node and no initialiser defines"
                    )));
                }
            }
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                if !known.insert(name) {
                    return Err(node.problem(format_args!(
                        "has the output `{name}`, which is defined before"
                    )));
                }
            }
        }
        for Value { name, .. } in &self.outputs {
            if !known.contains(name.as_str()) {
                return Err(format!("the output `{name}` is not the output of any node"));
            }
        }
        Ok(())
    }
}

/// A node with one output.
#[cfg(test)]
pub(super) fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: format!("/{op}"),
        op: op.into(),
        inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
        outputs: vec![output.into()],
        ..Node::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: Vec<Node>) -> Graph {
        let value = |name: &str| Value {
            name: name.into(),
            kind: Kind::Float,
            dims: None,
        };
        Graph {
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            nodes,
            ..Graph::default()
        }
    }

    #[test]
    fn values_are_defined_once_before_they_are_read() {
        let [first, second] = [node("Relu", &["x"], "h"), node("Tanh", &["h"], "y")];
        let ordered = graph(vec![first.clone(), second.clone()]);
        assert_eq!(ordered.check_order(), Ok(()));
        let reversed = graph(vec![second.clone(), first.clone()]).check_order();
        assert!(
            reversed
                .unwrap_err()
                .contains("`Tanh` of node `/Tanh` reads `h`")
        );
        let twice = graph(vec![first.clone(), node("Neg", &["x"], "h"), second]).check_order();
        assert!(twice.unwrap_err().contains("`h`, which is defined before"));
        let missing = graph(vec![first]).check_order();
        assert!(missing.unwrap_err().contains("the output `y`"));
    }

    #[test]
    fn the_shape_of_a_sample_has_the_batch_first_and_once() {
        use Dim::{Batch, Fixed};
        let shape = ValueShape(vec![Batch(1), Fixed(3), Fixed(8)]);
        assert_eq!(shape.sample(), Some(Shape::new([3, 8])));
        assert_eq!(shape.to_string(), "(n, 3, 8)");
        let heads = ValueShape(vec![Batch(4), Fixed(8)]);
        assert_eq!(
            (heads.sample(), heads.to_string()),
            (None, "(4n, 8)".into())
        );
        assert_eq!(ValueShape(vec![Fixed(8), Batch(1)]).sample(), None);
    }

    #[test]
    fn negative_indices_count_from_the_end() {
        let found = [-4, -3, -1, 0, 2, 3, i64::MIN, i64::MAX].map(|i| index(i, 3));
        let expected = [None, Some(0), Some(2), Some(0), Some(2), None, None, None];
        assert_eq!(found, expected);
        assert_eq!(index(0, 0), None);
        let concat = node("Concat", &["a", "b"], "y");
        assert_eq!(concat.axis_or(-1, 4), Ok(Some(3)));
    }

    #[test]
    fn attributes_have_types() {
        let mut conv = node("Conv", &["x", "", "b"], "y");
        let group = Attribute::Float(2.0);
        conv.attributes.insert("group".into(), group);
        let strides = Attribute::Ints(vec![2, -1]);
        conv.attributes.insert("strides".into(), strides);
        assert_eq!(
            conv.int_or("group", 1).unwrap_err(),
            "`Conv` of node `/Conv` has the attribute `group` as a float, expected an integer"
        );
        assert!(
            conv.sizes_or("strides", 2, 1)
                .unwrap_err()
                .contains("[2, -1]")
        );
        assert_eq!(conv.sizes_or("dilations", 2, 1), Ok(vec![1, 1]));
        assert_eq!((conv.input(1), conv.input(2)), (None, Some("b")));
        assert!(conv.required_input(1).is_err());
    }
}
