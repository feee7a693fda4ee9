//! [`Objective::tangent_kernel`]: the empirical neural tangent kernel.

use super::Dense;
use crate::error::{Error, Result};
use crate::objective::Objective;

impl Objective {
    /// The empirical neural tangent kernel JJᵀ at the model's θ (Jacot, Gabriel and Hongler, "Neural Tangent Kernel:
    /// Convergence and Generalization in Neural Networks", 2018). For squared error without an L2 term its nonzero
    /// eigenvalues are those of [`GaussNewton`](super::GaussNewton), times half its number of rows.
    ///
    /// # Shapes
    /// `(samples · outputs, samples · outputs)`.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let set = teacher_student(5, &[2, 3, 1], 0.1, 0, &Device::Cpu)?;
    /// let student =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&student, &set.data, Loss::Mse)?;
    /// let kernel = objective.tangent_kernel()?.eigen()?.values(); // 5 × 5
    /// let newton = objective.gauss_newton().dense()?.eigen()?.values(); // 13 × 13
    /// for (k, g) in kernel.iter().zip(&newton) {
    ///     assert!((k - g * 5.0 / 2.0).abs() < 1e-10);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// More than [`Dense::MAX_DIM`] rows; as [`Objective::jacobian`].
    pub fn tangent_kernel(&self) -> Result<Dense> {
        let jacobian = self.jacobian()?;
        if jacobian.nrows() > Dense::MAX_DIM {
            return Err(Error::invalid(format!(
                "a tangent kernel of {} rows is too large; dense matrices have at most {} rows: use fewer samples",
                jacobian.nrows(),
                Dense::MAX_DIM
            )));
        }
        Ok(Dense::new(jacobian.dot(&jacobian.t()))?.with_dtype(self.parameters().dtype()))
    }
}
