//! [`ComparisonPoint`]: a point near a model's own, where derivatives are compared with central differences.

use std::ops::Range;

use candle_core::DType;

use super::Objective;
use crate::error::{Error, Result};
use crate::losses::Curvature;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, minus, norm, scale};

/// Distance from the model's own point, relative to each parameter.
const SHIFT: f64 = 0.05;

/// Number of steps for differences of the loss.
const LOSS_STEPS: i32 = 5;

/// Number of steps if the loss is far from linear within the first ones.
const MOST_STEPS: i32 = 10;

/// Differences of the loss with a larger relative error are not used as evidence.
const UNCERTAIN: f64 = 0.02;

/// Rounding error of a loss, in units of ε times the loss.
const ROUNDING: f64 = 1e3;

/// Steps for a floating-point type, relative to the distance over which the loss changes by its own size.
struct Steps {
    /// First step for the loss. Each further one is a quarter of the previous.
    loss: f64,
    /// Step for the gradient. Kinks within a step change differences of the gradient much more than those of the
    /// loss.
    gradient: f64,
    /// Factor of the gradient's second step, where the first may be too short.
    longer: Option<f64>,
    /// Shortest of these steps relative to the parameters: a shorter one is lost to their rounding.
    shortest: f64,
    /// A parameter's part of a product is not judged below this share of its gradient.
    negligible: f64,
    /// Nor below this share of the whole gradient: its difference is rounding error.
    rounding: f64,
    /// In differences of the loss, a parameter moves at most this many times its norm where others move by their
    /// norm.
    reach: f64,
}

impl Steps {
    fn for_dtype(dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self {
                loss: 1.6e-5,
                gradient: 1e-8,
                longer: None,
                shortest: 1e-13,
                negligible: 0.01,
                rounding: 2e-11,
                reach: 1e3,
            },
            _ => Self {
                loss: 0.16,
                gradient: 1e-4,
                longer: Some(30.0),
                shortest: 3e-6,
                negligible: 0.1,
                rounding: 0.0,
                reach: 100.0,
            },
        }
    }
}

/// A point where the derivatives are compared.
pub(super) struct ComparisonPoint<'a> {
    objective: &'a Objective,
    number: u64,
    steps: Steps,
    ranges: Vec<Range<usize>>,
    theta: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
}

/// A direction from that point.
struct Direction {
    vector: Vec<f64>,
    /// Distance along it over which the loss changes by its own size, at most 1.
    reach: f64,
}

/// Relative error of a gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientError {
    /// Signed relative error.
    pub(super) value: f64,
    /// Uncertainty of the differences.
    uncertainty: f64,
}

impl GradientError {
    pub(super) fn is_within(&self, tolerance: f64) -> bool {
        self.value.abs() <= tolerance + self.uncertainty
    }

    /// Whether the differences are precise enough to judge by.
    pub(super) fn is_certain(&self) -> bool {
        self.uncertainty <= UNCERTAIN
    }
}

/// Relative errors of a Hessian-vector product.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProductError {
    pub(super) whole: f64,
    /// In `f64` the largest over the parameters' parts; in `f32` that of the whole vector, because kinks change parts
    /// a lot.
    pub(super) judged: f64,
    /// Uncertainty of the differences.
    uncertainty: f64,
    /// Index of the parameter with the largest error.
    pub(super) parameter: usize,
}

impl ProductError {
    pub(super) fn is_within(&self, tolerance: f64) -> bool {
        self.judged <= tolerance + self.uncertainty
    }
}

/// A central difference of the loss and the gradient's prediction, each divided by the step.
struct LossDifference {
    error: f64,
    /// Relative to the larger of the two.
    size: f64,
}

impl<'a> ComparisonPoint<'a> {
    /// The point with index `number`.
    pub(super) fn new(objective: &'a Objective, number: u64) -> Result<Self> {
        let steps = Steps::for_dtype(objective.parameters.dtype());
        let ranges = objective.parameters.ranges();
        let (theta, loss, gradient) = generic_point(objective, &ranges, number)?;
        Ok(Self {
            objective,
            number,
            steps,
            ranges,
            theta,
            loss,
            gradient,
        })
    }

    /// For each parameter, the direction of its gradient, or a random one if that is zero, with a length that changes
    /// the loss as much as the other parameters do: at least the parameter's norm, and at most `reach` times that.
    fn direction(&self, reach: f64) -> Direction {
        let mut random = None;
        let effect = |range: &Range<usize>| {
            norm(&self.gradient[range.clone()]) * norm(&self.theta[range.clone()])
        };
        let most = self.ranges.iter().map(effect).fold(0.0, f64::max);
        let mut vector = self.gradient.clone();
        for range in &self.ranges {
            let part = &mut vector[range.clone()];
            let mut length = norm(&self.theta[range.clone()]);
            // The square of a tiny gradient underflows.
            if norm(part) == 0.0 {
                let random = random.get_or_insert_with(|| {
                    normal(self.theta.len(), Purpose::DerivativeCheck, 1, self.number)
                });
                part.copy_from_slice(&random[range.clone()]);
            } else {
                length *= (most / effect(range)).min(reach);
            }
            let factor = length / norm(part);
            part.iter_mut().for_each(|u| *u *= factor);
        }
        // A well-trained classifier's loss changes by a factor within a small part of θ.
        let reach = (self.loss / dot(&self.gradient, &vector)).abs();
        Direction {
            vector,
            reach: if reach > 0.0 { reach.min(1.0) } else { 1.0 },
        }
    }

    /// θ + hu and θ − hu, rounded to the model's dtype, so that their difference is known exactly.
    fn ends(&self, direction: &Direction, step: f64) -> [Vec<f64>; 2] {
        [1.0, -1.0].map(|sign| {
            let mut moved = self.theta.clone();
            axpy(sign * step * direction.reach, &direction.vector, &mut moved);
            match self.objective.parameters.dtype() {
                DType::F64 => moved,
                _ => moved.into_iter().map(|t| f64::from(t as f32)).collect(),
            }
        })
    }

    /// The relative error of the gradient against extrapolated differences of the loss, certain to `enough` if
    /// possible.
    ///
    /// The error of central differences is a + bh² for a smooth loss. With many kinks it is a − ch: units that the
    /// gradient passes through stay on along it and turn off against it. Three steps determine a. Steps shrink as
    /// long as that makes a more certain despite rounding.
    pub(super) fn gradient_error(&self, enough: f64) -> Result<GradientError> {
        let direction = self.direction(self.steps.reach);
        let mut best: Option<GradientError> = None;
        let mut found: Vec<LossDifference> = Vec::new();
        let mut last = None;
        for i in 0..MOST_STEPS {
            match self.loss_difference(&direction, self.steps.loss / 4f64.powi(i)) {
                Ok(difference) => found.push(difference),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                // A step can leave the model's domain; then try a smaller one.
                Err(error) => {
                    found.clear();
                    last = Some(error);
                }
            }
            let [.., first, second, third] = &found[..] else {
                continue;
            };
            // Where the loss is far from linear within the steps, they are no evidence yet.
            if first.size > 2.0 * third.size {
                continue;
            }
            let [e1, e2, e3] = [first, second, third].map(|d| relative(d.error, d.size));
            let value = (e1 - 20.0 * e2 + 64.0 * e3) / 45.0;
            let uncertainty = (value - e3).abs();
            if best.is_none_or(|best| uncertainty < best.uncertainty) {
                best = Some(GradientError { value, uncertainty });
            }
            if uncertainty <= enough || i + 1 >= LOSS_STEPS {
                break;
            }
        }
        // Without a linear part there is nothing to compare the gradient with.
        if best.is_none() && last.is_none() {
            return Ok(GradientError {
                value: 0.0,
                uncertainty: f64::INFINITY,
            });
        }
        best.ok_or_else(|| {
            last.unwrap_or_else(|| Error::invalid("the loss is not finite near the model's point"))
        })
    }

    /// Compares the gradient with a central difference of the loss.
    fn loss_difference(&self, direction: &Direction, step: f64) -> Result<LossDifference> {
        let [ahead, behind] = self.ends(direction, step);
        let expected = dot(&self.gradient, &minus(&ahead, &behind));
        let change = self.objective.loss_at(&ahead)? - self.objective.loss_at(&behind)?;
        let least = ROUNDING * self.objective.parameters.epsilon() * self.loss.abs();
        Ok(LossDifference {
            error: (change - expected) / step,
            size: expected.abs().max(change.abs()).max(least) / step,
        })
    }

    /// The relative errors of the Hessian-vector product against a difference of the gradient. Where they exceed
    /// `enough`, a second step shows how certain that is: wrong differences from kinks or rounding vary with the
    /// step.
    pub(super) fn product_error(&self, enough: f64) -> Result<ProductError> {
        let direction = self.direction(1.0);
        let shortest = self.steps.shortest / direction.reach;
        let step = self.steps.gradient.max(shortest);
        let (error, difference) = self.product_difference(&direction, step)?;
        if error.judged <= enough {
            return Ok(error);
        }
        let Some(longer) = self.steps.longer else {
            return Ok(error);
        };
        // The longer step can leave the model's domain.
        let (again, other) = match self.product_difference(&direction, longer * step) {
            Ok(found) => found,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(_) => {
                return Ok(ProductError {
                    uncertainty: f64::INFINITY,
                    ..error
                });
            }
        };
        let size = norm(&difference).max(norm(&other));
        let best = if again.judged < error.judged {
            again
        } else {
            error
        };
        Ok(ProductError {
            uncertainty: relative(norm(&minus(&difference, &other)), size),
            ..best
        })
    }

    /// The errors, and the difference of the gradient over the step.
    fn product_difference(
        &self,
        direction: &Direction,
        step: f64,
    ) -> Result<(ProductError, Vec<f64>)> {
        let [ahead, behind] = self.ends(direction, step);
        let along = [minus(&ahead, &behind)];
        let curvature = Curvature::Hessian;
        let product = self
            .objective
            .products(Some(&self.theta), &along, curvature)?
            .concat();
        let ahead = self.objective.gradient_at(&ahead)?.1;
        let mut change = minus(&ahead, &self.objective.gradient_at(&behind)?.1);
        let rounding = self.steps.rounding * norm(&self.gradient);
        // The error over the size, and over the size that is judged.
        let compared = |range: Range<usize>| {
            let [product, change, gradient] =
                [&product, &change, &self.gradient].map(|v| &v[range.clone()]);
            let error = norm(&minus(product, change));
            let size = norm(product).max(norm(change));
            let least = (self.steps.negligible * step * norm(gradient)).max(rounding);
            [relative(error, size), relative(error, size.max(least))]
        };
        let parts = self.ranges.iter().map(|range| compared(range.clone())[1]);
        let worst = parts.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let (parameter, worst) = worst.unwrap_or_default();
        let [whole, overall] = compared(0..product.len());
        let error = ProductError {
            whole,
            judged: match self.objective.parameters.dtype() {
                DType::F64 => worst,
                _ => overall,
            },
            uncertainty: 0.0,
            parameter,
        };
        scale(&mut change, 1.0 / step);
        Ok((error, change))
    }
}

/// `error / size`, or 0 for an error of 0.
fn relative(error: f64, size: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / size }
}

/// θ, the loss and its gradient near the model's own point, or at it if the loss is not finite nearby.
fn generic_point(
    objective: &Objective,
    ranges: &[Range<usize>],
    point: u64,
) -> Result<(Vec<f64>, f64, Vec<f64>)> {
    let theta = objective.parameters.to_flat()?;
    let mut moved = theta.clone();
    let shifts = normal(theta.len(), Purpose::DerivativeCheck, 0, point);
    let usual = |v: &[f64]| norm(v) / (v.len() as f64).sqrt();
    let overall = usual(&theta);
    for range in ranges {
        let sizes = [usual(&theta[range.clone()]), overall, 1.0];
        let size = sizes.into_iter().find(|size| *size > 0.0).unwrap_or(1.0);
        for (t, shift) in moved[range.clone()].iter_mut().zip(&shifts[range.clone()]) {
            let size = if *t == 0.0 { size } else { t.abs() };
            *t += SHIFT * size * shift;
        }
    }
    match objective.gradient_at(&moved) {
        Ok((loss, gradient)) => Ok((moved, loss, gradient)),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(_) => {
            let (loss, gradient) = objective.gradient_at(&theta)?;
            Ok((theta, loss, gradient))
        }
    }
}
