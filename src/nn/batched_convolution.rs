//! [`BatchedConvolution`]: convolution of a whole batch, on all threads, and its transposes.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::kernels::Scalar;
use crate::kernels::convolution::{Convolution, ConvolutionShape};
use crate::kernels::image_grid::Side;
use crate::kernels::tiles::{Split, over_tiles};
use crate::progress;

/// y = x ∗ W + b for images of shape (channels, height, width), and its transposes in x and in θ. θ is W, followed by
/// b if there is a bias.
///
/// Sums over the batch are computed in a fixed order, independent of the number of threads.
pub(super) struct BatchedConvolution {
    convolution: Convolution,
    biases: usize,
}

impl BatchedConvolution {
    /// # Errors
    /// As [`Convolution::new`].
    pub(super) fn new(shape: ConvolutionShape, has_bias: bool) -> Result<Self, String> {
        Ok(Self {
            convolution: Convolution::new(shape)?,
            biases: if has_bias { shape.channels } else { 0 },
        })
    }

    /// Channels, height and width of an image of x.
    pub(super) fn input(&self) -> [usize; 3] {
        self.convolution.shape.input
    }

    /// Channels, height and width of an image of y.
    pub(super) fn output(&self) -> [usize; 3] {
        self.convolution.output()
    }

    /// Length of θ.
    pub(super) fn num_params(&self) -> usize {
        self.convolution.num_weights() + self.biases
    }

    fn split<T>(&self, samples: usize) -> Split {
        let widest = [Side::Input, Side::Output].map(|side| self.convolution.width(side));
        let row = widest[0].max(widest[1]) * size_of::<T>();
        Split::new(samples.max(1), row, self.num_params() * size_of::<T>())
    }

    /// y, or y − b.
    pub(super) fn forward<T: Scalar>(
        &self,
        x: &[T],
        theta: &[T],
        with_bias: bool,
    ) -> Result<Vec<T>> {
        let (weights, bias) = theta.split_at(self.convolution.num_weights());
        let packed = self.pack(Side::Output, weights);
        let zeros = vec![T::ZERO; self.biases];
        let bias = if with_bias { bias } else { &zeros };
        self.map(Side::Output, x, |x, y| {
            self.convolution
                .sums(Side::Output, (Some((&packed, x)), None), bias, y, 1);
        })
    }

    /// dx
    pub(super) fn input_gradient<T: Scalar>(&self, theta: &[T], dy: &[T]) -> Result<Vec<T>> {
        let packed = self.pack(Side::Input, &theta[..self.convolution.num_weights()]);
        self.map(Side::Input, dy, |dy, dx| {
            self.convolution
                .sums(Side::Input, (Some((&packed, dy)), None), &[], dx, 1);
        })
    }

    /// dθ; the entries of db are zero without `with_bias`.
    pub(super) fn gradient<T: Scalar>(&self, x: &[T], dy: &[T], with_bias: bool) -> Result<Vec<T>> {
        let [inputs, outputs] =
            [Side::Input, Side::Output].map(|side| self.convolution.width(side));
        let samples = x.len() / inputs;
        let mut total = vec![0.0; self.num_params()];
        over_tiles(
            samples,
            self.split::<T>(samples),
            || vec![T::ZERO; self.num_params()],
            |i, tile, gradient| {
                if i == 0 {
                    gradient.fill(T::ZERO);
                }
                let samples = tile.start..tile.start + tile.len;
                let x = &x[samples.start * inputs..samples.end * inputs];
                let dy = &dy[samples.start * outputs..samples.end * outputs];
                self.convolution.add_gradient((x, dy), None, gradient, 1);
                Ok(())
            },
            [|gradient: &mut Vec<T>| {
                for (total, part) in total.iter_mut().zip(gradient.iter()) {
                    *total += part.f64();
                }
            }],
        )?;
        if !with_bias {
            total[self.convolution.num_weights()..].fill(0.0);
        }
        Ok(total.iter().map(|sum| T::from_f64(*sum)).collect())
    }

    fn pack<T: Scalar>(&self, to: Side, weights: &[T]) -> Vec<T> {
        let mut packed = Vec::new();
        self.convolution.pack(to, weights, &mut packed);
        packed
    }

    /// Applies `f` to groups of images, on all threads.
    fn map<T: Scalar>(
        &self,
        to: Side,
        source: &[T],
        f: impl Fn(&[T], &mut [T]) + Sync,
    ) -> Result<Vec<T>> {
        let [from, to] = [to.other(), to].map(|side| self.convolution.width(side));
        let samples = source.len() / from;
        let group = self.split::<T>(samples).group;
        let mut target = vec![T::ZERO; samples * to];
        target
            .par_chunks_mut(group * to)
            .zip(source.par_chunks(group * from))
            .try_for_each(|(target, source)| {
                progress::check()?;
                f(source, target);
                Ok::<_, Error>(())
            })?;
        Ok(target)
    }
}
