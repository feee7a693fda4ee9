//! [`Dense`]: a matrix in memory.

use candle_core::DType;
use ndarray::{Array2, ArrayView1};

use super::{LinearOperator, check_length, checked_products};
use crate::error::{Error, Result, check_finite};
use crate::parameters::epsilon_of;
use crate::progress::Progress;

/// A symmetric matrix in memory.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::operator::Shifted;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?;
/// assert_eq!(a.apply(&[1.0, 0.0])?, [2.0, 1.0]);
/// assert_eq!(a.asymmetry(), 0.0);
/// assert_eq!(
///     Dense::from_operator(&Shifted::new(a, 1.0)?)?.matrix(),
///     array![[3.0, 1.0], [1.0, 3.0]]
/// );
/// assert!(Dense::new(array![[0.0, 1.0], [-1.0, 0.0]]).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Dense {
    matrix: Array2<f64>,
    asymmetry: f64,
    /// Whether the entries were computed in `f32`.
    #[serde(default)]
    single: bool,
    /// Relative rounding error of the entries, if larger than that of their type.
    #[serde(default)]
    rounding: Option<f64>,
    /// As [`LinearOperator::cancellation`] of the operator with these entries.
    #[serde(default, alias = "cancelled")]
    cancellation: f64,
}

impl Dense {
    /// Largest number of rows; dense algorithms take too much memory and time beyond it.
    pub const MAX_DIM: usize = 4096;

    /// The symmetric part (A + Aᵀ)/2 of a `matrix` that is symmetric up to rounding.
    ///
    /// # Errors
    /// A matrix that is empty, not square, not finite, or further from symmetry than rounding in
    /// `f32` can explain.
    pub fn new(matrix: Array2<f64>) -> Result<Self> {
        Self::with_slack(matrix, 0.0)
    }

    /// As [`new`](Self::new), but allows an asymmetry that is larger by `slack`.
    fn with_slack(matrix: Array2<f64>, slack: f64) -> Result<Self> {
        let (rows, columns) = matrix.dim();
        if rows != columns || rows == 0 {
            return Err(Error::invalid(format!(
                "a {rows} × {columns} matrix is not symmetric: give a square matrix with at least one row"
            )));
        }
        for (i, row) in matrix.rows().into_iter().enumerate() {
            check_finite(&row.to_vec(), &format!("row {i} of the matrix"))?;
        }
        let frobenius = |m: &Array2<f64>| m.iter().map(|a| a * a).sum::<f64>().sqrt();
        let size = frobenius(&matrix);
        let asymmetry = frobenius(&(&matrix - &matrix.t())) / 2.0;
        if asymmetry > 1e-3 * size + slack {
            return Err(Error::invalid(format!(
                "the matrix is not symmetric: ‖A − Aᵀ‖/2 = {asymmetry:.1e} with ‖A‖ = {size:.1e}"
            )));
        }
        Ok(Self {
            matrix: (&matrix + &matrix.t()) / 2.0,
            asymmetry,
            single: false,
            rounding: None,
            cancellation: 0.0,
        })
    }

    /// Sets the type in which the entries were computed.
    pub(super) fn with_dtype(self, dtype: DType) -> Self {
        Self {
            single: dtype != DType::F64,
            ..self
        }
    }

    /// All entries of `operator`, from its products with the n unit vectors.
    ///
    /// # Errors
    /// More than [`Dense::MAX_DIM`] rows; failed products; errors of [`Dense::new`].
    pub fn from_operator(operator: &dyn LinearOperator) -> Result<Self> {
        let slack = 100.0 * operator.epsilon() * operator.cancellation()?;
        Self::from_products(operator, slack)
    }

    /// As [`from_operator`](Self::from_operator), for products that may be nothing but rounding, as those of a block that is
    /// zero: any asymmetry is allowed, and is an error of the eigenvalues.
    pub(crate) fn from_noisy(operator: &dyn LinearOperator) -> Result<Self> {
        Self::from_products(operator, f64::INFINITY)
    }

    fn from_products(operator: &dyn LinearOperator, slack: f64) -> Result<Self> {
        let n = operator.dim();
        if n > Self::MAX_DIM {
            return Err(Error::invalid(format!(
                "a dense {n} × {n} matrix would take {:.1} GB and n products: compute the largest \
                 eigenvalues with top(k) instead (dense matrices have at most {} rows)",
                (n as f64).powi(2) * 8e-9,
                Self::MAX_DIM
            )));
        }
        const BLOCK_SIZE: usize = 16;
        let mut progress = Progress::start("dense matrix");
        let mut matrix = Array2::zeros((n, n));
        for start in (0..n).step_by(BLOCK_SIZE) {
            let columns = start..(start + BLOCK_SIZE).min(n);
            let unit = |j: usize| (0..n).map(|i| f64::from(u8::from(i == j))).collect();
            let products =
                checked_products(operator, &columns.clone().map(unit).collect::<Vec<_>>())?;
            for (j, product) in columns.clone().zip(&products) {
                matrix.column_mut(j).assign(&ArrayView1::from(product));
            }
            progress.part(columns.end, n);
        }
        let dtype = operator.dtype().unwrap_or(DType::F64);
        let found = Self::with_slack(matrix, slack)?.with_dtype(dtype);
        let rounding = operator.epsilon();
        Ok(Self {
            cancellation: operator.cancellation()?,
            rounding: (rounding > found.epsilon()).then_some(rounding),
            ..found
        })
    }

    /// ‖A − Aᵀ‖_F / 2 of the original matrix. By Weyl's inequality its rounding errors change no eigenvalue by more.
    pub fn asymmetry(&self) -> f64 {
        self.asymmetry
    }

    /// The entries, shape `(n, n)`.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.matrix
    }
}

impl LinearOperator for Dense {
    fn dim(&self) -> usize {
        self.matrix.nrows()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        check_length(v, self.dim())?;
        check_finite(v, "the vector")?;
        Ok(self.matrix.dot(&ArrayView1::from(v)).to_vec())
    }

    fn dtype(&self) -> Option<DType> {
        self.single.then_some(DType::F32)
    }

    fn epsilon(&self) -> f64 {
        let by_type = || self.dtype().map_or(f64::EPSILON, epsilon_of);
        self.rounding.unwrap_or_else(by_type)
    }

    fn cancellation(&self) -> Result<f64> {
        Ok(self.cancellation)
    }
}
