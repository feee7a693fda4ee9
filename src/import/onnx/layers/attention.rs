//! [`Scores`]: attention's products of queries and keys, up to the products with the values.

use candle_core::Tensor;

use super::view::View;
use crate::tensor_functions::entries;

/// Scores of queries and keys, of shape (…, positions, positions).
#[derive(Clone, Debug)]
pub(super) struct Scores {
    /// Shape (…, positions, features of a head).
    pub query: View,
    /// Shape (…, features of a head, positions).
    pub key: View,
    /// Factor besides those of queries and keys.
    pub scale: f64,
    pub causal: bool,
    /// Whether these are the scores' softmax.
    pub is_softmax: bool,
}

/// Where the heads are among the outputs of a linear layer.
#[derive(Debug, PartialEq)]
pub(super) struct Heads {
    pub count: usize,
    /// The rows of the linear layer's weight, head by head.
    pub rows: Vec<usize>,
}

/// Scores that are lower than this count as hidden.
const HIDDEN: f64 = -1e4;

/// What a mask hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mask {
    Nothing,
    LaterPositions,
}

impl Scores {
    /// The scores of queries and keys, if their shapes fit.
    pub fn new(query: View, key: View) -> Option<Self> {
        let [.., positions, features] = query.dims[..] else {
            return None;
        };
        let rank = query.dims.len();
        let fits = rank > 2
            && key.dims.len() == rank
            && key.dims[rank - 2..] == [features, positions]
            && key.dims[..rank - 2] == query.dims[..rank - 2];
        fits.then_some(Self {
            query,
            key,
            scale: 1.0,
            causal: false,
            is_softmax: false,
        })
    }

    pub fn positions(&self) -> usize {
        self.query.dims[self.query.dims.len() - 2]
    }

    /// Whether the scale is 1/√d for d features.
    pub fn has_usual_scale(&self) -> bool {
        let features = self.query.last() as f64;
        let scale = self.scale * self.query.scale * self.key.scale;
        (scale * features.sqrt() - 1.0).abs() < 1e-5
    }

    /// Applies a mask that is added to the scores, or `None` for another mask than a causal one.
    pub fn masked(self, added: &Tensor) -> Option<Self> {
        let hidden = hidden(added).ok()?;
        let mask = mask(&hidden, added.dims(), self.positions())?;
        Some(Self {
            causal: self.causal || mask == Mask::LaterPositions,
            ..self
        })
    }
}

/// For each number that is added to a score: whether it hides the score.
fn hidden(added: &Tensor) -> candle_core::Result<Vec<Option<bool>>> {
    let kind = |x: &f64| match *x {
        0.0 => Some(false),
        x if x <= HIDDEN => Some(true),
        _ => None,
    };
    Ok(entries(added)?.iter().map(kind).collect())
}

/// What a mask of a shape hides, if that is a mask of [`Mask`]'s kinds.
fn mask(hidden: &[Option<bool>], dims: &[usize], positions: usize) -> Option<Mask> {
    if hidden.iter().all(|h| *h == Some(false)) {
        return Some(Mask::Nothing);
    }
    let later = |i: usize| Some(i % positions > i / positions % positions);
    let causal = dims.ends_with(&[positions, positions])
        && hidden.iter().enumerate().all(|(i, h)| *h == later(i));
    causal.then_some(Mask::LaterPositions)
}

/// Finds the heads in a view of shape (…, positions, features), or `None` if it does not show each head's features at each position. Its
/// base is `samples` × positions × outputs.
pub(super) fn heads(view: &View, samples: usize, outputs: usize) -> Option<Heads> {
    let [.., positions, features] = view.dims[..] else {
        return None;
    };
    let batches = view.len() / (positions * features);
    if samples == 0 || !batches.is_multiple_of(samples) {
        return None;
    }
    let count = batches / samples;
    let rows: Vec<usize> = (0..count)
        .flat_map(|head| (0..features).map(move |i| head * positions * features + i))
        .map(|i| view.entry(i))
        .collect();
    let is_there = |i: usize| {
        let (batch, rest) = (i / (positions * features), i % (positions * features));
        let (sample, head) = (batch / count, batch % count);
        let (position, feature) = (rest / features, rest % features);
        let row = rows[head * features + feature];
        row < outputs && view.entry(i) == (sample * positions + position) * outputs + row
    };
    (0..view.len())
        .all(is_there)
        .then_some(Heads { count, rows })
}

#[cfg(test)]
mod tests {
    use super::super::view::Base;
    use super::*;
    use candle_core::Device;

    #[test]
    fn heads_are_found_in_any_arrangement() {
        // 2 samples, 3 positions, and queries, keys and values of 2 heads with 4 features each.
        let joint = View::whole(Base::Step(0), vec![2, 3, 24]);
        let split = joint
            .reshaped(vec![2, 3, 3, 2, 4])
            .transposed(&[2, 0, 3, 1, 4]);
        for part in 0..3 {
            let view = split.selected(0, &[part], vec![2, 2, 3, 4]);
            let rows: Vec<usize> = (part * 8..part * 8 + 8).collect();
            assert_eq!(heads(&view, 2, 24), Some(Heads { count: 2, rows }));
        }
        // Positions first, heads and samples merged, as in torch.nn.MultiheadAttention.
        let first = joint.transposed(&[1, 0, 2]).reshaped(vec![3, 2, 3, 8]);
        let keys = first
            .selected(2, &[1], vec![3, 4, 4])
            .transposed(&[1, 0, 2]);
        let rows: Vec<usize> = (8..16).collect();
        assert_eq!(heads(&keys, 2, 24), Some(Heads { count: 2, rows }));
        // Each head has its query, key and value next to each other.
        let each = joint.reshaped(vec![2, 3, 2, 12]).transposed(&[0, 2, 1, 3]);
        let view = each.selected(3, &[4, 5, 6, 7], vec![2, 2, 3, 4]);
        let rows = vec![4, 5, 6, 7, 16, 17, 18, 19];
        assert_eq!(heads(&view, 2, 24), Some(Heads { count: 2, rows }));
        // Positions and heads are not exchanged.
        assert_eq!(heads(&joint.reshaped(vec![2, 2, 3, 12]), 2, 24), None);
    }

    #[test]
    fn causal_masks_are_recognised() {
        let [no, yes] = [Some(false), Some(true)];
        let causal = [no, yes, yes, no, no, yes, no, no, no];
        assert_eq!(mask(&causal, &[1, 3, 3], 3), Some(Mask::LaterPositions));
        let twice = [causal, causal].concat();
        assert_eq!(mask(&twice, &[2, 3, 3], 3), Some(Mask::LaterPositions));
        assert_eq!(mask(&[no; 9], &[3, 3], 3), Some(Mask::Nothing));
        let mut other = causal;
        other[3] = yes;
        assert_eq!(mask(&other, &[3, 3], 3), None);
        let added = [0f32, f32::MIN, f32::NEG_INFINITY, -1.0];
        let added = Tensor::new(&added, &Device::Cpu).unwrap();
        assert_eq!(hidden(&added).unwrap(), [no, yes, yes, None]);
    }
}
