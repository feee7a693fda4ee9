//! Blocks of parameters split by attention head.

use std::collections::HashMap;
use std::ops::Range;

use super::blocks::NamedRanges;
use crate::error::{Error, Result};
use crate::layers::{LayerKind, SelfAttention};
use crate::objective::Objective;
use crate::parameters::Parameters;

/// Splits each block by attention head, as `by_head` of a curvature matrix describes.
///
/// # Errors
/// A model that does not list its layers; blocks without parameters of attention heads.
pub(super) fn split(objective: &Objective, blocks: Vec<NamedRanges>) -> Result<Vec<NamedRanges>> {
    let layers = objective.layers().ok_or_else(|| {
        Error::invalid(
            "attention heads need a model that lists its layers, such as those of the zoo: use by_block, or \
             Blocks::new with ranges of your own",
        )
    })?;
    let mut attentions = Vec::new();
    find_attention(layers, &mut attentions);
    let mut heads = HashMap::new();
    for attention in attentions {
        add_heads(attention, objective.parameters(), &mut heads)?;
    }
    let (mut parts, mut has_heads) = (Vec::new(), false);
    for (name, ranges) in blocks {
        let (with_heads, rest): (Vec<_>, Vec<_>) = ranges
            .into_iter()
            .partition(|range| heads.contains_key(range));
        let count = with_heads.iter().map(|range| heads[range].len()).max();
        has_heads |= count.is_some();
        for i in 0..count.unwrap_or(0) {
            let ranges = with_heads.iter().filter_map(|range| heads[range].get(i));
            parts.push((
                format!("{name}.head{i}"),
                ranges.flatten().cloned().collect(),
            ));
        }
        if !rest.is_empty() {
            parts.push((name, rest));
        }
    }
    match has_heads {
        true => Ok(parts),
        false => Err(Error::invalid(
            "the blocks have no parameters of attention heads: select them with a pattern such as \
             `blocks.*.attention`, or do not split them by head",
        )),
    }
}

fn find_attention<'a>(layers: &'a [LayerKind], found: &mut Vec<&'a SelfAttention>) {
    for layer in layers {
        match layer {
            LayerKind::SelfAttention(attention) => found.push(attention),
            LayerKind::Residual(residual) => {
                find_attention(&residual.body, found);
                find_attention(&residual.shortcut, found);
            }
            LayerKind::Concat(concat) => {
                for branch in &concat.branches {
                    find_attention(branch, found);
                }
            }
            _ => {}
        }
    }
}

/// Ranges of each head, by the range of the parameter that is divided among the heads.
type Heads = HashMap<Range<usize>, Vec<Vec<Range<usize>>>>;

/// Adds the rows of query, key and value, and the columns of the output weight.
fn add_heads(attention: &SelfAttention, parameters: &Parameters, heads: &mut Heads) -> Result<()> {
    let count = attention.heads;
    for layer in [&attention.query, &attention.key, &attention.value] {
        for name in [Some(&layer.weight), layer.bias.as_ref()]
            .into_iter()
            .flatten()
        {
            let range = parameters.range(name)?;
            let size = range.len() / count;
            let rows = |head: usize| {
                let start = range.start + head * size;
                let rows = start..start + size;
                vec![rows]
            };
            heads.insert(range.clone(), (0..count).map(rows).collect());
        }
    }
    let weight = &attention.output.weight;
    let (range, columns) = (parameters.range(weight)?, parameters.get(weight)?.dims()[1]);
    let size = columns / count;
    let columns_of = |head: usize| {
        let starts = range.clone().step_by(columns).map(|row| row + head * size);
        starts.map(|start| start..start + size).collect()
    };
    heads.insert(range.clone(), (0..count).map(columns_of).collect());
    Ok(())
}
