//! [`Planes`]: images in the layout of a [`Grid`].

use super::Scalar;
use super::correlation::{BLOCK, add_sums};
use super::image_grid::{Grid, Place, Side};
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
        let places = self.places(step, samples);
        load_places(&mut self.data, images, &places);
    }

    /// Writes images, `step` apart, with `bias` added per channel.
    pub(crate) fn store(&self, images: &mut [T], step: usize, samples: usize, bias: Option<&[T]>) {
        let zeros = vec![T::ZERO; self.channels];
        let bias = bias.unwrap_or(&zeros);
        if self.side == Side::Input && !self.grid.meets_all() {
            let pixels = self.channels * self.grid.pixels(self.side);
            for image in images.chunks_mut(step).take(samples) {
                image[..pixels].fill(T::ZERO);
            }
        }
        store_places(images, &self.data, &self.places(step, samples), bias);
    }

    /// Locations of every channel of every image.
    fn places(&self, step: usize, samples: usize) -> Vec<(usize, Place)> {
        let (grid, mut places) = (self.grid, Vec::new());
        for channel in 0..self.channels {
            for (phase, place) in grid.places(self.side, samples).into_iter().enumerate() {
                if place.rows == 0 || place.columns == 0 {
                    continue;
                }
                let plane = (phase * self.channels + channel) * self.pitch;
                let (at, pixel) = (
                    self.start + self.lead + plane + place.at,
                    channel * grid.pixels(self.side) + place.pixel,
                );
                places.extend((0..samples).map(|sample| {
                    let (at, pixel) = (at + sample * place.next, pixel + sample * step);
                    (channel, Place { at, pixel, ..place })
                }));
            }
        }
        places
    }
}

vectorised! {
    fn load_places<T: Scalar>(data: &mut [T], images: &[T], places: &[(usize, Place)]) {
        for (_, place) in places {
            let target = (&mut data[place.at..], place.pitch, 1);
            let source = (&images[place.pixel..], place.width);
            match place.step {
                1 => copy_lines(target, (source.0, source.1, 1), place, T::ZERO),
                2 => copy_lines(target, (source.0, source.1, 2), place, T::ZERO),
                step => copy_lines(target, (source.0, source.1, step), place, T::ZERO),
            }
        }
    }

    fn store_places<T: Scalar>(
        images: &mut [T],
        data: &[T],
        places: &[(usize, Place)],
        bias: &[T],
    ) {
        for (channel, place) in places {
            let target = (&mut images[place.pixel..], place.width);
            let source = (&data[place.at..], place.pitch, 1);
            match place.step {
                1 => copy_lines((target.0, target.1, 1), source, place, bias[*channel]),
                2 => copy_lines((target.0, target.1, 2), source, place, bias[*channel]),
                step => copy_lines((target.0, target.1, step), source, place, bias[*channel]),
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
    place: &Place,
    plus: T,
) {
    match place.columns {
        16.. => copy_by::<T, 16>(target, source, place, plus),
        8.. => copy_by::<T, 8>(target, source, place, plus),
        4.. => copy_by::<T, 4>(target, source, place, plus),
        _ => copy_by::<T, 1>(target, source, place, plus),
    }
}

/// Copies N values at a time; the last N overlap the previous ones.
#[inline(always)]
fn copy_by<T: Scalar, const N: usize>(
    (target, target_pitch, target_step): (&mut [T], usize, usize),
    (source, source_pitch, source_step): (&[T], usize, usize),
    place: &Place,
    plus: T,
) {
    let targets = target.chunks_mut(target_pitch);
    let lines = targets.zip(source.chunks(source_pitch)).take(place.rows);
    for (target, source) in lines {
        for column in (0..place.columns).step_by(N) {
            let column = column.min(place.columns - N);
            let target = &mut target[column * target_step..][..(N - 1) * target_step + 1];
            let source = &source[column * source_step..][..(N - 1) * source_step + 1];
            for i in 0..N {
                target[i * target_step] = source[i * source_step] + plus;
            }
        }
    }
}
