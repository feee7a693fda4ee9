//! [`Plan`]: the order in which derivatives with respect to the boundaries are added up.

use crate::kernels::Scalar;
use crate::layers::graph::Node;

/// Which nodes write the derivatives with respect to the boundaries, and which buffers hold them, in the backward pass.
pub(super) struct Plan {
    /// For each node and side, whether it is the first to write the derivative with respect to the boundary that it reads.
    pub(super) first: Vec<Vec<bool>>,
    /// For each boundary, the buffer that holds the derivative from its first write until it is read.
    pub(super) slot: Vec<usize>,
    /// Number of buffers: two for a sequence of layers.
    pub(super) slots: usize,
}

impl Plan {
    pub(super) fn new<T: Scalar>(nodes: &[Node<T>]) -> Self {
        let mut slot: Vec<Option<usize>> = vec![None; nodes.len() + 1];
        let (mut free, mut slots) = (Vec::new(), 1);
        slot[nodes.len()] = Some(0);
        let mut first = vec![Vec::new(); nodes.len()];
        for (l, node) in nodes.iter().enumerate().rev() {
            for from in node.from() {
                first[l].push(slot[*from].is_none());
                if slot[*from].is_none() {
                    slot[*from] = Some(free.pop().unwrap_or_else(|| {
                        slots += 1;
                        slots - 1
                    }));
                }
            }
            free.extend(slot[l + 1]);
        }
        Self {
            first,
            slot: slot.into_iter().map(|s| s.unwrap_or(0)).collect(),
            slots,
        }
    }
}
