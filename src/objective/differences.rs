//! [`Place`]: a point near a model's own, and its derivatives beside central differences.

use std::ops::Range;

use candle_core::DType;

use super::Objective;
use crate::error::{Error, Result};
use crate::losses::Curvature;
use crate::random::{Purpose, normal};
use crate::vector::{axpy, dot, minus, norm, scale};

/// Distance of the point from the model's own, relative to each parameter.
const SHIFT: f64 = 0.05;

/// Steps of the differences of the loss.
const LOSS_STEPS: i32 = 5;

/// Steps where the loss is not yet close to linear within the first.
const MOST_STEPS: i32 = 10;

/// Differences of the loss whose relative error may be larger than this are not judged by.
const UNCERTAIN: f64 = 0.02;

/// Rounding of a loss, in units of ε times the loss.
const ROUNDING: f64 = 1e3;

/// Steps for a floating-point type, relative to the distance in which the loss changes by itself.
struct Steps {
    /// The first of the loss. Each further one is a quarter of it.
    of_loss: f64,
    /// Kinks within a step change differences of the gradient much more than those of the loss.
    of_gradient: f64,
    /// How many times longer a second step of the gradient is, where the first may be too short.
    longer: Option<f64>,
    /// The shortest of these steps relative to the parameters: a shorter one is lost to their rounding.
    shortest: f64,
    /// A parameter's part of a product that is below this share of its gradient is not judged.
    negligible: f64,
    /// Nor is one below this share of the whole gradient: its difference is rounding.
    rounding: f64,
    /// How many times its norm a parameter moves at most where others move by theirs, in differences of the loss.
    reach: f64,
}

impl Steps {
    fn of(dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self {
                of_loss: 1.6e-5,
                of_gradient: 1e-8,
                longer: None,
                shortest: 1e-13,
                negligible: 0.01,
                rounding: 2e-11,
                reach: 1e3,
            },
            _ => Self {
                of_loss: 0.16,
                of_gradient: 1e-4,
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
pub(super) struct Place<'a> {
    objective: &'a Objective,
    number: u64,
    steps: Steps,
    ranges: Vec<Range<usize>>,
    theta: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
}

/// A direction from there.
struct Direction {
    vector: Vec<f64>,
    /// The distance along it in which the loss changes by itself, at most 1.
    reach: f64,
}

/// Relative error of a gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientError {
    /// With its sign.
    pub(super) value: f64,
    /// How far the differences may be off.
    uncertainty: f64,
}

impl GradientError {
    pub(super) fn is_within(&self, tolerance: f64) -> bool {
        self.value.abs() <= tolerance + self.uncertainty
    }

    /// Whether the differences are good enough to judge by.
    pub(super) fn is_certain(&self) -> bool {
        self.uncertainty <= UNCERTAIN
    }
}

/// Relative errors of a Hessian-vector product.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProductError {
    pub(super) whole: f64,
    /// In `f64` the largest of the parameters' parts, and in `f32` that of the whole: there kinks change parts a lot.
    pub(super) judged: f64,
    /// How far the differences may be off.
    uncertainty: f64,
    /// The number of the parameter with the largest error.
    pub(super) parameter: usize,
}

impl ProductError {
    pub(super) fn is_within(&self, tolerance: f64) -> bool {
        self.judged <= tolerance + self.uncertainty
    }
}

/// A central difference of the loss beside the gradient, each over the step.
struct LossDifference {
    error: f64,
    /// Of the larger of the two.
    size: f64,
}

impl<'a> Place<'a> {
    /// The point with this number.
    pub(super) fn new(objective: &'a Objective, number: u64) -> Result<Self> {
        let steps = Steps::of(objective.parameters.dtype());
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

    /// For each parameter the direction of its gradient, or a random one if that is zero, with a length that changes the
    /// loss as much as the other parameters do: of the parameter's norm at least, and at most `reach` times that.
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
            if part.iter().all(|g| *g == 0.0) {
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

    /// θ + hu and θ − hu, rounded to the model's type, so that their difference is known exactly.
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

    /// The relative error of the gradient against extrapolated differences of the loss, certain to `enough` if possible.
    ///
    /// The error of central differences is a + bh² for a smooth loss. With many kinks it is a − ch: units that the gradient
    /// goes through stay on with it and go off against it. Three steps give a. Steps become smaller as long as that makes a
    /// more certain than rounding does.
    pub(super) fn gradient_error(&self, enough: f64) -> Result<GradientError> {
        let direction = self.direction(self.steps.reach);
        let mut best: Option<GradientError> = None;
        let mut found: Vec<LossDifference> = Vec::new();
        let mut last = None;
        for i in 0..MOST_STEPS {
            match self.loss_difference(&direction, self.steps.of_loss / 4f64.powi(i)) {
                Ok(difference) => found.push(difference),
                // A step can leave the model's domain. A smaller one is then tried.
                Err(error) => {
                    found.clear();
                    last = Some(error);
                }
            }
            let [.., first, second, third] = &found[..] else {
                continue;
            };
            // Where the loss is far from linear within the steps, they tell nothing yet.
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
        // Without a linear part no gradient can be told right or wrong.
        if best.is_none() && last.is_none() {
            return Ok(GradientError {
                value: 0.0,
                uncertainty: f64::INFINITY,
            });
        }
        best.ok_or_else(|| last.unwrap_or_else(|| Error::invalid("the loss has no values nearby")))
    }

    /// The gradient beside a central difference of the loss.
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

    /// The relative errors of the Hessian-vector product against a difference of the gradient. Where they are more than
    /// `enough`, a second step tells how certain that is: differences that kinks or rounding make wrong are then others.
    pub(super) fn product_error(&self, enough: f64) -> Result<ProductError> {
        let direction = self.direction(1.0);
        let shortest = self.steps.shortest / direction.reach;
        let step = self.steps.of_gradient.max(shortest);
        let (error, difference) = self.product_difference(&direction, step)?;
        if error.judged <= enough {
            return Ok(error);
        }
        let Some(longer) = self.steps.longer else {
            return Ok(error);
        };
        // The longer step can leave the model's domain.
        let Ok((again, other)) = self.product_difference(&direction, longer * step) else {
            return Ok(ProductError {
                uncertainty: f64::INFINITY,
                ..error
            });
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
        let [whole, of_all] = compared(0..product.len());
        let error = ProductError {
            whole,
            judged: match self.objective.parameters.dtype() {
                DType::F64 => worst,
                _ => of_all,
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

/// θ, the loss and its gradient a little away from the model's own point, or there if the loss has no value nearby.
fn generic_point(
    objective: &Objective,
    ranges: &[Range<usize>],
    point: u64,
) -> Result<(Vec<f64>, f64, Vec<f64>)> {
    let theta = objective.parameters.to_flat()?;
    let mut moved = theta.clone();
    let shifts = normal(theta.len(), Purpose::DerivativeCheck, 0, point);
    let usual = |v: &[f64]| norm(v) / (v.len() as f64).sqrt();
    let of_all = usual(&theta);
    for range in ranges {
        let sizes = [usual(&theta[range.clone()]), of_all, 1.0];
        let size = sizes.into_iter().find(|size| *size > 0.0).unwrap_or(1.0);
        for (t, shift) in moved[range.clone()].iter_mut().zip(&shifts[range.clone()]) {
            let size = if *t == 0.0 { size } else { t.abs() };
            *t += SHIFT * size * shift;
        }
    }
    if let Ok((loss, gradient)) = objective.gradient_at(&moved) {
        return Ok((moved, loss, gradient));
    }
    let (loss, gradient) = objective.gradient_at(&theta)?;
    Ok((theta, loss, gradient))
}
