//! [`Convolution`]: two-dimensional convolution as arithmetic on slices.

use super::Scalar;
use super::correlation::{Term, add_products, pack, packed, sum_terms};
use super::image_grid::{Grid, Side};
use super::image_patches::Patches;
use super::image_planes::Planes;
use super::winograd::Winograd;

/// The shape of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvolutionShape {
    /// Channels, height and width of the input.
    pub(crate) input: [usize; 3],
    /// Output channels.
    pub(crate) channels: usize,
    /// Height and width of the kernel.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    /// Rows and columns of zeros on each side of the image.
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
    /// Groups of output channels that each read their own group of input channels.
    pub(crate) groups: usize,
}

/// y = x ∗ W + b: cross-correlation of images of shape (channels, height, width) with weights W of shape (output
/// channels, input channels / groups, height, width).
///
/// Most kernels of 3 × 3 go by [`Winograd`]'s method, and small images with many channels are multiplied as [`Patches`].
/// Otherwise, in the layout of [`Grid`], y is a sum of planes of x, each shifted by a tap's offset and multiplied by its
/// weight; dx is a sum of planes of dy, shifted back; and dW holds products of planes of dy with shifted planes of x. All
/// three are bilinear, so each tangent is the sum of two such terms.
#[derive(Debug)]
pub(crate) struct Convolution {
    pub(crate) shape: ConvolutionShape,
    grid: Grid,
    method: Method,
}

/// How a convolution is computed.
#[derive(Debug)]
enum Method {
    /// As sums of planes in the layout of a [`Grid`].
    Planes,
    Patches(Patches),
    Winograd(Winograd),
}

/// Packed weights, and the rows of x or dy to multiply by them.
pub(crate) type Factor<'a, T> = (&'a [T], &'a [T]);

impl Convolution {
    /// # Errors
    /// An invalid shape: zeros, groups that do not divide the channels, a kernel larger than the padded image.
    pub(crate) fn new(shape: ConvolutionShape) -> Result<Self, String> {
        let ConvolutionShape {
            input: [inputs, height, width],
            channels,
            kernel,
            stride,
            padding,
            dilation,
            groups,
        } = shape;
        if groups == 0 || inputs % groups > 0 || channels % groups > 0 {
            return Err(format!(
                "groups that divide {inputs} input channels and {channels} output channels, not {groups}"
            ));
        }
        if [inputs, channels, stride, dilation].contains(&0) {
            return Err(format!(
                "channels, a stride and a dilation of at least 1, not {inputs} and {channels} channels, stride {stride} and \
                 dilation {dilation}"
            ));
        }
        let grid = Grid::new([height, width], kernel, stride, padding, dilation);
        let grid = grid.ok_or_else(|| {
            let [down, right] = kernel;
            format!("images that hold the {down} × {right} kernel, with dilation {dilation} and padding {padding}")
        })?;
        let method = if Winograd::pays(&shape, grid.outputs()) {
            Method::Winograd(Winograd::new(&shape, grid.outputs()))
        } else if Patches::pay(&shape, &grid) {
            Method::Patches(Patches::new(&shape, &grid))
        } else {
            Method::Planes
        };
        Ok(Self {
            shape,
            grid,
            method,
        })
    }

    /// The same by each method that is possible.
    #[cfg(test)]
    pub(crate) fn by_each_method(self) -> Vec<Self> {
        let Self { shape, grid, .. } = self;
        let mut methods = vec![Method::Planes];
        if shape.groups == 1 {
            methods.push(Method::Patches(Patches::new(&shape, &grid)));
        }
        if Winograd::fits(&shape) {
            methods.push(Method::Winograd(Winograd::new(&shape, grid.outputs())));
        }
        let with = |method| Self {
            shape,
            grid: grid.clone(),
            method,
        };
        methods.into_iter().map(with).collect()
    }

    /// Number of weights.
    pub(crate) fn num_weights(&self) -> usize {
        let [height, width] = self.shape.kernel;
        self.shape.channels * self.in_group(Side::Input) * height * width
    }

    /// Channels, height and width of the output.
    pub(crate) fn output(&self) -> [usize; 3] {
        let [height, width] = self.grid.outputs();
        [self.shape.channels, height, width]
    }

    fn channels(&self, side: Side) -> usize {
        match side {
            Side::Input => self.shape.input[0],
            Side::Output => self.shape.channels,
        }
    }

    /// Number of values of a sample on a side.
    pub(crate) fn width(&self, side: Side) -> usize {
        self.channels(side) * self.grid.pixels(side)
    }

    fn planes<T: Scalar>(&self, side: Side, samples: usize) -> Planes<'_, T> {
        Planes::new(&self.grid, side, self.channels(side), samples)
    }

    /// Number of samples that are laid out together.
    fn samples_per_layout<T>(&self, samples: usize) -> usize {
        let planes = |side| self.channels(side) * self.grid.planes(side);
        let planes = planes(Side::Input) + planes(Side::Output);
        self.grid.samples_per_layout::<T>(samples, planes)
    }

    /// Number of channels in a group.
    fn in_group(&self, side: Side) -> usize {
        self.channels(side) / self.shape.groups
    }

    /// Terms of the sums that give planes of a side, for each plane of a channel: (channel of the other side, counted
    /// from the group's first, tap).
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

    /// Offset of each of these terms at position 0, from the planes of the group's first channel, for `images` images
    /// laid out together.
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

    /// Whether sums over both sides read the weights in the same order.
    pub(crate) fn packs_once(&self) -> bool {
        matches!(self.method, Method::Patches(_))
    }

    /// Appends the weights in the order in which sums over the other side read them.
    pub(crate) fn pack<T: Scalar>(&self, to: Side, weight: &[T], packed: &mut Vec<T>) {
        match &self.method {
            Method::Planes => {}
            Method::Patches(patches) => return patches.pack(weight, packed),
            Method::Winograd(winograd) => return winograd.pack(to, weight, packed),
        }
        let (groups, taps) = (self.shape.groups, self.grid.taps());
        let rows = self.in_group(to);
        let (inputs, outputs) = (self.in_group(Side::Input), self.in_group(Side::Output));
        for columns in self.columns(to) {
            for group in 0..groups {
                pack(packed, rows, columns.len(), |row, column| {
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

    /// Writes rows of a side for each of `k` directions: sums over rows of the other side. Either the rows differ per
    /// direction and W is shared, or the rows are shared and each direction has its own W.
    pub(crate) fn sums<T: Scalar>(
        &self,
        to: Side,
        (own, shared): (Option<Factor<T>>, Option<Factor<T>>),
        biases: &[T],
        target: &mut [T],
        k: usize,
    ) {
        match &self.method {
            Method::Planes => {}
            Method::Patches(patches) => return patches.sums(to, (own, shared), biases, target, k),
            Method::Winograd(winograd) => {
                return winograd.sums(to, (own, shared), biases, target, k);
            }
        }
        let from = to.other();
        let (from_width, to_width) = (self.width(from), self.width(to));
        let samples = target.len() / (k * to_width);
        let per_layout = self.samples_per_layout::<T>(samples);
        let planes = |(weights, rows)| (weights, rows, self.planes::<T>(from, per_layout));
        let (mut own, mut shared) = (own.map(planes), shared.map(planes));
        let mut sums = self.planes(to, per_layout);
        for start in (0..samples).step_by(per_layout) {
            let count = per_layout.min(samples - start);
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

    /// Writes planes of a side: the sum over one or two factors.
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

    /// Adds the gradient with respect to the weights, and to the biases if `gradient` has room for them, for each of `k`
    /// directions: sums over the samples of products of `rdy`, with `k` rows per sample, and `x`. `second` adds
    /// products of `dy` and `rx`, with `k` rows per sample.
    pub(crate) fn add_gradient<T: Scalar>(
        &self,
        (x, rdy): (&[T], &[T]),
        second: Option<(&[T], &[T])>,
        gradient: &mut [T],
        k: usize,
    ) {
        match &self.method {
            Method::Planes => {}
            Method::Patches(patches) => return patches.add_gradient((x, rdy), second, gradient, k),
            Method::Winograd(winograd) => {
                return winograd.add_gradient((x, rdy), second, gradient, k);
            }
        }
        let (x_width, y_width) = (self.width(Side::Input), self.width(Side::Output));
        let samples = rdy.len() / (k * y_width);
        let each = gradient.len() / k;
        let per_layout = self.samples_per_layout::<T>(samples);
        let planes = || {
            let planes = |side| self.planes::<T>(side, per_layout);
            (planes(Side::Input), planes(Side::Output))
        };
        let (mut x_planes, mut rdy_planes) = planes();
        let mut second = second.map(|rows| (rows, planes()));
        for start in (0..samples).step_by(per_layout) {
            let count = per_layout.min(samples - start);
            let offsets = &self.offsets(Side::Output, &x_planes, count)[0];
            x_planes.load(&x[start * x_width..], x_width, count);
            if let Some(((_, dy), (_, dy_planes))) = &mut second {
                dy_planes.load(&dy[start * y_width..], y_width, count);
            }
            for (j, gradient) in gradient.chunks_exact_mut(each).enumerate() {
                let row = start * k + j;
                let (weights, bias) = gradient.split_at_mut(self.num_weights());
                rdy_planes.load(&rdy[row * y_width..], k * y_width, count);
                self.add_products((&rdy_planes, &x_planes), offsets, count, weights);
                rdy_planes.add_totals(bias);
                if let Some(((rx, _), (rx_planes, dy_planes))) = &mut second {
                    rx_planes.load(&rx[row * x_width..], k * x_width, count);
                    self.add_products((dy_planes, rx_planes), offsets, count, weights);
                }
            }
        }
    }
}
