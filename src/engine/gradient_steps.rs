//! [`GradientSteps`]: gradients of mini-batches for training, in the model's own dtype.

use std::any::Any;

use candle_core::WithDType;
use rayon::prelude::*;

use super::batch_pass::Part;
use super::{HandDerived, Typed};
use crate::data::Dataset;
use crate::error::{Result, check_finite};
use crate::kernels::Scalar;
use crate::kernels::elementwise::add;
use crate::kernels::simd::vectorised;
use crate::kernels::transpose::transpose;
use crate::losses::finite_loss;

/// Loss and gradient norm of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchScore {
    /// The mean loss, with the L2 term.
    pub(crate) loss: f64,
    /// Number of correct labels.
    pub(crate) correct: usize,
    /// ‖g‖² of the loss's gradient g.
    pub(crate) squared_norm: f64,
}

impl BatchScore {
    /// # Errors
    /// Values that are not finite.
    pub(crate) fn new(loss: f64, correct: usize, squared_norm: f64) -> Result<Self> {
        Ok(Self {
            loss: finite_loss(loss)?,
            correct,
            squared_norm: finite_loss(squared_norm)?,
        })
    }
}

/// Gradients of successive batches, with shared buffers.
pub(crate) struct GradientSteps<'a, T> {
    engine: &'a Typed<T>,
    data: &'a Dataset,
    l2: f64,
    parts: Vec<Part<T>>,
    gradient: Vec<T>,
}

/// Number of values that a thread adds up at a time.
const CHUNK: usize = 1 << 14;
/// Number of columns of a transposed gradient that a thread adds up at a time.
const STRIP: usize = 16;

impl<'a, T: Scalar + WithDType> GradientSteps<'a, T> {
    /// `None` for a model of another dtype or with dropout.
    pub(crate) fn new(engine: &'a dyn HandDerived, data: &'a Dataset, l2: f64) -> Option<Self> {
        let engine: &dyn Any = engine;
        let engine: &Typed<T> = engine.downcast_ref()?;
        (!engine.has_dropout).then(|| Self {
            engine,
            data,
            l2,
            parts: Vec::new(),
            gradient: vec![T::ZERO; engine.network.num_params],
        })
    }

    /// The loss of some samples at a point and its gradient, with batch normalisation by the batch's statistics. The
    /// running statistics, which follow θ in the point, are updated unless a value is not finite.
    pub(crate) fn gradient(
        &mut self,
        point: &mut [T],
        rows: &[usize],
    ) -> Result<(BatchScore, &mut [T])> {
        let running = self.engine.with_samples(self.data, None, |samples| {
            let network = &self.engine.network;
            network.training(point, samples, rows, &mut self.parts)
        })??;
        let n = self.gradient.len();
        let squares = self.sum(&point[..n], rows.len());
        let mut loss = self.parts.iter().map(|part| part.score.0).sum::<f64>() / rows.len() as f64;
        if self.l2 > 0.0 {
            loss += self.l2 * point[..n].iter().map(|t| t.f64() * t.f64()).sum::<f64>();
        }
        let correct = self.parts.iter().map(|part| part.score.1).sum();
        let batch = BatchScore::new(loss, correct, squares)?;
        let statistics: Vec<f64> = running.iter().map(|s| s.f64()).collect();
        check_finite(&statistics, "running mean or variance")?;
        point[n..].copy_from_slice(&running);
        Ok((batch, &mut self.gradient))
    }

    /// Sums the parts' gradients into g, and returns ‖g‖².
    fn sum(&mut self, theta: &[T], samples: usize) -> f64 {
        self.gradient
            .par_chunks_mut(CHUNK)
            .for_each(|g| g.fill(T::ZERO));
        for (l, node) in self.engine.network.nodes.iter().enumerate() {
            let Some(rules) = node.rules() else {
                continue;
            };
            let gradients = || self.parts.iter().map(|part| &part.gradients[l][..]);
            let mut start = 0;
            let mut transposed = rules.transposed_gradient();
            for range in rules.param_ranges() {
                let target = &mut self.gradient[range.clone()];
                match transposed.take() {
                    Some(shape) => sum_transposed(gradients, shape, target),
                    None => target.par_chunks_mut(CHUNK).enumerate().for_each(|(i, g)| {
                        for gradient in gradients() {
                            add(&gradient[start + i * CHUNK..][..g.len()], g);
                        }
                    }),
                }
                start += range.len();
            }
        }
        let (mean, pull) = (1.0 / samples as f64, 2.0 * self.l2);
        let chunks = self.gradient.par_chunks_mut(CHUNK);
        let squares = chunks.zip(theta.par_chunks(CHUNK)).map(|(g, theta)| {
            let mut square = 0.0;
            finish(g, theta, [mean, pull].map(Scalar::from_f64), &mut square);
            square
        });
        squares.collect::<Vec<f64>>().iter().sum()
    }
}

/// Writes the transpose of the sum of matrices of a shape. Few columns of all matrices are added up and then transposed,
/// because a transpose takes longer than a sum.
fn sum_transposed<'a, T: Scalar, I: Iterator<Item = &'a [T]>>(
    matrices: impl Fn() -> I + Sync,
    [rows, columns]: [usize; 2],
    target: &mut [T],
) {
    let strips = target.par_chunks_mut(STRIP * rows).enumerate();
    strips.for_each_init(Vec::new, |sums, (i, target)| {
        let width = target.len() / rows;
        sums.clear();
        sums.resize(rows * width, T::ZERO);
        for matrix in matrices() {
            add_columns(&matrix[i * STRIP..], columns, sums, width);
        }
        transpose(sums, target, [rows, width], [width, rows]);
    });
}

vectorised! {
    /// Adds the first `width` of each row's columns.
    fn add_columns<T: Scalar>(matrix: &[T], columns: usize, sums: &mut [T], width: usize) {
        for (sums, row) in sums.chunks_exact_mut(width).zip(matrix.chunks(columns)) {
            match (sums.as_chunks_mut::<STRIP>().0, row.as_chunks::<STRIP>().0) {
                ([sums], [row, ..]) => {
                    for i in 0..STRIP {
                        sums[i] += row[i];
                    }
                }
                _ => {
                    for (sum, x) in sums.iter_mut().zip(row) {
                        *sum += *x;
                    }
                }
            }
        }
    }

    /// g ← a g + b θ; returns ‖g‖².
    fn finish<T: Scalar>(g: &mut [T], theta: &[T], factors: [T; 2], square: &mut f64) {
        const LANES: usize = 16;
        let [a, b] = factors;
        let mut lanes = [0.0; LANES];
        for (g, theta) in g.chunks_mut(LANES).zip(theta.chunks(LANES)) {
            for ((g, theta), lane) in g.iter_mut().zip(theta).zip(&mut lanes) {
                *g = a * *g + b * *theta;
                *lane += g.f64() * g.f64();
            }
        }
        *square = lanes.iter().sum();
    }
}
