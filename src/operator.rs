//! [`LinearOperator`]: a symmetric matrix known by its products; [`Hessian`] and [`Dense`].

use ndarray::{Array2, ArrayView1};

use crate::error::{Error, Result, check_finite};
use crate::objective::Objective;
use crate::progress::Progress;

/// A real symmetric n × n matrix A that is known by the products Av.
pub trait LinearOperator {
    /// n, the number of rows.
    fn dim(&self) -> usize;

    /// Av.
    ///
    /// # Errors
    /// A `v` whose length is not [`dim`](Self::dim), or whose entries are not finite; what the
    /// computation of the product runs into.
    fn apply(&self, v: &[f64]) -> Result<Vec<f64>>;
}

/// The Hessian H = ∇²L(θ) of an objective where its model stands, n × n for n parameters.
#[derive(Clone, Debug)]
pub struct Hessian {
    objective: Objective,
}

impl Objective {
    /// The Hessian of this objective, as an operator: nothing is computed yet.
    pub fn hessian(&self) -> Hessian {
        Hessian {
            objective: self.clone(),
        }
    }
}

impl LinearOperator for Hessian {
    fn dim(&self) -> usize {
        self.objective.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        self.objective.hvp(v)
    }
}

/// A symmetric matrix in memory.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Dense {
    matrix: Array2<f64>,
    asymmetry: f64,
}

impl Dense {
    /// Rows beyond which a dense matrix and its eigenvalues are not worth their memory and time.
    pub const MAX_DIM: usize = 4096;

    /// The symmetric part (A + Aᵀ)/2 of a `matrix` that is symmetric but for rounding.
    ///
    /// # Errors
    /// A matrix that is empty, not square, not finite, or further from symmetry than rounding in
    /// `f32` can explain.
    pub fn new(matrix: Array2<f64>) -> Result<Self> {
        let (rows, columns) = matrix.dim();
        if rows != columns || rows == 0 {
            return Err(Error::invalid(format!(
                "a {rows} × {columns} matrix is no symmetric operator"
            )));
        }
        for (i, row) in matrix.rows().into_iter().enumerate() {
            check_finite(&row.to_vec(), &format!("row {i} of the matrix"))?;
        }
        let frobenius = |m: &Array2<f64>| m.iter().map(|a| a * a).sum::<f64>().sqrt();
        let size = frobenius(&matrix);
        let asymmetry = frobenius(&(&matrix - &matrix.t())) / 2.0;
        if asymmetry > 1e-3 * size {
            return Err(Error::invalid(format!(
                "the matrix is not symmetric: ‖A − Aᵀ‖/2 = {asymmetry:.1e} where ‖A‖ = {size:.1e}"
            )));
        }
        Ok(Self {
            matrix: (&matrix + &matrix.t()) / 2.0,
            asymmetry,
        })
    }

    /// All entries of `operator`, a column for each product with a unit vector.
    ///
    /// # Errors
    /// More than [`Dense::MAX_DIM`] rows; those of the products and of [`Dense::new`].
    pub fn of(operator: &(impl LinearOperator + ?Sized)) -> Result<Self> {
        let n = operator.dim();
        if n > Self::MAX_DIM {
            return Err(Error::invalid(format!(
                "a dense {n} × {n} matrix would take {:.1} GB and n products: compute the largest \
                 eigenvalues with top(k) instead (dense matrices go up to n = {})",
                (n as f64).powi(2) * 8e-9,
                Self::MAX_DIM
            )));
        }
        let mut progress = Progress::start("dense matrix");
        let mut matrix = Array2::zeros((n, n));
        let mut unit = vec![0.0; n];
        for (j, mut column) in matrix.columns_mut().into_iter().enumerate() {
            unit[j] = 1.0;
            column.assign(&ArrayView1::from(&operator.apply(&unit)?));
            unit[j] = 0.0;
            progress.part(j + 1, n);
        }
        Self::new(matrix)
    }

    /// ‖A − Aᵀ‖_F / 2 of the matrix as it was given: by Weyl's inequality its rounding errors
    /// move no eigenvalue further than that.
    pub fn asymmetry(&self) -> f64 {
        self.asymmetry
    }

    /// The entries.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.matrix
    }
}

impl LinearOperator for Dense {
    fn dim(&self) -> usize {
        self.matrix.nrows()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        if v.len() != self.dim() {
            return Err(Error::invalid(format!(
                "the vector has {} entries but the matrix has {} columns",
                v.len(),
                self.dim()
            )));
        }
        check_finite(v, "the vector")?;
        Ok(self.matrix.dot(&ArrayView1::from(v)).to_vec())
    }
}
