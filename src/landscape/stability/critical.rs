//! [`CriticalSharpness`]: the largest learning rate at which a step does not increase the loss, from a few losses.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_positive};
use crate::objective::Objective;
use crate::spectral::Bracket;
use crate::vector::norm;

/// Largest number of losses.
const PASSES: usize = 6;

/// Largest ratio of two rates in a row.
const GROWTH: f64 = 8.0;

/// Ends the search when the bounds of the critical rate differ by less than this factor.
const ACCURACY: f64 = 1.02;

/// Critical learning rate η_c along a step direction, and the critical sharpness 2/η_c.
///
/// η_c is the smallest η > 0 with L(θ − ηv) > L(θ) (Kalra et al., "A Scalable Measure of Loss Landscape Curvature for Analyzing the
/// Training Dynamics of LLMs", 2026). For a quadratic loss 2/η_c = vᵀHv/gᵀv, which for v = g is the curvature along the gradient. A
/// training with steps −ηv that neither increase nor decrease the loss, as at the edge of stability, has 2/η_c = 2/η, whatever the
/// optimizer.
///
/// The search takes at most six losses, and no derivative. It computes φ(η) = L(θ − ηv) − L(θ) at half the training's rate, at that rate
/// and at up to three rates where φ(η)/η, interpolated linearly, is near 0. For a quadratic loss that is exact.
///
/// ```
/// use loss_landscape::landscape::CriticalSharpness;
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² from (0, 1) along the gradient (0, 8): the curvature is 8.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 1.0])?;
/// let objective = Objective::of(&model, &data, Loss::Mse)?;
/// let found = CriticalSharpness::measure(&objective, &objective.gradient()?, 0.1)?;
/// assert!((found.sharpness.value - 8.0).abs() < 1e-9 && (found.rate.value - 0.25).abs() < 1e-9);
/// assert!(found.sharpness.low > 7.8 && found.sharpness.high < 8.2 && found.losses <= 6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CriticalSharpness {
    /// Critical sharpness 2/η_c, with the bounds that follow from those of the rate. Infinite if a small step along −v increases the
    /// loss; 0 if no rate in reach increases it.
    pub sharpness: Bracket,
    /// Critical rate η_c. The loss does not increase at the lower bound and increases at the upper one, each by more than the rounding of
    /// the loss. An infinite upper bound means that no rate in reach increased the loss.
    pub rate: Bracket,
    /// Number of losses computed.
    pub losses: usize,
}

impl CriticalSharpness {
    /// Searches along −`direction` from the model's current parameters, starting at `learning_rate`, the training's. For gradient descent,
    /// `direction` is the gradient. A loss that is not finite counts as an increase.
    ///
    /// # Errors
    /// `direction` is zero, has the wrong length or entries that are not finite; the learning rate is not a finite number above 0; the
    /// loss at θ is not finite.
    pub fn measure(objective: &Objective, direction: &[f64], learning_rate: f64) -> Result<Self> {
        check_positive(learning_rate, "the learning rate")?;
        let parameters = objective.parameters();
        parameters.check_vector(direction, "direction")?;
        if norm(direction) == 0.0 {
            return Err(Error::invalid("the step is zero: it has no direction"));
        }
        let theta = parameters.to_flat()?;
        let step: Vec<f64> = direction.iter().map(|v| -learning_rate * v).collect();
        Self::along(objective, &theta, &step, learning_rate)
    }

    /// Searches along `step` from θ, a step with this learning rate that is not zero.
    pub(super) fn along(
        objective: &Objective,
        theta: &[f64],
        step: &[f64],
        learning_rate: f64,
    ) -> Result<Self> {
        let losses = |factors: &[f64]| -> Result<Vec<f64>> {
            let points: Vec<[f64; 2]> = factors.iter().map(|s| [*s, 0.0]).collect();
            let scores = objective.scores_or_nan([theta, step, &[]], &points)?;
            Ok(scores.iter().map(|score| score.loss).collect())
        };
        let first = losses(&[0.0, 0.5, 1.0])?;
        let center = first[0];
        if !center.is_finite() {
            return Err(Error::NotFinite(
                "the loss at the start of the step is not finite".into(),
            ));
        }
        let rounding = 4.0 * objective.parameters().epsilon() * center.abs();
        let mut search = Search {
            rounding,
            probes: Vec::new(),
        };
        search.add(0.5, first[1] - center);
        search.add(1.0, first[2] - center);
        let mut passes = first.len();
        while passes < PASSES && !search.is_accurate() {
            let factor = search.next();
            search.add(factor, losses(&[factor])?[0] - center);
            passes += 1;
        }
        let [low, high] = search.bounds();
        let rate = Bracket {
            value: learning_rate * search.root().clamp(low, high),
            low: learning_rate * low,
            high: learning_rate * high,
        };
        Ok(Self {
            sharpness: Bracket {
                value: 2.0 / rate.value,
                low: 2.0 / rate.high,
                high: 2.0 / rate.low,
            },
            rate,
            losses: passes,
        })
    }
}

/// Search for the first zero of φ(s)/s, for factors s of a step.
struct Search {
    /// Rounding of φ.
    rounding: f64,
    /// s and φ(s), ascending in s.
    probes: Vec<(f64, f64)>,
}

impl Search {
    fn add(&mut self, factor: f64, rise: f64) {
        let rise = if rise.is_nan() { f64::INFINITY } else { rise };
        let at = self.probes.partition_point(|(s, _)| *s < factor);
        self.probes.insert(at, (factor, rise));
    }

    /// The largest s below the first increase at which the loss decreases, or 0, and the s of the first increase, or ∞. Changes within
    /// the rounding count as neither.
    fn bounds(&self) -> [f64; 2] {
        let increase = self.probes.iter().find(|(_, rise)| *rise > self.rounding);
        let high = increase.map_or(f64::INFINITY, |(s, _)| *s);
        let below = self.probes.iter().filter(|(s, _)| *s < high);
        let decreases = below.filter(|(_, rise)| *rise < -self.rounding);
        [decreases.map(|(s, _)| *s).fold(0.0, f64::max), high]
    }

    fn is_accurate(&self) -> bool {
        let [low, high] = self.bounds();
        high <= ACCURACY * low
    }

    /// The zero of the line through two values of φ(s)/s: around the first increase, or else the nearest ones. 0 if small steps
    /// increase the loss, ∞ if no step does.
    fn root(&self) -> f64 {
        let slope = |(s, rise): &(f64, f64)| (*s, rise / s);
        let values: Vec<_> = self.probes.iter().map(slope).collect();
        let finite = values.iter().take_while(|(_, slope)| slope.is_finite());
        let finite = finite.count();
        if finite < 2 {
            // The loss at the smallest step is not finite, or only that one is.
            return 0.5 * values[0].0;
        }
        let above = values.iter().position(|(_, slope)| *slope > 0.0);
        let last = above.unwrap_or(finite - 1).clamp(1, finite - 1);
        let ((s, a), (t, b)) = (values[last - 1], values[last]);
        let bend = (b - a) / (t - s);
        match a <= 0.0 {
            true if bend > 0.0 => s - a / bend,
            true => f64::INFINITY,
            false if bend > 0.0 => (s - a / bend).max(0.0),
            false => 0.0,
        }
    }

    /// The next s: the root, or if it is known already a point next to it, which can bound it.
    fn next(&self) -> f64 {
        let [low, high] = self.bounds();
        let (smallest, largest) = (self.probes[0].0, self.probes[self.probes.len() - 1].0);
        let root = self.root().clamp(smallest / GROWTH, largest * GROWTH);
        let is_known = |(s, _): &(f64, f64)| (s / root - 1.0).abs() < 0.2 * (ACCURACY - 1.0);
        let margin = 1.0 + 0.4 * (ACCURACY - 1.0);
        if root <= low || root >= high {
            0.5 * (low + high.min(GROWTH * largest))
        } else if !self.probes.iter().any(is_known) {
            root
        } else if low * ACCURACY < root {
            root / margin
        } else {
            root * margin
        }
    }
}

impl std::fmt::Display for CriticalSharpness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "critical sharpness {}; the step does not increase the loss below η = {}",
            self.sharpness, self.rate
        )
    }
}
