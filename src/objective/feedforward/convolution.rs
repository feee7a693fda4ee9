//! [`Convolution`]: the kernels of a convolution for whole batches, apart from any network.

use rayon::prelude::*;

use super::Scalar;
use super::conv::{Conv2d, Shape};
use super::layer::{Arranged, At, Layer};
use super::tiles::{Split, over_groups};

/// y = x ∗ W + b of images that are channels × height × width, and its transposes in x and in θ, which is W
/// and then b, if there is one.
///
/// A batch goes over all threads; sums over it are made in a fixed order.
pub(crate) struct Convolution {
    conv: Conv2d,
    /// Channels, height and width of an image of x.
    pub(crate) input: [usize; 3],
    weights: usize,
    biases: usize,
}

impl Convolution {
    /// For images and W of these shapes; None where they do not fit.
    pub(crate) fn new(
        input: [usize; 3],
        weight: [usize; 4],
        [padding, stride, dilation, groups]: [usize; 4],
        has_bias: bool,
    ) -> Option<Self> {
        let [channels, _, height, width] = weight;
        let shape = Shape {
            input,
            channels,
            kernel: [height, width],
            stride,
            padding,
            dilation,
            groups,
        };
        let weights = weight.iter().product();
        let biases = if has_bias { channels } else { 0 };
        let bias = has_bias.then_some(weights..weights + biases);
        Some(Self {
            conv: Conv2d::new(shape, 0..weights, bias)?,
            input,
            weights,
            biases,
        })
    }

    /// Channels, height and width of an image of y.
    pub(crate) fn output(&self) -> [usize; 3] {
        self.conv.output()
    }

    /// Numbers of θ.
    pub(crate) fn parameters(&self) -> usize {
        self.weights + self.biases
    }

    /// Numbers of an image of x, and of y.
    fn widths(&self) -> [usize; 2] {
        [self.input, self.output()].map(|shape| shape.iter().product())
    }

    fn split<T>(&self, samples: usize) -> Split {
        let [x, y] = self.widths();
        Split::of(samples.max(1), x.max(y) * size_of::<T>())
    }

    /// y, or y − b.
    pub(crate) fn forward<T: Scalar>(&self, x: &[T], theta: &[T], with_bias: bool) -> Vec<T> {
        let [from, to] = self.widths();
        let layer: &dyn Layer<T> = &self.conv;
        let mut arranged = Arranged {
            forward: layer.arrange_forward(&[theta]),
            backward: Vec::new(),
            count: 1,
        };
        if !with_bias {
            let weights = arranged.forward.len() - self.biases;
            arranged.forward[weights..].fill(T::ZERO);
        }
        self.map(x, [from, to], |x, y| {
            layer.forward(&arranged, x, y, &mut [])
        })
    }

    /// dx
    pub(crate) fn input_gradient<T: Scalar>(&self, theta: &[T], dy: &[T]) -> Vec<T> {
        let [to, from] = self.widths();
        let layer: &dyn Layer<T> = &self.conv;
        let arranged = Arranged {
            forward: Vec::new(),
            backward: layer.arrange_backward(&[theta]),
            count: 1,
        };
        self.map(dy, [from, to], |dy, dx| {
            let at = At {
                samples: dy.len() / from,
                x: &[],
                y: &[],
                notes: &[],
                dy,
            };
            layer.backward(&arranged, &at, dx);
        })
    }

    /// dθ, or dW and zeros.
    pub(crate) fn gradient<T: Scalar>(&self, x: &[T], dy: &[T], with_bias: bool) -> Vec<T> {
        let [inputs, outputs] = self.widths();
        let layer: &dyn Layer<T> = &self.conv;
        let samples = x.len() / inputs;
        // The derivative by θ does not depend on θ.
        let nothing = Arranged::new(None, &[], false);
        let count = layer.parameters();
        let mut total = vec![vec![0.0; count]];
        over_groups(
            samples,
            self.split::<T>(samples),
            || vec![T::ZERO; count],
            |tiles, gradient| {
                for (i, tile) in tiles.iter().enumerate() {
                    let part = tile.start..tile.start + tile.len;
                    let at = At {
                        samples: tile.len,
                        x: &x[part.start * inputs..part.end * inputs],
                        y: &[],
                        notes: &[],
                        dy: &dy[part.start * outputs..part.end * outputs],
                    };
                    layer.gradient(&nothing, &at, gradient, i == 0);
                }
            },
            |gradient| layer.add_gradient(gradient, &mut total),
        );
        if !with_bias {
            total[0][self.weights..].fill(0.0);
        }
        total[0].iter().map(|sum| T::of(*sum)).collect()
    }

    /// `f` of the images, some at a time, each of width `from` to one of width `to`.
    fn map<T: Scalar>(
        &self,
        source: &[T],
        [from, to]: [usize; 2],
        f: impl Fn(&[T], &mut [T]) + Sync,
    ) -> Vec<T> {
        let samples = source.len() / from;
        let group = self.split::<T>(samples).group;
        let mut target = vec![T::ZERO; samples * to];
        target
            .par_chunks_mut(group * to)
            .zip(source.par_chunks(group * from))
            .for_each(|(target, source)| f(source, target));
        target
    }
}
