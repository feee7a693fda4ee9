//! [`CopiedRows`]: rules of layers that rearrange or select rows of their input.

use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use crate::kernels::Scalar;

/// y = rows of x, one after another. No two of them overlap.
pub(super) struct CopiedRows {
    /// Number of values of a sample of x.
    pub(super) input_len: usize,
    /// Number of values of a row.
    pub(super) width: usize,
    /// Index in x of the first value of each row, in the order of y.
    pub(super) starts: Vec<usize>,
}

impl CopiedRows {
    fn len(&self) -> usize {
        self.starts.len() * self.width
    }

    fn copy<T: Scalar>(&self, x: &[T], y: &mut [T]) {
        let samples = x.chunks_exact(self.input_len);
        for (x, y) in samples.zip(y.chunks_exact_mut(self.len())) {
            for (start, y) in self.starts.iter().zip(y.chunks_exact_mut(self.width)) {
                y.copy_from_slice(&x[*start..][..self.width]);
            }
        }
    }
}

impl<T: Scalar> Rules<T> for CopiedRows {
    fn output_len(&self) -> usize {
        self.len()
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], _cached: &mut [T]) {
        self.copy(x, y);
    }

    fn forward_tangent(&self, _primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        match tangent.rx {
            Some(rx) => self.copy(rx, ry),
            None => ry.fill(T::ZERO),
        }
    }

    fn backward_tangent(
        &self,
        _primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        _mode: Mode,
    ) {
        rdx.fill(T::ZERO);
        let samples = tangent.rdy.chunks_exact(self.len());
        for (rdy, rdx) in samples.zip(rdx.chunks_exact_mut(self.input_len)) {
            for (start, rdy) in self.starts.iter().zip(rdy.chunks_exact(self.width)) {
                rdx[*start..][..self.width].copy_from_slice(rdy);
            }
        }
    }
}
