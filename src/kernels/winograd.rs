//! [`Winograd`]: convolutions of 3 × 3 kernels with 16 instead of 36 multiplications per 2 × 2 outputs (Winograd,
//! "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural networks",
//! 2016).

use std::ops::Range;

use super::Scalar;
use super::convolution::{ConvolutionShape, Factor};
use super::correlation::add_sums;
use super::image_grid::Side;
use super::outer_products::{Factors, LANES, multiply};
use super::winograd_tiles::{
    PRODUCTS, Window, add_weight_gradients, load, padded, store, transform_inputs,
    transform_output_gradients, transform_outputs, transform_weights,
};

/// Approximate bytes of the transformed tiles that are multiplied together, for a core's cache.
const CACHE_BYTES: usize = 512 << 10;
/// Approximate minimum number of tiles that are multiplied together, because the weights are read for each of these
/// products.
const LEAST_TILES: usize = 128;

/// A convolution with a kernel of 3 × 3, stride 1 and at most two lines of padding.
///
/// Outputs are computed in tiles of 2 × 2. In the notation of `winograd_tiles`, with a matrix per entry of the 4 × 4 tiles,
/// its rows being tiles and its columns channels, the products are V U for inputs V = Bᵀ d B and weights U = G g Gᵀ, and
/// (A dy Aᵀ)ᵀ V for the weights' gradient. dx is the convolution of dy with the rotated kernel.
#[derive(Debug)]
pub(crate) struct Winograd {
    input: [usize; 3],
    output: [usize; 3],
    padding: usize,
}

/// Rows of tiles of one sample.
struct Strip {
    sample: usize,
    rows: Range<usize>,
    /// Number of tiles before it in its chunk.
    tile: usize,
}

/// Transformed tiles of a chunk.
struct Tiles<T> {
    values: Vec<T>,
    /// Channels, padded.
    channels: usize,
    /// Distance between the entries of all tiles.
    pitch: usize,
    /// A window of an image.
    pixels: Vec<T>,
}

impl Winograd {
    /// Whether this is possible, and faster than [`Grid`](super::image_grid::Grid)'s layout and
    /// [`Patches`](super::image_patches::Patches): no side has many padded channels, tiles do not reach far beyond the
    /// image, and there are enough of them per weight, because each chunk of tiles reads all weights.
    pub(crate) fn pays(shape: &ConvolutionShape, outputs: [usize; 2]) -> bool {
        let channels = [shape.input[0], shape.channels];
        let is_full =
            |channels: &usize| *channels >= LANES && padded(*channels) / 4 <= channels / 3;
        let [tiles, pixels] = [outputs.map(|size| size.div_ceil(2)), outputs]
            .map(|[height, width]| height.saturating_mul(width));
        let pairs = channels[0].saturating_mul(channels[1]);
        Self::fits(shape)
            && channels.iter().all(is_full)
            && tiles.saturating_mul(8) <= pixels.saturating_mul(3)
            && pairs / 8192 <= tiles
    }

    pub(crate) fn fits(shape: &ConvolutionShape) -> bool {
        shape.kernel == [3, 3]
            && [shape.stride, shape.dilation, shape.groups] == [1, 1, 1]
            && shape.padding <= 2
    }

    pub(crate) fn new(shape: &ConvolutionShape, [height, width]: [usize; 2]) -> Self {
        Self {
            input: shape.input,
            output: [shape.channels, height, width],
            padding: shape.padding,
        }
    }

    fn image(&self, side: Side) -> [usize; 3] {
        match side {
            Side::Input => self.input,
            Side::Output => self.output,
        }
    }

    /// Appends the transformed weights that give a side: for each entry, a row per channel of the other side.
    pub(crate) fn pack<T: Scalar>(&self, to: Side, weight: &[T], packed: &mut Vec<T>) {
        let [inputs, outputs] = [self.input[0], self.output[0]];
        let (from, columns) = (self.image(to.other())[0], padded(self.image(to)[0]));
        let start = packed.len();
        packed.resize(start + PRODUCTS * from * columns, T::ZERO);
        let packed = &mut packed[start..];
        for output in 0..outputs {
            let kernels = weight[output * inputs * 9..][..inputs * 9]
                .as_chunks::<9>()
                .0;
            for (input, kernel) in kernels.iter().enumerate() {
                let (kernel, at) = match to {
                    Side::Output => (*kernel, input * columns + output),
                    Side::Input => {
                        let mut rotated = *kernel;
                        rotated.reverse();
                        (rotated, output * columns + input)
                    }
                };
                for (i, value) in transform_weights(&kernel).into_iter().enumerate() {
                    packed[i * from * columns + at] = value;
                }
            }
        }
    }

    /// As [`Convolution::sums`](super::convolution::Convolution::sums).
    pub(crate) fn sums<T: Scalar>(
        &self,
        to: Side,
        (own, shared): (Option<Factor<T>>, Option<Factor<T>>),
        biases: &[T],
        target: &mut [T],
        k: usize,
    ) {
        let (source, image) = (self.image(to.other()), self.image(to));
        let before = match to {
            Side::Output => self.padding,
            Side::Input => 2 - self.padding,
        };
        let (from_width, width) = (len(source), len(image));
        let samples = target.len() / (k * width);
        let chunks = Chunks::new::<T>(samples, image, 2 * padded(source[0]) + padded(image[0]));
        let tiles = |_| chunks.tiles::<T>(source[0], 4);
        let (mut own_tiles, mut shared_tiles) = (own.map(tiles), shared.map(tiles));
        let mut sums = chunks.tiles::<T>(image[0], 2);
        for chunk in chunks.iter() {
            let read = |tiles: &mut Tiles<T>, rows: &[T], step, first| {
                for strip in &chunk {
                    let row = &rows[(strip.sample * step + first) * from_width..][..from_width];
                    tiles.read_inputs(row, source, before, strip, &chunks);
                }
            };
            if let (Some((_, rows)), Some(tiles)) = (shared, &mut shared_tiles) {
                read(tiles, rows, 1, 0);
            }
            for j in 0..k {
                if let (Some((_, rows)), Some(tiles)) = (own, &mut own_tiles) {
                    read(tiles, rows, k, j);
                }
                let each = PRODUCTS * source[0] * sums.channels;
                let own = own.map(|(weights, _)| &weights[..each]);
                let shared = shared.map(|(weights, _)| &weights[j * each..][..each]);
                let count = chunk
                    .iter()
                    .map(|strip| strip.rows.len() * chunks.right)
                    .sum();
                for i in 0..PRODUCTS {
                    let terms = [(own, &own_tiles), (shared, &shared_tiles)];
                    let terms = terms.map(|(weights, tiles)| {
                        Some(
                            tiles
                                .as_ref()?
                                .times(i, weights?, [source[0], sums.channels]),
                        )
                    });
                    let columns = sums.channels;
                    multiply(terms, sums.entry_mut(i), count, columns, false);
                }
                let bias = biases.chunks_exact(image[0]).nth(j).unwrap_or(&[]);
                for strip in &chunk {
                    let row = &mut target[(strip.sample * k + j) * width..][..width];
                    sums.write_outputs(row, image, bias, strip, &chunks);
                }
            }
        }
    }

    /// As [`Convolution::add_gradient`](super::convolution::Convolution::add_gradient).
    pub(crate) fn add_gradient<T: Scalar>(
        &self,
        (x, rdy): (&[T], &[T]),
        second: Option<(&[T], &[T])>,
        gradient: &mut [T],
        k: usize,
    ) {
        let (x_width, y_width) = (len(self.input), len(self.output));
        let [inputs, outputs] = [self.input[0], self.output[0]];
        let samples = rdy.len() / (k * y_width);
        let chunks = Chunks::new::<T>(
            samples,
            self.output,
            2 * padded(inputs) + 2 * padded(outputs),
        );
        let tiles = || (chunks.tiles::<T>(inputs, 4), chunks.tiles::<T>(outputs, 2));
        let (mut x_tiles, mut rdy_tiles) = tiles();
        let mut second = second.map(|rows| (rows, tiles()));
        let columns = x_tiles.channels;
        let mut sums = vec![T::ZERO; k * PRODUCTS * outputs * columns];
        let read_x = |tiles: &mut Tiles<T>, rows: &[T], chunk: &[Strip], step, first| {
            for strip in chunk {
                let row = &rows[(strip.sample * step + first) * x_width..][..x_width];
                tiles.read_inputs(row, self.input, self.padding, strip, &chunks);
            }
        };
        let read_y = |tiles: &mut Tiles<T>, rows: &[T], chunk: &[Strip], step, first| {
            for strip in chunk {
                let row = &rows[(strip.sample * step + first) * y_width..][..y_width];
                tiles.read_output_gradients(row, self.output, strip, &chunks);
            }
        };
        for chunk in chunks.iter() {
            let count = chunk
                .iter()
                .map(|strip| strip.rows.len() * chunks.right)
                .sum();
            read_x(&mut x_tiles, x, &chunk, 1, 0);
            if let Some(((_, dy), (_, dy_tiles))) = &mut second {
                read_y(dy_tiles, dy, &chunk, 1, 0);
            }
            for (j, sums) in sums
                .chunks_exact_mut(PRODUCTS * outputs * columns)
                .enumerate()
            {
                read_y(&mut rdy_tiles, rdy, &chunk, k, j);
                if let Some(((rx, _), (rx_tiles, _))) = &mut second {
                    read_x(rx_tiles, rx, &chunk, k, j);
                }
                for (i, sums) in sums.chunks_exact_mut(outputs * columns).enumerate() {
                    let first = rdy_tiles.transposed_times(i, &x_tiles, count);
                    let second = second.as_ref();
                    let second = second.map(|(_, (rx, dy))| dy.transposed_times(i, rx, count));
                    multiply([Some(first), second], sums, outputs, columns, true);
                }
            }
        }
        let each = gradient.len() / k;
        let pitch = outputs * columns;
        for (j, gradient) in gradient.chunks_exact_mut(each).enumerate() {
            let (weights, bias) = gradient.split_at_mut(9 * inputs * outputs);
            for (output, kernels) in weights.chunks_exact_mut(9 * inputs).enumerate() {
                let sums = &sums[j * PRODUCTS * pitch + output * columns..];
                add_weight_gradients(sums, pitch, kernels);
            }
            if !bias.is_empty() {
                let pixels = self.output[1] * self.output[2];
                for row in rdy.chunks_exact(y_width).skip(j).step_by(k) {
                    add_sums(row, pixels, pixels, bias);
                }
            }
        }
    }
}

fn len(image: [usize; 3]) -> usize {
    image.iter().product()
}

/// How the tiles of samples are split into chunks.
struct Chunks {
    samples: usize,
    /// Rows and columns of tiles of a sample.
    down: usize,
    right: usize,
    /// Rows of tiles of a chunk.
    rows: usize,
    /// Tiles of a chunk.
    tiles: usize,
}

impl Chunks {
    /// For tiles with this many channels in all that are multiplied together.
    fn new<T>(samples: usize, [_, height, width]: [usize; 3], channels: usize) -> Self {
        let (down, right) = (height.div_ceil(2), width.div_ceil(2));
        let fit = CACHE_BYTES / (PRODUCTS * channels * right * size_of::<T>());
        let rows = fit
            .max(LEAST_TILES.div_ceil(right))
            .min((samples * down).max(1));
        Self {
            samples,
            down,
            right,
            rows,
            tiles: rows * right,
        }
    }

    fn tiles<T: Scalar>(&self, channels: usize, size: usize) -> Tiles<T> {
        let channels = padded(channels);
        let rows = self.rows.min(self.down);
        let pixels = (2 * rows + size - 2) * (2 * self.right + size - 2);
        Tiles {
            values: vec![T::ZERO; PRODUCTS * self.tiles * channels],
            channels,
            pitch: self.tiles * channels,
            pixels: vec![T::ZERO; pixels * channels],
        }
    }

    /// The pixels of a strip, and `halo` more rows and columns.
    fn window(&self, image: [usize; 3], strip: &Strip, halo: usize) -> Window {
        Window {
            image,
            start: 2 * strip.rows.start,
            before: 0,
            size: [2 * strip.rows.len() + halo, 2 * self.right + halo],
        }
    }

    fn iter(&self) -> impl Iterator<Item = Vec<Strip>> {
        let end = self.samples * self.down;
        (0..end).step_by(self.rows).map(move |start| {
            let mut strips = Vec::new();
            let mut at = start;
            while at < end.min(start + self.rows) {
                let (sample, row) = (at / self.down, at % self.down);
                let rows = row..self.down.min(row + start + self.rows - at);
                let tile = (at - start) * self.right;
                at += rows.len();
                strips.push(Strip { sample, rows, tile });
            }
            strips
        })
    }
}

impl<T: Scalar> Tiles<T> {
    fn read_inputs(
        &mut self,
        row: &[T],
        image: [usize; 3],
        before: usize,
        strip: &Strip,
        chunks: &Chunks,
    ) {
        let window = Window {
            before,
            ..chunks.window(image, strip, 2)
        };
        let pitch = self.pitch;
        let (pixels, values) = self.parts(window, strip);
        load(row, window, pixels);
        transform_inputs(pixels, window, values, pitch);
    }

    fn read_output_gradients(
        &mut self,
        row: &[T],
        image: [usize; 3],
        strip: &Strip,
        chunks: &Chunks,
    ) {
        let window = chunks.window(image, strip, 0);
        let pitch = self.pitch;
        let (pixels, values) = self.parts(window, strip);
        load(row, window, pixels);
        transform_output_gradients(pixels, window, values, pitch);
    }

    fn write_outputs(
        &mut self,
        row: &mut [T],
        image: [usize; 3],
        bias: &[T],
        strip: &Strip,
        chunks: &Chunks,
    ) {
        let window = chunks.window(image, strip, 0);
        let pitch = self.pitch;
        let (pixels, values) = self.parts(window, strip);
        transform_outputs(values, pitch, window, pixels);
        store(pixels, window, bias, row);
    }

    /// The window's pixels, and the strip's tiles.
    fn parts(&mut self, window: Window, strip: &Strip) -> (&mut [T], &mut [T]) {
        let pixels = window.size[0] * window.size[1] * self.channels;
        let tiles = strip.tile * self.channels;
        (&mut self.pixels[..pixels], &mut self.values[tiles..])
    }

    /// An entry of all tiles: a row of channels per tile.
    fn entry(&self, i: usize) -> &[T] {
        &self.values[i * self.pitch..][..self.pitch]
    }

    fn entry_mut(&mut self, i: usize) -> &mut [T] {
        &mut self.values[i * self.pitch..][..self.pitch]
    }

    /// V U
    fn times<'a>(
        &'a self,
        i: usize,
        weights: &'a [T],
        [rows, columns]: [usize; 2],
    ) -> Factors<'a, T> {
        Factors {
            a: self.entry(i),
            steps: [self.channels, 1],
            b: &weights[i * rows * columns..][..rows * columns],
            depth: rows,
        }
    }

    /// The product of these `count` tiles, transposed, and others.
    fn transposed_times<'a>(&'a self, i: usize, x: &'a Self, count: usize) -> Factors<'a, T> {
        Factors {
            a: self.entry(i),
            steps: [1, self.channels],
            b: x.entry(i),
            depth: count,
        }
    }
}
