//! [`AveragePool`], [`MaxPool`] and [`GlobalAveragePool`]: the mean or the maximum of each window of a channel.

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;
use crate::nn;
use crate::parameters::Parameters;

/// The mean of each square of `kernel` × `kernel` pixels. Rows and columns that no square covers are ignored.
///
/// # Shapes
/// Samples of shape (channels, height, width) to (channels, (height − kernel)/stride + 1, (width − kernel)/stride + 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AveragePool {
    /// Side of the square.
    pub kernel: usize,
    /// Step between squares.
    pub stride: usize,
}

/// The maximum of each square of `kernel` × `kernel` pixels, the first if several are equal. Pixels of the padding are lower than all
/// others.
///
/// # Shapes
/// As [`AveragePool`], with height + 2 padding and width + 2 padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPool {
    /// Side of the square.
    pub kernel: usize,
    /// Step between squares.
    pub stride: usize,
    /// Rows and columns on each side of the image, at most half of `kernel`.
    #[serde(default)]
    pub padding: usize,
}

/// The mean of each channel.
///
/// # Shapes
/// Samples of shape (channels, height, width) to (channels, 1, 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalAveragePool;

impl AveragePool {
    /// Squares of side `kernel`, `stride` apart.
    pub fn new(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride }
    }
}

impl MaxPool {
    /// Squares of side `kernel`, `stride` apart, without padding.
    pub fn new(kernel: usize, stride: usize) -> Self {
        Self {
            kernel,
            stride,
            padding: 0,
        }
    }

    /// Sets the padding.
    #[must_use]
    pub fn with_padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }
}

/// What the pooling layers differ in.
trait PoolingLayer: std::fmt::Debug {
    const POOLING: Pooling;

    /// The size of a window in an image of height × width, and the stride.
    fn window(&self, image: [usize; 2]) -> ([usize; 2], usize);

    /// Rows and columns on each side of the image.
    fn padding(&self) -> usize {
        0
    }

    /// The pass through candle's graph.
    fn pool(&self, x: &Tensor) -> candle_core::Result<Tensor>;
}

impl PoolingLayer for AveragePool {
    const POOLING: Pooling = Pooling::Average;

    fn window(&self, _image: [usize; 2]) -> ([usize; 2], usize) {
        ([self.kernel; 2], self.stride)
    }

    fn pool(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        nn::ops::avg_pool2d(x, self.kernel, self.stride)
    }
}

impl PoolingLayer for MaxPool {
    const POOLING: Pooling = Pooling::Max;

    fn window(&self, _image: [usize; 2]) -> ([usize; 2], usize) {
        ([self.kernel; 2], self.stride)
    }

    fn padding(&self) -> usize {
        self.padding
    }

    fn pool(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = x.clone();
        if self.padding > 0 {
            for axis in [2, 3] {
                let mut dims = x.dims().to_vec();
                dims[axis] = self.padding;
                let lowest = Tensor::full(f32::NEG_INFINITY, dims, x.device())?;
                let lowest = lowest.to_dtype(x.dtype())?;
                x = Tensor::cat(&[&lowest, &x, &lowest], axis)?;
            }
        }
        nn::ops::max_pool2d(&x, self.kernel, self.stride)
    }
}

impl PoolingLayer for GlobalAveragePool {
    const POOLING: Pooling = Pooling::Average;

    fn window(&self, image: [usize; 2]) -> ([usize; 2], usize) {
        (image, 1)
    }

    fn pool(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.mean_keepdim((D::Minus1, D::Minus2))
    }
}

impl<P: PoolingLayer> Layer for P {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        Ok(Shape::new(rules(self, input)?.output()))
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        self.pool(x)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let rules = rules(self, network.shape())?;
        let output = Shape::new(rules.output());
        network.push(rules, output);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let units = graph.read(self, 0);
        graph.output(shape, 0, units);
        Ok(())
    }
}

fn rules<P: PoolingLayer>(layer: &P, input: &Shape) -> Result<PoolRules, Misfit> {
    let misfit = |wanted: String| Misfit::new(layer, input, wanted);
    let image = input.image();
    let image = image.ok_or_else(|| misfit("images of shape (channels, height, width)".into()))?;
    let (kernel, stride) = layer.window([image[1], image[2]]);
    let padding = layer.padding();
    if 2 * padding > kernel[0] {
        return Err(misfit(format!(
            "a padding of at most {}, not {padding}",
            kernel[0] / 2
        )));
    }
    let rules = PoolRules::new(P::POOLING, image, kernel, [stride; 2], padding);
    rules.ok_or_else(|| {
        let [height, width] = kernel;
        misfit(format!(
            "images that hold a window of {height} × {width}, and a stride of at least 1, not {stride}"
        ))
    })
}

/// How the values of a window are reduced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pooling {
    Average,
    /// The first maximum, or a NaN.
    Max,
}

/// Windows of size `kernel`, height × width, with the given stride, over a sample of channels × height × width.
///
/// At a point it is a linear map of x that does not depend on θ, so every tangent is the map or its transpose. Max
/// pooling caches each maximum's offset in its window, or in its channel if there is padding.
#[derive(Clone)]
struct PoolRules {
    pooling: Pooling,
    image: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Rows and columns on each side of the image, for max pooling.
    padding: usize,
}

impl PoolRules {
    /// `None` if no window fits, or if offsets in a window are too large to be exact.
    fn new(
        pooling: Pooling,
        image: [usize; 3],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: usize,
    ) -> Option<Self> {
        let [channels, height, width] = image;
        let padded = |size: usize| size.checked_add(padding.checked_mul(2)?);
        let (rows, columns) = (padded(height)?, padded(width)?);
        let fits = (1..=rows).contains(&kernel[0]) && (1..=columns).contains(&kernel[1]);
        let exact = rows.checked_mul(columns)? <= 1 << f32::MANTISSA_DIGITS;
        let has_pixels = channels > 0 && height > 0 && width > 0;
        (fits && exact && has_pixels && !stride.contains(&0)).then_some(Self {
            pooling,
            image,
            kernel,
            stride,
            padding,
        })
    }

    /// Channels × height × width of y.
    fn output(&self) -> [usize; 3] {
        let [channels, height, width] = self.image;
        let windows =
            |size, i: usize| (size + 2 * self.padding - self.kernel[i]) / self.stride[i] + 1;
        [channels, windows(height, 0), windows(width, 1)]
    }

    /// Number of pixels per channel of x, and of y.
    fn planes(&self) -> [usize; 2] {
        let [_, rows, columns] = self.output();
        [self.image[1] * self.image[2], rows * columns]
    }

    /// Applies the map at the point, for tiles with `k` rows per sample.
    fn apply<T: Scalar>(&self, offsets: &[T], k: usize, x: &[T], y: &mut [T]) {
        if self.pooling == Pooling::Average {
            return average(self, x, y);
        }
        let ([whole, plane], corners) = (self.planes(), self.corners());
        let (x, y) = (x.chunks_exact(whole), y.chunks_exact_mut(plane));
        for ((x, y), offsets) in x.zip(y).zip(self.offsets_by_channel(offsets, k)) {
            for ((y, offset), corner) in y.iter_mut().zip(offsets).zip(&corners) {
                *y = x[corner + offset.f64() as usize];
            }
        }
    }

    /// Applies its transpose.
    fn transpose<T: Scalar>(&self, offsets: &[T], k: usize, dy: &[T], dx: &mut [T]) {
        dx.fill(T::ZERO);
        if self.pooling == Pooling::Average {
            return spread(self, dy, dx);
        }
        let ([whole, plane], corners) = (self.planes(), self.corners());
        let (dx, dy) = (dx.chunks_exact_mut(whole), dy.chunks_exact(plane));
        for ((dx, dy), offsets) in dx.zip(dy).zip(self.offsets_by_channel(offsets, k)) {
            for ((dy, offset), corner) in dy.iter().zip(offsets).zip(&corners) {
                dx[corner + offset.f64() as usize] += *dy;
            }
        }
    }

    /// Index in a channel of x of the pixel from which each window's offsets count: its first, or the channel's if there is padding.
    fn corners(&self) -> Vec<usize> {
        let [_, rows, columns] = self.output();
        if self.padding > 0 {
            return vec![0; rows * columns];
        }
        let row = |row: usize| {
            let start = row * self.stride[0] * self.image[2];
            (0..columns).map(move |column| start + column * self.stride[1])
        };
        (0..rows).flat_map(row).collect()
    }

    /// The maximum of each window, and its offset.
    fn largest<T: Scalar>(&self, x: &[T], y: &mut [T], offsets: &mut [T]) {
        if self.padding == 0 {
            return largest(self, x, y, offsets);
        }
        let ([channels, height, width], p) = (self.image, self.padding);
        let padded = Self {
            image: [channels, height + 2 * p, width + 2 * p],
            padding: 0,
            ..self.clone()
        };
        let [_, rows, columns] = padded.image;
        let outputs = channels * self.planes()[1];
        let lowest = T::from_f64(f64::NEG_INFINITY);
        let mut image = vec![lowest; channels * rows * columns];
        let corners = padded.corners();
        let samples = x.chunks_exact(channels * height * width);
        let results = y
            .chunks_exact_mut(outputs)
            .zip(offsets.chunks_exact_mut(outputs));
        for (x, (y, offsets)) in samples.zip(results) {
            let planes = image.chunks_exact_mut(rows * columns);
            for (plane, x) in planes.zip(x.chunks_exact(height * width)) {
                let inside = plane.chunks_exact_mut(columns).skip(p);
                for (row, x) in inside.zip(x.chunks_exact(width)) {
                    row[p..p + width].copy_from_slice(x);
                }
            }
            largest(&padded, &image, y, offsets);
            for (offset, corner) in offsets.iter_mut().zip(corners.iter().cycle()) {
                let pixel = corner + offset.f64() as usize;
                // A window in which no pixel is above −∞ takes the nearest of its pixels.
                let row = (pixel / columns).clamp(p, p + height - 1) - p;
                let column = (pixel % columns).clamp(p, p + width - 1) - p;
                *offset = T::from_f64((row * width + column) as f64);
            }
        }
    }

    /// The cached offsets of each channel of a tile with `k` rows per sample.
    fn offsets_by_channel<'a, T>(
        &self,
        offsets: &'a [T],
        k: usize,
    ) -> impl Iterator<Item = &'a [T]> {
        let (outputs, plane) = (self.image[0] * self.planes()[1], self.planes()[1]);
        let rows = offsets.chunks_exact(outputs);
        rows.flat_map(move |row| std::iter::repeat_n(row, k))
            .flat_map(move |row| row.chunks_exact(plane))
    }
}

impl<T: Scalar> Rules<T> for PoolRules {
    fn output_len(&self) -> usize {
        self.output().iter().product()
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn cached_len(&self) -> usize {
        match self.pooling {
            Pooling::Average => 0,
            Pooling::Max => self.output().iter().product(),
        }
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], cached: &mut [T]) {
        match self.pooling {
            Pooling::Average => average(self, x, y),
            Pooling::Max if cached.is_empty() => self.largest(x, y, &mut vec![T::ZERO; y.len()]),
            Pooling::Max => self.largest(x, y, cached),
        }
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]) {
        match tangent.rx {
            Some(rx) => self.apply(primal.cached, tangent.count(), rx, ry),
            None => ry.fill(T::ZERO),
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangent: &Tangent<T>,
        rdx: &mut [T],
        _mode: Mode,
    ) {
        self.transpose(primal.cached, tangent.count(), tangent.rdy, rdx);
    }
}

vectorised! {
    /// Adds the rows of each window, then the values of their sum.
    fn average<T: Scalar>(pool: &PoolRules, x: &[T], y: &mut [T]) {
        let ([_, _, width], [down, right]) = (pool.image, pool.stride);
        let ([whole, plane], [.., columns]) = (pool.planes(), pool.output());
        let [height, across] = pool.kernel;
        let share = T::from_f64(1.0 / (height * across) as f64);
        let mut sum = vec![T::ZERO; width];
        for (x, y) in x.chunks_exact(whole).zip(y.chunks_exact_mut(plane)) {
            for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                sum.fill(T::ZERO);
                for x in x[row * down * width..][..height * width].chunks_exact(width) {
                    for (sum, x) in sum.iter_mut().zip(x) {
                        *sum += *x;
                    }
                }
                for (column, y) in y.iter_mut().enumerate() {
                    let mut total = T::ZERO;
                    for part in &sum[column * right..][..across] {
                        total += *part;
                    }
                    *y = share * total;
                }
            }
        }
    }

    /// The transpose of `average`, added to dx.
    fn spread<T: Scalar>(pool: &PoolRules, dy: &[T], dx: &mut [T]) {
        let ([_, _, width], [down, right]) = (pool.image, pool.stride);
        let ([whole, plane], [.., columns]) = (pool.planes(), pool.output());
        let [height, across] = pool.kernel;
        let share = T::from_f64(1.0 / (height * across) as f64);
        let mut sum = vec![T::ZERO; width];
        for (dx, dy) in dx.chunks_exact_mut(whole).zip(dy.chunks_exact(plane)) {
            for (row, dy) in dy.chunks_exact(columns).enumerate() {
                sum.fill(T::ZERO);
                for (column, dy) in dy.iter().enumerate() {
                    for sum in &mut sum[column * right..][..across] {
                        *sum += share * *dy;
                    }
                }
                for dx in dx[row * down * width..][..height * width].chunks_exact_mut(width) {
                    for (dx, sum) in dx.iter_mut().zip(&sum) {
                        *dx += *sum;
                    }
                }
            }
        }
    }

    /// The maximum of each window, and its offset from the window's first pixel.
    fn largest<T: Scalar>(pool: &PoolRules, x: &[T], y: &mut [T], best_offsets: &mut [T]) {
        let ([channels, _, width], [whole, plane]) = (pool.image, pool.planes());
        let corners = pool.corners();
        let mut candidates = vec![T::ZERO; channels * plane];
        let outputs = y
            .chunks_exact_mut(channels * plane)
            .zip(best_offsets.chunks_exact_mut(channels * plane));
        for (x, (y, best_offsets)) in x.chunks_exact(channels * whole).zip(outputs) {
            for offset in (0..pool.kernel[0]).flat_map(|i| (0..pool.kernel[1]).map(move |j| i * width + j)) {
                for (candidates, x) in candidates.chunks_exact_mut(plane).zip(x.chunks_exact(whole)) {
                    let x = &x[offset..];
                    for (candidate, corner) in candidates.iter_mut().zip(&corners) {
                        *candidate = x[*corner];
                    }
                }
                let (first, offset) = (offset == 0, T::from_f64(offset as f64));
                for ((y, best_offset), x) in y.iter_mut().zip(best_offsets.iter_mut()).zip(&candidates) {
                    let better = first | (*x > *y) | is_nan(*x);
                    *y = if better { *x } else { *y };
                    *best_offset = if better { offset } else { *best_offset };
                }
            }
        }
    }
}

#[inline(always)]
fn is_nan<T: Scalar>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};
    use crate::vector::gaussian;

    /// A tile whose pixels are far from ties.
    fn tile(pool: &PoolRules, samples: usize, k: usize) -> Tile {
        let [inputs, outputs] = [pool.image, pool.output()].map(|shape| shape.iter().product());
        let mut tile = Tile::random([inputs, outputs, 2], samples, k, 9);
        let order = gaussian(tile.x.len(), 1);
        for (x, a) in tile.x.iter_mut().zip(&order) {
            *x = 0.1 * order.iter().filter(|b| *b < a).count() as f64 - 3.0;
        }
        tile
    }

    /// The values of each window, reduced by `reduce`.
    fn by_definition(pool: &PoolRules, x: &[f64], reduce: fn(&[f64]) -> f64) -> Vec<f64> {
        let [channels, rows, columns] = pool.output();
        let [_, height, width] = pool.image;
        let mut y = Vec::new();
        for plane in x.chunks(height * width) {
            for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
                let mut window = Vec::new();
                for i in 0..pool.kernel[0] {
                    for j in 0..pool.kernel[1] {
                        let (r, c) = (row * pool.stride[0] + i, column * pool.stride[1] + j);
                        let inside = |place: usize, size: usize| {
                            place
                                .checked_sub(pool.padding)
                                .filter(|place| *place < size)
                        };
                        let pixel = inside(r, height).zip(inside(c, width));
                        assert!(pool.padding > 0 || pixel.is_some());
                        window.extend(pixel.map(|(r, c)| plane[r * width + c]));
                    }
                }
                y.push(reduce(&window));
            }
        }
        assert_eq!(y.len() % (channels * rows * columns), 0);
        y
    }

    #[test]
    fn pooling_matches_its_formula_and_differences() {
        let shapes = [
            ([3, 6, 8], [2, 2], [2, 2], [3, 3, 4]),
            // A row and a column remain uncovered.
            ([2, 7, 5], [2, 2], [2, 2], [2, 3, 2]),
            ([2, 7, 6], [3, 3], [2, 2], [2, 3, 2]),
            ([1, 5, 9], [3, 2], [1, 3], [1, 3, 3]),
            ([2, 4, 9], [1, 2], [3, 4], [2, 2, 2]),
            ([4, 1, 1], [1, 1], [1, 1], [4, 1, 1]),
            ([2, 3, 4], [3, 4], [5, 5], [2, 1, 1]),
        ];
        for (image, kernel, stride, output) in shapes {
            for (samples, k) in [(1, 1), (3, 2)] {
                let pool = |pooling| PoolRules::new(pooling, image, kernel, stride, 0).unwrap();
                let [average, max] = [pool(Pooling::Average), pool(Pooling::Max)];
                assert_eq!((average.output(), max.output()), (output, output));
                let tile = tile(&average, samples, k);
                let mean = |window: &[f64]| window.iter().sum::<f64>() / window.len() as f64;
                let means = by_definition(&average, &tile.x, mean);
                close("mean", &evaluate::<f64>(&average, &tile).y, &means, 1e-14);
                let largest = |window: &[f64]| window.iter().copied().fold(f64::MIN, f64::max);
                let largest = by_definition(&max, &tile.x, largest);
                assert_eq!(evaluate::<f64>(&max, &tile).y, largest);
                for pool in [average, max] {
                    check(&pool, &tile, 1e-10);
                    let rx = None;
                    check(&pool, &Tile { rx, ..tile.clone() }, 1e-10);
                }
            }
        }
    }

    #[test]
    fn padding_is_below_all_pixels() {
        let shapes = [
            ([2, 6, 8], 3, 2, 1, [2, 3, 4]),
            ([3, 5, 4], 2, 1, 1, [3, 6, 5]),
            ([1, 1, 1], 3, 1, 1, [1, 1, 1]),
            ([2, 4, 7], 5, 3, 2, [2, 2, 3]),
        ];
        for (image, kernel, stride, padding, output) in shapes {
            let layer = MaxPool::new(kernel, stride).with_padding(padding);
            let pool = super::rules(&layer, &Shape::new(image)).unwrap();
            assert_eq!(pool.output(), output);
            for (samples, k) in [(1, 1), (3, 2)] {
                let tile = tile(&pool, samples, k);
                let largest = |window: &[f64]| window.iter().copied().fold(f64::MIN, f64::max);
                let expected = by_definition(&pool, &tile.x, largest);
                assert_eq!(evaluate::<f64>(&pool, &tile).y, expected);
                check(&pool, &tile, 1e-10);
                check(
                    &pool,
                    &Tile {
                        rx: None,
                        ..tile.clone()
                    },
                    1e-10,
                );
                let shape = [&[samples], &image[..]].concat();
                let x = Tensor::from_vec(tile.x, shape, &candle_core::Device::Cpu).unwrap();
                let y = layer.pool(&x).unwrap();
                assert_eq!(y.dims()[1..], output);
                assert_eq!(y.flatten_all().unwrap().to_vec1::<f64>().unwrap(), expected);
            }
            let below = vec![f64::NEG_INFINITY; image.iter().product()];
            let mut y = vec![0.0; output.iter().product()];
            let mut offsets = y.clone();
            pool.largest(&below, &mut y, &mut offsets);
            assert!(y.iter().all(|y| *y == f64::NEG_INFINITY));
            assert!(offsets.iter().all(|o| (*o as usize) < image[1] * image[2]));
        }
        let misfit = super::rules(&MaxPool::new(3, 2).with_padding(2), &Shape::new([1, 9, 9]));
        assert!(misfit.err().unwrap().wanted.contains("at most 1"));
    }

    #[test]
    fn a_global_average_is_the_mean_of_each_channel() {
        let pool = super::rules(&GlobalAveragePool, &Shape::new([3, 5, 4])).unwrap();
        assert_eq!(pool.output(), [3, 1, 1]);
        let tile = tile(&pool, 2, 2);
        let means = tile.x.chunks(20).map(|x| x.iter().sum::<f64>() / 20.0);
        let found = evaluate::<f64>(&pool, &tile);
        close("y", &found.y, &means.collect::<Vec<_>>(), 1e-14);
        close("dx", &found.dx[..1], &[tile.dy[0] / 20.0], 1e-15);
        check(&pool, &tile, 1e-10);
    }

    #[test]
    fn the_first_maximum_is_used_and_nan_is_preserved() {
        let pool = PoolRules::new(Pooling::Max, [1, 2, 4], [2, 2], [2, 2], 0).unwrap();
        let mut tile = tile(&pool, 1, 1);
        tile.x = vec![-1.0, 5.0, -2.0, -2.0, 5.0, 5.0, -2.0, -2.0];
        tile.dy = vec![3.0, 4.0];
        let found = evaluate::<f64>(&pool, &tile);
        assert_eq!(found.y, [5.0, -2.0]);
        assert_eq!(found.dx, [0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        for offset in [0, 1, 4, 5] {
            let mut x = tile.x.clone();
            x[offset] = f64::NAN;
            let mut y = [0.0; 2];
            super::largest(&pool, &x, &mut y, &mut [0.0; 2]);
            assert!(y[0].is_nan() && y[1] == -2.0, "NaN at {offset}");
        }
        let below = [f64::NEG_INFINITY; 8];
        let mut y = [0.0; 2];
        super::largest(&pool, &below, &mut y, &mut [0.0; 2]);
        assert_eq!(y, [f64::NEG_INFINITY; 2]);
    }

    #[test]
    fn shapes_that_do_not_fit_give_none() {
        let none = |image, kernel, stride| {
            PoolRules::new(Pooling::Max, image, kernel, stride, 0).is_none()
        };
        assert!(none([1, 4, 4], [5, 2], [1, 1]));
        assert!(none([1, 4, 4], [2, 5], [1, 1]));
        assert!(none([1, 4, 4], [0, 2], [1, 1]));
        assert!(none([1, 4, 4], [2, 2], [0, 1]));
        assert!(none([0, 4, 4], [2, 2], [1, 1]));
        assert!(none([1, usize::MAX, 4], [2, 2], [1, 1]));
        assert!(!none([1, 4, 4], [4, 4], [9, 9]));
        assert!(super::rules(&GlobalAveragePool, &Shape::new([3, 0, 4])).is_err());
    }
}
