//! [`Planes`]: images in the layout of a [`Grid`].

use super::Scalar;
use super::correlation::{BLOCK, add_sums};
use super::image_grid::{Grid, ImageLocation, Side};
use crate::kernels::simd::vectorised;

/// Planes of several images: one per phase and channel of the input, or per channel of the output.
pub(crate) struct Planes<'a, T> {
    grid: &'a Grid,
    side: Side,
    channels: usize,
    /// Number of images currently laid out.
    samples: usize,
    data: Vec<T>,
    /// Index of the first cache line boundary.
    start: usize,
    /// Number of zeros from `start` to the first plane.
    pub(crate) lead: usize,
    /// Distance from one plane to the next.
    pub(crate) pitch: usize,
}

impl<'a, T: Scalar> Planes<'a, T> {
    /// Allocates planes for at most this many channels and images.
    pub(crate) fn new(grid: &'a Grid, side: Side, channels: usize, samples: usize) -> Self {
        const LINE: usize = 16;
        let (reach, len) = (grid.reach(samples), samples * grid.area());
        let lead = reach.next_multiple_of(LINE);
        // An odd number of cache lines, so that planes do not map to the same cache sets.
        let lines = (len + BLOCK + grid.margin()).div_ceil(LINE) | 1;
        let (pitch, planes) = (lines * LINE, grid.planes(side) * channels);
        let data = vec![T::ZERO; LINE + lead + planes * pitch + reach + BLOCK];
        Self {
            grid,
            side,
            channels,
            samples,
            start: data.as_ptr().align_offset(64).min(LINE),
            data,
            lead,
            pitch,
        }
    }

    /// The planes starting at `plane`, with the `lead` before it.
    pub(crate) fn planes(&self, plane: usize) -> &[T] {
        &self.data[self.start + plane * self.pitch..]
    }

    /// The planes starting at `plane`.
    pub(crate) fn planes_mut(&mut self, plane: usize) -> &mut [T] {
        &mut self.data[self.start + self.lead + plane * self.pitch..]
    }

    /// Adds each channel's sum over the images of the output.
    pub(crate) fn add_totals(&self, totals: &mut [T]) {
        let planes = &self.data[self.start + self.lead..];
        let positions = self.grid.positions(Side::Output, 0, self.samples);
        add_sums(planes, self.pitch, positions.end, totals);
    }

    /// Lays out images, `step` apart.
    pub(crate) fn load(&mut self, images: &[T], step: usize, samples: usize) {
        if samples != self.samples {
            // The previous images occupied different positions.
            self.data.fill(T::ZERO);
            self.samples = samples;
        }
        let locations = self.locations(step, samples);
        load_images(&mut self.data, images, &locations);
    }

    /// Writes images, `step` apart, with `bias` added per channel.
    pub(crate) fn store(&self, images: &mut [T], step: usize, samples: usize, bias: Option<&[T]>) {
        let zeros = vec![T::ZERO; self.channels];
        let bias = bias.unwrap_or(&zeros);
        if self.side == Side::Input && !self.grid.reads_all_pixels() {
            let pixels = self.channels * self.grid.pixels(self.side);
            for image in images.chunks_mut(step).take(samples) {
                image[..pixels].fill(T::ZERO);
            }
        }
        store_images(images, &self.data, &self.locations(step, samples), bias);
    }

    /// Locations of every channel of every image.
    fn locations(&self, step: usize, samples: usize) -> Vec<(usize, ImageLocation)> {
        let (grid, mut locations) = (self.grid, Vec::new());
        for channel in 0..self.channels {
            for (phase, location) in grid
                .image_locations(self.side, samples)
                .into_iter()
                .enumerate()
            {
                if location.rows == 0 || location.columns == 0 {
                    continue;
                }
                let plane = (phase * self.channels + channel) * self.pitch;
                let (start, pixel) = (
                    self.start + self.lead + plane + location.start,
                    channel * grid.pixels(self.side) + location.pixel,
                );
                locations.extend((0..samples).map(|sample| {
                    let (start, pixel) = (start + sample * location.next, pixel + sample * step);
                    (
                        channel,
                        ImageLocation {
                            start,
                            pixel,
                            ..location
                        },
                    )
                }));
            }
        }
        locations
    }
}

vectorised! {
    fn load_images<T: Scalar>(data: &mut [T], images: &[T], locations: &[(usize, ImageLocation)]) {
        for (_, location) in locations {
            let target = (&mut data[location.start..], location.pitch, 1);
            let source = (&images[location.pixel..], location.width);
            match location.step {
                1 => copy_lines(target, (source.0, source.1, 1), location, T::ZERO),
                2 => copy_lines(target, (source.0, source.1, 2), location, T::ZERO),
                step => copy_lines(target, (source.0, source.1, step), location, T::ZERO),
            }
        }
    }

    fn store_images<T: Scalar>(
        images: &mut [T],
        data: &[T],
        locations: &[(usize, ImageLocation)],
        bias: &[T],
    ) {
        for (channel, location) in locations {
            let target = (&mut images[location.pixel..], location.width);
            let source = (&data[location.start..], location.pitch, 1);
            match location.step {
                1 => copy_lines((target.0, target.1, 1), source, location, bias[*channel]),
                2 => copy_lines((target.0, target.1, 2), source, location, bias[*channel]),
                step => copy_lines((target.0, target.1, step), source, location, bias[*channel]),
            }
        }
    }
}

/// Copies lines and adds `plus` to each value. Both slices come with the distance between lines and between values;
/// callers pass constants where possible, so that the compiler can specialise.
#[inline(always)]
fn copy_lines<T: Scalar>(
    target: (&mut [T], usize, usize),
    source: (&[T], usize, usize),
    location: &ImageLocation,
    plus: T,
) {
    match location.columns {
        16.. => copy_by::<T, 16>(target, source, location, plus),
        8.. => copy_by::<T, 8>(target, source, location, plus),
        4.. => copy_by::<T, 4>(target, source, location, plus),
        _ => copy_by::<T, 1>(target, source, location, plus),
    }
}

/// Copies N values at a time; the last N overlap the previous ones.
#[inline(always)]
fn copy_by<T: Scalar, const N: usize>(
    (target, target_pitch, target_step): (&mut [T], usize, usize),
    (source, source_pitch, source_step): (&[T], usize, usize),
    location: &ImageLocation,
    plus: T,
) {
    let targets = target.chunks_mut(target_pitch);
    let lines = targets.zip(source.chunks(source_pitch)).take(location.rows);
    for (target, source) in lines {
        for column in (0..location.columns).step_by(N) {
            let column = column.min(location.columns - N);
            let target = &mut target[column * target_step..][..(N - 1) * target_step + 1];
            let source = &source[column * source_step..][..(N - 1) * source_step + 1];
            for i in 0..N {
                target[i * target_step] = source[i * source_step] + plus;
            }
        }
    }
}
