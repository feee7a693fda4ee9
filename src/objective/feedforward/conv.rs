//! [`Conv2d`]: two-dimensional convolution.

use std::ops::Range;

use super::Scalar;
use super::correlate::{Term, add_products, pack, packed, sum_terms};
use super::grid::{Grid, Side};
use super::layer::{Arranged, At, Layer};
use super::planes::Planes;

/// The shape of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Channels, height and width of the input.
    pub(super) input: [usize; 3],
    /// Channels of the output.
    pub(super) channels: usize,
    /// Height and width.
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    /// Zeros on every side.
    pub(super) padding: usize,
    pub(super) dilation: usize,
    /// Groups of channels of the output that each see their own of the input.
    pub(super) groups: usize,
}

/// y = x ∗ W + b, the cross-correlation, of images that are channels × height × width, with W, channels of y ×
/// channels of x in a group × height × width, and b at these places of θ.
///
/// In the layout of [`Grid`] y is a sum of planes of x, each shifted by a tap's offset and multiplied with its
/// weight; dx is one of planes of dy, shifted back; and dW holds products of planes of dy with shifted ones of x.
/// All three are bilinear, so that their tangents are two such sums each.
///
/// Its gradient holds W and then b, for each direction.
pub(super) struct Conv2d {
    shape: Shape,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    grid: Grid,
}

/// W as the layer arranges it, and rows of x or dy to multiply with it.
type Factor<'a, T> = (&'a [T], &'a [T]);

impl Conv2d {
    /// None if that is no convolution: a kernel larger than the padded image, groups that do not divide the
    /// channels, zeros, a range of θ of another length.
    pub(super) fn new(
        shape: Shape,
        weight: Range<usize>,
        bias: Option<Range<usize>>,
    ) -> Option<Self> {
        let Shape {
            input: [inputs, height, width],
            channels,
            kernel,
            groups,
            ..
        } = shape;
        if inputs == 0
            || channels == 0
            || groups == 0
            || inputs % groups > 0
            || channels % groups > 0
            || weight.len() != channels * (inputs / groups) * kernel[0] * kernel[1]
            || bias.as_ref().is_some_and(|bias| bias.len() != channels)
        {
            return None;
        }
        let grid = Grid::new(
            [height, width],
            kernel,
            shape.stride,
            shape.padding,
            shape.dilation,
        )?;
        Some(Self {
            shape,
            weight,
            bias,
            grid,
        })
    }

    /// Channels, height and width of the output.
    pub(super) fn output(&self) -> [usize; 3] {
        let [height, width] = self.grid.outputs();
        [self.shape.channels, height, width]
    }

    fn channels(&self, side: Side) -> usize {
        match side {
            Side::Input => self.shape.input[0],
            Side::Output => self.shape.channels,
        }
    }

    /// Numbers in a sample's row.
    fn width(&self, side: Side) -> usize {
        self.channels(side) * self.grid.pixels(side)
    }

    fn planes<T: Scalar>(&self, side: Side, samples: usize) -> Planes<'_, T> {
        Planes::new(&self.grid, side, self.channels(side), samples)
    }

    /// How many samples are laid out together.
    fn together<T>(&self, samples: usize) -> usize {
        let planes = |side| self.channels(side) * self.grid.planes(side);
        let planes = planes(Side::Input) + planes(Side::Output);
        self.grid.together::<T>(samples, planes)
    }

    /// Channels that belong to a group.
    fn in_group(&self, side: Side) -> usize {
        self.channels(side) / self.shape.groups
    }

    /// What sums that make planes of a side go over, for each plane of a channel: channels of the other side,
    /// counted from the group's first, and taps.
    fn columns(&self, to: Side) -> Vec<Vec<(usize, usize)>> {
        let mut columns = vec![Vec::new(); self.grid.planes(to)];
        for channel in 0..self.in_group(to.other()) {
            for tap in 0..self.grid.taps() {
                let plane = match to {
                    Side::Input => self.grid.phase(tap),
                    Side::Output => 0,
                };
                columns[plane].push((channel, tap));
            }
        }
        columns
    }

    /// Where each of these lies at position 0, from the planes of the group's first channel on, where so many images
    /// go together.
    fn offsets<T>(&self, to: Side, planes: &Planes<T>, images: usize) -> Vec<Vec<usize>> {
        let offset = |(channel, tap): &(usize, usize)| {
            let offset = self.grid.offset(*tap, images);
            match to {
                Side::Output => {
                    let plane = self.grid.phase(*tap) * self.shape.input[0] + channel;
                    planes.lead + plane * planes.pitch + offset
                }
                Side::Input => planes.lead + channel * planes.pitch - offset,
            }
        };
        let columns = self.columns(to).into_iter();
        columns
            .map(|columns| columns.iter().map(offset).collect())
            .collect()
    }

    /// W, arranged for sums that make planes of a side.
    fn arrange<T: Scalar>(&self, to: Side, vector: &[T], arranged: &mut Vec<T>) {
        let (groups, taps) = (self.shape.groups, self.grid.taps());
        let weight = &vector[self.weight.clone()];
        let rows = self.in_group(to);
        let (inputs, outputs) = (self.in_group(Side::Input), self.in_group(Side::Output));
        for columns in self.columns(to) {
            for group in 0..groups {
                pack(arranged, rows, columns.len(), |row, column| {
                    let (channel, tap) = columns[column];
                    let (output, input) = match to {
                        Side::Output => (row, channel),
                        Side::Input => (channel, row),
                    };
                    weight[((group * outputs + output) * inputs + input) * taps + tap]
                });
            }
        }
    }

    /// The weights and the biases that [`Layer::arrange_forward`] made.
    fn split<'a, T>(&self, arranged: &'a Arranged<T>) -> (&'a [T], &'a [T]) {
        let biases = arranged.count * self.bias.as_ref().map_or(0, Range::len);
        arranged.forward.split_at(arranged.forward.len() - biases)
    }

    /// Writes rows of a side for each of `k` directions: sums over rows of the other side, which each direction
    /// may have of its own, with one W, and which all may share, with a W for each.
    fn sums<T: Scalar>(
        &self,
        to: Side,
        (own, shared): (Option<Factor<T>>, Option<Factor<T>>),
        biases: &[T],
        target: &mut [T],
        k: usize,
    ) {
        let from = to.other();
        let (from_width, to_width) = (self.width(from), self.width(to));
        let samples = target.len() / (k * to_width);
        let together = self.together::<T>(samples);
        let planes = |(weights, rows)| (weights, rows, self.planes::<T>(from, together));
        let (mut own, mut shared) = (own.map(planes), shared.map(planes));
        let mut sums = self.planes(to, together);
        for start in (0..samples).step_by(together) {
            let count = together.min(samples - start);
            let offsets = self.offsets(to, &sums, count);
            if let Some((_, rows, planes)) = &mut shared {
                planes.load(&rows[start * from_width..], from_width, count);
            }
            for j in 0..k {
                let row = start * k + j;
                if let Some((_, rows, planes)) = &mut own {
                    planes.load(&rows[row * from_width..], k * from_width, count);
                }
                let own = own.as_ref().map(|(weights, _, planes)| (*weights, planes));
                let shared = shared.as_ref().map(|(weights, _, planes)| {
                    let each = weights.len() / k;
                    (&weights[j * each..][..each], planes)
                });
                self.add_up(to, [own, shared], &offsets, &mut sums, count);
                let bias = biases.chunks_exact(self.shape.channels).nth(j);
                let rows = &mut target[row * to_width..];
                sums.store(rows, k * to_width, count, bias);
            }
        }
    }

    /// Writes planes of a side: the sum of one or two factors.
    fn add_up<T: Scalar>(
        &self,
        to: Side,
        factors: [Option<(&[T], &Planes<T>)>; 2],
        offsets: &[Vec<usize>],
        sums: &mut Planes<T>,
        samples: usize,
    ) {
        let (rows, sources) = (self.in_group(to), self.in_group(to.other()));
        let pitch = sums.pitch;
        let mut at = 0;
        for (phase, offsets) in offsets.iter().enumerate() {
            let positions = self.grid.positions(to, phase, samples);
            for group in 0..self.shape.groups {
                let size = packed(rows, offsets.len());
                let terms = factors.map(|factor| {
                    factor.map(|(weights, planes)| Term {
                        weights: &weights[at..][..size],
                        source: &planes.planes(group * sources)[positions.start..],
                        offsets,
                    })
                });
                let out = sums.planes_mut(phase * self.channels(to) + group * rows);
                let out = &mut out[positions.start..];
                sum_terms(&terms, rows, out, pitch, positions.len());
                at += size;
            }
        }
    }

    /// Adds products of dy and x to dW.
    fn add_products<T: Scalar>(
        &self,
        (dy, x): (&Planes<T>, &Planes<T>),
        offsets: &[usize],
        samples: usize,
        weights: &mut [T],
    ) {
        let (rows, inputs) = (self.in_group(Side::Output), self.in_group(Side::Input));
        let len = self.grid.positions(Side::Output, 0, samples).end;
        let parts = weights.chunks_exact_mut(rows * offsets.len());
        for (group, weights) in parts.enumerate() {
            let planes = (&dy.planes(group * rows)[dy.lead..], rows, dy.pitch);
            add_products(planes, x.planes(group * inputs), offsets, len, weights);
        }
    }
}

impl<T: Scalar> Layer<T> for Conv2d {
    fn outputs(&self) -> usize {
        self.width(Side::Output)
    }

    fn is_affine(&self) -> bool {
        true
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn places(&self) -> Vec<Range<usize>> {
        std::iter::once(&self.weight)
            .chain(&self.bias)
            .cloned()
            .collect()
    }

    /// W of each vector, then b of each.
    fn arrange_forward(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut arranged = Vec::new();
        for vector in vectors {
            self.arrange(Side::Output, vector, &mut arranged);
        }
        for vector in vectors {
            if let Some(bias) = &self.bias {
                arranged.extend_from_slice(&vector[bias.clone()]);
            }
        }
        arranged
    }

    fn arrange_backward(&self, vectors: &[&[T]]) -> Vec<T> {
        let mut arranged = Vec::new();
        for vector in vectors {
            self.arrange(Side::Input, vector, &mut arranged);
        }
        arranged
    }

    fn forward(&self, theta: &Arranged<T>, x: &[T], y: &mut [T], _notes: &mut [T]) {
        let (weights, bias) = self.split(theta);
        self.sums(Side::Output, (Some((weights, x)), None), bias, y, 1);
    }

    fn forward_tangent(
        &self,
        theta: &Arranged<T>,
        directions: &Arranged<T>,
        at: &At<T>,
        rx: Option<&[T]>,
        ry: &mut [T],
    ) {
        let own = rx.map(|rx| (self.split(theta).0, rx));
        let (weights, biases) = self.split(directions);
        let factors = (own, Some((weights, at.x)));
        self.sums(Side::Output, factors, biases, ry, directions.count);
    }

    fn backward_tangent(
        &self,
        (theta, at): (&Arranged<T>, &At<T>),
        directions: &Arranged<T>,
        _rx: Option<&[T]>,
        rdy: &[T],
        rdx: &mut [T],
        gauss_newton: bool,
    ) {
        let own = Some((&theta.backward[..], rdy));
        let shared = (!gauss_newton).then_some((&directions.backward[..], at.dy));
        self.sums(Side::Input, (own, shared), &[], rdx, directions.count);
    }

    fn gradient_tangent(
        &self,
        (_, at): (&Arranged<T>, &At<T>),
        rx: Option<&[T]>,
        rdy: &[T],
        gradient: &mut [T],
        first: bool,
        gauss_newton: bool,
    ) {
        if first {
            gradient.fill(T::ZERO);
        }
        let (x_width, y_width) = (self.width(Side::Input), self.width(Side::Output));
        let k = rdy.len() / (at.samples * y_width);
        let each = gradient.len() / k;
        let together = self.together::<T>(at.samples);
        let planes = || {
            let planes = |side| self.planes::<T>(side, together);
            (planes(Side::Input), planes(Side::Output))
        };
        let (mut x, mut dy) = planes();
        let mut second = rx.filter(|_| !gauss_newton).map(|rx| (rx, planes()));
        for start in (0..at.samples).step_by(together) {
            let count = together.min(at.samples - start);
            let offsets = &self.offsets(Side::Output, &x, count)[0];
            x.load(&at.x[start * x_width..], x_width, count);
            if let Some((_, (_, dy))) = &mut second {
                dy.load(&at.dy[start * y_width..], y_width, count);
            }
            for (j, gradient) in gradient.chunks_exact_mut(each).enumerate() {
                let row = start * k + j;
                let (weights, bias) = gradient.split_at_mut(self.weight.len());
                dy.load(&rdy[row * y_width..], k * y_width, count);
                self.add_products((&dy, &x), offsets, count, weights);
                dy.add_totals(bias);
                if let Some((rx, (x, dy))) = &mut second {
                    x.load(&rx[row * x_width..], k * x_width, count);
                    self.add_products((dy, x), offsets, count, weights);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
