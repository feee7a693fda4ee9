//! [`DeflatedTrace`]: a trace that is exact on a subspace and sampled on its orthogonal complement.

use std::cell::OnceCell;

use super::orthonormal::{orthogonalize, products};
use super::{Estimate, TraceMethod};
use crate::error::Result;
use crate::operator::{LinearOperator, checked_products};
use crate::vector::{axpy, dot, norm, scale};

/// Largest number of probes whose pairs are used: more cost time and memory, and add little information.
const MAX_PAIRED: usize = 32;

/// Largest skewness of a mean for which Student's interval, widened, has its nominal coverage.
const MAX_SKEWNESS: f64 = 0.5;

/// The matrix B whose trace is estimated.
#[derive(Clone, Copy)]
pub(super) enum TraceOf {
    /// B = A
    Matrix,
    /// B = A²
    Square,
}

/// tr(B) = (part on an orthonormal basis Q, exact) + (part of R = PAP with P = I − QQᵀ, sampled).
///
/// For B = A² the exact part is ‖A‖²_F − ‖R‖²_F, which includes the coupling between Q and the rest.
///
/// The basis does not depend on the probes. The samples are therefore independent, and their scatter gives the standard error
/// (Hutch++: Meyer, Musco, Musco and Woodruff, 2021).
pub(super) struct DeflatedTrace {
    trace_of: TraceOf,
    dim: usize,
    /// Machine epsilon of the operator's type.
    epsilon: f64,
    cancellation: f64,
    basis: Vec<Vec<f64>>,
    exact: f64,
    /// Sum of the magnitudes of the numbers from which the exact part is computed.
    exact_magnitude: f64,
    /// Whether all probes are stored.
    keeps_probes: bool,
    /// Vectors u = Pv, each of length √(n − k) for a basis of k vectors.
    probes: Vec<Vec<f64>>,
    /// Ru for each.
    images: Vec<Vec<f64>>,
    /// uᵀBu of each sample.
    forms: Vec<f64>,
    /// ‖Ru‖² of each sample.
    squares: Vec<f64>,
    /// Statistics of pairs of these probes, computed on demand.
    pairs: OnceCell<Option<PairStatistics>>,
    products: usize,
}

impl DeflatedTrace {
    /// `may_finish`: [`deflate_probes`](Self::deflate_probes) may be called.
    pub(super) fn new(
        trace_of: TraceOf,
        method: TraceMethod,
        operator: &dyn LinearOperator,
        may_finish: bool,
    ) -> Result<Self> {
        Ok(Self {
            // With a growing basis, the new basis vectors are later removed from all probes.
            keeps_probes: may_finish || method == TraceMethod::Krylov,
            trace_of,
            dim: operator.dim(),
            epsilon: operator.epsilon(),
            cancellation: operator.cancellation()?,
            basis: Vec::new(),
            exact: 0.0,
            exact_magnitude: 0.0,
            probes: Vec::new(),
            images: Vec::new(),
            forms: Vec::new(),
            squares: Vec::new(),
            pairs: OnceCell::new(),
            products: 0,
        })
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn basis(&self) -> &[Vec<f64>] {
        &self.basis
    }

    pub(super) fn num_samples(&self) -> usize {
        self.forms.len()
    }

    /// Dimension n − k of the space that is sampled.
    pub(super) fn undeflated_dim(&self) -> usize {
        self.dim - self.basis.len()
    }

    /// Number of products, including those for the basis.
    pub(super) fn num_products(&self) -> usize {
        self.products
    }

    /// Computes and counts products for the basis.
    pub(super) fn counted_products(
        &mut self,
        operator: &dyn LinearOperator,
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>> {
        self.products += vectors.len();
        checked_products(operator, vectors)
    }

    /// The integrand: projects random vectors v to u = Pv, scaled to length √(n − k), and returns the pairs (u, Ru). The
    /// directions of the vectors are uniformly distributed, or their entries are random signs.
    pub(super) fn projected_products(
        &self,
        operator: &dyn LinearOperator,
        mut vectors: Vec<Vec<f64>>,
    ) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
        let length = (self.undeflated_dim() as f64).sqrt();
        for v in &mut vectors {
            orthogonalize(v, &self.basis);
            let factor = length / norm(v);
            scale(v, factor);
        }
        let mut images = checked_products(operator, &vectors)?;
        for image in &mut images {
            orthogonalize(image, &self.basis);
        }
        Ok(vectors.into_iter().zip(images).collect())
    }

    /// Adds the sample of a pair (u, Ru).
    pub(super) fn add(&mut self, u: Vec<f64>, w: Vec<f64>) {
        self.products += 1;
        self.record(&u, &w);
        if self.keeps_probes || self.probes.len() < MAX_PAIRED {
            self.probes.push(u);
            self.images.push(w);
            self.pairs.take();
        }
    }

    fn record(&mut self, u: &[f64], w: &[f64]) {
        let square = dot(w, w);
        self.squares.push(square);
        self.forms.push(match self.trace_of {
            TraceOf::Matrix => dot(u, w),
            TraceOf::Square => square,
        });
    }

    /// Adds an orthonormal `block`, orthogonal to the basis, to the basis. Returns the components of its products orthogonal to
    /// the new basis: C = PAQ for the new P.
    pub(super) fn deflate(
        &mut self,
        operator: &dyn LinearOperator,
        block: Vec<Vec<f64>>,
    ) -> Result<Vec<Vec<f64>>> {
        if block.is_empty() {
            return Ok(Vec::new());
        }
        let images = self.counted_products(operator, &block)?;
        let sizes = images.iter().map(|image| norm(image)).collect();
        Ok(self.deflate_known(block, images, sizes))
    }

    /// Deflates the span of the probes, whose products are known, so that no products are needed.
    pub(super) fn deflate_probes(&mut self) {
        let probes = std::mem::take(&mut self.probes);
        let images = std::mem::take(&mut self.images);
        let (mut block, mut known): (Vec<Vec<f64>>, Vec<Vec<f64>>) = Default::default();
        // Rounding of the products of the block, in units of ε.
        let mut errors: Vec<f64> = Vec::new();
        for (mut u, mut w) in probes.into_iter().zip(images) {
            let (before, size) = (norm(&u), norm(&w));
            let components = orthogonalize(&mut u, &block);
            let length = norm(&u);
            // A direction that the others nearly contain would be rounding.
            if length <= 0.01 * before {
                continue;
            }
            // Roundings of different products are independent.
            let mut error = size;
            for ((component, image), e) in components.iter().zip(&known).zip(&errors) {
                axpy(-component, image, &mut w);
                error = error.hypot(component * e);
            }
            scale(&mut u, 1.0 / length);
            scale(&mut w, 1.0 / length);
            block.push(u);
            known.push(w);
            errors.push(error / length);
        }
        self.deflate_known(block, known, errors);
    }

    /// Adds an orthonormal `block` to the basis, as [`deflate`](Self::deflate), with its products and the sizes to which their
    /// rounding is relative.
    fn deflate_known(
        &mut self,
        block: Vec<Vec<f64>>,
        mut images: Vec<Vec<f64>>,
        sizes: Vec<f64>,
    ) -> Vec<Vec<f64>> {
        let inner = products(&block, &images);
        let lengths: Vec<f64> = images.iter().map(|image| norm(image)).collect();
        self.basis.extend(block);
        for image in &mut images {
            orthogonalize(image, &self.basis);
        }
        match self.trace_of {
            TraceOf::Matrix => {
                self.exact += (0..inner.len()).map(|i| inner[i][i]).sum::<f64>();
                self.exact_magnitude += sizes.iter().sum::<f64>();
            }
            TraceOf::Square => {
                // ‖A‖² = ‖QᵀAQ‖² + 2‖PAQ‖² + ‖PAP‖²
                let inside: f64 = inner.iter().map(|row| dot(row, row)).sum();
                let across: f64 = images.iter().map(|c| dot(c, c)).sum();
                self.exact += inside + 2.0 * across;
                self.exact_magnitude += 2.0 * dot(&sizes, &lengths);
            }
        }
        self.project(&images, inner.len());
        images
    }

    /// Removes the last `count` basis vectors from the probes and their products. C = PAQ for these basis vectors.
    fn project(&mut self, c: &[Vec<f64>], count: usize) {
        self.forms.clear();
        self.squares.clear();
        self.pairs.take();
        let (mut probes, mut images) = (
            std::mem::take(&mut self.probes),
            std::mem::take(&mut self.images),
        );
        if self.undeflated_dim() == 0 {
            return;
        }
        let length = (self.undeflated_dim() as f64).sqrt();
        let block = &self.basis[self.basis.len() - count..];
        for (u, w) in probes.iter_mut().zip(&mut images) {
            let components = orthogonalize(u, block);
            for (component, c) in components.iter().zip(c) {
                axpy(-component, c, w);
            }
            orthogonalize(w, block);
            let factor = length / norm(u);
            scale(u, factor);
            scale(w, factor);
        }
        for (u, w) in probes.iter().zip(&images) {
            self.record(u, w);
        }
        (self.probes, self.images) = (probes, images);
    }

    /// Estimate of ‖R‖²_F.
    pub(super) fn squared_norm(&self) -> f64 {
        self.squares.iter().sum::<f64>() / self.squares.len().max(1) as f64
    }

    /// Returns the estimate. Needs at least 2 samples or a basis of the whole space.
    pub(super) fn estimate(&self) -> Estimate {
        let mut estimate = match self.forms.len() {
            0 => Estimate::exact(0.0),
            _ => self.sampled(),
        };
        estimate.value += self.exact;
        estimate.products = self.products;
        estimate.with_error(self.rounding())
    }

    /// Rounding error of the estimate.
    fn rounding(&self) -> f64 {
        let mean = self.forms.iter().sum::<f64>() / self.forms.len().max(1) as f64;
        let rounding = |size: f64| rounding(self.epsilon, self.dim, size);
        match self.trace_of {
            TraceOf::Matrix => rounding(
                self.exact_magnitude + mean.abs() + self.squared_norm().sqrt() + self.cancellation,
            ),
            TraceOf::Square => {
                let (square, lost) = (
                    self.exact_magnitude + 2.0 * mean,
                    rounding(self.cancellation),
                );
                rounding(square) + lost * (2.0 * square.sqrt() + lost)
            }
        }
    }

    /// The mean of the samples. Its skewness is estimated from pairs of probes, much more precisely than from the samples.
    fn sampled(&self) -> Estimate {
        let mean = Estimate::mean(&self.forms);
        match self.pairs() {
            Some(pairs) if mean.standard_error > self.rounding() => {
                mean.widened(pairs.skewness / (self.forms.len() as f64).sqrt())
            }
            _ => mean,
        }
    }

    /// The standard error that decides when to stop: the larger of two estimates, from the samples and from pairs of probes,
    /// because both are too small by chance less often than one. Infinite if the mean is so skewed that no interval has its
    /// nominal coverage: samples that miss a large eigenvalue by chance scatter too little.
    pub(super) fn stopping_error(&self) -> f64 {
        let (n, mean) = (self.forms.len() as f64, Estimate::mean(&self.forms));
        let rounding = self.rounding();
        let pairs = self.pairs().filter(|_| mean.standard_error > rounding);
        let Some(pairs) = pairs else {
            // Samples without scatter are exact.
            return rounding + mean.standard_error;
        };
        let skewness = pairs.skewness / n.sqrt();
        if skewness.abs() > MAX_SKEWNESS {
            return f64::INFINITY;
        }
        let by_pairs = (pairs.variance / n).sqrt();
        let wider = Estimate {
            standard_error: mean.standard_error.max(by_pairs),
            ..mean
        };
        rounding + wider.widened(skewness).standard_error
    }

    /// Variance and skewness of a sample from the forms cᵢⱼ = uᵢᵀCuⱼ of pairs of probes, where C is B minus its mean eigenvalue:
    /// the means of cᵢⱼ² and cᵢⱼcⱼₖcₖᵢ over different i, j and k are tr(C²) and tr(C³), and a sample has the variance 2 tr(C²)
    /// and the third cumulant 8 tr(C³). `None` for fewer than 3 probes.
    fn pairs(&self) -> Option<PairStatistics> {
        *self.pairs.get_or_init(|| self.compute_pairs())
    }

    fn compute_pairs(&self) -> Option<PairStatistics> {
        let m = self.probes.len().min(MAX_PAIRED);
        if m < 3 {
            return None;
        }
        let (probes, images) = (&self.probes[..m], &self.images[..m]);
        let mut forms = match self.trace_of {
            TraceOf::Matrix => products(probes, images),
            TraceOf::Square => products(images, images),
        };
        let inner = products(probes, probes);
        let trace: f64 = (0..m).map(|i| forms[i][i]).sum();
        let mean = trace / (m * self.undeflated_dim()) as f64;
        for (i, (row, inner)) in forms.iter_mut().zip(&inner).enumerate() {
            axpy(-mean, inner, row);
            row[i] = 0.0;
        }
        let squares: f64 = forms.iter().map(|row| dot(row, row)).sum();
        let indices = (0..m).flat_map(|i| (0..m).map(move |j| (i, j)));
        let cubes: f64 = indices
            .map(|(i, j)| forms[i][j] * dot(&forms[i], &forms[j]))
            .sum();
        let m = m as f64;
        let variance = 2.0 * squares / (m * (m - 1.0));
        let cumulant = 8.0 * cubes / (m * (m - 1.0) * (m - 2.0));
        Some(PairStatistics {
            variance,
            skewness: match variance > 0.0 {
                true => cumulant / variance.powf(1.5),
                false => 0.0,
            },
        })
    }
}

/// The distribution of a sample, estimated from pairs of probes.
#[derive(Clone, Copy)]
struct PairStatistics {
    variance: f64,
    skewness: f64,
}

/// Rounding error of a number computed from products with an n × n operator of machine epsilon `epsilon`, where `size` is the
/// magnitude of the terms that are added. For networks of a few layers in `f32` the measured error is below 3ε, trained or not.
pub(crate) fn rounding(epsilon: f64, n: usize, size: f64) -> f64 {
    (4.0 * epsilon + 8.0 * (n as f64).sqrt() * f64::EPSILON) * size
}
