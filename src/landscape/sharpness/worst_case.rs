//! [`WorstCase`]: largest increase of the loss in a ball, by projected gradient ascent.

use serde::{Deserialize, Serialize};

use super::{Ball, Sharpness};
use crate::error::{Error, Result, counted};
use crate::objective::Objective;
use crate::progress::Progress;
use crate::random::{Purpose, normal};
use crate::spectral::{Lanczos, Which};
use crate::vector::{axpy, norm, scale};

/// Stops a search when a step gains less than this fraction of the rise.
const GAIN: f64 = 1e-9;

/// Largest rise max L(θ + Tu) − L(θ) over ‖u‖ ≤ ρ found by gradient ascent from several starts.
///
/// It is a lower bound of the true maximum. Starts that disagree show that the bound is not tight; starts that agree do not
/// prove that it is.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let found = Sharpness::new(0.1).worst_case(&objective)?;
/// assert_eq!(found.by_start.len(), 3);
/// let theta = model.parameters().to_flat()?;
/// let there: Vec<f64> = theta
///     .iter()
///     .zip(&found.perturbation)
///     .map(|(t, d)| t + d)
///     .collect();
/// assert!((objective.loss_at(&there)? - found.center - found.rise).abs() < 1e-12);
/// let length = found.perturbation.iter().map(|d| d * d).sum::<f64>().sqrt();
/// assert!(length <= 0.1 + 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorstCase {
    /// Largest rise found; at least 0, because δ = 0 is in the ball.
    pub rise: f64,
    /// Perturbation δ = Tu of the largest rise, shape `(d,)`.
    pub perturbation: Vec<f64>,
    /// Rise reached from each start: the first starts along the gradient, the others at random.
    pub by_start: Vec<f64>,
    /// Whether every start converged before its last step.
    pub converged: bool,
    /// Number of gradients computed.
    #[serde(alias = "gradients")]
    pub gradient_evaluations: usize,
    /// ρ‖Tg‖ + ½ρ² max(λ₁, 0), where λ₁ is the largest eigenvalue of THT found by Lanczos' method. At a minimum this is the
    /// maximum ρ²λ₁/2 of the quadratic model, elsewhere an upper bound of it. The loss itself can rise higher.
    pub quadratic: f64,
    /// Rounding error of the loss in the model's dtype: smaller rises are not significant.
    pub rounding: f64,
    /// Radius ρ.
    pub radius: f64,
    /// L(θ).
    pub center: f64,
}

impl Sharpness {
    /// Finds the worst case in the ball by projected gradient ascent, from the gradient's direction and from random ones.
    ///
    /// # Errors
    /// The radius is not positive; there are no starts or steps; a loss or gradient in the ball is not finite.
    pub fn worst_case(&self, objective: &Objective) -> Result<WorstCase> {
        let ball = self.ball(objective)?;
        let mut progress = Progress::start("worst case");
        let highest = self.highest(objective, &ball, |start| progress.part(start, self.starts))?;
        let lanczos = Lanczos::default()
            .with_which(Which::Largest)
            .with_seed(self.seed);
        let top = lanczos.run(&ball.hessian(objective)?, 1)?.values()[0];
        let quadratic = self.radius * highest.slope + 0.5 * self.radius.powi(2) * top.max(0.0);
        Ok(WorstCase {
            rise: highest.rise,
            perturbation: ball.perturbation(&highest.u),
            by_start: highest.by_start,
            converged: highest.converged,
            gradient_evaluations: highest.gradients,
            quadratic,
            rounding: ball.rounding,
            radius: self.radius,
            center: ball.center,
        })
    }

    /// Searches the ball from all starts. Calls `finished` with the number of finished starts.
    pub(super) fn highest(
        &self,
        objective: &Objective,
        ball: &Ball,
        mut finished: impl FnMut(usize),
    ) -> Result<Highest> {
        if self.starts == 0 || self.steps == 0 {
            return Err(Error::invalid(
                "the search for the worst case needs at least 1 start and 1 step",
            ));
        }
        let slope = ball.perturbation(&objective.gradient_at(&ball.theta)?.1);
        let mut found: Vec<Ascent> = Vec::new();
        for start in 0..self.starts {
            let mut u = match start {
                0 if norm(&slope) > 0.0 => slope.clone(),
                _ => normal(slope.len(), Purpose::WorstCase, self.seed, start as u64),
            };
            let length = norm(&u);
            scale(&mut u, self.radius / length);
            found.push(self.ascend(objective, ball, u)?);
            finished(start + 1);
        }
        let by_start: Vec<f64> = found.iter().map(|ascent| ascent.rise).collect();
        let best = (0..found.len()).max_by(|a, b| by_start[*a].total_cmp(&by_start[*b]));
        let (rise, u) = match best {
            Some(best) if by_start[best] > 0.0 => (by_start[best], found[best].u.clone()),
            _ => (0.0, vec![0.0; slope.len()]),
        };
        Ok(Highest {
            rise,
            u,
            by_start,
            converged: found.iter().all(|ascent| ascent.converged),
            gradients: 1 + found.iter().map(|ascent| ascent.gradients).sum::<usize>(),
            slope: norm(&slope),
        })
    }

    /// Ascends from `u`. The step is u ← Π(u + sρ∇/‖∇‖), where Π projects onto the ball. It starts from s = ∞, which gives
    /// ρ∇/‖∇‖ and is a power iteration for a quadratic loss, and s is reduced until the loss rises.
    fn ascend(&self, objective: &Objective, ball: &Ball, u: Vec<f64>) -> Result<Ascent> {
        let evaluate = |u: &[f64]| -> Result<(f64, Vec<f64>)> {
            let (loss, gradient) = objective.gradient_at(&ball.point(u))?;
            Ok((loss - ball.center, ball.perturbation(&gradient)))
        };
        let (mut rise, mut gradient) = evaluate(&u)?;
        let mut ascent = Ascent {
            u,
            rise,
            converged: false,
            gradients: 1,
        };
        for _ in 0..self.steps {
            let size = norm(&gradient);
            if size == 0.0 {
                ascent.converged = true;
                break;
            }
            let mut step = f64::INFINITY;
            let better = loop {
                let mut u = ascent.u.clone();
                if step.is_infinite() {
                    u.copy_from_slice(&gradient);
                    scale(&mut u, self.radius / size);
                    step = 2.0;
                } else {
                    axpy(step * self.radius / size, &gradient, &mut u);
                    let length = norm(&u);
                    scale(&mut u, (self.radius / length).min(1.0));
                    step *= 0.25;
                }
                let (rise, gradient) = evaluate(&u)?;
                ascent.gradients += 1;
                if rise > ascent.rise {
                    break Some((u, rise, gradient));
                }
                if step < 1e-4 {
                    break None;
                }
            };
            let Some(better) = better else {
                ascent.converged = true;
                break;
            };
            (ascent.u, rise, gradient) = better;
            let gain = rise - ascent.rise;
            ascent.rise = rise;
            if gain <= GAIN * rise.abs() {
                ascent.converged = true;
                break;
            }
        }
        Ok(ascent)
    }
}

/// The largest rise that searches from all starts found.
pub(super) struct Highest {
    pub(super) rise: f64,
    pub(super) u: Vec<f64>,
    pub(super) by_start: Vec<f64>,
    pub(super) converged: bool,
    pub(super) gradients: usize,
    /// ‖Tg‖ at the centre.
    pub(super) slope: f64,
}

struct Ascent {
    u: Vec<f64>,
    rise: f64,
    converged: bool,
    gradients: usize,
}

impl std::fmt::Display for WorstCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self
            .by_start
            .iter()
            .fold((f64::INFINITY, 0.0f64), |(low, high), r| {
                (low.min(*r), high.max(*r))
            });
        write!(
            f,
            "worst rise {:.5e} within {} ({}: {low:.3e} to {high:.3e}, {}{}); at most {:.5e} by \
             the quadratic model",
            self.rise,
            self.radius,
            counted(self.by_start.len(), "start"),
            counted(self.gradient_evaluations, "gradient"),
            if self.converged { "" } else { ", still rising" },
            self.quadratic
        )
    }
}
