//! Kronecker factors of the Gauss–Newton matrix at the model's current point.

use super::Objective;
use crate::engine::{CurvatureFactors, RootColumns};
use crate::error::Result;

impl Objective {
    /// Number of outputs of a sample.
    pub(crate) fn outputs_per_sample(&self) -> Result<usize> {
        Ok(self.outputs(&self.data.first(1)?)?.elem_count())
    }

    /// Kronecker factors of the Gauss–Newton matrix, without the L2 term.
    ///
    /// # Errors
    /// As [`Objective::visit_layers`].
    pub(crate) fn curvature_factors(
        &self,
        point: &[f64],
        columns: RootColumns,
    ) -> Result<CurvatureFactors> {
        self.hand_derived("K-FAC")?
            .curvature_factors(point, &self.data, columns)
    }

    /// The diagonal of each factored block in a basis; see [`crate::engine`].
    ///
    /// # Errors
    /// As [`Objective::visit_layers`].
    pub(crate) fn diagonal_in_bases(
        &self,
        point: &[f64],
        columns: RootColumns,
        bases: &[[Vec<f64>; 2]],
    ) -> Result<Vec<Vec<f64>>> {
        self.hand_derived("K-FAC")?
            .diagonal_in_bases(point, &self.data, columns, bases)
    }
}
