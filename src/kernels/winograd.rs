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

/// Tiles that are multiplied together.
struct Chunk {
    strips: Vec<Strip>,
    /// Number of tiles of all strips.
    tiles: usize,
}

/// What tiles are made of.
#[derive(Clone, Copy)]
enum Pixels {
    /// Inputs, 4 × 4 a tile, with this many lines of zeros before the image.
    Inputs { before: usize },
    /// Outputs or their gradients, 2 × 2 a tile.
    Outputs,
}

/// Transformed tiles of a chunk of images.
struct Tiles<T> {
    kind: Pixels,
    /// Channels, height and width of an image.
    image: [usize; 3],
    /// Columns of tiles.
    right: usize,
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
        let samples = target.len() / (k * len(image));
        let chunks = Chunks::new::<T>(samples, image, 2 * padded(source[0]) + padded(image[0]));
        let tiles = |_| chunks.tiles::<T>(source, Pixels::Inputs { before });
        let (mut own_tiles, mut shared_tiles) = (own.map(tiles), shared.map(tiles));
        let mut sums = chunks.tiles::<T>(image, Pixels::Outputs);
        let (depth, columns) = (source[0], sums.channels);
        let each = PRODUCTS * depth * columns;
        for chunk in chunks.iter() {
            if let (Some((_, images)), Some(tiles)) = (shared, &mut shared_tiles) {
                tiles.read(images, 1, 0, &chunk);
            }
            for j in 0..k {
                if let (Some((_, images)), Some(tiles)) = (own, &mut own_tiles) {
                    tiles.read(images, k, j, &chunk);
                }
                let own = own.map(|(weights, _)| &weights[..each]);
                let shared = shared.map(|(weights, _)| &weights[j * each..][..each]);
                for i in 0..PRODUCTS {
                    let terms = [(own, &own_tiles), (shared, &shared_tiles)];
                    let terms = terms.map(|(weights, tiles)| {
                        let tiles = tiles.as_ref()?;
                        Some(tiles.times(i, weights?, [depth, columns]))
                    });
                    multiply(terms, sums.entry_mut(i), chunk.tiles, columns, false);
                }
                let bias = biases.chunks_exact(image[0]).nth(j).unwrap_or(&[]);
                sums.write(target, k, j, bias, &chunk);
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
        let y_width = len(self.output);
        let [inputs, outputs] = [self.input[0], self.output[0]];
        let samples = rdy.len() / (k * y_width);
        let chunks = Chunks::new::<T>(
            samples,
            self.output,
            2 * padded(inputs) + 2 * padded(outputs),
        );
        let before = self.padding;
        let tiles = || {
            (
                chunks.tiles::<T>(self.input, Pixels::Inputs { before }),
                chunks.tiles::<T>(self.output, Pixels::Outputs),
            )
        };
        let (mut x_tiles, mut rdy_tiles) = tiles();
        let mut second = second.map(|images| (images, tiles()));
        let columns = x_tiles.channels;
        let mut sums = vec![T::ZERO; k * PRODUCTS * outputs * columns];
        for chunk in chunks.iter() {
            x_tiles.read(x, 1, 0, &chunk);
            if let Some(((_, dy), (_, dy_tiles))) = &mut second {
                dy_tiles.read(dy, 1, 0, &chunk);
            }
            let parts = sums.chunks_exact_mut(PRODUCTS * outputs * columns);
            for (j, sums) in parts.enumerate() {
                rdy_tiles.read(rdy, k, j, &chunk);
                if let Some(((rx, _), (rx_tiles, _))) = &mut second {
                    rx_tiles.read(rx, k, j, &chunk);
                }
                for (i, sums) in sums.chunks_exact_mut(outputs * columns).enumerate() {
                    let first = rdy_tiles.transposed_times(i, &x_tiles, chunk.tiles);
                    let second = second.as_ref();
                    let second =
                        second.map(|(_, (rx, dy))| dy.transposed_times(i, rx, chunk.tiles));
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

    fn tiles<T: Scalar>(&self, image: [usize; 3], kind: Pixels) -> Tiles<T> {
        let channels = padded(image[0]);
        let [rows, columns] = kind.size([self.rows.min(self.down), self.right]);
        Tiles {
            kind,
            image,
            right: self.right,
            values: vec![T::ZERO; PRODUCTS * self.tiles * channels],
            channels,
            pitch: self.tiles * channels,
            pixels: vec![T::ZERO; rows * columns * channels],
        }
    }

    fn iter(&self) -> impl Iterator<Item = Chunk> {
        let end = self.samples * self.down;
        (0..end).step_by(self.rows).map(move |start| {
            let (mut strips, mut at) = (Vec::new(), start);
            while at < end.min(start + self.rows) {
                let (sample, row) = (at / self.down, at % self.down);
                let rows = row..self.down.min(row + start + self.rows - at);
                let tile = (at - start) * self.right;
                at += rows.len();
                strips.push(Strip { sample, rows, tile });
            }
            Chunk {
                strips,
                tiles: (at - start) * self.right,
            }
        })
    }
}

impl Pixels {
    /// Rows and columns of the pixels of this many rows and columns of tiles.
    fn size(self, tiles: [usize; 2]) -> [usize; 2] {
        let halo = match self {
            Self::Inputs { .. } => 2,
            Self::Outputs => 0,
        };
        tiles.map(|count| 2 * count + halo)
    }
}

impl<T: Scalar> Tiles<T> {
    /// Transforms a chunk of inputs or output gradients: of every `step`-th image from `first` on.
    fn read(&mut self, images: &[T], step: usize, first: usize, chunk: &Chunk) {
        let width = len(self.image);
        for strip in &chunk.strips {
            let image = &images[(strip.sample * step + first) * width..][..width];
            let (kind, pitch, window) = (self.kind, self.pitch, self.window(strip));
            let (pixels, tiles) = self.parts(window, strip);
            load(image, window, pixels);
            match kind {
                Pixels::Inputs { .. } => transform_inputs(pixels, window, tiles, pitch),
                Pixels::Outputs => transform_output_gradients(pixels, window, tiles, pitch),
            }
        }
    }

    /// Writes the outputs of a chunk, plus `bias`, to every `step`-th image from `first` on.
    fn write(&mut self, images: &mut [T], step: usize, first: usize, bias: &[T], chunk: &Chunk) {
        let width = len(self.image);
        for strip in &chunk.strips {
            let image = &mut images[(strip.sample * step + first) * width..][..width];
            let (pitch, window) = (self.pitch, self.window(strip));
            let (pixels, tiles) = self.parts(window, strip);
            transform_outputs(tiles, pitch, window, pixels);
            store(pixels, window, bias, image);
        }
    }

    /// The pixels of a strip.
    fn window(&self, strip: &Strip) -> Window {
        Window {
            image: self.image,
            before: match self.kind {
                Pixels::Inputs { before } => before,
                Pixels::Outputs => 0,
            },
            start: 2 * strip.rows.start,
            size: self.kind.size([strip.rows.len(), self.right]),
        }
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
