//! [`ExplainedEigenvalue`]: which part of the Gauss–Newton matrix an eigenvalue comes from.

use serde::{Deserialize, Serialize};

use super::class_gradients::{ClassGradients, Span};
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
    /// Fraction of v's squared length in the span of the class part's vectors g_c.
    pub class_span: Bracket,
    /// Fraction of v's squared length in the span of the g_{c,c'}, the vectors of both parts.
    pub mean_span: Bracket,
}

impl ExplainedEigenvalue {
    /// Shares in the positive eigenvalues of G. `class` and `means` are the spans of the vectors of the class part, and of both
    /// parts.
    pub(super) fn of_spectrum(
        spectrum: &Spectrum,
        gradients: &ClassGradients,
        [class_span, mean_span]: [&Span; 2],
    ) -> Vec<Self> {
        let pairs = &spectrum.pairs;
        let vectors: Vec<Vec<f64>> = pairs.iter().map(|pair| pair.vector.clone()).collect();
        let class = dot_products(&vectors, gradients.class());
        let cross = dot_products(&vectors, gradients.cross());
        let largest = pairs.first().map_or(0.0, |pair| pair.bracket().high);
        let positive = pairs.iter().take_while(|pair| pair.value > 0.0).count();
        let explained = (0..positive).map(|i| {
            let pair = &pairs[i];
            let sine = sine_of(spectrum, i);
            let share = |components: &[f64]| {
                let square = dot(components, components);
                // ‖Pv‖ ≤ √(‖P‖ vᵀPv) and ‖P‖ ≤ ‖G‖ = `largest`.
                let change = 2.0 * sine * (largest * square).sqrt() + sine * sine * largest;
                fraction(square / pair.value, change / pair.value)
            };
            let both = [&class[i][..], &cross[i]].concat();
            Self {
                eigenvalue: pair.bracket(),
                class: share(&class[i]),
                cross: share(&cross[i]),
                class_span: fraction(class_span.squared_length(&class[i]), sine),
                mean_span: fraction(mean_span.squared_length(&both), sine),
            }
        });
        explained.collect()
    }
}

/// Largest sine of the angle between an eigenvector and the exact one, 1 if the eigenvalue is not separated from others.
fn sine_of(spectrum: &Spectrum, index: usize) -> f64 {
    // The eigenvalue after the last one is not known.
    let gap = |i: usize| spectrum.gap(i).map_or(0.0, |gap| gap.low);
    let below = match index + 1 == spectrum.dim {
        true => f64::INFINITY,
        false => gap(index),
    };
    let above = if index > 0 {
        gap(index - 1)
    } else {
        f64::INFINITY
    };
    let gap = below.min(above);
    match gap > 0.0 {
        true => (spectrum.pairs[index].residual / gap).min(1.0),
        false => 1.0,
    }
}

/// A number between 0 and 1 with this error.
fn fraction(value: f64, error: f64) -> Bracket {
    let value = value.min(1.0);
    Bracket {
        value,
        low: (value - error).max(0.0),
        high: (value + error).min(1.0),
    }
}
