//! [`Distributed`]: the vectors of a block, distributed over ranks.

use std::sync::Arc;

use super::{LinearOperator, checked_products};
use crate::error::Result;
use crate::ranks::{Ranks, agree_on_errors, partition};

/// An operator whose products with a block of vectors are distributed over ranks, such as the probes of a trace or a
/// density.
///
/// It gives no speed-up where vectors come one by one, as in Lanczos' method with blocks of one: distribute the samples
/// then, with [`Objective::with_ranks`](crate::objective::Objective::with_ranks).
#[derive(Clone)]
pub struct Distributed<A> {
    operator: A,
    ranks: Arc<dyn Ranks>,
}

impl<A: LinearOperator> Distributed<A> {
    /// Distributes the products of `operator`, of which each of the `ranks` has a full copy.
    pub fn new(operator: A, ranks: Arc<dyn Ranks>) -> Self {
        Self { operator, ranks }
    }
}

impl<A: LinearOperator> LinearOperator for Distributed<A> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        self.operator.apply(v)
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mine = partition(vectors.len(), self.ranks.rank(), self.ranks.size());
        let found = match mine.is_empty() {
            true => Ok(Vec::new()),
            false => checked_products(&self.operator, &vectors[mine.clone()]),
        };
        let found = agree_on_errors(Some(self.ranks.as_ref()), found)?;
        let mut products = vec![vec![0.0; self.dim()]; vectors.len()];
        for (product, found) in products[mine].iter_mut().zip(found) {
            *product = found;
        }
        products
            .iter_mut()
            .try_for_each(|product| self.ranks.sum(product))?;
        Ok(products)
    }

    delegate!(operator: state, dtype, epsilon, cancellation);
}
