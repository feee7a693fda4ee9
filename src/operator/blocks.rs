//! [`Blocks`]: named diagonal blocks of A.

use std::ops::Range;

use super::{Block, LinearOperator, check_ranges};
use crate::error::{Error, Result};

/// Name of a block and its ranges of rows, ascending.
pub(crate) type NamedRanges = (String, Vec<Range<usize>>);

/// Named diagonal blocks of A that do not overlap. They need not cover A.
///
/// The method `by_block` of a curvature matrix, such as [`Hessian::by_block`](super::Hessian::by_block), selects blocks with a
/// pattern, and `by_head` splits them by attention head. [`BlockSettings`](crate::spectral::BlockSettings) analyses all blocks
/// in one call.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::operator::Blocks;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 4.0]])?;
/// let corners = ("corners".to_owned(), vec![0..1, 2..3]);
/// let blocks = Blocks::new(a, vec![corners, ("middle".to_owned(), vec![1..2])])?;
/// assert_eq!(blocks.names(), ["corners", "middle"]);
/// assert_eq!(blocks.get("corners")?.dense()?.matrix(), array![[2.0, 1.0], [1.0, 4.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Blocks<A> {
    operator: A,
    blocks: Vec<NamedRanges>,
}

impl<A: LinearOperator> Blocks<A> {
    /// Blocks of `operator`, each with a name and the ranges of its rows and columns.
    ///
    /// # Errors
    /// No blocks; ranges that are empty, not ascending or not within the matrix; blocks that overlap or share a name.
    pub fn new(operator: A, blocks: Vec<(String, Vec<Range<usize>>)>) -> Result<Self> {
        if blocks.is_empty() {
            return Err(Error::invalid("no blocks: give at least one"));
        }
        let n = operator.dim();
        let mut rows: Vec<(&Range<usize>, &str)> = Vec::new();
        for (i, (name, ranges)) in blocks.iter().enumerate() {
            check_ranges(ranges, n)?;
            if blocks[..i].iter().any(|(other, _)| other == name) {
                return Err(Error::invalid(format!(
                    "two blocks are called `{name}`: give each block a unique name"
                )));
            }
            rows.extend(ranges.iter().map(|range| (range, name.as_str())));
        }
        rows.sort_by_key(|(range, _)| range.start);
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
            return Err(Error::invalid(format!(
                "the blocks `{}` and `{}` overlap in row {}: give disjoint blocks",
                pair[0].1, pair[1].1, pair[1].0.start
            )));
        }
        Ok(Self { operator, blocks })
    }

    /// The whole matrix A.
    pub fn operator(&self) -> &A {
        &self.operator
    }

    /// Names of the blocks.
    pub fn names(&self) -> Vec<&str> {
        self.blocks.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Names and ranges of rows of the blocks.
    pub fn ranges(&self) -> &[(String, Vec<Range<usize>>)] {
        &self.blocks
    }

    /// The block called `name`, as an operator.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn get(&self, name: &str) -> Result<Block<&A>> {
        let found = self.blocks.iter().find(|(other, _)| other == name);
        let (_, ranges) = found.ok_or_else(|| {
            Error::invalid(format!(
                "there is no block `{name}`; the blocks are {}",
                self.names().join(", ")
            ))
        })?;
        Block::from_ranges(&self.operator, ranges.clone())
    }
}
