//! Effect of floating-point rounding on a model's loss.

use super::Objective;
use crate::error::Result;
use crate::random::{Purpose, normal};
use crate::vector::minus;

/// Changes each number by a factor 1 ± ε. Each `index` gives different signs.
pub(super) fn rounded(numbers: &[f64], epsilon: f64, index: u64) -> Vec<f64> {
    let signs = normal(numbers.len(), Purpose::Rounding, 0, index);
    let pairs = numbers.iter().zip(signs);
    pairs
        .map(|(x, sign)| x + (epsilon * x.abs()).copysign(sign))
        .collect()
}

impl Objective {
    /// Uncertainty of L(θ) = `loss` in the model's dtype: the largest of ε L and four changes of the loss, each when
    /// every parameter changes by a factor 1 ± ε.
    ///
    /// This is much more than ε L where large numbers cancel: a residual is rounded by ε of the output, and the loss of a
    /// well-classified sample by the rounding of its logits.
    pub(crate) fn rounding(&self, theta: &[f64], loss: f64) -> Result<f64> {
        let epsilon = self.parameters.epsilon();
        let [d1, d2] = [0, 1].map(|i| minus(&rounded(theta, epsilon, i), theta));
        let points = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        let scores = self.scores_on_plane([theta, &d1, &d2], &points)?;
        let changes = scores.iter().map(|score| (score.loss - loss).abs());
        Ok(changes.fold(epsilon * loss.abs(), f64::max))
    }
}
