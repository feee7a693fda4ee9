//! The Jensen–Shannon distance between spectral densities.

use super::{Density, Estimate, Quadrature};
use crate::error::{Error, Result, check_positive};

/// Distance between grid points, relative to the width of the Gaussian.
const STEP: f64 = 1.0 / 3.0;

/// Distance from a node at which its Gaussian is cut off, relative to its width.
const REACH: f64 = 5.0;

/// Bound on the error of D by the grid and by cutting off the Gaussians: 6 · 10⁻⁷ of their mass, times a logarithm.
const INTEGRATION_ERROR: f64 = 1e-5;

impl Density {
    /// The Jensen–Shannon distance √D to another density, from 0 for equal to 1 for disjoint densities, with
    ///
    /// D = ½ ∫ p log₂(2p/(p + q)) + q log₂(2q/(p + q)) dλ
    ///
    /// for the densities p and q smoothed with a Gaussian of standard deviation `width` (Endres and Schindelin, 2003). Zhang
    /// et al. ("Why Transformers Need Adam: A Hessian Perspective", 2024) use it to compare the blocks of a Hessian.
    ///
    /// The noise of the probes makes the estimate of D too large. The jackknife, which leaves out probe j of both densities for
    /// each j, removes this bias to first order and gives the standard error s of D. A negative estimate of D is replaced by 0.
    /// The standard error of the distance is half of its difference to √(D − 2s) or √(D + 2s), whichever is larger. It does not
    /// contain the error of the quadratures: use enough Lanczos steps that neighbouring nodes are closer than about `width`. An
    /// [exact](Self::is_exact) density has no noise; the error of the distance of two of them is that of the integral, 10⁻⁵ of D, and rounding.
    ///
    /// ```
    /// use loss_landscape::ndarray::{Array1, Array2};
    /// use loss_landscape::prelude::*;
    ///
    /// let diagonal = |last: f64| {
    ///     let entry = |i| if i < 10 { 0.0 } else { last };
    ///     Dense::new(Array2::from_diag(&Array1::from_shape_fn(20, entry)))
    /// };
    /// let [a, b] = [diagonal(1.0)?.density()?, diagonal(2.0)?.density()?];
    /// assert_eq!(a.js_distance(&a, 0.05)?.value, 0.0);
    /// // Half of the eigenvalues are equal, the others differ by many widths: D = 1/2.
    /// assert!((a.js_distance(&b, 0.05)?.value - 0.5f64.sqrt()).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A width that is not above 0 and finite; two densities from different numbers of probes.
    pub fn js_distance(&self, other: &Self, width: f64) -> Result<Estimate> {
        check_positive(width, "the smoothing width")?;
        let [count, others] = [self, other].map(|density| density.probes.len());
        if count != others && !self.is_exact() && !other.is_exact() {
            return Err(Error::invalid(format!(
                "the densities have {count} and {others} probes: compute both with the same number"
            )));
        }
        let divergence = self.js_divergence(other, width);
        let reach = 2.0 * divergence.standard_error;
        let distance = |divergence: f64| divergence.max(0.0).sqrt();
        let value = distance(divergence.value);
        let above = distance(divergence.value.max(0.0) + reach) - value;
        let below = value - distance(divergence.value - reach);
        Ok(Estimate {
            value,
            standard_error: 0.5 * above.max(below),
            products: self.products + other.products,
            ..divergence
        })
    }

    /// D with its jackknife standard error.
    fn js_divergence(&self, other: &Self, width: f64) -> Estimate {
        let count = self.probes.len().max(other.probes.len());
        let mut sums = vec![0.0; count + 1];
        for nodes in clusters([self, other], 2.0 * REACH * width) {
            let [low, high] = [nodes[0] - REACH * width, nodes[1] + REACH * width];
            let points = ((high - low) / (STEP * width)).ceil() as usize + 1;
            let grid = Grid { low, width, points };
            let [p, q] = [self, other].map(|density| {
                let curves = density.probes.iter().map(|probe| grid.smoothed(probe));
                LeaveOneOut::new(curves.collect())
            });
            for i in 0..points {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum += integrand(p.mean(i, j), q.mean(i, j)) * STEP * width;
                }
            }
        }
        let all = sums[count];
        if count == 1 {
            // A shift of the nodes by a small part of the width changes the curves by less than this part.
            let shift = |density: &Self| density.node_rounding()(density.root_mean_square());
            let error = INTEGRATION_ERROR + (shift(self) + shift(other)) / width;
            return Estimate::exact(all).with_error(error);
        }
        let n = count as f64;
        let values = sums[..count]
            .iter()
            .map(|without| n * all - (n - 1.0) * without);
        Estimate::from_samples(&values.collect::<Vec<f64>>())
    }
}

/// ½ (p log₂(2p/(p + q)) + q log₂(2q/(p + q)))
fn integrand(p: f64, q: f64) -> f64 {
    let term = |x: f64| match x > 0.0 {
        true => x * (2.0 * x / (p + q)).log2(),
        false => 0.0,
    };
    0.5 * (term(p) + term(q))
}

/// The first and the last node of each group of nodes. Groups are further apart than `gap`.
fn clusters(densities: [&Density; 2], gap: f64) -> Vec<[f64; 2]> {
    let probes = densities.iter().flat_map(|density| &density.probes);
    let mut nodes: Vec<f64> = probes.flat_map(|probe| &probe.nodes).copied().collect();
    nodes.sort_by(f64::total_cmp);
    let mut clusters: Vec<[f64; 2]> = Vec::new();
    for x in nodes {
        match clusters.last_mut() {
            Some(last) if x - last[1] <= gap => last[1] = x,
            _ => clusters.push([x, x]),
        }
    }
    clusters
}

/// Equidistant points from `low`.
struct Grid {
    low: f64,
    width: f64,
    points: usize,
}

impl Grid {
    /// The density of a probe, smoothed with the Gaussian.
    fn smoothed(&self, probe: &Quadrature) -> Vec<f64> {
        let Self { low, width, points } = *self;
        let step = STEP * width;
        let reach = REACH * width;
        let height = 1.0 / (width * std::f64::consts::TAU.sqrt());
        let mut curve = vec![0.0; points];
        for (node, weight) in probe.nodes.iter().zip(&probe.weights) {
            let first = ((node - reach - low) / step).ceil().max(0.0);
            let last = ((node + reach - low) / step).floor();
            if last < first || first >= points as f64 {
                continue;
            }
            let reached = first as usize..=(last as usize).min(points - 1);
            for (i, value) in reached.clone().zip(&mut curve[reached]) {
                let x = (low + step * i as f64 - node) / width;
                *value += weight * height * (-0.5 * x * x).exp();
            }
        }
        curve
    }
}

/// Curves of the probes, to compute their mean with one of them left out.
struct LeaveOneOut {
    curves: Vec<Vec<f64>>,
    sum: Vec<f64>,
}

impl LeaveOneOut {
    fn new(curves: Vec<Vec<f64>>) -> Self {
        let points = curves[0].len();
        let sum = (0..points).map(|i| curves.iter().map(|curve| curve[i]).sum());
        Self {
            sum: sum.collect(),
            curves,
        }
    }

    /// The mean at point `i` without curve `j`, or of all curves if there is no curve `j` or only one curve.
    fn mean(&self, i: usize, j: usize) -> f64 {
        let count = self.curves.len() as f64;
        match self.curves.get(j).filter(|_| count > 1.0) {
            // Rounding can make it negative where no other curve contributes.
            Some(curve) => ((self.sum[i] - curve[i]) / (count - 1.0)).max(0.0),
            None => self.sum[i] / count,
        }
    }
}
