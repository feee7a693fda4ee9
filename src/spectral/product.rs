//! Products whose answers are looked at before anything is built on them.

use crate::error::{Error, Result, check_finite};
use crate::operator::LinearOperator;

/// Vectors that a method sends through an operator together, where it has the choice.
pub(super) const TOGETHER: usize = 8;

/// Av for several vectors.
///
/// # Errors
/// The operator's; answers of another number or length than the questions; numbers that are not finite.
pub(super) fn images(
    operator: &(impl LinearOperator + ?Sized),
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    let images = operator.apply_block(vectors)?;
    let n = operator.dim();
    if images.len() != vectors.len() || images.iter().any(|image| image.len() != n) {
        return Err(Error::invalid(format!(
            "the operator answers {} vectors of length {n} with {} of lengths {:?}: its apply or \
             apply_block is wrong",
            vectors.len(),
            images.len(),
            images.iter().map(Vec::len).collect::<Vec<_>>()
        )));
    }
    for image in &images {
        check_finite(image, "the matrix-vector product")?;
    }
    Ok(images)
}

/// Av for many vectors, some at a time.
pub(super) fn in_turn(
    operator: &(impl LinearOperator + ?Sized),
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    let some = vectors.chunks(TOGETHER).map(|some| images(operator, some));
    Ok(some.collect::<Result<Vec<_>>>()?.concat())
}
