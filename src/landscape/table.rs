//! Results as tables.

use polars::df;
use polars::prelude::{Column, DataFrame, NamedFrom, Series};

use super::{
    CentralFlowPoint, CentralFlowReport, Connectivity, CurvatureSnapshot, Evolution,
    InfluenceReport, Line, ModifiedLoss, NoiseReport, PacBayesBound, PacBayesRow, PathProfile,
    Plane, Projection, StabilityPoint, StabilityReport,
};
use crate::error::Result;
use crate::spectral::Estimate;

impl Line {
    /// One row per α: α, loss, quadratic prediction and, if computed, accuracy and gradient norm.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let quadratic = self.quadratic();
        let columns = [
            ("α", Some(&self.alphas)),
            ("loss", Some(&self.losses)),
            ("quadratic", Some(&quadratic)),
            ("accuracy", self.accuracies.as_ref()),
            ("gradient norm", self.gradient_norms.as_ref()),
        ];
        let columns = columns
            .into_iter()
            .filter_map(|(name, values)| Some(Column::from(Series::new(name.into(), values?))));
        Ok(DataFrame::new(self.alphas.len(), columns.collect())?)
    }
}

impl Plane {
    /// One row per grid point, row by row in β: `alpha`, `beta`, `loss` and, if computed, `accuracy`, `smallest` and
    /// `largest` eigenvalue.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let (rows, columns) = self.losses.dim();
        let repeated = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            let places = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
            places.map(|(i, j)| f(i, j)).collect()
        };
        let mut table = df!(
            "alpha" => repeated(&|_, j| self.alphas[j]),
            "beta" => repeated(&|i, _| self.betas[i]),
        )?;
        for (name, values) in self.scores() {
            let column = Series::new(name.into(), repeated(&|i, j| values[[i, j]]));
            table.with_column(Column::from(column))?;
        }
        Ok(table)
    }
}

impl Projection {
    /// One row per snapshot.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        Ok(df!(
            "step" => self.steps.iter().map(|s| *s as u64).collect::<Vec<_>>(),
            "α" => &self.alphas,
            "β" => &self.betas,
            "loss" => &self.losses,
            "on the plane" => &self.plane_losses,
            "distance" => &self.distances,
        )?)
    }
}

impl PathProfile {
    /// One row per point: time, loss and, for labelled data, accuracy.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let mut table = df!("t" => &self.times, "loss" => &self.losses)?;
        if let Some(accuracies) = &self.accuracies {
            table.with_column(Column::new("accuracy".into(), accuracies))?;
        }
        Ok(table)
    }
}

impl Connectivity {
    /// One row per path, with its [verdict](PathProfile::verdict).
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let names: Vec<&str> = self.paths.iter().map(|(name, _)| name.as_str()).collect();
        let profiles = || self.paths.iter().map(|(_, profile)| profile);
        let column = |f: fn(&PathProfile) -> f64| profiles().map(f).collect::<Vec<_>>();
        let accuracies = profiles().map(|p| p.accuracy_at_barrier);
        Ok(df!(
            "path" => names,
            "barrier_height" => column(|p| p.barrier_height),
            "excess" => column(|p| p.excess),
            "connectivity_score" => column(|p| p.connectivity_score),
            "path_norm" => column(|p| p.path_norm),
            "verdict" => profiles().map(PathProfile::verdict).collect::<Vec<_>>(),
            "accuracy at the worst point" => accuracies.collect::<Vec<_>>(),
        )?)
    }
}

impl PacBayesBound {
    /// One row per σ: σ, KL, error and loss with their standard errors, and the two bounds.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let column = |f: fn(&PacBayesRow) -> f64| self.rows.iter().map(f).collect::<Vec<_>>();
        Ok(df!(
            "σ" => column(|row| row.sigma),
            "KL" => column(|row| row.kl),
            "error" => column(|row| row.empirical_error.value),
            "error's standard error" => column(|row| row.empirical_error.standard_error),
            "loss" => column(|row| row.loss.value),
            "loss's standard error" => column(|row| row.loss.standard_error),
            "bound" => column(|row| row.bound),
            "McAllester's bound" => column(|row| row.mcallester),
        )?)
    }
}

impl Evolution {
    /// One row per snapshot. The error of an eigenvalue is its residual, that of the trace its standard error.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let snapshots = || self.snapshots.iter();
        let column = |f: fn(&CurvatureSnapshot) -> f64| snapshots().map(f).collect::<Vec<_>>();
        let some =
            |f: fn(&CurvatureSnapshot) -> Option<f64>| snapshots().map(f).collect::<Vec<_>>();
        Ok(df!(
            "step" => snapshots().map(|m| m.step as u64).collect::<Vec<_>>(),
            "loss" => column(|m| m.loss),
            "test loss" => some(|m| m.test_loss),
            "gradient norm" => column(|m| m.gradient_norm),
            "λ_max" => column(|m| m.largest.value),
            "± λ_max" => column(|m| m.largest.high - m.largest.value),
            "λ_min" => column(|m| m.smallest.value),
            "± λ_min" => column(|m| m.smallest.high - m.smallest.value),
            "snapshots since check" => snapshots().map(|m| m.snapshots_since_check as u64).collect::<Vec<_>>(),
            "trace" => some(|m| m.trace.map(|t| t.value)),
            "± trace" => some(|m| m.trace.map(|t| t.standard_error)),
            "sharpness" => some(|m| m.sharpness),
            "gradient overlap" => some(|m| m.top_space.as_ref()?.gradient.map(|g| g.value)),
            "± gradient overlap" => some(|m| m.top_space.as_ref()?.gradient.map(|g| g.error())),
            "subspace overlap" => some(|m| m.top_space.as_ref()?.overlap.map(|o| o.value)),
            "± subspace overlap" => some(|m| m.top_space.as_ref()?.overlap.map(|o| o.error())),
        )?)
    }
}

impl StabilityReport {
    /// One row per measurement.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let points = || self.points.iter();
        let column = |f: fn(&StabilityPoint) -> f64| points().map(f).collect::<Vec<_>>();
        Ok(df!(
            "step" => points().map(|p| p.step as u64).collect::<Vec<_>>(),
            "loss" => column(|p| p.loss),
            "measure" => points().map(|p| p.measure.to_string()).collect::<Vec<_>>(),
            "value" => column(|p| p.value),
            "error" => column(|p| p.error),
            "threshold" => column(|p| p.threshold),
            "ratio" => column(StabilityPoint::ratio),
            "learning rate" => column(|p| p.learning_rate),
        )?)
    }
}

impl CentralFlowReport {
    /// One row per interval.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let points = || self.points.iter();
        let column = |f: fn(&CentralFlowPoint) -> f64| points().map(f).collect::<Vec<_>>();
        Ok(df!(
            "step" => points().map(|p| p.step as u64).collect::<Vec<_>>(),
            "loss of gradient descent" => column(|p| p.descent_loss),
            "predicted loss" => column(|p| p.predicted_loss),
            "loss of the flow" => column(|p| p.flow_loss),
            "λ_max" => column(|p| p.sharpness),
            "variance" => column(|p| p.variance),
            "at the edge" => points().map(|p| p.at_edge as u64).collect::<Vec<_>>(),
            "distance" => column(|p| p.distance),
        )?)
    }
}

impl InfluenceReport {
    /// One row per training sample: its index, its influence and the bound on its error.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        Ok(df!(
            "sample" => (0..self.values.len() as u64).collect::<Vec<_>>(),
            "influence" => &self.values,
            "error" => &self.errors,
        )?)
    }
}

impl NoiseReport {
    /// One row per quantity, with its standard error if it is an estimate.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let exact = |value| (value, None);
        let estimated = |e: Estimate| (e.value, Some(e.standard_error));
        let rows = [
            ("‖g‖", exact(self.gradient_norm)),
            ("gᵀHg", exact(self.gradient_curvature)),
            ("tr Σ", estimated(self.variance)),
            ("tr Σ/‖g‖²", estimated(self.simple_noise_scale)),
            ("tr(HΣ)", estimated(self.alignment.product)),
            ("tr(HΣ)/(gᵀHg)", estimated(self.noise_scale)),
            ("cosine of H and Σ", estimated(self.alignment.cosine)),
            ("overlap of eigenspaces", exact(self.overlap.value)),
        ];
        Ok(df!(
            "quantity" => rows.map(|row| row.0),
            "value" => rows.map(|row| row.1.0),
            "standard error" => rows.map(|row| row.1.1),
        )?)
    }
}

impl ModifiedLoss {
    /// The terms and their sum, with standard errors for the estimated ones.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let total = self.total();
        let error = Some(total.standard_error);
        Ok(df!(
            "part" => ["loss", "full batch", "noise", "modified loss"],
            "value" => [self.loss, self.full_batch, self.noise.value, total.value],
            "standard error" => [None, None, error, error],
        )?)
    }
}
