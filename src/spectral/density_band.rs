//! A density that resolves curves of a given width, from few products: converged eigenvalues are deflated, and the steps end
//! when the curve no longer changes.

use super::density::{Chain, Density, DensitySettings, Quadrature, asymmetry, chains_together};
use super::orthonormal::{combine, orthogonalize};
use super::probe_loop::Sampler;
use crate::error::Result;
use crate::operator::{LinearOperator, checked_products};
use crate::progress::Progress;
use crate::random::Purpose;

/// Largest ‖AQ − QΘ‖ of the deflated eigenvectors Q, relative to the width. The error of a smoothed count of eigenvalues is
/// then at most the square of this number.
const MAX_RESIDUAL: f64 = 0.01;

/// Largest change of the curve by a step, relative to its largest standard error, for a step that changes nothing.
const MAX_CHANGE: f64 = 0.2;

/// Number of consecutive steps that change nothing, after which the iteration ends.
const UNCHANGED_STEPS: usize = 2;

/// Points of the curve per width.
const POINTS_PER_WIDTH: f64 = 3.0;

/// Largest number of points of the curve. A range with more points has more widths than the steps can resolve.
const MAX_POINTS: f64 = 10_000.0;

impl DensitySettings {
    /// As [`run`](Self::run), for curves of this width.
    pub(super) fn run_band(&self, operator: &dyn LinearOperator, width: f64) -> Result<Density> {
        let n = operator.dim();
        let mut progress = Progress::start("density");
        let mut sampler = Sampler::new(Purpose::Density, self.seed);
        let first_steps = self.steps.div_ceil(2);
        let outliers = Outliers::find(operator, sampler.signs(n), first_steps, width)?;
        let mut products = outliers.products;
        let left = n - outliers.values.len();
        let mut steps = self.steps;
        let together = chains_together(n, steps + outliers.values.len(), self.probes).max(2);
        let mut probes: Vec<Quadrature> = Vec::new();
        let mut error: f64 = 0.0;
        while probes.len() < self.probes {
            let count = together.min(self.probes - probes.len());
            let start = |_| {
                let mut v = sampler.signs(n);
                orthogonalize(&mut v, &outliers.vectors);
                Chain::new(v)
            };
            let mut chains: Vec<Chain> = (0..count).map(start).collect();
            // Later probes take as many steps as the first ones.
            let mut watch = probes.is_empty().then(|| Watch::new(width));
            for step in 1..=steps {
                let multiplied = Chain::extend_all(&mut chains, |vectors| {
                    let mut images = checked_products(operator, vectors)?;
                    for image in &mut images {
                        orthogonalize(image, &outliers.vectors);
                    }
                    Ok(images)
                })?;
                products += multiplied;
                progress.part(probes.len() * steps + step * count, self.probes * steps);
                if multiplied == 0 {
                    break;
                }
                if let Some(watch) = &mut watch
                    && watch.is_resolved(&chains)?
                {
                    steps = step;
                    break;
                }
            }
            error = error.max(asymmetry(&chains));
            for chain in &chains {
                let rest = chain.quadrature()?.0;
                probes.push(outliers.combine(rest, left as f64 / n as f64));
            }
        }
        Density::from_probes(probes, products, error, operator)
    }
}

/// Converged eigenvalues with their vectors.
struct Outliers {
    values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
    products: usize,
    /// n
    dim: usize,
}

impl Outliers {
    /// The pairs that Lanczos iteration from `start` computes to a residual far below the `width`.
    fn find(
        operator: &dyn LinearOperator,
        start: Vec<f64>,
        steps: usize,
        width: f64,
    ) -> Result<Self> {
        let dim = start.len();
        let mut chains = [Chain::new(start)];
        let mut products = 0;
        for _ in 0..steps {
            products += Chain::extend_all(&mut chains, |v| checked_products(operator, v))?;
        }
        let [chain] = chains;
        let (quadrature, coordinates) = chain.quadrature()?;
        let residuals = chain.residuals(&coordinates);
        let mut order: Vec<usize> = (0..residuals.len()).collect();
        order.sort_by(|a, b| residuals[*a].total_cmp(&residuals[*b]));
        // All residuals are multiples of one vector.
        let mut squares = 0.0;
        order.retain(|i| {
            squares += residuals[*i].powi(2);
            squares.sqrt() <= MAX_RESIDUAL * width
        });
        let chosen: Vec<Vec<f64>> = order.iter().map(|i| coordinates[*i].clone()).collect();
        Ok(Self {
            values: order.iter().map(|i| quadrature.nodes[*i]).collect(),
            vectors: combine(chain.basis(), &chosen),
            products,
            dim,
        })
    }

    /// The quadrature of a probe: these eigenvalues with weight 1/n, and the quadrature of the `rest` with this `share`.
    fn combine(&self, rest: Quadrature, share: f64) -> Quadrature {
        let outliers = self.values.iter().map(|x| (*x, 1.0 / self.dim as f64));
        let rest = rest.nodes.into_iter().zip(rest.weights);
        let mut all: Vec<(f64, f64)> = outliers
            .chain(rest.map(|(x, weight)| (x, share * weight)))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (nodes, weights) = all.into_iter().unzip();
        Quadrature { nodes, weights }
    }
}

/// Compares the smoothed density after each step with that after the step before.
struct Watch {
    width: f64,
    /// The quadratures after the last step.
    before: Vec<Quadrature>,
    unchanged: usize,
}

impl Watch {
    fn new(width: f64) -> Self {
        Self {
            width,
            before: Vec::new(),
            unchanged: 0,
        }
    }

    /// Whether the last steps changed the curve by much less than its standard error.
    fn is_resolved(&mut self, chains: &[Chain]) -> Result<bool> {
        let now = chains.iter().map(|chain| Ok(chain.quadrature()?.0));
        let now: Vec<Quadrature> = now.collect::<Result<_>>()?;
        let before = std::mem::replace(&mut self.before, now);
        let is_unchanged = !before.is_empty() && self.is_unchanged(&before);
        self.unchanged = if is_unchanged { self.unchanged + 1 } else { 0 };
        Ok(self.unchanged == UNCHANGED_STEPS)
    }

    fn is_unchanged(&self, before: &[Quadrature]) -> bool {
        let nodes = || self.before.iter().flat_map(|probe| &probe.nodes);
        let low = nodes().fold(f64::INFINITY, |low, x| low.min(*x)) - self.width;
        let high = nodes().fold(f64::NEG_INFINITY, |high, x| high.max(*x)) + self.width;
        let points = (high - low) / self.width * POINTS_PER_WIDTH;
        if points > MAX_POINTS {
            return false;
        }
        let count = self.before.len() as f64;
        let (mut change, mut error): (f64, f64) = (0.0, 0.0);
        for i in 0..=points.ceil() as usize {
            let x = low + i as f64 * self.width / POINTS_PER_WIDTH;
            let bell = |node: f64| (-0.5 * ((x - node) / self.width).powi(2)).exp();
            let values = |probes: &[Quadrature]| -> Vec<f64> {
                probes.iter().map(|probe| probe.integrate(bell)).collect()
            };
            let (old, new) = (values(before), values(&self.before));
            let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
            let center = mean(&new);
            let squares: f64 = new.iter().map(|value| (value - center).powi(2)).sum();
            change = change.max((center - mean(&old)).abs());
            error = error.max((squares / (count - 1.0) / count).sqrt());
        }
        change <= MAX_CHANGE * error
    }
}
