//! [`Patches`]: a convolution as matrix products of the patches that its kernel reads (im2col; Chellapilla, Puri and
//! Simard, "High performance convolutional neural networks for document processing", 2006).

use super::Scalar;
use super::convolution::{ConvolutionShape, Factor};
use super::elementwise::add_rows;
use super::image_grid::{Grid, Side};
use super::matrix::{Matrix, multiply};
use super::transpose::transpose;

/// The patches of images of one shape. A patch has the inputs of one output pixel: for each channel, the pixel that
/// each tap reads, or 0 in the padding. Taps that read only padding are left out.
///
/// With the patches of all samples as the rows of P, y = P Wᵀ, dP = dy W, and dW = dyᵀ P, where W has a row per output
/// channel, as in θ. All samples and directions share one pass over W. In [`Grid`]'s layout, W is read again for each
/// block of positions.
#[derive(Debug)]
pub(crate) struct Patches {
    inputs: usize,
    channels: usize,
    /// Number of pixels of an input and of an output image.
    pixels: [usize; 2],
    /// The taps that read a pixel for at least one output.
    taps: Vec<usize>,
    /// Number of taps of the kernel.
    all_taps: usize,
    /// For each output pixel, the index of each tap in `taps` and of the pixel that it reads.
    reads: Vec<Vec<(usize, usize)>>,
}

impl Patches {
    /// Whether patches are faster than [`Grid`]'s layout.
    pub(crate) fn pay(shape: &ConvolutionShape, grid: &Grid) -> bool {
        let product =
            |sizes: &[usize]| sizes.iter().fold(1usize, |p, size| p.saturating_mul(*size));
        let weights = product(&[product(&shape.kernel), shape.channels, shape.input[0]]);
        shape.groups == 1 && product(&grid.outputs()) <= 64 && weights >= 1 << 16
    }

    pub(crate) fn new(shape: &ConvolutionShape, grid: &Grid) -> Self {
        let [inputs, height, width] = shape.input;
        let [down, right] = shape.kernel;
        let [rows, columns] = grid.outputs();
        let source = |output: usize, tap: usize, size: usize| {
            let index = (output * shape.stride + tap * shape.dilation).checked_sub(shape.padding);
            index.filter(|index| *index < size)
        };
        let pixel = |output: usize, tap: usize| {
            let line = source(output / columns, tap / right, height)?;
            Some(line * width + source(output % columns, tap % right, width)?)
        };
        let outputs = rows * columns;
        let is_read = |tap: &usize| (0..outputs).any(|output| pixel(output, *tap).is_some());
        let mut taps: Vec<usize> = (0..down * right).filter(is_read).collect();
        if taps.is_empty() {
            // Patches of a single zero: matrices have at least one column.
            taps.push(0);
        }
        let reads = (0..outputs).map(|output| {
            let taps = taps.iter().enumerate();
            let pairs = taps.filter_map(|(i, tap)| Some((i, pixel(output, *tap)?)));
            pairs.collect()
        });
        Self {
            inputs,
            channels: shape.channels,
            pixels: [height * width, outputs],
            reads: reads.collect(),
            taps,
            all_taps: down * right,
        }
    }

    /// Number of values of a sample on a side.
    fn width(&self, side: Side) -> usize {
        match side {
            Side::Input => self.inputs * self.pixels[0],
            Side::Output => self.channels * self.pixels[1],
        }
    }

    /// Number of values per output pixel: of a patch, or of an output.
    fn columns(&self, side: Side) -> usize {
        match side {
            Side::Input => self.inputs * self.taps.len(),
            Side::Output => self.channels,
        }
    }

    /// Number of values of a sample's patches, or of its outputs.
    fn block(&self, side: Side) -> usize {
        self.pixels[1] * self.columns(side)
    }

    /// Appends the columns of W that patches read.
    pub(crate) fn pack<T: Scalar>(&self, weight: &[T], packed: &mut Vec<T>) {
        if self.taps.len() == self.all_taps {
            return packed.extend_from_slice(weight);
        }
        for kernel in weight.chunks_exact(self.all_taps) {
            packed.extend(self.taps.iter().map(|tap| kernel[*tap]));
        }
    }

    /// Adds what was computed for the columns that patches read.
    fn unpack<T: Scalar>(&self, packed: &[T], weight: &mut [T]) {
        let kernels = weight.chunks_exact_mut(self.all_taps);
        for (kernel, packed) in kernels.zip(packed.chunks_exact(self.taps.len())) {
            for (tap, packed) in self.taps.iter().zip(packed) {
                kernel[*tap] += *packed;
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
        let (from, width) = (to.other(), self.width(to));
        let samples = target.len() / (k * width);
        let rows = samples * self.pixels[1];
        // The samples of the first direction, then those of the second, and so on.
        let mut sums = vec![T::ZERO; k * samples * self.block(to)];
        let mut sources = vec![T::ZERO; own.map_or(1, |_| k) * samples * self.block(from)];
        let weights = |data| {
            let weights = Matrix::new(data, self.channels, self.columns(Side::Input));
            match to {
                Side::Output => weights.t(),
                Side::Input => weights,
            }
        };
        if let Some((data, images)) = own {
            let parts = sources.chunks_exact_mut(samples * self.block(from));
            for (j, part) in parts.enumerate() {
                self.load(from, &images[j * self.width(from)..], k, part);
            }
            let sources = Matrix::new(&sources, k * rows, self.columns(from));
            multiply(&mut sums, sources, weights(data), false);
        }
        let parts = sums.chunks_exact_mut(samples * self.block(to));
        if let Some((data, images)) = shared {
            self.load(from, images, 1, &mut sources[..samples * self.block(from)]);
            for (part, data) in parts.zip(data.chunks_exact(data.len() / k)) {
                let sources = Matrix::new(&sources, rows, self.columns(from));
                multiply(part, sources, weights(data), own.is_some());
            }
        }
        for (i, part) in sums.chunks_exact(self.block(to)).enumerate() {
            let (j, sample) = (i / samples, i % samples);
            let image = &mut target[(sample * k + j) * width..][..width];
            match to {
                Side::Output => {
                    let shape = [self.pixels[1], self.channels];
                    transpose(part, image, shape, [shape[1], shape[0]]);
                    let bias = biases.chunks_exact(self.channels).nth(j).unwrap_or(&[]);
                    for (image, bias) in image.chunks_exact_mut(self.pixels[1]).zip(bias) {
                        image.iter_mut().for_each(|y| *y += *bias);
                    }
                }
                Side::Input => self.add_up(part, image),
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
        let (x_width, y_width) = (self.width(Side::Input), self.width(Side::Output));
        let samples = rdy.len() / (k * y_width);
        let [patches, outputs] = [Side::Input, Side::Output].map(|side| samples * self.block(side));
        // Below one another, so that dW is written once.
        let terms = 1 + usize::from(second.is_some());
        let mut left = vec![T::ZERO; terms * outputs];
        let mut right = vec![T::ZERO; terms * patches];
        self.load(Side::Input, x, 1, &mut right[..patches]);
        if let Some((_, dy)) = second {
            self.load(Side::Output, dy, 1, &mut left[outputs..]);
        }
        let num_weights = self.channels * self.inputs * self.all_taps;
        let each = gradient.len() / k;
        for (j, gradient) in gradient.chunks_exact_mut(each).enumerate() {
            let (weights, bias) = gradient.split_at_mut(num_weights);
            self.load(Side::Output, &rdy[j * y_width..], k, &mut left[..outputs]);
            if !bias.is_empty() {
                add_rows(&left[..outputs], bias);
            }
            if let Some((rx, _)) = second {
                self.load(Side::Input, &rx[j * x_width..], k, &mut right[patches..]);
            }
            let rows = terms * samples * self.pixels[1];
            let left = Matrix::new(&left, rows, self.channels);
            let right = Matrix::new(&right, rows, self.columns(Side::Input));
            if self.taps.len() == self.all_taps {
                multiply(weights, left.t(), right, true);
            } else {
                let mut packed = vec![T::ZERO; self.channels * self.columns(Side::Input)];
                multiply(&mut packed, left.t(), right, false);
                self.unpack(&packed, weights);
            }
        }
    }

    /// Writes the patches of x or the pixels of y as rows, for images that are `step` samples apart.
    fn load<T: Scalar>(&self, side: Side, images: &[T], step: usize, matrix: &mut [T]) {
        let width = self.width(side);
        let images = images.chunks(step * width);
        for (rows, image) in matrix.chunks_exact_mut(self.block(side)).zip(images) {
            match side {
                Side::Input => self.cut(&image[..width], rows),
                Side::Output => {
                    let shape = [self.channels, self.pixels[1]];
                    transpose(&image[..width], rows, shape, [shape[1], shape[0]]);
                }
            }
        }
    }

    /// Writes the patches of an image.
    fn cut<T: Scalar>(&self, image: &[T], patches: &mut [T]) {
        let (pixels, taps) = (self.pixels[0], self.taps.len());
        let columns = self.columns(Side::Input);
        for (patch, reads) in patches.chunks_exact_mut(columns).zip(&self.reads) {
            if reads.len() < taps {
                patch.fill(T::ZERO);
            }
            for (patch, image) in patch.chunks_exact_mut(taps).zip(image.chunks_exact(pixels)) {
                for (tap, pixel) in reads {
                    patch[*tap] = image[*pixel];
                }
            }
        }
    }

    /// The transpose of [`Patches::cut`]: writes the sum of the patches' values at each pixel of an image.
    fn add_up<T: Scalar>(&self, patches: &[T], image: &mut [T]) {
        let (pixels, taps) = (self.pixels[0], self.taps.len());
        let columns = self.columns(Side::Input);
        image.fill(T::ZERO);
        for (patch, reads) in patches.chunks_exact(columns).zip(&self.reads) {
            for (patch, image) in patch.chunks_exact(taps).zip(image.chunks_exact_mut(pixels)) {
                for (tap, pixel) in reads {
                    image[*pixel] += patch[*tap];
                }
            }
        }
    }
}
