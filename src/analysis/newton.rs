//! [`NewtonDecrement`]: size of the gradient relative to the curvature.

use serde::{Deserialize, Serialize};

use super::sampling::Groups;
use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::operator::{Hessian, checked_products};
use crate::progress::Progress;
use crate::vector::{axpy, dot, norm, scale};

/// Maximum number of products.
const MAX_PRODUCTS: usize = 100;
/// Number of products between convergence checks.
const STRIDE: usize = 10;
/// Relative change between two checks at which to stop.
const TOLERANCE: f64 = 1e-2;
/// Dampings of the steps tried on all samples, in units of the largest |λ|.
const DAMPINGS: [f64; 6] = [1.0, 0.1, 1e-2, 1e-3, 1e-4, 0.0];
/// A decrease of at most this fraction of the loss is small.
const SMALL: f64 = 0.01;

/// Half the squared Newton decrement, ½ gᵀ(|H| + λI)⁻¹g: the decrease of the quadratic model by one Newton step (Boyd and
/// Vandenberghe, "Convex Optimization", 2004, ch. 9.5). |H| has the eigenvectors of H and the absolute values of its
/// eigenvalues, so that the step is a descent step at saddle points too (Dauphin et al., "Identifying and attacking the
/// saddle point problem", 2014). λ is as small as rounding allows unless
/// [`Analyzer::with_damping`](super::Analyzer::with_damping) sets it. L and g are those of all training samples.
///
/// It is computed in the Krylov space of H and g, as in Hessian-free optimisation (Martens, 2010). For an orthonormal basis V
/// of that space the result is ½ gᵀV((VᵀH²V)^½ + λI)⁻¹Vᵀg, which is never above the decrement,
/// because 1/(√x + λ) is operator convex (Hansen, "An operator inequality", 1980), and increases with each product.
///
/// On a subsample, H is that of the measured samples. Its curvature is too small in some directions, which overestimates the
/// decrease. On all samples the decrease is at least (gᵀx)²/2(‖x‖‖Hx‖ + λ‖x‖²) for any step x. This bound is computed for
/// the steps of several λ, with the Hessian of twice as many samples.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // L(b, w) = b² + 4w² at (1, ½): g = (2, 4), H = diag(2, 8).
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// model.parameters().set_flat(&[1.0, 0.5])?;
/// let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse)?;
/// let newton = analyzer.hessian_metrics(1)?.newton.unwrap();
/// assert!((newton.decrease - 2.0).abs() < 1e-9); // from 2 to 0
/// assert_eq!(newton.is_small(), Some(false));
/// let damped = analyzer.with_damping(1.0)?.hessian_metrics(1)?.newton.unwrap();
/// let exact = 0.5 * (2.0 * 2.0 / (2.0 + 1.0) + 4.0 * 4.0 / (8.0 + 1.0));
/// assert!((damped.decrease - exact).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NewtonDecrement {
    /// ½ gᵀ(|H| + λI)⁻¹g, or a lower bound on it.
    pub decrease: f64,
    /// Twice the change over the last ten products; 0 if the Krylov space is exhausted and the decrease exact.
    pub error: f64,
    /// Lower bound on the decrease with the curvature of all training samples; the decrease itself if all are measured.
    pub on_all_samples: f64,
    /// λ
    pub damping: f64,
    /// L(θ)
    pub loss: f64,
    /// Whether g is 0 within the rounding error of θ.
    pub vanishes: bool,
    /// Whether the change over the last ten products is at most 1 %. Contributions of directions with tiny curvature may still
    /// be missing.
    pub converged: bool,
    /// Number of matrix–vector products.
    pub products: usize,
}

impl NewtonDecrement {
    /// Whether the point is near a stationary point: the gradient is 0 within rounding, or a Newton step in the Krylov space
    /// decreases the loss by at most 1 %. `None` if products or samples are too few to decide.
    pub fn is_small(&self) -> Option<bool> {
        let limit = SMALL * self.loss.abs();
        if self.vanishes {
            return Some(true);
        }
        if self.on_all_samples > limit {
            return Some(false);
        }
        (self.decrease + self.error <= limit).then_some(true)
    }

    /// Computes the decrement. `size` > 0 is the largest |eigenvalue| of the Hessian, eigenvalues below `threshold` are zero
    /// within rounding, and `theta` is ‖θ‖.
    pub(super) fn compute(
        hessian: &Hessian,
        (loss, gradient): (f64, &[f64]),
        (size, threshold): (f64, f64),
        theta: f64,
        (damping, groups): (Option<f64>, Option<&Groups>),
    ) -> Result<Self> {
        let damping = damping.unwrap_or(0.0).max(threshold);
        let length = norm(gradient);
        let mut found = Self {
            decrease: 0.0,
            error: 0.0,
            on_all_samples: 0.0,
            damping,
            loss,
            vanishes: length <= threshold * theta,
            converged: true,
            products: 0,
        };
        if length == 0.0 {
            return Ok(found);
        }
        let mut next = gradient.to_vec();
        scale(&mut next, 1.0 / length);
        let (mut basis, mut diagonal, mut beside) = (Vec::new(), Vec::new(), Vec::new());
        let mut progress = Progress::start("Newton step");
        loop {
            basis.push(next);
            let m = basis.len();
            progress.tick(|| format!("{m} products"));
            let mut image = checked_products(hessian, &basis[m - 1..])?.swap_remove(0);
            diagonal.push(dot(&image, &basis[m - 1]));
            // Two passes are enough (Kahan and Parlett).
            for q in basis.iter().chain(&basis) {
                axpy(-dot(q, &image), q, &mut image);
            }
            let rest = norm(&image);
            beside.push(rest);
            let closed = m == gradient.len() || rest <= 1e-12 * size;
            if closed || m.is_multiple_of(STRIDE) {
                let spectrum = singular(&diagonal, &beside)?;
                let decrease = 0.5 * length * length * spectrum.inverse(damping)[0];
                found.error = match closed {
                    true => 0.0,
                    false => 2.0 * (decrease - found.decrease).abs(),
                };
                found.converged = found.error <= 2.0 * TOLERANCE * decrease;
                found.decrease = decrease;
                found.products = m;
                if found.converged || m >= MAX_PRODUCTS {
                    found.on_all_samples = match groups {
                        None => decrease,
                        Some(groups) => {
                            let step = |share: f64| {
                                let y = spectrum.inverse(damping + share * size);
                                let mut step = vec![0.0; gradient.len()];
                                for (y, q) in y.iter().zip(&basis) {
                                    axpy(*y, q, &mut step);
                                }
                                step
                            };
                            let steps: Vec<Vec<f64>> = DAMPINGS.map(step).into();
                            found.products += steps.len();
                            least_decrease(
                                gradient,
                                damping,
                                &steps,
                                &groups.products(hessian, &steps)?,
                            )
                        }
                    };
                    return Ok(found);
                }
            }
            scale(&mut image, 1.0 / rest);
            next = image;
        }
    }
}

/// The largest (gᵀx)²/2(‖x‖‖Hx‖ + λ‖x‖²) over the steps x.
fn least_decrease(gradient: &[f64], damping: f64, steps: &[Vec<f64>], images: &[Vec<f64>]) -> f64 {
    let pairs = steps.iter().zip(images);
    let bounds = pairs.map(|(x, image)| {
        let length = norm(x);
        0.5 * dot(gradient, x).powi(2) / (length * norm(image) + damping * length * length)
    });
    bounds.fold(0.0, f64::max)
}

/// Singular values and right singular vectors of a (m + 1) × m matrix T, each twice, the second with a sign, and vectors
/// of length √½.
struct Singular {
    values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
    /// m
    columns: usize,
}

/// For the matrix with this diagonal and these numbers below and above it.
///
/// The eigenvalues of (0 Tᵀ; T 0) are plus and minus the singular values of T, with their vectors in the first m rows.
fn singular(diagonal: &[f64], beside: &[f64]) -> Result<Singular> {
    let columns = diagonal.len();
    let entry = |i: usize, j: usize| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    };
    let (values, vectors) = symmetric_eigen(2 * columns + 1, |i, j| match (i.min(j), i.max(j)) {
        (column, row) if column < columns && row >= columns => entry(row - columns, column),
        _ => 0.0,
    })?;
    Ok(Singular {
        values,
        vectors,
        columns,
    })
}

impl Singular {
    /// The first column of ((TᵀT)^½ + λI)⁻¹.
    fn inverse(&self, damping: f64) -> Vec<f64> {
        let mut column = vec![0.0; self.columns];
        for (value, vector) in self.values.iter().zip(&self.vectors) {
            axpy(
                vector[0] / (value.abs() + damping),
                &vector[..self.columns],
                &mut column,
            );
        }
        column
    }
}
