//! [`resolve`]: pieces of a split tensor, which exporters without optimisation write as a sequence of tensors.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::graph::{Graph, Node};

/// Replaces each `SequenceAt` of a `SplitToSequence`, with sizes and an index that are constants, by a `Slice`.
pub(super) fn resolve(graph: &mut Graph) -> Result<(), String> {
    let mut sequences: HashMap<String, Pieces> = HashMap::new();
    let mut nodes = std::mem::take(&mut graph.nodes);
    for node in nodes.iter_mut().filter(|node| node.domain.is_empty()) {
        match &node.op[..] {
            "SplitToSequence" => {
                if let Some(pieces) = Pieces::of(node, graph)? {
                    sequences.insert(node.output()?.to_owned(), pieces);
                }
            }
            "SequenceAt" => {
                let pieces = node.input(0).and_then(|name| sequences.get(name));
                let index = node.input(1).and_then(|name| graph.const_ints(name));
                if let (Some(pieces), Some([index])) = (pieces, index.as_deref())
                    && let Some(range) = pieces.range(*index)
                {
                    *node = pieces.slice(node, range, graph)?;
                }
            }
            _ => {}
        }
    }
    graph.nodes = nodes;
    Ok(())
}

/// The pieces of a tensor along an axis.
struct Pieces {
    tensor: String,
    axis: i64,
    sizes: Sizes,
}

enum Sizes {
    /// All pieces but perhaps the last have this size.
    Equal(i64),
    Each(Vec<i64>),
}

impl Pieces {
    /// The pieces that a node makes, if their sizes are constants.
    fn of(node: &Node, graph: &Graph) -> Result<Option<Self>, String> {
        let Some(name) = node.input(1) else {
            return Ok(None);
        };
        let Some(sizes) = graph.const_ints(name) else {
            return Ok(None);
        };
        let is_number = graph
            .constants
            .get(name)
            .is_some_and(|tensor| tensor.rank() == 0);
        if sizes.iter().any(|size| *size < 0) {
            return Err(node.problem(format_args!("splits into pieces of the sizes {sizes:?}")));
        }
        Ok(Some(Self {
            tensor: node.required_input(0)?.to_owned(),
            axis: node.int_or("axis", 0)?,
            sizes: match is_number {
                true => Sizes::Equal(sizes[0]),
                false => Sizes::Each(sizes),
            },
        }))
    }

    /// Start and end of a piece; `None` if its number counts from the end or is too large.
    fn range(&self, index: i64) -> Option<[i64; 2]> {
        let i = usize::try_from(index).ok()?;
        match &self.sizes {
            Sizes::Equal(size) => Some([
                index.checked_mul(*size)?,
                index.checked_add(1)?.checked_mul(*size)?,
            ]),
            Sizes::Each(sizes) => {
                let size = sizes.get(i)?;
                let start = sizes[..i]
                    .iter()
                    .try_fold(0i64, |sum, size| sum.checked_add(*size))?;
                Some([start, start.checked_add(*size)?])
            }
        }
    }

    /// The `Slice` with the name and the output of `node`.
    fn slice(
        &self,
        node: &Node,
        [start, end]: [i64; 2],
        graph: &mut Graph,
    ) -> Result<Node, String> {
        let output = node.output()?;
        let mut inputs = vec![self.tensor.clone()];
        for (what, value) in [("start", start), ("end", end), ("axis", self.axis)] {
            let name = format!("{output}#{what}");
            let value = Tensor::new(&[value], &Device::Cpu).map_err(|e| node.problem(e))?;
            if graph.constants.insert(name.clone(), value).is_some() {
                return Err(format!("the value `{name}` is defined twice"));
            }
            inputs.push(name);
        }
        Ok(Node {
            op: "Slice".into(),
            inputs,
            ..node.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::{Attribute, node};
    use super::*;

    #[test]
    fn pieces_are_slices() {
        let mut split = node("SplitToSequence", &["x", "sizes"], "s");
        split.attributes.insert("axis".into(), Attribute::Int(-1));
        for (sizes, expected) in [
            (Tensor::new(3i64, &Device::Cpu), [3, 6]),
            (Tensor::new(&[2i64, 5], &Device::Cpu), [2, 7]),
        ] {
            let constants = [
                ("sizes".to_owned(), sizes.unwrap()),
                ("one".to_owned(), Tensor::new(1i64, &Device::Cpu).unwrap()),
                ("last".to_owned(), Tensor::new(-1i64, &Device::Cpu).unwrap()),
            ];
            let mut graph = Graph {
                nodes: vec![
                    split.clone(),
                    node("SequenceAt", &["s", "one"], "y"),
                    node("SequenceAt", &["s", "last"], "z"),
                ],
                constants: constants.into(),
                ..Graph::default()
            };
            resolve(&mut graph).unwrap();
            let [_, slice, other] = &graph.nodes[..] else {
                panic!("{:?}", graph.nodes);
            };
            assert_eq!((&slice.op[..], slice.output()), ("Slice", Ok("y")));
            assert_eq!(other.op, "SequenceAt");
            assert_eq!(slice.inputs[0], "x");
            let found = [1, 2, 3].map(|i| graph.const_ints(&slice.inputs[i]).unwrap());
            assert_eq!(found, [[expected[0]], [expected[1]], [-1]]);
        }
    }
}
