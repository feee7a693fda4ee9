//! [`Density`]: the spectral density, by stochastic Lanczos quadrature.

use serde::{Deserialize, Serialize};
use statrs::function::erf::erfc;

use super::deflated_trace::rounding;
use super::orthonormal::extend;
use super::probe_loop::Sampler;
use super::simple_eigenvalues::SimpleEigenvalues;
use super::{Bracket, Estimate};
use crate::error::{Error, Result, check_positive, counted};
use crate::kernels::symmetric_eigen;
use crate::memory;
use crate::operator::{Dense, LinearOperator, checked_products};
use crate::progress::Progress;
use crate::random::Purpose;
use crate::vector::{dot, norm, scale};

/// Settings of stochastic Lanczos quadrature (Ubaru, Chen and Saad, 2017; Ghorbani, Krishnan and Xiao, 2019).
///
/// For a vector v of random signs, scaled to length 1, m steps of Lanczos iteration give the m-point Gauss quadrature of the
/// spectral measure Σ (vᵀuᵢ)² δ(λ − λᵢ) of v. The mean over v of this measure is the spectral density (1/n) Σ δ(λ − λᵢ). For a
/// diagonal matrix the measure of each v equals the density, and standard errors are only rounding.
///
/// An eigenvalue that all probes find with the same eigenvector is simple: its weight is set to the exact value 1/n, and the
/// other weights are scaled so that all sum to 1. The few large eigenvalues of a network then do not contribute to standard
/// errors, and the other contributions are close to normally distributed.
///
/// ```
/// use loss_landscape::ndarray::Array2;
/// use loss_landscape::prelude::*;
///
/// // 2 on the diagonal and −1 beside it: eigenvalues 2 − 2cos(kπ/701), k = 1, …, 700.
/// let a = Array2::from_shape_fn((700, 700), |(i, j)| match i.abs_diff(j) {
///     0 => 2.0,
///     1 => -1.0,
///     _ => 0.0,
/// });
/// let density = DensitySettings::default().with_probes(20).with_steps(30).with_seed(0)
/// .run(&Dense::new(a)?)?;
/// assert_eq!(density.products, 20 * 30);
/// let trace = density.trace();
/// assert!((trace.value - 1_400.0).abs() < 5.0 * trace.standard_error);
/// let below = density.count_below(2.0).estimate; // half of them
/// assert!((below.value - 350.0).abs() < 5.0 * below.standard_error);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DensitySettings {
    /// Number of random vectors, at least 2 for a standard error. Few probes underestimate the skewness of a value that one
    /// eigenvalue dominates: with 4, its 95 % interval may have a coverage of only 90 %.
    pub probes: usize,
    /// Number m of Lanczos steps, and products, per probe: moments of its measure up to the (2m − 1)th are exact.
    pub steps: usize,
    /// Seed of the random vectors.
    pub seed: u64,
    /// Width of the curves that the density is for; `None` takes all `steps`.
    pub width: Option<f64>,
}

impl Default for DensitySettings {
    /// 10 probes, 60 steps, seed 0, no width.
    fn default() -> Self {
        Self {
            probes: 10,
            steps: 60,
            seed: 0,
            width: None,
        }
    }
}

/// The Gauss quadrature of one probe's spectral measure: ascending nodes and weights ω > 0 with Σω = 1. The weights of simple
/// eigenvalues are corrected as described in [`DensitySettings`].
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 0.0], [0.0, -3.0]])?;
/// let quadrature = &a.density()?.probes[0]; // as many nodes as there are eigenvalues
/// assert!((quadrature.nodes[0] + 3.0).abs() < 1e-9 && (quadrature.nodes[1] - 2.0).abs() < 1e-9);
/// assert!((quadrature.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quadrature {
    /// Nodes θ₁ < θ₂ < …
    pub nodes: Vec<f64>,
    /// Weights ω₁, ω₂, …
    pub weights: Vec<f64>,
}

/// The spectral density of a symmetric matrix, estimated from random probes, or exact up to rounding for a small matrix.
///
/// ```
/// use loss_landscape::ndarray::Array2;
/// use loss_landscape::prelude::*;
///
/// // The reflection I − 2uuᵀ: an eigenvalue −1, and 39 eigenvalues 1.
/// let a = Dense::new(Array2::eye(40) - Array2::from_elem((40, 40), 2.0 / 40.0))?;
/// let density = a.density()?;
/// let [low, high] = density.range();
/// assert!((low + 1.0).abs() < 1e-9 && (high - 1.0).abs() < 1e-9);
/// assert!((density.moment(2).value - 1.0).abs() < 1e-9); // the mean of λ²
/// let negative = density.negative().estimate;
/// assert!((negative.value - 1.0).abs() < 5.0 * negative.standard_error);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// Quadrature of each probe. If the density is [exact](Self::is_exact), a single one: all eigenvalues, with weight 1/n each.
    pub probes: Vec<Quadrature>,
    /// n, the number of eigenvalues.
    pub dim: usize,
    /// Number of matrix–vector products.
    pub products: usize,
    /// Rounding error of the nodes, relative to the root mean square of the eigenvalues: machine epsilon of the
    /// [type](LinearOperator::dtype) in which products were computed, more with [cancellation](LinearOperator::cancellation)
    /// and for the sums of an exact density.
    #[serde(default)]
    pub epsilon: f64,
}

/// A function of the eigenvalue with its standard error over the probes.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let density = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.density()?;
/// let curve = density.smoothed(0.1, 400)?;
/// let step = curve.eigenvalues[1] - curve.eigenvalues[0];
/// assert!((curve.values.iter().sum::<f64>() * step - 1.0).abs() < 1e-3); // it integrates to 1
/// let share = density.cumulative(0.1, 400)?;
/// assert!(share.values[0] < 1e-3 && share.values[399] > 0.999);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DensityCurve {
    /// Grid of eigenvalues.
    pub eigenvalues: Vec<f64>,
    /// Value of the function at each.
    pub values: Vec<f64>,
    /// Standard error of each value.
    pub standard_errors: Vec<f64>,
    /// Standard deviation of the Gaussian that the curve is smoothed with.
    pub width: f64,
}

/// The number of eigenvalues below a threshold.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&array![-1.0, 2.0, 3.0]))?;
/// let all = a.density()?.count_below(10.0);
/// assert_eq!(all.estimate.value.round(), 3.0);
/// let negative = a.density()?.negative();
/// assert!(negative.resolution.low <= negative.estimate.value);
/// assert!(negative.estimate.value <= negative.resolution.high);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// The estimate, with its standard error over the probes.
    pub estimate: Estimate,
    /// Bounds due to the finite resolution of the quadratures: the mean over the probes of the certain bounds of the measure
    /// below the threshold (Chebyshev, Markov and Stieltjes), times n. Of an [exact](Density::is_exact) density: the numbers of
    /// eigenvalues that are certainly and possibly below the threshold, within their rounding errors.
    pub resolution: Bracket,
}

impl Count {
    /// An interval with at least this coverage, such as 0.95: the bounds of the resolution, widened by half the width of the
    /// estimate's confidence interval.
    ///
    /// # Errors
    /// A confidence that is not between 0 and 1.
    pub fn interval(&self, confidence: f64) -> Result<[f64; 2]> {
        let [low, high] = self.estimate.interval(confidence)?;
        let reach = match self.estimate.samples {
            // The bounds are certain.
            0 => 0.0,
            _ => 0.5 * (high - low),
        };
        Ok([
            (self.resolution.low - reach).max(0.0),
            self.resolution.high + reach,
        ])
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            estimate,
            resolution,
        } = self;
        let Bracket { value, low, high } = resolution;
        match (estimate.samples, low == high) {
            (0, true) => return write!(f, "{value:.0}, exact"),
            (0, false) => return write!(f, "{value:.0}, within rounding {low:.0} to {high:.0}"),
            _ => {}
        }
        write!(
            f,
            "{:.0} ± {:.0}; resolution of the quadrature: {:.0} to {:.0}",
            estimate.value, estimate.standard_error, low, high
        )
    }
}

/// Rounding error of a node, relative to ε(|x| + root mean square of the eigenvalues).
const NODE_EPSILONS: f64 = 4.0;

/// Largest size in bytes of the bases of the probes that run together.
const BASES_BYTES: usize = 1 << 30;

impl DensitySettings {
    /// Sets the number of random vectors, at least 2.
    #[must_use]
    pub fn with_probes(mut self, probes: usize) -> Self {
        self.probes = probes;
        self
    }

    /// Sets the number of Lanczos steps, which are products, per probe; at least 2.
    #[must_use]
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Sets the seed of the random vectors.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Takes only as many products as curves of this width need. `width` is the standard deviation of the Gaussian that
    /// [smooths](Density::smoothed) them.
    ///
    /// A first Lanczos iteration of half the steps finds the outliers: pairs whose residuals together are below 1 % of the width.
    /// They are deflated. On the orthogonal complement of their vectors, the steps of all probes end when two of them have
    /// changed the smoothed density by less than a fifth of its largest standard error. This error is that of all steps, because
    /// the number of probes is the same. The deflation changes a smoothed count of eigenvalues by at most 10⁻⁴ or so.
    ///
    /// Numbers that need more than this resolution, [`mean_magnitude`](Density::mean_magnitude),
    /// [`effective_rank`](Density::effective_rank) and the estimate of [`count_below`](Density::count_below), are less precise
    /// than from all steps.
    ///
    /// ```
    /// use loss_landscape::ndarray::Array2;
    /// use loss_landscape::prelude::*;
    ///
    /// // Nine outliers and a bulk within ± 0.1, in a basis that is reflected: RDR for R = I − 2uuᵀ and u = (1, …, 1)/√n.
    /// let n = 800.0;
    /// let d = |i: usize| if i < 9 { 2.0 + i as f64 } else { 0.1 * (i as f64).sin() };
    /// let mean = (0..800).map(d).sum::<f64>() / n;
    /// let a = Dense::new(Array2::from_shape_fn((800, 800), |(i, j)| {
    ///     let diagonal = if i == j { d(i) } else { 0.0 };
    ///     diagonal - 2.0 / n * (d(i) + d(j)) + 4.0 / n * mean
    /// }))?;
    /// let settings = DensitySettings::default();
    /// let (band, full) = (settings.clone().with_width(0.1).run(&a)?, settings.run(&a)?);
    /// assert!(band.products < 150 && full.products == 600);
    /// let (band, full) = (band.cumulative(0.1, 3)?, full.cumulative(0.1, 3)?);
    /// assert!((band.values[1] - full.values[1]).abs() < 0.01);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_width(mut self, width: impl Into<Option<f64>>) -> Self {
        self.width = width.into();
        self
    }

    /// Estimates the spectral density of `operator`.
    ///
    /// A matrix with n ≤ `probes` × `steps` rows, at most [`Dense::MAX_DIM`], takes n products, which give all its entries. Its
    /// density is then [exact](Density::is_exact): it consists of all eigenvalues.
    ///
    /// Full reorthogonalisation keeps the quadratures accurate to rounding. It
    /// stores m vectors of length n for each of the probes that run together, as many as fit in 1 GiB.
    ///
    /// The asymmetry of the products with the probes shows their rounding errors, which all stated errors include. These can
    /// exceed the numbers of a block, which may be differences of large ones.
    ///
    /// # Errors
    /// Fewer than 2 probes or 2 steps; a width that is not above 0 and finite; products that fail or are not finite.
    pub fn run(&self, operator: &dyn LinearOperator) -> Result<Density> {
        if let Some(width) = self.width {
            check_positive(width, "the smoothing width")?;
        }
        match self.width {
            Some(width) if !self.takes_all(operator.dim()) => {
                self.check()?;
                self.run_band(operator, width)
            }
            _ => Ok(self.run_with_extremes(operator)?.0),
        }
    }

    /// As [`run`](Self::run), and brackets of the smallest and the largest eigenvalue from the same products. The value is the
    /// smallest or largest node of all probes, the inner bound is the node itself, and the outer bound is the node and its
    /// residual, each widened by rounding.
    pub(crate) fn run_with_extremes(
        &self,
        operator: &dyn LinearOperator,
    ) -> Result<(Density, [Bracket; 2])> {
        self.check()?;
        let n = operator.dim();
        if self.takes_all(n) {
            return exact_density(operator);
        }
        let steps = self.steps.min(n);
        let together = chains_together(n, steps, self.probes);
        let mut progress = Progress::start("density");
        let mut sampler = Sampler::new(Purpose::Density, self.seed);
        let (mut probes, mut products) = (Vec::new(), 0);
        let mut simple: Option<SimpleEigenvalues> = None;
        let mut ends: Option<[End; 2]> = None;
        let mut asymmetry: f64 = 0.0;
        while probes.len() < self.probes {
            let count = together.min(self.probes - probes.len());
            let mut chains: Vec<Chain> = (0..count).map(|_| Chain::new(sampler.signs(n))).collect();
            for step in 0..steps {
                let multiplied =
                    Chain::extend_all(&mut chains, |vectors| checked_products(operator, vectors))?;
                if multiplied == 0 {
                    break;
                }
                products += multiplied;
                progress.part(probes.len() * steps + step * count + 1, self.probes * steps);
            }
            asymmetry = asymmetry.max(self::asymmetry(&chains));
            for chain in &chains {
                let (quadrature, vectors) = chain.quadrature()?;
                let residuals = chain.residuals(&vectors);
                match &mut simple {
                    Some(simple) => simple.confirm(&chain.basis[0], &quadrature),
                    None => {
                        let nodes = &quadrature.nodes;
                        simple = Some(SimpleEigenvalues::candidates(
                            nodes,
                            &vectors,
                            &residuals,
                            &chain.basis,
                        ));
                    }
                }
                ends = Some(End::outermost(ends, &quadrature.nodes, &residuals));
                probes.push(quadrature);
            }
        }
        for (probe, simple) in probes.iter_mut().zip(simple.iter().cycle()) {
            simple.apply(probe, n);
        }
        let density = Density::from_probes(probes, products, asymmetry, operator)?;
        let [smallest, largest] = ends.unwrap_or_default();
        let rounding = density.node_rounding();
        let extremes = [
            Bracket {
                value: smallest.value,
                low: smallest.value - smallest.residual - rounding(smallest.value),
                high: smallest.value + rounding(smallest.value),
            },
            Bracket {
                value: largest.value,
                low: largest.value - rounding(largest.value),
                high: largest.value + largest.residual + rounding(largest.value),
            },
        ];
        Ok((density, extremes))
    }

    fn check(&self) -> Result<()> {
        if self.probes < 2 || self.steps < 2 {
            return Err(Error::invalid(format!(
                "a density needs at least 2 probes and 2 steps, not {} and {}",
                counted(self.probes, "probe"),
                counted(self.steps, "step")
            )));
        }
        Ok(())
    }

    /// Whether all n rows of the matrix take no more products than the probes.
    fn takes_all(&self, n: usize) -> bool {
        n <= self.probes.saturating_mul(self.steps).min(Dense::MAX_DIM)
    }
}

/// Number of probes that run together: as many as their bases and one more fit in [`BASES_BYTES`], at least 1.
pub(super) fn chains_together(n: usize, steps: usize, probes: usize) -> usize {
    let fitting = (BASES_BYTES / (8 * n * steps)).saturating_sub(1);
    fitting.clamp(1, probes)
}

/// The density that consists of all eigenvalues, and brackets of the smallest and the largest.
fn exact_density(operator: &dyn LinearOperator) -> Result<(Density, [Bracket; 2])> {
    let (nodes, error) = Dense::from_noisy(operator)?.eigenvalues()?;
    let n = nodes.len();
    let extremes = [nodes[0], nodes[n - 1]].map(|value| Bracket::around(value, error));
    let weights = vec![1.0 / n as f64; n];
    let mut density = Density {
        probes: vec![Quadrature { nodes, weights }],
        dim: n,
        products: n,
        epsilon: operator.epsilon(),
    };
    let typical = density.root_mean_square();
    if typical > 0.0 {
        density.epsilon = density.epsilon.max(error / (NODE_EPSILONS * typical));
    }
    Ok((density, extremes))
}

/// Rounding error of an eigenvalue, from the difference uᵀAv − vᵀAu of the probes u and v, which is 0 for exact products.
///
/// Errors of independent entries e make this difference √2 e, and eigenvalues √n e.
pub(super) fn asymmetry(chains: &[Chain]) -> f64 {
    let mut squares = Vec::new();
    for (i, a) in chains.iter().enumerate() {
        for b in &chains[..i] {
            let difference = a.first_image_along(b) - b.first_image_along(a);
            squares.push(difference * difference);
        }
    }
    let n = chains.first().map_or(0, |chain| chain.basis[0].len()) as f64;
    let mean = squares.iter().sum::<f64>() / squares.len().max(1) as f64;
    (0.5 * n * mean).sqrt()
}

/// The outermost node at one end of the spectrum.
#[derive(Clone, Copy, Default)]
struct End {
    value: f64,
    residual: f64,
}

impl End {
    /// The outermost of the nodes found before and the nodes of one more probe.
    fn outermost(before: Option<[Self; 2]>, nodes: &[f64], residuals: &[f64]) -> [Self; 2] {
        let end = |i: usize| Self {
            value: nodes[i],
            residual: residuals[i],
        };
        let found = [end(0), end(nodes.len() - 1)];
        match before {
            None => found,
            Some([smallest, largest]) => [
                if smallest.value < found[0].value {
                    smallest
                } else {
                    found[0]
                },
                if largest.value > found[1].value {
                    largest
                } else {
                    found[1]
                },
            ],
        }
    }
}

/// The Lanczos recurrence of one probe.
pub(super) struct Chain {
    basis: Vec<Vec<f64>>,
    /// The vector to multiply next; `None` if the Krylov space is exhausted.
    next: Option<Vec<f64>>,
    alpha: Vec<f64>,
    beta: Vec<f64>,
    /// Largest length of a product.
    size: f64,
}

impl Chain {
    /// `start` has any length but 0.
    pub(super) fn new(mut start: Vec<f64>) -> Self {
        let length = norm(&start);
        scale(&mut start, 1.0 / length);
        Self {
            basis: Vec::new(),
            next: Some(start),
            alpha: Vec::new(),
            beta: Vec::new(),
            size: 0.0,
        }
    }

    pub(super) fn basis(&self) -> &[Vec<f64>] {
        &self.basis
    }

    /// Takes a step of all chains whose Krylov spaces are not exhausted. Returns their number.
    pub(super) fn extend_all(
        chains: &mut [Self],
        products: impl Fn(&[Vec<f64>]) -> Result<Vec<Vec<f64>>>,
    ) -> Result<usize> {
        let mut open: Vec<&mut Self> = chains.iter_mut().filter(|c| c.next.is_some()).collect();
        let vectors: Vec<Vec<f64>> = open.iter_mut().filter_map(|c| c.next.take()).collect();
        if vectors.is_empty() {
            return Ok(0);
        }
        let images = products(&vectors)?;
        let count = images.len();
        for ((chain, v), image) in open.iter_mut().zip(vectors).zip(images) {
            chain.extend(v, image);
        }
        Ok(count)
    }

    fn extend(&mut self, v: Vec<f64>, image: Vec<f64>) {
        self.basis.push(v);
        self.size = self.size.max(norm(&image));
        let (components, length, next) = extend(image, &self.basis, 1e-12 * self.size);
        self.alpha.extend(components.last());
        self.beta.push(length);
        self.next = next;
    }

    /// uᵀAv for the first vector v of this chain and u of another.
    fn first_image_along(&self, other: &Self) -> f64 {
        let u = &other.basis[0];
        let second = self.basis.get(1).or(self.next.as_ref());
        let rest = second.map_or(0.0, |second| self.beta[0] * dot(u, second));
        self.alpha[0] * dot(u, &self.basis[0]) + rest
    }

    /// Returns the quadrature, and the vectors of its nodes in coordinates of the basis.
    pub(super) fn quadrature(&self) -> Result<(Quadrature, Vec<Vec<f64>>)> {
        let entry = |i: usize, j: usize| match i.abs_diff(j) {
            0 => self.alpha[i],
            1 => self.beta[i.min(j)],
            _ => 0.0,
        };
        let (nodes, vectors) = symmetric_eigen(self.alpha.len(), entry)?;
        let weights = vectors.iter().map(|v| v[0] * v[0]).collect();
        Ok((Quadrature { nodes, weights }, vectors))
    }

    /// The residual of each node.
    pub(super) fn residuals(&self, vectors: &[Vec<f64>]) -> Vec<f64> {
        let last = self.beta.last().copied().unwrap_or(0.0);
        let residuals = vectors.iter().map(|v| last * v[v.len() - 1].abs());
        residuals.collect()
    }
}

impl Quadrature {
    /// Σ ωᵢ f(θᵢ)
    pub(super) fn integrate(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.nodes
            .iter()
            .zip(&self.weights)
            .map(|(x, w)| w * f(*x))
            .sum()
    }

    /// Certain bounds of the probe's measure below x: with k nodes below x, it is at least the sum of the first k − 1 weights
    /// and at most that of the first k + 1.
    fn bounds_below(&self, x: f64) -> [f64; 2] {
        let k = self.nodes.partition_point(|node| *node < x);
        let sum = |count: usize| {
            self.weights[..count.min(self.weights.len())]
                .iter()
                .sum::<f64>()
        };
        [sum(k.saturating_sub(1)), sum(k + 1).min(1.0)]
    }
}

impl Density {
    /// A density from the quadratures of sampled probes, and an estimate of the rounding errors of eigenvalues.
    pub(super) fn from_probes(
        probes: Vec<Quadrature>,
        products: usize,
        rounding: f64,
        operator: &dyn LinearOperator,
    ) -> Result<Self> {
        let mut density = Self {
            probes,
            dim: operator.dim(),
            products,
            epsilon: operator.epsilon(),
        };
        let cancelled = operator.cancellation()?;
        if cancelled > 0.0 {
            density.epsilon *= 1.0 + cancelled / density.root_mean_square();
        }
        let typical = density.root_mean_square();
        if typical > 0.0 {
            density.epsilon = density.epsilon.max(rounding / typical);
        }
        Ok(density)
    }

    /// Whether the density consists of all eigenvalues. All its numbers are then exact up to rounding: their errors are those of
    /// the products and of the eigenvalues, and they are not [estimated from samples](Estimate::samples).
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    ///
    /// let density = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.density()?; // eigenvalues 1 and 3
    /// assert!(density.is_exact() && density.products == 2);
    /// let trace = density.trace();
    /// assert!((trace.value - 4.0).abs() <= trace.standard_error && trace.standard_error < 1e-13);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_exact(&self) -> bool {
        self.probes.len() == 1
    }

    /// The mean over the probes.
    pub(super) fn over_probes(&self, f: impl Fn(&Quadrature) -> f64) -> Estimate {
        let samples: Vec<f64> = self.probes.iter().map(f).collect();
        Estimate {
            products: self.products,
            ..match samples[..] {
                [value] => Estimate::exact(value),
                _ => Estimate::from_samples(&samples),
            }
        }
    }

    /// Rounding error of a node at x.
    pub(super) fn node_rounding(&self) -> impl Fn(f64) -> f64 + use<> {
        let (epsilon, typical) = (self.epsilon, self.root_mean_square());
        move |x| NODE_EPSILONS * epsilon * (x.abs() + typical)
    }

    /// Whether all eigenvalues are 0 up to rounding.
    pub(crate) fn is_zero(&self) -> bool {
        self.root_mean_square() <= self.node_rounding()(0.0)
    }

    /// Root mean square of the eigenvalues.
    pub(super) fn root_mean_square(&self) -> f64 {
        let squares = self.probes.iter().map(|probe| probe.integrate(|x| x * x));
        (squares.sum::<f64>() / self.probes.len() as f64).sqrt()
    }

    /// The mean of f over all eigenvalues. Its error includes the change of f by rounding of the nodes.
    fn mean_of(&self, f: impl Fn(f64) -> f64) -> Estimate {
        let mean = |f: &dyn Fn(f64) -> f64| {
            let sum: f64 = self.probes.iter().map(|probe| probe.integrate(f)).sum();
            sum / self.probes.len() as f64
        };
        let node_rounding = self.node_rounding();
        let nodes = mean(&|x| {
            let error = node_rounding(x);
            0.5 * (f(x + error) - f(x - error)).abs()
        });
        let sums = rounding(0.0, self.probes[0].nodes.len(), mean(&|x| f(x).abs()));
        self.over_probes(|probe| probe.integrate(&f))
            .with_error(nodes + sums)
    }

    /// tr(Aᵏ)/n: the mean of λᵏ over all eigenvalues. The quadrature of m steps is exact for k < 2m.
    pub fn moment(&self, k: u32) -> Estimate {
        self.mean_of(|x| x.powi(k as i32))
    }

    /// The mean of |λ| over all eigenvalues.
    pub fn mean_magnitude(&self) -> Estimate {
        self.mean_of(f64::abs)
    }

    /// tr(A), from the same probes.
    pub fn trace(&self) -> Estimate {
        self.moment(1).scaled(self.dim as f64)
    }

    /// ‖A‖²_F = tr(A²), from the same probes.
    pub fn frobenius_squared(&self) -> Estimate {
        self.moment(2).scaled(self.dim as f64)
    }

    /// The effective rank (Σ|λ|)² / Σλ², from the same probes, with its jackknife standard error; `None` for a zero matrix.
    ///
    /// ```
    /// use loss_landscape::ndarray::{Array1, Array2};
    /// # use loss_landscape::prelude::*;
    ///
    /// // 5 eigenvalues 2 and 25 zeros.
    /// let diagonal = Array1::from_shape_fn(30, |i| if i < 5 { 2.0 } else { 0.0 });
    /// let density = Dense::new(Array2::from_diag(&diagonal))?.density()?;
    /// let rank = density.effective_rank().unwrap();
    /// assert!((rank.value - 5.0).abs() <= 5.0 * rank.standard_error + 1e-9);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn effective_rank(&self) -> Option<Estimate> {
        let moments = |f: fn(f64) -> f64| -> Vec<f64> {
            self.probes.iter().map(|probe| probe.integrate(f)).collect()
        };
        let (sizes, squares) = (moments(f64::abs), moments(|x| x * x));
        let (size, square): (f64, f64) = (sizes.iter().sum(), squares.iter().sum());
        let (n, count) = (self.dim as f64, sizes.len() as f64);
        let rank = |size: f64, square: f64, count: f64| n * size * size / (count * square);
        let left_out = sizes.iter().zip(&squares);
        let left_out = left_out.map(|(a, b)| rank(size - a, square - b, count - 1.0));
        let value = rank(size, square, count);
        let left_out = match self.is_exact() {
            true => Estimate::exact(value),
            false => Estimate::from_samples(&left_out.collect::<Vec<f64>>()),
        };
        let typical = (square / count).sqrt();
        let rounding = 8.0 * self.epsilon * value * (3.0 + count * typical / size);
        (square > 0.0).then(|| {
            let estimate = Estimate {
                value,
                standard_error: (count - 1.0) * left_out.standard_error,
                products: self.products,
                ..left_out
            };
            estimate.with_error(rounding)
        })
    }

    /// The smallest and the largest node.
    pub fn range(&self) -> [f64; 2] {
        let nodes = self.probes.iter().flat_map(|probe| &probe.nodes);
        nodes.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| {
            [low.min(*x), high.max(*x)]
        })
    }

    /// The density, smoothed with a Gaussian of standard deviation `width`, on a grid of `points` that extends four widths
    /// beyond the nodes. It integrates to 1. A common width is 1/100 of the range of the spectrum.
    ///
    /// # Errors
    /// A width that is not above 0 and finite; fewer than 2 points.
    pub fn smoothed(&self, width: f64, points: usize) -> Result<DensityCurve> {
        let height = 1.0 / (width * std::f64::consts::TAU.sqrt());
        let bell = move |x: f64| height * (-0.5 * (x / width).powi(2)).exp();
        self.curve(width, points, |x, node| bell(x - node))
    }

    /// The fraction of the eigenvalues up to x, smoothed with a Gaussian of standard deviation `width`, from 0 to 1.
    ///
    /// # Errors
    /// As [`Density::smoothed`].
    pub fn cumulative(&self, width: f64, points: usize) -> Result<DensityCurve> {
        let step = move |x: f64| 0.5 * erfc(-x / (width * std::f64::consts::SQRT_2));
        self.curve(width, points, |x, node| step(x - node))
    }

    /// The mean over the nodes of a function of x and the node, on the grid of [`smoothed`](Self::smoothed).
    fn curve(
        &self,
        width: f64,
        points: usize,
        value: impl Fn(f64, f64) -> f64,
    ) -> Result<DensityCurve> {
        check_positive(width, "the smoothing width")?;
        if points < 2 {
            return Err(Error::invalid(format!(
                "a curve of {}: give at least 2",
                counted(points, "point")
            )));
        }
        memory::check(24.0 * points as f64, "the points of a curve")?;
        let [low, high] = self.range();
        let (low, high) = (low - 4.0 * width, high + 4.0 * width);
        let step = (high - low) / (points - 1) as f64;
        let eigenvalues: Vec<f64> = (0..points).map(|i| low + step * i as f64).collect();
        let (values, standard_errors) = eigenvalues
            .iter()
            .map(|x| {
                let estimate = self.mean_of(|node| value(*x, node));
                (estimate.value, estimate.standard_error)
            })
            .unzip();
        Ok(DensityCurve {
            eigenvalues,
            values,
            standard_errors,
            width,
        })
    }

    /// The number of eigenvalues below x.
    pub fn count_below(&self, x: f64) -> Count {
        let n = self.dim as f64;
        let bound = |i: usize| self.over_probes(|probe| probe.bounds_below(x)[i]).scaled(n);
        let below = |node: f64| if node < x { 1.0 } else { 0.0 };
        let mut estimate = self.mean_of(below).scaled(n);
        let (low, high) = match self.is_exact() {
            false => (bound(0).value, bound(1).value),
            true => {
                let (nodes, rounding) = (&self.probes[0].nodes, self.node_rounding());
                let count = |side: f64| {
                    let below = |node: &&f64| **node + side * rounding(**node) < x;
                    nodes.iter().filter(below).count() as f64
                };
                estimate.value = count(0.0);
                (count(1.0), count(-1.0))
            }
        };
        Count {
            estimate,
            resolution: Bracket {
                value: estimate.value,
                low,
                high,
            },
        }
    }

    /// The number of negative eigenvalues.
    pub fn negative(&self) -> Count {
        self.count_below(0.0)
    }
}
