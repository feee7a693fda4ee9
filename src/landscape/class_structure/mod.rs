//! [`ClassStructure`]: where the outliers of the Hessian come from.
//!
//! | file | contents |
//! | --- | --- |
//! | `class_gradients` | mean gradients of pairs of classes |
//! | `parts` | the class, cross-class, within-class and own-class part, as operators |
//! | `explained` | shares of the parts in the eigenvalues of the Gauss–Newton matrix |
//! | `hessian_difference` | the Hessian minus the Gauss–Newton matrix |
//! | `report` | the result |

mod class_gradients;
mod explained;
mod hessian_difference;
mod parts;
mod report;

#[cfg(test)]
mod tests;

pub use explained::ExplainedEigenvalue;
pub use hessian_difference::HessianDifference;
pub use parts::{ClassPart, ClassParts};
pub use report::{ClassStructureReport, PartTraces};

use serde::{Deserialize, Serialize};

use self::class_gradients::{Span, rounding_of, trace};
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::spectral::{Bracket, Estimate, Lanczos, OutlierTest, Trace, Which};
use crate::vector::norm;

/// Settings of a decomposition of the Gauss–Newton matrix by classes (Papyan, "Measurements of Three-Level Hierarchical Structure in
/// the Outliers in the Spectrum of Deepnet Hessians", 2019; "Traces of Class/Cross-Class Structure Pervade Deep Learning Spectra",
/// 2020).
///
/// For cross-entropy with K classes, predicted probabilities p_i and the Jacobian J_i of the outputs of sample i,
///
/// G = Σ_i Σ_c' w_{i,c'} g_{i,c'} g_{i,c'}ᵀ with g_{i,c'} = J_iᵀ(e_{c'} − p_i) and w_{i,c'} = p_{i,c'}/n
///
/// g_{i,c'} is minus the gradient of the sample's loss if its label were c'. Let c be the class of sample i, w_{c,c'} the sum of
/// w_{i,c'} over the samples of class c and g_{c,c'} the mean of their g_{i,c'} with these weights; w_c the sum of w_{c,c'} over
/// c' ≠ c, and g_c the mean of g_{c,c'}. Then G is the sum of
///
/// - the class part Σ_c w_c g_c g_cᵀ, of rank K;
/// - the cross-class part Σ_{c ≠ c'} w_{c,c'} (g_{c,c'} − g_c)(g_{c,c'} − g_c)ᵀ, of rank K(K − 2);
/// - the within-class part, Σ_{c ≠ c'} Σ_i w_{i,c'} (g_{i,c'} − g_{c,c'})(g_{i,c'} − g_{c,c'})ᵀ;
/// - the own-class part Σ_i w_{i,c} g_{i,c} g_{i,c}ᵀ, the terms with c = c'.
///
/// w_c g_c is about the class's part of the gradient of the loss where the network is accurate, so the sum of w_c g_c is small at
/// the end of a training: the class part then has K − 1 large eigenvalues.
///
/// Class weights and label smoothing change the weights w. In a model of sequences, each token is a sample. Losses other than
/// cross-entropy have no probabilities of classes and are refused.
///
/// # Cost
///
/// K gradients for the class and the cross-class part, whose eigenvalues and traces are exact up to rounding, and K² vectors of the
/// length of θ; products with G and with its parts for the rest.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = spirals(90, 3, 1.0, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 6, 3], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let found = ClassStructure::default().run(&objective)?;
/// assert_eq!((found.classes, found.class_eigenvalues.len()), (3, 3));
/// assert_eq!(found.cross_eigenvalues.len(), 3); // K(K − 2)
/// let traces = &found.traces;
/// let parts = [traces.class, traces.cross, traces.within, traces.own];
/// let sum: f64 = parts.iter().map(|trace| trace.value).sum();
/// assert!((sum - traces.total.value).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClassStructure {
    /// Number of eigenvalues of G; `None`: K² + 20, but at most 120.
    pub eigenvalues: Option<usize>,
    /// Search for eigenvalues.
    pub lanczos: Lanczos,
    /// Estimates of traces.
    pub trace: Trace,
    /// Test for the number of outliers of G.
    pub outliers: OutlierTest,
}

impl Default for ClassStructure {
    /// K² + 20 eigenvalues, at most 120, to 10⁻⁵ of the largest; traces to 3 %, with at most 100 products each; outliers at a
    /// significance of 5 %.
    fn default() -> Self {
        Self {
            eigenvalues: None,
            lanczos: Lanczos::default().with_tolerance(1e-5),
            trace: Trace::default()
                .with_relative_error(0.03)
                .with_max_products(100),
            outliers: OutlierTest::default(),
        }
    }
}

impl ClassStructure {
    /// Sets the number of eigenvalues of G; `None`: K² + 20, but at most 120.
    #[must_use]
    pub fn with_eigenvalues(mut self, eigenvalues: impl Into<Option<usize>>) -> Self {
        self.eigenvalues = eigenvalues.into();
        self
    }

    /// Sets the search for eigenvalues.
    #[must_use]
    pub fn with_lanczos(mut self, lanczos: Lanczos) -> Self {
        self.lanczos = lanczos;
        self
    }

    /// Sets how traces are estimated.
    #[must_use]
    pub fn with_trace(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// Sets the test for the number of outliers of G.
    #[must_use]
    pub fn with_outliers(mut self, outliers: OutlierTest) -> Self {
        self.outliers = outliers;
        self
    }

    /// Measures the class structure at the model's current θ.
    ///
    /// # Errors
    /// As [`ClassParts::new`], [`Lanczos::run`], [`Trace::trace`] and [`OutlierTest::count`]; 0 eigenvalues, or more than
    /// parameters.
    pub fn run(&self, objective: &Objective) -> Result<ClassStructureReport> {
        let dim = objective.dim();
        if let Some(k) = self.eigenvalues.filter(|k| *k == 0 || *k > dim) {
            return Err(Error::invalid(format!(
                "{k} eigenvalues of a matrix with {dim} rows: ask for 1 to {dim}"
            )));
        }
        let parts = ClassParts::new(objective)?;
        let shared = parts.shared();
        let (theta, gradients) = (&shared.theta, &shared.gradients);
        let classes = gradients.counts.len();
        let plain = objective.clone().with_l2(0.0)?;
        let k = match self.eigenvalues {
            Some(k) => k,
            None => (classes * classes + 20).min(120).min(dim),
        };
        let largest = self.lanczos.clone().with_which(Which::Largest);
        let gauss_newton = plain.gauss_newton().at(theta.clone())?;
        let spectrum = largest.run(&gauss_newton, k)?;

        let exact = |vectors: &[Vec<f64>]| {
            let value = trace(vectors);
            Estimate::exact(value).with_error(rounding_of(objective, value))
        };
        let traces = PartTraces::new(
            exact(gradients.class()),
            exact(gradients.cross()),
            self.trace.trace(&parts.within)?,
            self.trace.trace(&parts.own)?,
        );
        let error = rounding_of(objective, traces.class.value + traces.cross.value);
        let span = |vectors: &[Vec<f64>]| Span::new(vectors, error);
        let brackets = |span: &Span, count: usize| -> Vec<Bracket> {
            let values = span.eigenvalues(count).into_iter();
            values.map(|value| Bracket::around(value, error)).collect()
        };
        let class_span = span(gradients.class())?;
        let mean_span = span(gradients.both())?;
        let present = gradients.class().len();
        let gradient = plain.gradient_at(theta)?.1;
        let leading = classes.min(spectrum.pairs.len());
        let participation = spectrum.participation(&named_blocks(objective))?;
        let is_testable = OutlierTest::num_testable(&spectrum) >= OutlierTest::MIN_VALUES;
        let outliers = match is_testable {
            true => Some(self.outliers.count(&spectrum)?),
            false => None,
        };
        Ok(ClassStructureReport {
            classes,
            counts: gradients.counts.clone(),
            dim,
            class_eigenvalues: brackets(&class_span, present),
            cross_eigenvalues: brackets(
                &span(gradients.cross())?,
                gradients.cross().len().saturating_sub(present),
            ),
            within_largest: largest.run(&parts.within, 1)?.pairs[0].bracket(),
            own_largest: largest.run(&parts.own, 1)?.pairs[0].bracket(),
            eigenvalues: ExplainedEigenvalue::of_spectrum(
                &spectrum,
                gradients,
                [&class_span, &mean_span],
            ),
            converged: spectrum.converged,
            outliers,
            gradient_overlap: match norm(&gradient) > 0.0 {
                true => Some(spectrum.overlap(&gradient, leading)?),
                false => None,
            },
            participation: participation
                .into_iter()
                .filter(|entry| entry.rank <= leading)
                .collect(),
            difference: HessianDifference::measure(
                plain.hessian().at(theta.clone())?,
                gauss_newton,
                &self.lanczos,
                &self.trace,
                traces.total.value,
            )?,
            traces,
        })
    }
}

/// θ as a whole and its parameters.
fn named_blocks(objective: &Objective) -> Vec<(String, std::ops::Range<usize>)> {
    let mut blocks = vec![("all".to_owned(), 0..objective.dim())];
    blocks.extend(objective.parameters().blocks());
    blocks
}
