//! Many products, some at a time.

use crate::error::Result;
use crate::operator::{LinearOperator, checked_products};

/// Vectors that a method sends through an operator together, where it has the choice.
pub(super) const TOGETHER: usize = 8;

/// Av for many vectors, some at a time.
pub(super) fn in_turn(
    operator: &(impl LinearOperator + ?Sized),
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    let some = vectors
        .chunks(TOGETHER)
        .map(|some| checked_products(operator, some));
    Ok(some.collect::<Result<Vec<_>>>()?.concat())
}
