//! [`ClassStructureReport`]: the parts of the Gauss–Newton matrix, their eigenvalues and traces.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ExplainedEigenvalue, HessianDifference};
use crate::error::counted;
use crate::spectral::{Bracket, Estimate, OutlierCount, Participation, Short};

/// Traces of the Gauss–Newton matrix and of its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PartTraces {
    /// tr G, the sum of the traces of the parts.
    pub total: Estimate,
    /// Trace of the class part, exact up to rounding.
    pub class: Estimate,
    /// Trace of the cross-class part, exact up to rounding.
    pub cross: Estimate,
    /// Trace of the within-class part.
    pub within: Estimate,
    /// Trace of the own-class part.
    pub own: Estimate,
}

impl PartTraces {
    pub(super) fn new(class: Estimate, cross: Estimate, within: Estimate, own: Estimate) -> Self {
        let parts = [class, cross, within, own];
        // The errors of the parts are independent, except that both estimates have the same probes.
        let error = class.standard_error.hypot(cross.standard_error);
        let error = error.hypot(within.standard_error + own.standard_error);
        let samples = parts.iter().map(|part| part.samples);
        let total = Estimate {
            value: parts.iter().map(|part| part.value).sum(),
            standard_error: error,
            samples: samples.filter(|samples| *samples > 0).min().unwrap_or(0),
            products: parts.iter().map(|part| part.products).sum(),
            converged: parts.iter().all(|part| part.converged),
        };
        Self {
            total,
            class,
            cross,
            within,
            own,
        }
    }
}

/// The class structure of a loss at a point; see [`ClassStructure`](super::ClassStructure) for the parts and an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClassStructureReport {
    /// Number of classes K.
    pub classes: usize,
    /// Number of samples of each class, or of tokens. Samples with weight 0 do not count.
    pub counts: Vec<usize>,
    /// Number of parameters.
    pub dim: usize,
    /// Traces of the parts.
    pub traces: PartTraces,
    /// Eigenvalues of the class part, largest first, one for each class with samples, exact up to rounding.
    pub class_eigenvalues: Vec<Bracket>,
    /// Eigenvalues of the cross-class part, largest first, K − 2 for each class with samples, exact up to rounding.
    pub cross_eigenvalues: Vec<Bracket>,
    /// Largest eigenvalue of the within-class part.
    pub within_largest: Bracket,
    /// Largest eigenvalue of the own-class part.
    pub own_largest: Bracket,
    /// Largest eigenvalues of the Gauss–Newton matrix, with the shares of the parts in them.
    pub eigenvalues: Vec<ExplainedEigenvalue>,
    /// Whether these eigenvalues converged.
    pub converged: bool,
    /// Number of outliers of the Gauss–Newton matrix; `None` for fewer than
    /// [`OutlierTest::MIN_VALUES`](crate::spectral::OutlierTest::MIN_VALUES) positive eigenvalues.
    pub outliers: Option<OutlierCount>,
    /// Fraction of the squared length of the gradient, without L2, in the span of the K leading eigenvectors of the Gauss–Newton
    /// matrix (Gur-Ari, Roberts and Dyer, "Gradient Descent Happens in a Tiny Subspace", 2018); `None` for a zero gradient.
    pub gradient_overlap: Option<Bracket>,
    /// How the K leading eigenvectors are distributed over θ (block `all`) and over each parameter: 1 over the participation ratio
    /// is the inverse participation ratio.
    pub participation: Vec<Participation>,
    /// The Hessian minus the Gauss–Newton matrix.
    pub difference: HessianDifference,
}

impl ClassStructureReport {
    /// Number of the `count` largest eigenvalues of the Gauss–Newton matrix whose eigenvectors have more than half of their squared
    /// length in the span of the class part.
    pub fn num_explained(&self, count: usize) -> usize {
        let leading = self.eigenvalues.iter().take(count);
        leading.filter(|e| e.class_span.value > 0.5).count()
    }
}

impl fmt::Display for ClassStructureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traces = &self.traces;
        writeln!(f, "tr G           {}", traces.total)?;
        for (name, part) in [
            ("class", traces.class),
            ("cross-class", traces.cross),
            ("within-class", traces.within),
            ("own class", traces.own),
        ] {
            let share = 100.0 * part.value / traces.total.value;
            writeln!(
                f,
                "  {name:<13}{:.4} ± {:.1} ({share:.1} %)",
                Short(part.value),
                Short(part.standard_error)
            )?;
        }
        if let Some(outliers) = &self.outliers {
            writeln!(f, "outliers of G  {outliers}")?;
        }
        let count = self.classes.min(self.eigenvalues.len());
        writeln!(
            f,
            "of the {} of G, {} mostly in the span of the class part",
            counted(count, "leading eigenvector"),
            self.num_explained(count)
        )?;
        writeln!(
            f,
            "  rank    λ of G     class     cross      rest  in the span"
        )?;
        for (rank, e) in (1..).zip(&self.eigenvalues[..count]) {
            let rest = 100.0 * (1.0 - e.class.value - e.cross.value);
            let [class, cross, span] = [e.class, e.cross, e.class_span].map(|s| 100.0 * s.value);
            let value = format!("{:.4}", Short(e.eigenvalue.value));
            writeln!(
                f,
                "  {rank:>4}  {value:>8} {class:>7.1} % {cross:>7.1} % {rest:>7.1} % {span:>10.1} %"
            )?;
        }
        writeln!(
            f,
            "largest λ of the within-class part  {}",
            self.within_largest
        )?;
        writeln!(
            f,
            "largest λ of the own-class part     {}",
            self.own_largest
        )?;
        if let Some(overlap) = &self.gradient_overlap {
            writeln!(f, "gradient in the top {count} directions    {overlap}")?;
        }
        writeln!(
            f,
            "H − G: λ from {} to {}",
            self.difference.smallest, self.difference.largest
        )?;
        write!(f, "tr(H − G)      {}", self.difference.trace)?;
        if !self.converged {
            write!(f, "\nthe eigenvalues of G have not converged")?;
        }
        Ok(())
    }
}
