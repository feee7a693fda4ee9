//! [`Convolution`]: the kernels of a convolution for whole batches, apart from any network.

use rayon::prelude::*;

use super::Scalar;
use super::conv::{Conv2d, Shape};
use super::layer::{Arranged, At, Layer};
use super::tiles::{Split, over_groups};

/// y = x ∗ W of images that are channels × height × width, and its transposes in x and in W.
///
/// A batch goes over all threads; sums over it are made in a fixed order.
pub(crate) struct Convolution {
    conv: Conv2d,
    /// Channels, height and width of an image of x.
    pub(crate) input: [usize; 3],
    /// The shape of W.
    pub(crate) weight: [usize; 4],
}

impl Convolution {
    /// For images and W of these shapes; None where they do not fit.
    pub(crate) fn new(
        input: [usize; 3],
        weight: [usize; 4],
        [padding, stride, dilation, groups]: [usize; 4],
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
        Some(Self {
            conv: Conv2d::new(shape, 0..weight.iter().product(), None)?,
            input,
            weight,
        })
    }

    /// Channels, height and width of an image of y.
    pub(crate) fn output(&self) -> [usize; 3] {
        self.conv.output()
    }

    /// Numbers of an image of x, and of y.
    fn widths(&self) -> [usize; 2] {
        [self.input, self.output()].map(|shape| shape.iter().product())
    }

    fn split<T>(&self, samples: usize) -> Split {
        let [x, y] = self.widths();
        Split::of(samples.max(1), x.max(y) * size_of::<T>())
    }

    /// y
    pub(crate) fn forward<T: Scalar>(&self, x: &[T], weight: &[T]) -> Vec<T> {
        let [from, to] = self.widths();
        let layer: &dyn Layer<T> = &self.conv;
        let arranged = Arranged {
            forward: layer.arrange_forward(&[weight]),
            backward: Vec::new(),
            count: 1,
        };
        self.map(x, [from, to], |x, y| {
            layer.forward(&arranged, x, y, &mut [])
        })
    }

    /// dx
    pub(crate) fn input_gradient<T: Scalar>(&self, weight: &[T], dy: &[T]) -> Vec<T> {
        let [to, from] = self.widths();
        let layer: &dyn Layer<T> = &self.conv;
        let arranged = Arranged {
            forward: Vec::new(),
            backward: layer.arrange_backward(&[weight]),
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

    /// dW
    pub(crate) fn weight_gradient<T: Scalar>(&self, x: &[T], dy: &[T]) -> Vec<T> {
        let [inputs, outputs] = self.widths();
        let layer: &dyn Layer<T> = &self.conv;
        let samples = x.len() / inputs;
        let weights = self.weight.iter().product();
        // The derivative by W does not depend on W.
        let nothing = Arranged::new(None, &[]);
        let mut total = vec![vec![0.0; weights]];
        over_groups(
            samples,
            self.split::<T>(samples),
            || vec![T::ZERO; weights],
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
