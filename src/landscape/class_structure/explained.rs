//! [`ExplainedEigenvalue`]: which part of the Gauss–Newton matrix an eigenvalue comes from.

use serde::{Deserialize, Serialize};

use super::class_gradients::ClassGradients;
use crate::spectral::{Bracket, Spectrum, dot_products};
use crate::vector::dot;

/// An eigenvalue λ of the Gauss–Newton matrix with unit eigenvector v, and the shares vᵀPv/λ of the parts P in it. The shares of all
/// parts add up to 1.
///
/// The bounds of a share follow from the angle between v and the exact eigenvector, whose sine is at most the residual over the
/// gap to the other eigenvalues (Davis and Kahan, 1970). They are 0 and 1 for eigenvalues that are not separated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExplainedEigenvalue {
    /// λ
    pub eigenvalue: Bracket,
    /// Share of the class part.
    pub class: Bracket,
    /// Share of the cross-class part.
    pub cross: Bracket,
}

impl ExplainedEigenvalue {
    /// Shares of the positive eigenvalues of G.
    pub(super) fn of_spectrum(spectrum: &Spectrum, gradients: &ClassGradients) -> Vec<Self> {
        let pairs = &spectrum.pairs;
        let vectors: Vec<Vec<f64>> = pairs.iter().map(|pair| pair.vector.clone()).collect();
        let class = dot_products(&vectors, &gradients.class);
        let cross = dot_products(&vectors, &gradients.cross);
        let largest = pairs.first().map_or(0.0, |pair| pair.bracket().high);
        let positive = pairs.iter().take_while(|pair| pair.value > 0.0).count();
        let explained = (0..positive).map(|i| {
            let pair = &pairs[i];
            // The next eigenvalue after the last one is not known.
            let gap = |i: usize| spectrum.gap(i).map_or(0.0, |gap| gap.low);
            let below = match i + 1 == spectrum.dim {
                true => f64::INFINITY,
                false => gap(i),
            };
            let above = if i > 0 { gap(i - 1) } else { f64::INFINITY };
            let sine = pair.residual / below.min(above);
            let share = |components: &[f64]| {
                let square = dot(components, components);
                let value = square / pair.value;
                // ‖Pv‖ ≤ √(‖P‖ vᵀPv) and ‖P‖ ≤ ‖G‖ = `largest`.
                let change = 2.0 * sine * (largest * square).sqrt() + sine * sine * largest;
                let error = change / pair.value;
                match error.is_finite() {
                    true => Bracket {
                        value,
                        low: (value - error).max(0.0),
                        high: (value + error).min(1.0).max(value),
                    },
                    false => Bracket {
                        value,
                        low: 0.0,
                        high: 1f64.max(value),
                    },
                }
            };
            Self {
                eigenvalue: pair.bracket(),
                class: share(&class[i]),
                cross: share(&cross[i]),
            }
        });
        explained.collect()
    }
}
