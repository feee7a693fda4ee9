//! [`ClassGradients`]: the mean gradients of pairs of classes, which span the class and the cross-class part.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::losses::ClassProbabilities;
use crate::memory;
use crate::objective::Objective;
use crate::progress::Progress;
use crate::spectral::{dot_products, rounding};
use crate::vector::{axpy, dot, scale};

/// Vectors x of the class part Σ xxᵀ and of the cross-class part Σ xxᵀ.
pub(super) struct ClassGradients {
    /// √w_c g_c for each class c with samples, then √w_{c,c'} (g_{c,c'} − g_c) for each of them and each other class c'.
    vectors: Vec<Vec<f64>>,
    /// Number of vectors of the class part.
    num_class: usize,
    /// Number of samples of each class that count, or of tokens.
    pub(super) counts: Vec<usize>,
}

/// The rows of outputs with the label of a class, by sample.
type Rows = BTreeMap<usize, Vec<usize>>;

impl ClassGradients {
    /// Computes the mean gradients at θ.
    ///
    /// For a class c, the gradients of all samples of the class with weights p_{c'} are one pullback for each c' ≠ c.
    ///
    /// # Errors
    /// A loss other than cross-entropy; samples that are not in memory or depend on each other; too little memory.
    pub(super) fn new(objective: &Objective, theta: &[f64]) -> Result<Self> {
        objective.needs_independent_samples("the class structure")?;
        let probabilities = objective.class_probabilities(theta)?;
        let data = objective.data();
        let labels = data.labels()?;
        let (classes, n) = (probabilities.classes, data.len());
        let rows_per_sample = labels.len() / n;
        let mut of_class: Vec<Rows> = vec![Rows::new(); classes];
        let mut counts = vec![0; classes];
        for (row, label) in labels.iter().enumerate() {
            if probabilities.weights[row] > 0.0 {
                let class = *label as usize;
                counts[class] += 1;
                let rows = of_class[class].entry(row / rows_per_sample).or_default();
                rows.push(row);
            }
        }
        let present = counts.iter().filter(|count| **count > 0).count();
        let vectors = present * classes;
        let bytes = 8.0 * vectors as f64 * objective.dim() as f64;
        let what = format!("the mean gradients of {present} × {classes} classes");
        memory::check_or(bytes, &what, |_| {
            "use a smaller model or fewer classes".into()
        })?;

        let mut class = Vec::with_capacity(vectors);
        let mut cross = Vec::with_capacity(vectors - present);
        let mut progress = Progress::start("gradients of the classes");
        for rows in of_class.iter().filter(|rows| !rows.is_empty()) {
            let samples = data.select(&rows.keys().copied().collect::<Vec<_>>())?;
            let own = labels[rows.values().next().map_or(0, |rows| rows[0])] as usize;
            let mut means = Vec::with_capacity(classes - 1);
            for other in (0..classes).filter(|other| *other != own) {
                let (weights, total) =
                    weighted_deviations(&probabilities, rows, other, rows_per_sample);
                if total > 0.0 {
                    let mut mean = objective.pullback(theta, &samples, &weights)?;
                    let weight = total / n as f64;
                    scale(&mut mean, weight.sqrt());
                    means.push((weight, mean));
                }
            }
            class.push(split(&mut means, objective.dim()));
            cross.extend(means.into_iter().map(|(_, mean)| mean));
            progress.part(class.len(), present);
        }
        let num_class = class.len();
        class.append(&mut cross);
        Ok(Self {
            vectors: class,
            num_class,
            counts,
        })
    }

    /// The vectors of the class part.
    pub(super) fn class(&self) -> &[Vec<f64>] {
        &self.vectors[..self.num_class]
    }

    /// The vectors of the cross-class part.
    pub(super) fn cross(&self) -> &[Vec<f64>] {
        &self.vectors[self.num_class..]
    }

    /// The vectors of both parts.
    pub(super) fn both(&self) -> &[Vec<f64>] {
        &self.vectors
    }
}

/// Returns √w_c g_c of a class and subtracts √w_{c,c'} g_c from each mean, given w_{c,c'} and √w_{c,c'} g_{c,c'} for each other
/// class c'.
fn split(means: &mut [(f64, Vec<f64>)], dim: usize) -> Vec<f64> {
    let total: f64 = means.iter().map(|(weight, _)| weight).sum();
    let mut class = vec![0.0; dim];
    for (weight, mean) in &*means {
        axpy((*weight / total).sqrt(), mean, &mut class);
    }
    for (weight, mean) in means {
        axpy(-(*weight / total).sqrt(), &class, mean);
    }
    class
}

/// For each output of the samples in `rows`, n w (e_{c'} − p) with c' = `other` and weights w that add up to 1, and the sum of the
/// weights before. A sample's other rows have zeros.
fn weighted_deviations(
    probabilities: &ClassProbabilities,
    rows: &Rows,
    other: usize,
    rows_per_sample: usize,
) -> (Vec<f64>, f64) {
    let weight = |row: usize| probabilities.weights[row] * probabilities.probability(row, other);
    let total: f64 = rows.values().flatten().map(|row| weight(*row)).sum();
    let size = rows_per_sample * probabilities.width;
    let mut weights = vec![0.0; rows.len() * size];
    for (place, (sample, rows)) in weights.chunks_exact_mut(size).zip(rows) {
        for row in rows {
            let start = (row - sample * rows_per_sample) * probabilities.width;
            let factor = weight(*row) / total.max(f64::MIN_POSITIVE);
            for (u, d) in place[start..]
                .iter_mut()
                .zip(probabilities.deviation(*row, other))
            {
                *u = factor * d;
            }
        }
    }
    scale(&mut weights, rows.len() as f64);
    (weights, total)
}

/// Returns (Σ xxᵀ)v for each v.
pub(super) fn outer_products(x: &[Vec<f64>], vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let components = dot_products(vectors, x);
    let product = |(v, components): (&Vec<f64>, Vec<f64>)| {
        let mut product = vec![0.0; v.len()];
        for (component, x) in components.iter().zip(x) {
            axpy(*component, x, &mut product);
        }
        product
    };
    vectors.iter().zip(components).map(product).collect()
}

/// tr Σ xxᵀ
pub(super) fn trace(x: &[Vec<f64>]) -> f64 {
    x.iter().map(|x| dot(x, x)).sum()
}

/// The span of some vectors x.
pub(super) struct Span {
    /// Eigenvalues and unit eigenvectors of the matrix of the products xᵀx.
    pairs: Vec<(f64, Vec<f64>)>,
}

impl Span {
    /// The span of x without directions whose eigenvalue of Σ xxᵀ is at most `rounding`.
    pub(super) fn new(x: &[Vec<f64>], rounding: f64) -> Result<Self> {
        if x.is_empty() {
            return Ok(Self { pairs: Vec::new() });
        }
        let products = dot_products(x, x);
        let (values, vectors) = symmetric_eigen(x.len(), |i, j| products[i.max(j)][i.min(j)])?;
        let pairs = values.into_iter().zip(vectors);
        let pairs = pairs.filter(|(value, _)| *value > rounding);
        Ok(Self {
            pairs: pairs.collect(),
        })
    }

    /// The squared length of the projection of v onto the span, given the products xᵀv.
    pub(super) fn squared_length(&self, components: &[f64]) -> f64 {
        let pairs = self.pairs.iter();
        let squares = pairs.map(|(value, vector)| dot(vector, components).powi(2) / value);
        squares.sum()
    }

    /// The largest `count` eigenvalues of Σ xxᵀ, largest first.
    pub(super) fn eigenvalues(&self, count: usize) -> Vec<f64> {
        let values = self.pairs.iter().rev().map(|(value, _)| *value);
        values.chain(std::iter::repeat(0.0)).take(count).collect()
    }
}

/// Rounding of the trace and of the eigenvalues of Σ xxᵀ, for gradients in the arithmetic of `objective`.
pub(super) fn rounding_of(objective: &Objective, trace: f64) -> f64 {
    rounding(objective.parameters().epsilon(), objective.dim(), trace)
}
