//! [`Grid`]: a layout of images in which whatever a tap of a convolution's kernel meets is a slice.
//!
//! Images that go together lie side by side, and positions of the output are numbered along the first row of
//! each, then along their second rows. After each image's row there are as many positions more as there is
//! padding on one side: zeros, which the end of one row shares with the start of the next. Then the number of the
//! input that a tap meets at position p lies at offset + p, with an offset that depends on the tap alone. For a
//! stride of s the input is split into s² *phases*, planes of rows and columns that are s apart. So each image is
//! copied once, and not once for every tap as im2col does, and no sums are made for rows of padding.

use std::ops::Range;

/// Positions that are laid out together, or a few more, where there are as many.
const POSITIONS: usize = 2048;
/// Bytes of the planes that are laid out together at most, for a core's cache.
const CACHE_BYTES: usize = 512 << 10;

/// One direction of an image.
#[derive(Clone, Debug)]
struct Axis {
    size: usize,
    outputs: usize,
    /// Rows that the image and the padding before it take, or numbers from one image's row to the next's.
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
        // Beyond the image there is nothing to step over.
        let stride = stride.min(padded);
        let outputs = padded.checked_sub(reach)?.checked_sub(1)? / stride + 1;
        let taps = (0..kernel).map(|tap| (tap * dilation % stride, tap * dilation / stride));
        Some(Self {
            size,
            outputs,
            // Of all phases, the first reaches furthest; what taps meet beyond is zeros, and the next row's.
            pitch: outputs.max((padding + size).div_ceil(stride)),
            stride,
            padding,
            taps: taps.collect(),
        })
    }

    /// Where a phase's numbers lie, between zeros.
    fn span(&self, phase: usize) -> Range<usize> {
        let until = |end: usize| end.saturating_sub(phase).div_ceil(self.stride);
        until(self.padding)..until(self.padding + self.size)
    }
}

/// How the images of a convolution are laid out.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    vertical: Axis,
    horizontal: Axis,
    /// Row and column that each phase starts at, of the phases that some tap meets.
    phases: Vec<[usize; 2]>,
    /// Each tap's phase, and how many rows and columns it lies from the first.
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
    /// None where the kernel does not fit into the padded image or something is zero.
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

    /// Positions of an image, with those of padding: rows for all that taps meet, lest they meet another plane.
    pub(crate) fn area(&self) -> usize {
        let down = self.taps.iter().map(|(_, [down, _])| down).max();
        let met = self.vertical.outputs + down.unwrap_or(&0);
        self.vertical.pitch.max(met) * self.horizontal.pitch
    }

    /// Positions between planes at least: taps may meet the padding of an image after the last.
    pub(crate) fn margin(&self) -> usize {
        self.horizontal.pitch
    }

    /// The positions of so many images on a side, in the plane of a phase, from the first to the last that is not
    /// in a row of padding.
    pub(crate) fn positions(&self, side: Side, phase: usize, images: usize) -> Range<usize> {
        let rows = match side {
            Side::Input => self.vertical.span(self.phases[phase][0]),
            Side::Output => 0..self.vertical.outputs,
        };
        let line = images * self.horizontal.pitch;
        rows.start * line..rows.end * line
    }

    /// How many taps the kernel has.
    pub(crate) fn taps(&self) -> usize {
        self.taps.len()
    }

    /// The phase that a tap meets.
    pub(crate) fn phase(&self, tap: usize) -> usize {
        self.taps[tap].0
    }

    /// A tap's offset where so many images go together.
    pub(crate) fn offset(&self, tap: usize, images: usize) -> usize {
        let [down, right] = self.taps[tap].1;
        down * images * self.horizontal.pitch + right
    }

    /// How many of some images go together when there are so many planes of each.
    pub(crate) fn together<T>(&self, samples: usize, planes: usize) -> usize {
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

    /// How many planes hold a channel's image.
    pub(crate) fn planes(&self, side: Side) -> usize {
        match side {
            Side::Input => self.phases.len(),
            Side::Output => 1,
        }
    }

    /// Whether every number of the input belongs to a phase that some tap meets.
    pub(crate) fn meets_all(&self) -> bool {
        self.phases.len() == self.vertical.stride * self.horizontal.stride
    }

    /// Where a channel's image, the first of so many, lies in the plane of each phase.
    pub(crate) fn places(&self, side: Side, images: usize) -> Vec<Place> {
        let (down, right) = (&self.vertical, &self.horizontal);
        let line = images * right.pitch;
        if side == Side::Output {
            return vec![Place {
                rows: down.outputs,
                columns: right.outputs,
                at: 0,
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
            Place {
                at: rows.start * line + columns.start,
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

    /// Numbers of a channel's image.
    pub(crate) fn pixels(&self, side: Side) -> usize {
        match side {
            Side::Input => self.vertical.size * self.horizontal.size,
            Side::Output => self.vertical.outputs * self.horizontal.outputs,
        }
    }
}

/// A channel's image, or a phase of it: its lines in a plane, `pitch` apart from number `at`, the next image's
/// `next` after them; and in a row of the tile, `width` apart from number `pixel`, with the numbers of a line
/// `step` apart.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) at: usize,
    pub(crate) pitch: usize,
    pub(crate) next: usize,
    pub(crate) pixel: usize,
    pub(crate) width: usize,
    pub(crate) step: usize,
}
