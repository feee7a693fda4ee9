//! [`Remainder`]: a trace that is exact on a subspace and sampled on the rest of the space.

use std::cell::OnceCell;

use super::krylov::{orthogonalize, products};
use super::product::in_turn;
use super::{Estimate, TraceMethod};
use crate::error::Result;
use crate::operator::{LinearOperator, checked_products, epsilon};
use crate::vector::{axpy, dot, norm, scale};

/// Number of probes whose pairs are looked at: more would cost time and memory, and tell little.
const PAIRED: usize = 32;

/// Skewness of a mean up to which Student's interval, widened, holds the truth as often as it says.
const MOST_SKEWED: f64 = 0.5;

/// The matrix B whose trace is wanted.
#[derive(Clone, Copy)]
pub(super) enum Power {
    /// B = A
    One,
    /// B = A²
    Two,
}

/// tr(B) = (part on an orthonormal basis Q, exact) + (part of R = PAP with P = I − QQᵀ, sampled).
///
/// For B = A² the exact part is ‖A‖²_F − ‖R‖²_F, so that it holds what couples Q to the rest as well.
///
/// The basis is not made from the probes, so the samples are independent and their scatter is the estimate's error
/// (Hutch++: Meyer, Musco, Musco and Woodruff, 2021).
pub(super) struct Remainder {
    power: Power,
    method: TraceMethod,
    dim: usize,
    /// Of the operator.
    epsilon: f64,
    cancelled: f64,
    basis: Vec<Vec<f64>>,
    /// The exact part, and the sum of the sizes of the numbers that it is computed from.
    known: f64,
    known_size: f64,
    /// Vectors u = Pv, each of length √(n − k) for a basis of k vectors.
    probes: Vec<Vec<f64>>,
    /// Ru for each.
    images: Vec<Vec<f64>>,
    /// uᵀBu of all samples.
    forms: Vec<f64>,
    /// ‖Ru‖² of all samples.
    squares: Vec<f64>,
    /// What pairs of these probes tell; empty until it is asked for.
    pairs: OnceCell<Option<Pairs>>,
    products: usize,
}

impl Remainder {
    pub(super) fn new(
        power: Power,
        method: TraceMethod,
        operator: &(impl LinearOperator + ?Sized),
    ) -> Result<Self> {
        Ok(Self {
            power,
            method,
            dim: operator.dim(),
            epsilon: epsilon(operator),
            cancelled: operator.cancellation()?,
            basis: Vec::new(),
            known: 0.0,
            known_size: 0.0,
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

    pub(super) fn samples(&self) -> usize {
        self.forms.len()
    }

    /// Dimension of the space that is sampled.
    pub(super) fn rest(&self) -> usize {
        self.dim - self.basis.len()
    }

    /// Number of products, those that a method made to find the basis included.
    pub(super) fn products(&self) -> usize {
        self.products
    }

    /// The products of a method's own with `vectors`.
    pub(super) fn images_of(
        &mut self,
        operator: &(impl LinearOperator + ?Sized),
        vectors: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>> {
        self.products += vectors.len();
        checked_products(operator, vectors)
    }

    /// Adds a sample for each of these random vectors, whose directions are distributed evenly or whose entries are random
    /// signs.
    pub(super) fn sample(
        &mut self,
        operator: &(impl LinearOperator + ?Sized),
        mut vectors: Vec<Vec<f64>>,
    ) -> Result<()> {
        let length = (self.rest() as f64).sqrt();
        for v in &mut vectors {
            orthogonalize(v, &self.basis);
            let factor = length / norm(v);
            scale(v, factor);
        }
        let mut images = in_turn(operator, &vectors)?;
        for image in &mut images {
            orthogonalize(image, &self.basis);
        }
        self.products += vectors.len();
        for (u, w) in vectors.into_iter().zip(images) {
            self.record(&u, &w);
            // A basis that grows is taken out of all of them later.
            if self.method == TraceMethod::Krylov || self.probes.len() < PAIRED {
                self.probes.push(u);
                self.images.push(w);
                self.pairs.take();
            }
        }
        Ok(())
    }

    fn record(&mut self, u: &[f64], w: &[f64]) {
        let square = dot(w, w);
        self.squares.push(square);
        self.forms.push(match self.power {
            Power::One => dot(u, w),
            Power::Two => square,
        });
    }

    /// Adds an orthonormal `block`, orthogonal to the basis, to the basis. Returns the part of its image outside the basis:
    /// C = PAQ for the new P.
    pub(super) fn deflate(
        &mut self,
        operator: &(impl LinearOperator + ?Sized),
        block: Vec<Vec<f64>>,
    ) -> Result<Vec<Vec<f64>>> {
        if block.is_empty() {
            return Ok(Vec::new());
        }
        let mut images = self.images_of(operator, &block)?;
        let inner = products(&block, &images);
        let sizes: Vec<f64> = images.iter().map(|image| norm(image)).collect();
        self.basis.extend(block);
        for image in &mut images {
            orthogonalize(image, &self.basis);
        }
        match self.power {
            Power::One => {
                self.known += (0..inner.len()).map(|i| inner[i][i]).sum::<f64>();
                self.known_size += sizes.iter().sum::<f64>();
            }
            Power::Two => {
                // ‖A‖² = ‖QᵀAQ‖² + 2‖PAQ‖² + ‖PAP‖²
                let inside: f64 = inner.iter().map(|row| dot(row, row)).sum();
                let across: f64 = images.iter().map(|c| dot(c, c)).sum();
                self.known += inside + 2.0 * across;
                self.known_size += 2.0 * dot(&sizes, &sizes);
            }
        }
        self.project(&images, inner.len());
        Ok(images)
    }

    /// Takes the last `count` vectors of the basis out of probes and images, where C = PAQ for these.
    fn project(&mut self, c: &[Vec<f64>], count: usize) {
        self.forms.clear();
        self.squares.clear();
        self.pairs.take();
        let (mut probes, mut images) = (
            std::mem::take(&mut self.probes),
            std::mem::take(&mut self.images),
        );
        if self.rest() == 0 {
            return;
        }
        let length = (self.rest() as f64).sqrt();
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

    /// ‖R‖²_F, estimated.
    pub(super) fn size(&self) -> f64 {
        self.squares.iter().sum::<f64>() / self.squares.len().max(1) as f64
    }

    /// The estimate, from at least 2 samples or a basis of the whole space.
    pub(super) fn estimate(&self) -> Estimate {
        let mut estimate = match self.forms.len() {
            0 => Estimate::exact(0.0),
            _ => self.sampled(),
        };
        estimate.value += self.known;
        estimate.products = self.products;
        estimate.with_error(self.rounding())
    }

    /// What rounding leaves uncertain of the estimate.
    fn rounding(&self) -> f64 {
        let mean = self.forms.iter().sum::<f64>() / self.forms.len().max(1) as f64;
        let rounding = |size: f64| rounding(self.epsilon, self.dim, size);
        match self.power {
            Power::One => {
                rounding(self.known_size + mean.abs() + self.size().sqrt() + self.cancelled)
            }
            Power::Two => {
                let (square, lost) = (self.known_size + 2.0 * mean, rounding(self.cancelled));
                rounding(square) + lost * (2.0 * square.sqrt() + lost)
            }
        }
    }

    /// The mean of the samples, whose skewness pairs of probes tell far better than the samples do.
    fn sampled(&self) -> Estimate {
        let mean = Estimate::mean(&self.forms);
        match self.pairs() {
            Some(pairs) if mean.standard_error > self.rounding() => {
                mean.widened(pairs.skewness / (self.forms.len() as f64).sqrt())
            }
            _ => mean,
        }
    }

    /// The standard error that decides whether there are enough samples: the larger of that by the samples and of that by the
    /// pairs, as both are small by chance more rarely than one. Infinite where the mean is still so skewed that no interval about
    /// it is right: samples that miss a large eigenvalue by chance scatter too little.
    pub(super) fn cautious_error(&self) -> f64 {
        let (n, mean) = (self.forms.len() as f64, Estimate::mean(&self.forms));
        let rounding = self.rounding();
        let pairs = self.pairs().filter(|_| mean.standard_error > rounding);
        let Some(pairs) = pairs else {
            // Without scatter the samples are exact.
            return rounding + mean.standard_error;
        };
        let skewness = pairs.skewness / n.sqrt();
        if skewness.abs() > MOST_SKEWED {
            return f64::INFINITY;
        }
        let by_pairs = (pairs.variance / n).sqrt();
        let wider = Estimate {
            standard_error: mean.standard_error.max(by_pairs),
            ..mean
        };
        rounding + wider.widened(skewness).standard_error
    }

    /// Variance and skewness of a sample by the forms cᵢⱼ = uᵢᵀCuⱼ of pairs of probes, for C = B less its mean eigenvalue: the
    /// means of cᵢⱼ² and cᵢⱼcⱼₖcₖᵢ over different i, j and k are tr(C²) and tr(C³), and a sample has the variance 2 tr(C²) and
    /// the third cumulant 8 tr(C³). None for fewer than 3 probes.
    fn pairs(&self) -> Option<Pairs> {
        *self.pairs.get_or_init(|| self.compute_pairs())
    }

    fn compute_pairs(&self) -> Option<Pairs> {
        let m = self.probes.len().min(PAIRED);
        if m < 3 {
            return None;
        }
        let (probes, images) = (&self.probes[..m], &self.images[..m]);
        let mut forms = match self.power {
            Power::One => products(probes, images),
            Power::Two => products(images, images),
        };
        let inner = products(probes, probes);
        let trace: f64 = (0..m).map(|i| forms[i][i]).sum();
        let mean = trace / (m * self.rest()) as f64;
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
        Some(Pairs {
            variance,
            skewness: match variance > 0.0 {
                true => cumulant / variance.powf(1.5),
                false => 0.0,
            },
        })
    }
}

/// What pairs of probes tell of a sample's distribution.
#[derive(Clone, Copy)]
struct Pairs {
    variance: f64,
    skewness: f64,
}

/// Rounding of a number that is computed from products with an n × n operator of this ε, where `size` is the size of what is
/// added up. In trained and untrained networks of a few layers in `f32` it is below 3 ε.
pub(super) fn rounding(epsilon: f64, n: usize, size: f64) -> f64 {
    (4.0 * epsilon + 8.0 * (n as f64).sqrt() * f64::EPSILON) * size
}
