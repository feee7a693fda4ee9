//! [`Spectrum`]: eigenpairs, each with the error of its eigenvalue.

use polars::df;
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An eigenvalue λ with its unit eigenvector v.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eigenpair {
    /// λ
    pub value: f64,
    /// ‖Av − λv‖, recomputed with the operator: an eigenvalue of A lies within this of λ. A is the
    /// matrix whose products the operator computes; those of an `f32` model are themselves rounded,
    /// to some 10⁻⁶ of the largest |λ|.
    pub residual: f64,
    /// v, of length 1.
    pub vector: Vec<f64>,
}

/// Eigenpairs of a symmetric matrix, largest eigenvalue first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// The pairs, largest eigenvalue first.
    pub pairs: Vec<Eigenpair>,
    /// Number of rows of the matrix, and of all its eigenvalues.
    pub dim: usize,
    /// Matrix-vector products that the pairs took.
    pub products: usize,
    /// Whether every residual went below the tolerance that was asked for.
    pub converged: bool,
}

impl Spectrum {
    /// The eigenvalues, largest first.
    pub fn values(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.value).collect()
    }

    /// The residuals, in the same order.
    pub fn residuals(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.residual).collect()
    }

    /// The eigenvector of the largest eigenvalue but `index`.
    ///
    /// # Errors
    /// An index beyond the last pair.
    pub fn vector(&self, index: usize) -> Result<Vec<f64>> {
        let pair = self.pairs.get(index).ok_or_else(|| {
            Error::invalid(format!(
                "there is no eigenvector {index}: this spectrum has {}, counted from 0",
                self.pairs.len()
            ))
        })?;
        Ok(pair.vector.clone())
    }

    /// Whether these are all eigenvalues of the matrix.
    pub fn is_complete(&self) -> bool {
        self.pairs.len() == self.dim
    }

    /// Rank, eigenvalue and residual, a row each.
    ///
    /// # Errors
    /// polars'.
    pub fn table(&self) -> Result<DataFrame> {
        Ok(df!(
            "rank" => (1..=self.pairs.len() as u64).collect::<Vec<_>>(),
            "eigenvalue" => self.values(),
            "residual" => self.residuals(),
        )?)
    }

    /// How many eigenvalues are negative, zero within their error, and positive.
    ///
    /// # Errors
    /// A spectrum that is not complete.
    pub fn inertia(&self) -> Result<Inertia> {
        if !self.is_complete() {
            return Err(Error::invalid(format!(
                "the signs of {} of {} eigenvalues say nothing about the others: take all of them \
                 with dense()?.eigen()?",
                self.pairs.len(),
                self.dim
            )));
        }
        let count = |test: fn(&Eigenpair) -> bool| self.pairs.iter().filter(|p| test(p)).count();
        Ok(Inertia {
            negative: count(|p| p.value < -p.residual),
            zero: count(|p| p.value.abs() <= p.residual),
            positive: count(|p| p.value > p.residual),
        })
    }
}

/// The signs of a matrix's eigenvalues (Sylvester's inertia).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inertia {
    /// Eigenvalues below zero by more than their error.
    pub negative: usize,
    /// Eigenvalues whose sign their error hides.
    pub zero: usize,
    /// Eigenvalues above zero by more than their error.
    pub positive: usize,
}

/// The verdict on a point where the gradient vanishes.
impl std::fmt::Display for Inertia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = match (self.negative, self.zero, self.positive) {
            (0, 0, _) => "minimum",
            (0, _, 0) => "flat to second order",
            (0, _, _) => "minimum, with directions that are flat to second order",
            (_, 0, 0) => "maximum",
            (_, _, 0) => "maximum, with directions that are flat to second order",
            (_, _, _) => "saddle point",
        };
        write!(
            f,
            "{verdict}: {} negative, {} zero within error, {} positive eigenvalues",
            self.negative, self.zero, self.positive
        )
    }
}
