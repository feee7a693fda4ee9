//! [`Grid`]: a layout of images in which the inputs of each kernel tap form a contiguous slice.
//!
//! Images that are laid out together are placed side by side; output positions are numbered along the first row of
//! every image, then along their second rows, and so on. Each row of an image is followed by as many zeros as there
//! is padding on one side, shared by the end of one row and the start of the next. Then the input of a tap at
//! position p is at offset + p, where the offset depends only on the tap. For a stride of s the input is split into
//! s² *phases*, planes of rows and columns that are s apart. So each image is copied once, instead of once per tap as
//! in im2col, and no sums are computed for rows of padding.

use std::ops::Range;

/// Approximate number of positions that are laid out together, if there are as many.
const POSITIONS: usize = 2048;
/// Maximum bytes of the planes that are laid out together, for a core's cache.
const CACHE_BYTES: usize = 512 << 10;

/// One axis of an image.
#[derive(Clone, Debug)]
struct Axis {
    size: usize,
    outputs: usize,
    /// Number of rows of the image with its leading padding, or distance from one image's row to the next's.
    pitch: usize,
    stride: usize,
    padding: usize,
    /// Each tap's phase and offset.
    taps: Vec<(usize, usize)>,
}

impl Axis {
    fn new(size: usize, kernel: usize, [stride, padding, dilation]: [usize; 3]) -> Option<Self> {
        if [size, kernel, stride, dilation].contains(&0) {
            return None;
        }
        let reach = (kernel - 1).checked_mul(dilation)?;
        let padded = padding.checked_mul(2)?.checked_add(size)?;
        // A stride beyond the padded image is equivalent to its size.
        let stride = stride.min(padded);
        let outputs = padded.checked_sub(reach)?.checked_sub(1)? / stride + 1;
        let taps = (0..kernel).map(|tap| (tap * dilation % stride, tap * dilation / stride));
        Some(Self {
            size,
            outputs,
            // The first phase is the longest; taps beyond it read zeros or the next row's.
            pitch: outputs.max((padding + size).div_ceil(stride)),
            stride,
            padding,
            taps: taps.collect(),
        })
    }

    /// Range of a phase's values, between zeros.
    fn span(&self, phase: usize) -> Range<usize> {
        let until = |end: usize| end.saturating_sub(phase).div_ceil(self.stride);
        until(self.padding)..until(self.padding + self.size)
    }
}

/// Layout of a convolution's images.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    vertical: Axis,
    horizontal: Axis,
    /// First row and column of each phase that some tap reads.
    phases: Vec<[usize; 2]>,
    /// Each tap's phase, and its row and column offset.
    taps: Vec<(usize, [usize; 2])>,
}

/// The input or the output of a convolution.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Input,
    Output,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Input => Self::Output,
            Self::Output => Self::Input,
        }
    }
}

impl Grid {
    /// `None` if the kernel does not fit into the padded image or a size is zero.
    pub(crate) fn new(
        image: [usize; 2],
        kernel: [usize; 2],
        stride: usize,
        padding: usize,
        dilation: usize,
    ) -> Option<Self> {
        let vertical = Axis::new(image[0], kernel[0], [stride, padding, dilation])?;
        let horizontal = Axis::new(image[1], kernel[1], [stride, padding, dilation])?;
        let (mut phases, mut taps) = (Vec::new(), Vec::new());
        for (top, down) in &vertical.taps {
            for (left, right) in &horizontal.taps {
                let phase = [*top, *left];
                let index = phases.iter().position(|p| *p == phase);
                let index = index.unwrap_or_else(|| {
                    phases.push(phase);
                    phases.len() - 1
                });
                taps.push((index, [*down, *right]));
            }
        }
        Some(Self {
            vertical,
            horizontal,
            phases,
            taps,
        })
    }

    /// Height and width of the output.
    pub(crate) fn outputs(&self) -> [usize; 2] {
        [self.vertical.outputs, self.horizontal.outputs]
    }

    /// Number of positions of an image, including padding: enough rows for all taps, so that none reads another
    /// plane.
    pub(crate) fn area(&self) -> usize {
        let down = self.taps.iter().map(|(_, [down, _])| down).max();
        let met = self.vertical.outputs + down.unwrap_or(&0);
        self.vertical.pitch.max(met) * self.horizontal.pitch
    }

    /// Minimum number of positions between planes: taps may read the padding of an image after the last.
    pub(crate) fn margin(&self) -> usize {
        self.horizontal.pitch
    }

    /// Range of positions of `images` images in the plane of a phase, without rows of padding at either end.
    pub(crate) fn positions(&self, side: Side, phase: usize, images: usize) -> Range<usize> {
        let rows = match side {
            Side::Input => self.vertical.span(self.phases[phase][0]),
            Side::Output => 0..self.vertical.outputs,
        };
        let line = images * self.horizontal.pitch;
        rows.start * line..rows.end * line
    }

    /// Number of taps of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.taps.len()
    }

    /// The phase that a tap reads.
    pub(crate) fn phase(&self, tap: usize) -> usize {
        self.taps[tap].0
    }

    /// A tap's offset when `images` images are laid out together.
    pub(crate) fn offset(&self, tap: usize, images: usize) -> usize {
        let [down, right] = self.taps[tap].1;
        down * images * self.horizontal.pitch + right
    }

    /// Number of samples to lay out together when each has this many planes.
    pub(crate) fn samples_per_layout<T>(&self, samples: usize, planes: usize) -> usize {
        let fit = CACHE_BYTES / (planes * self.area() * size_of::<T>());
        POSITIONS
            .div_ceil(self.area())
            .min(fit)
            .clamp(1, samples.max(1))
    }

    /// The largest offset.
    pub(crate) fn reach(&self, images: usize) -> usize {
        let offsets = (0..self.taps.len()).map(|tap| self.offset(tap, images));
        offsets.max().unwrap_or(0)
    }

    /// Number of planes of a channel's image.
    pub(crate) fn planes(&self, side: Side) -> usize {
        match side {
            Side::Input => self.phases.len(),
            Side::Output => 1,
        }
    }

    /// Whether taps read every phase, and so every value of the input.
    pub(crate) fn reads_all_pixels(&self) -> bool {
        self.phases.len() == self.vertical.stride * self.horizontal.stride
    }

    /// Location of a channel's image, the first of `images`, in the plane of each phase.
    pub(crate) fn image_locations(&self, side: Side, images: usize) -> Vec<ImageLocation> {
        let (down, right) = (&self.vertical, &self.horizontal);
        let line = images * right.pitch;
        if side == Side::Output {
            return vec![ImageLocation {
                rows: down.outputs,
                columns: right.outputs,
                start: 0,
                pitch: line,
                next: right.pitch,
                pixel: 0,
                width: right.outputs,
                step: 1,
            }];
        }
        let phases = self.phases.iter().map(|[top, left]| {
            let (rows, columns) = (down.span(*top), right.span(*left));
            let pixel = |axis: &Axis, line, phase| line * axis.stride + phase - axis.padding;
            ImageLocation {
                start: rows.start * line + columns.start,
                pitch: line,
                next: right.pitch,
                pixel: pixel(down, rows.start, *top) * right.size
                    + pixel(right, columns.start, *left),
                width: right.size * down.stride,
                step: right.stride,
                rows: rows.len(),
                columns: columns.len(),
            }
        });
        phases.collect()
    }

    /// Number of pixels of a channel's image.
    pub(crate) fn pixels(&self, side: Side) -> usize {
        match side {
            Side::Input => self.vertical.size * self.horizontal.size,
            Side::Output => self.vertical.outputs * self.horizontal.outputs,
        }
    }
}

/// Location of a channel's image, or of a phase of it. In a plane, its lines start at index `start` and are `pitch`
/// apart, and the next image is `next` further; in a row of the tile, its lines start at index `pixel` and are
/// `width` apart, with values `step` apart.
#[derive(Clone, Copy)]
pub(crate) struct ImageLocation {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) start: usize,
    pub(crate) pitch: usize,
    pub(crate) next: usize,
    pub(crate) pixel: usize,
    pub(crate) width: usize,
    pub(crate) step: usize,
}
