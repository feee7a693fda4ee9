//! Long vectors whose memory is used again. New memory costs a page fault per 4 KiB, which takes longer than several passes over a
//! vector.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::vector::PIECE;

/// Entries of the shortest vectors that are kept, 8 MiB.
const SHORTEST: usize = 1 << 20;

/// Vectors that nobody uses now.
static FREE: Mutex<Vec<Vec<f64>>> = Mutex::new(Vec::new());

/// n zeros.
pub(crate) fn zeros(n: usize) -> Vec<f64> {
    if n < SHORTEST {
        return vec![0.0; n];
    }
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let used = free.iter().position(|v| v.len() == n);
    let used = used.map(|i| free.swap_remove(i));
    drop(free);
    // Zeros are written to new memory too: adding to memory that only reads as zero would map each page twice, on one thread.
    let mut zeros = used.unwrap_or_else(|| vec![0.0; n]);
    zeros
        .par_chunks_mut(PIECE)
        .for_each(|piece| piece.fill(0.0));
    zeros
}

/// Keeps the memory of long vectors for [`zeros`], until a [`Release`] is dropped.
pub(crate) fn keep(vectors: impl Iterator<Item = Vec<f64>>) {
    let long = vectors.filter(|v| v.len() >= SHORTEST);
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    free.extend(long);
}

/// Frees kept vectors until at most `count` are left. A matrix whose products are not made of [`zeros`] uses none of them.
pub(crate) fn keep_at_most(count: usize) {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    free.truncate(count);
}

/// Number of kept vectors.
pub(crate) fn kept() -> usize {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Frees all kept memory when it is dropped.
pub(crate) struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        keep_at_most(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zero_in_kept_memory() {
        let n = SHORTEST + 3;
        let _release = Release;
        keep([vec![1.0; n], vec![2.0; n + 1], vec![3.0; 5]].into_iter());
        for n in [n, n, n + 1, 5] {
            let found = zeros(n);
            assert_eq!(found.len(), n);
            assert!(found.iter().all(|x| *x == 0.0));
        }
    }
}
