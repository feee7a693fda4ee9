//! [`Node`]: how layers and joins hang together.

use super::Scalar;
use super::layer::Layer;
use crate::simd::vectorised;

/// A step of the network. Boundary 0 are the inputs; node l reads boundaries up to l and writes l + 1.
pub(super) enum Node<T> {
    /// A layer, and the boundary that it reads.
    Layer {
        layer: Box<dyn Layer<T>>,
        from: usize,
    },
    /// Two boundaries together.
    Join { join: Join, from: [usize; 2] },
}

/// What becomes of two rows of numbers.
#[derive(Clone, Copy)]
pub(super) enum Join {
    /// Their sum.
    Sum { width: usize },
    /// One after the other.
    Concat { widths: [usize; 2] },
}

impl<T: Scalar> Node<T> {
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Layer { layer, .. } => layer.outputs(),
            Self::Join { join, .. } => join.outputs(),
        }
    }

    pub(super) fn layer(&self) -> Option<&dyn Layer<T>> {
        match self {
            Self::Layer { layer, .. } => Some(layer.as_ref()),
            Self::Join { .. } => None,
        }
    }

    /// The boundaries that it reads.
    pub(super) fn from(&self) -> &[usize] {
        match self {
            Self::Layer { from, .. } => std::slice::from_ref(from),
            Self::Join { from, .. } => from,
        }
    }
}

impl Join {
    fn outputs(self) -> usize {
        match self {
            Self::Sum { width } => width,
            Self::Concat { widths: [a, b] } => a + b,
        }
    }

    /// Writes what becomes of the rows of both sides; a side that is missing is 0.
    pub(super) fn forward<T: Scalar>(self, sides: [Option<&[T]>; 2], y: &mut [T]) {
        match self {
            Self::Sum { .. } => match sides {
                [Some(a), Some(b)] => sum(a, b, y),
                [Some(a), None] | [None, Some(a)] => y.copy_from_slice(a),
                [None, None] => y.fill(T::ZERO),
            },
            Self::Concat { widths } => {
                let mut at = 0;
                for (side, width) in sides.into_iter().zip(widths) {
                    for (i, y) in y.chunks_exact_mut(widths[0] + widths[1]).enumerate() {
                        match side {
                            Some(x) => {
                                y[at..at + width].copy_from_slice(&x[i * width..][..width]);
                            }
                            None => y[at..at + width].fill(T::ZERO),
                        }
                    }
                    at += width;
                }
            }
        }
    }

    /// The part of dy that belongs to one side, written to dx or added to it.
    pub(super) fn backward<T: Scalar>(self, side: usize, dy: &[T], dx: &mut [T], first: bool) {
        let put = |dy: &[T], dx: &mut [T]| match first {
            true => dx.copy_from_slice(dy),
            false => add(dy, dx),
        };
        match self {
            Self::Sum { .. } => put(dy, dx),
            Self::Concat { widths } => {
                let at = side * widths[0];
                let rows = dy.chunks_exact(widths[0] + widths[1]);
                for (dy, dx) in rows.zip(dx.chunks_exact_mut(widths[side])) {
                    put(&dy[at..at + widths[side]], dx);
                }
            }
        }
    }
}

vectorised! {
    fn sum<T: Scalar>(a: &[T], b: &[T], y: &mut [T]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = *a + *b;
        }
    }

    fn add_each<T: Scalar>(x: &[T], y: &mut [T]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += *x;
        }
    }
}

/// y ← y + x
pub(super) fn add<T: Scalar>(x: &[T], y: &mut [T]) {
    add_each(x, y);
}

/// In which order derivatives by the boundaries come together when the nodes are gone through backwards.
pub(super) struct Plan {
    /// For each node and side whether it is the first to write the derivative by the boundary that it reads.
    pub(super) first: Vec<[bool; 2]>,
    /// For each boundary the buffer that holds the derivative from its first write until it is read.
    pub(super) slot: Vec<usize>,
    /// How many buffers that takes: two for layers in a row.
    pub(super) slots: usize,
}

impl Plan {
    pub(super) fn of<T: Scalar>(nodes: &[Node<T>]) -> Self {
        let mut slot: Vec<Option<usize>> = vec![None; nodes.len() + 1];
        let (mut free, mut slots) = (Vec::new(), 1);
        slot[nodes.len()] = Some(0);
        let mut first = vec![[false; 2]; nodes.len()];
        for (l, node) in nodes.iter().enumerate().rev() {
            for (side, from) in node.from().iter().enumerate() {
                first[l][side] = slot[*from].is_none();
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
