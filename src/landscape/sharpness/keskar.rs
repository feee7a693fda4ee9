//! [`KeskarSharpness`]: largest increase of the loss in the box of Keskar et al.

use std::collections::VecDeque;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Sharpness, write_rounding};
use crate::error::{Error, Result, counted};
use crate::objective::Objective;
use crate::progress::Progress;
use crate::random::{Purpose, generator};
use crate::vector::{axpy, dot, minus, scale};

/// Number of pairs (step, gradient change) that the quasi-Newton method stores.
const PAIRS: usize = 10;

/// Stops a search when a step gains, or the gradient promises within the box, less than this fraction of the rise.
const GAIN: f64 = 1e-9;

/// Maximum number of step lengths tried before a search stops.
const TRIES: usize = 30;

/// Sharpness φ of Keskar et al. ("On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima", 2017),
///
/// φ = 100 / (1 + L(θ)) · max L(θ + δ) − L(θ) over the box |δᵢ| ≤ ε (|θᵢ| + 1),
///
/// in the full parameter space, without their random subspaces.
///
/// The maximum is found by a projected quasi-Newton method: L-BFGS directions (Liu and Nocedal, 1989) for the coordinates
/// that are free to move (Bertsekas, 1982), and the gradient where the loss curves upwards along the last steps. Keskar et
/// al. use L-BFGS-B (Byrd, Lu, Nocedal and Zhu, 1995). Both find local maxima, so φ is a lower bound. Starts that disagree
/// show that the bound is not tight; starts that agree do not prove that it is.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² at (0, ½), where L = 1: the box is |δ| ≤ ε and |δ| ≤ 1.5 ε.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[0.0, 0.5])?;
/// let found = Sharpness::new(0.1).keskar(&Objective::of(&model, &data, Loss::Mse)?)?;
/// let rise = 0.1f64.powi(2) + 4.0 * (0.65f64.powi(2) - 0.25);
/// assert!((found.rise - rise).abs() < 1e-12);
/// assert!((found.value - 100.0 * rise / (1.0 + 1.0)).abs() < 1e-10);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeskarSharpness {
    /// φ: 100 times the largest rise found, over 1 + L(θ).
    pub value: f64,
    /// Largest rise found; at least 0, because δ = 0 is in the box.
    pub rise: f64,
    /// Perturbation δ of the largest rise, shape `(d,)`.
    pub perturbation: Vec<f64>,
    /// Rise reached from each start: the first starts in the corner along the gradient, the others at random points of the box.
    pub by_start: Vec<f64>,
    /// Whether every start converged before its last step.
    pub converged: bool,
    /// Number of gradients computed.
    #[serde(alias = "gradients")]
    pub gradient_evaluations: usize,
    /// Number of losses computed without a gradient.
    #[serde(alias = "losses")]
    pub loss_evaluations: usize,
    /// Rounding error of the loss in the model's dtype: smaller rises are not significant.
    pub rounding: f64,
    /// Relative width ε of the box.
    pub epsilon: f64,
    /// L(θ).
    pub center: f64,
}

impl Sharpness {
    /// Computes the sharpness of Keskar et al. in the box with ε = `radius`. They use 10⁻³ and 5·10⁻⁴.
    ///
    /// # Errors
    /// The radius is not positive; there are no starts or steps; perturbations are [adaptive](Sharpness::with_adaptive), which
    /// the box already is; 1 + L(θ) is not positive; a loss or gradient in the box is not finite.
    pub fn keskar(&self, objective: &Objective) -> Result<KeskarSharpness> {
        if self.adaptive {
            return Err(Error::invalid(
                "Keskar's box already scales with the weights, by ε(|θ| + 1): leave out with_adaptive(true)",
            ));
        }
        if self.starts == 0 || self.steps == 0 {
            return Err(Error::invalid(
                "the search for the largest rise needs at least 1 start and 1 step",
            ));
        }
        let ball = self.ball(objective)?;
        if 1.0 + ball.center <= 0.0 {
            return Err(Error::invalid(format!(
                "Keskar's sharpness divides by 1 + L, and the loss is {}: it is defined for losses above −1",
                ball.center
            )));
        }
        let widths = ball.theta.iter().map(|t| self.radius * (t.abs() + 1.0));
        let mut search = Search {
            objective,
            theta: &ball.theta,
            center: ball.center,
            widths: widths.collect(),
            gradients: 0,
            losses: 0,
        };
        let mut progress = Progress::start("Keskar's sharpness");
        let mut found = Vec::with_capacity(self.starts);
        for start in 0..self.starts {
            let z = match start {
                0 => search.corner()?,
                _ => {
                    let mut rng = generator(Purpose::Keskar, self.seed, start as u64);
                    let widths = search.widths.iter();
                    widths.map(|w| w * rng.random_range(-1.0..1.0)).collect()
                }
            };
            found.push(search.climb(z, self.steps)?);
            progress.part(start + 1, self.starts);
        }
        let by_start: Vec<f64> = found.iter().map(|candidate| candidate.rise).collect();
        let converged = found.iter().all(|candidate| candidate.converged);
        let best = found
            .into_iter()
            .max_by(|a, b| a.rise.total_cmp(&b.rise))
            .filter(|best| best.rise > 0.0);
        let (rise, perturbation) = match best {
            Some(best) => (best.rise, best.z),
            None => (0.0, vec![0.0; ball.theta.len()]),
        };
        Ok(KeskarSharpness {
            value: 100.0 * rise / (1.0 + ball.center),
            rise,
            perturbation,
            by_start,
            converged,
            gradient_evaluations: search.gradients,
            loss_evaluations: search.losses,
            rounding: ball.rounding,
            epsilon: self.radius,
            center: ball.center,
        })
    }
}

/// Search for the largest rise L(θ + z) − L(θ) in the box |zᵢ| ≤ wᵢ.
struct Search<'a> {
    objective: &'a Objective,
    theta: &'a [f64],
    center: f64,
    widths: Vec<f64>,
    gradients: usize,
    losses: usize,
}

/// A point of the box with its rise and gradient.
struct Candidate {
    z: Vec<f64>,
    rise: f64,
    gradient: Vec<f64>,
    converged: bool,
}

impl Search<'_> {
    fn point(&self, z: &[f64]) -> Vec<f64> {
        self.theta.iter().zip(z).map(|(t, z)| t + z).collect()
    }

    fn rise(&mut self, z: &[f64]) -> Result<f64> {
        self.losses += 1;
        Ok(self.objective.loss_at(&self.point(z))? - self.center)
    }

    fn evaluate(&mut self, z: Vec<f64>) -> Result<Candidate> {
        self.gradients += 1;
        let (loss, gradient) = self.objective.gradient_at(&self.point(&z))?;
        Ok(Candidate {
            rise: loss - self.center,
            z,
            gradient,
            converged: false,
        })
    }

    /// Returns the corner of the box that is highest to first order.
    fn corner(&mut self) -> Result<Vec<f64>> {
        self.gradients += 1;
        let (_, gradient) = self.objective.gradient_at(self.theta)?;
        let corner = self.widths.iter().zip(&gradient);
        Ok(corner
            .map(|(w, g)| if *g == 0.0 { 0.0 } else { w * g.signum() })
            .collect())
    }

    /// Returns z + td, clamped to the box.
    fn along(&self, z: &[f64], d: &[f64], t: f64) -> Vec<f64> {
        let all = z.iter().zip(d).zip(&self.widths);
        all.map(|((z, d), w)| (z + t * d).clamp(-w, *w)).collect()
    }

    /// Ascends from `z` until the point is stationary, for at most `steps` steps.
    fn climb(&mut self, z: Vec<f64>, steps: usize) -> Result<Candidate> {
        let mut current = self.evaluate(z)?;
        let mut pairs = VecDeque::with_capacity(PAIRS);
        for _ in 0..steps {
            // To first order, no point of the box is higher by more than this.
            let all = current.gradient.iter().zip(&current.z).zip(&self.widths);
            let promised: f64 = all.map(|((g, z), w)| g.abs() * w - g * z).sum();
            if promised <= GAIN * current.rise.abs() {
                current.converged = true;
                break;
            }
            // A coordinate at a wall that the gradient points to is fixed.
            let all = current.gradient.iter().zip(&current.z).zip(&self.widths);
            let slope: Vec<f64> = all
                .map(|((g, z), w)| {
                    if *g == 0.0 || z * g.signum() >= *w {
                        0.0
                    } else {
                        *g
                    }
                })
                .collect();
            let mut next = match direction(&slope, &pairs) {
                Some(d) => self.step(&current, &d, false)?,
                None => None,
            };
            if next.is_none() {
                // The gradient in units of the widths; the first step spans the box.
                let widths = slope.iter().zip(&self.widths);
                let mut d: Vec<f64> = widths.map(|(g, w)| g * w * w).collect();
                let reach = d.iter().zip(&self.widths);
                let longest = reach.map(|(d, w)| d.abs() / w).fold(0.0, f64::max);
                scale(&mut d, 2.0 / longest);
                next = self.step(&current, &d, true)?;
            }
            let Some(next) = next else {
                current.converged = true;
                break;
            };
            let gain = next.rise - current.rise;
            if pairs.len() == PAIRS {
                pairs.pop_front();
            }
            // For descent on −L.
            pairs.push_back((
                minus(&next.z, &current.z),
                minus(&current.gradient, &next.gradient),
            ));
            current = next;
            if gain <= GAIN * current.rise.abs() {
                current.converged = true;
                break;
            }
        }
        Ok(current)
    }

    /// Finds a higher point along `d`: shortens the step until the rise is sufficient or, if `longer`, lengthens it while the
    /// loss rises.
    fn step(&mut self, current: &Candidate, d: &[f64], longer: bool) -> Result<Option<Candidate>> {
        let mut t = 1.0;
        for attempt in 0..TRIES {
            let mut z = self.along(&current.z, d, t);
            let mut rise = self.rise(&z)?;
            let sufficient = 1e-4 * dot(&current.gradient, &minus(&z, &current.z));
            if rise > current.rise && rise >= current.rise + sufficient {
                for _ in 0..TRIES * usize::from(longer && attempt == 0) {
                    t *= 4.0;
                    let further = self.along(&current.z, d, t);
                    if further == z {
                        break;
                    }
                    let higher = self.rise(&further)?;
                    if higher <= rise {
                        break;
                    }
                    (z, rise) = (further, higher);
                }
                return self.evaluate(z).map(Some);
            }
            t *= 0.25;
        }
        Ok(None)
    }
}

/// Returns the quasi-Newton direction for coordinates with non-zero slope, from those parts of the pairs along which −L
/// curves upwards. `None` without such pairs.
fn direction(slope: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Option<Vec<f64>> {
    let free = |v: &[f64]| -> Vec<f64> {
        let parts = v.iter().zip(slope);
        parts
            .map(|(v, slope)| if *slope == 0.0 { 0.0 } else { *v })
            .collect()
    };
    let pairs = pairs.iter().map(|(s, y)| (free(s), free(y)));
    let pairs: Vec<(Vec<f64>, Vec<f64>, f64)> = pairs
        .map(|(s, y)| {
            let sy = dot(&s, &y);
            (s, y, sy)
        })
        .filter(|(s, y, sy)| *sy > 1e-12 * (dot(s, s) * dot(y, y)).sqrt())
        .collect();
    let (_, last, sy) = pairs.last()?;
    let size = sy / dot(last, last);
    let mut d = slope.to_vec();
    let mut weights = Vec::with_capacity(pairs.len());
    for (s, y, sy) in pairs.iter().rev() {
        let weight = dot(s, &d) / sy;
        axpy(-weight, y, &mut d);
        weights.push(weight);
    }
    scale(&mut d, size);
    for ((s, y, sy), weight) in pairs.iter().zip(weights.into_iter().rev()) {
        let change = weight - dot(y, &d) / sy;
        axpy(change, s, &mut d);
    }
    (dot(&d, slope) > 0.0).then_some(d)
}

impl std::fmt::Display for KeskarSharpness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = |better: fn(f64, f64) -> f64| self.by_start.iter().copied().reduce(better);
        write!(
            f,
            "Keskar's sharpness {:.5}: the loss rises from {:.5} by {:.5e} in the box of ε = {} ({}: {:.3e} to \
             {:.3e}, {}{})",
            self.value,
            self.center,
            self.rise,
            self.epsilon,
            counted(self.by_start.len(), "start"),
            ends(f64::min).unwrap_or(0.0),
            ends(f64::max).unwrap_or(0.0),
            counted(self.gradient_evaluations, "gradient"),
            if self.converged { "" } else { ", still rising" },
        )?;
        write_rounding(f, self.rounding, self.rise)
    }
}
