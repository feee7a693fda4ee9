//! [`HessianDifference`]: what the Hessian has beside the Gauss–Newton matrix.

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::operator::{GaussNewton, Hessian, LinearOperator};
use crate::spectral::{Bracket, Estimate, Lanczos, Trace, Which};
use crate::vector::axpy;

/// H − G: the second derivatives of the network, weighted by the loss's derivatives in the outputs.
///
/// By Weyl's inequality the k-th eigenvalues of H and of G differ by at most [`norm`](Self::norm).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HessianDifference {
    /// Smallest eigenvalue.
    pub smallest: Bracket,
    /// Largest eigenvalue.
    pub largest: Bracket,
    /// tr(H − G).
    pub trace: Estimate,
}

impl HessianDifference {
    /// Measures H − G of operators at the same θ; `trace_of_g` is tr G.
    pub(super) fn measure(
        hessian: Hessian,
        gauss_newton: GaussNewton,
        lanczos: &Lanczos,
        trace: &Trace,
        trace_of_g: f64,
    ) -> Result<Self> {
        let difference = Difference {
            hessian,
            gauss_newton,
            trace_of_g,
        };
        let k = difference.dim().min(2);
        let ends = lanczos
            .clone()
            .with_which(Which::BothEnds)
            .run(&difference, k)?;
        Ok(Self {
            smallest: ends.pairs[k - 1].bracket(),
            largest: ends.pairs[0].bracket(),
            trace: trace.trace(&difference)?,
        })
    }

    /// ‖H − G‖₂, the largest |λ|.
    pub fn norm(&self) -> Bracket {
        let largest = |a: f64, b: f64| a.abs().max(b.abs());
        let low =
            [self.smallest, self.largest].map(|end| match end.low <= 0.0 && end.high >= 0.0 {
                true => 0.0,
                false => end.low.abs().min(end.high.abs()),
            });
        Bracket {
            value: largest(self.smallest.value, self.largest.value),
            low: low[0].max(low[1]),
            high: largest(self.smallest.low, self.largest.high)
                .max(largest(self.smallest.high, self.largest.low)),
        }
    }
}

struct Difference {
    hessian: Hessian,
    gauss_newton: GaussNewton,
    trace_of_g: f64,
}

impl LinearOperator for Difference {
    fn dim(&self) -> usize {
        self.hessian.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mut products = self.hessian.apply_block(vectors)?;
        let subtracted = self.gauss_newton.apply_block(vectors)?;
        for (product, subtracted) in products.iter_mut().zip(&subtracted) {
            axpy(-1.0, subtracted, product);
        }
        Ok(products)
    }

    fn dtype(&self) -> Option<DType> {
        self.hessian.dtype()
    }

    fn cancellation(&self) -> Result<f64> {
        Ok(self.trace_of_g)
    }
}
