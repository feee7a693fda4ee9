//! [`Network`]: layers in a row, evaluated over the whole dataset, a tile of samples at a time.

use super::Scalar;
use super::head::{Curvature, Head, Targets};
use super::layer::{Arranged, At, Layer};
use super::tiles::{Split, Tile, over_groups};
use crate::vector::scale;

/// Tangents of one boundary that a core's cache holds beside all else.
const CACHE_BYTES: usize = 256 << 10;

/// Layers in a row with a loss at the end.
pub(super) struct Network<T> {
    pub(super) layers: Vec<Box<dyn Layer<T>>>,
    pub(super) head: Head,
    /// Numbers in a sample's inputs.
    pub(super) inputs: usize,
    /// Length of θ.
    pub(super) parameters: usize,
}

/// The dataset as slices.
#[derive(Clone, Copy)]
pub(super) struct Samples<'a, T> {
    pub(super) inputs: &'a [T],
    pub(super) targets: Targets<'a, T>,
    pub(super) count: usize,
}

/// What derivatives at a point θ need, for every sample: the primal pass, made once.
pub(super) struct Point<T> {
    pub(super) theta: Vec<T>,
    arranged: Vec<Arranged<T>>,
    groups: Vec<Vec<Kept<T>>>,
}

/// What is kept of a tile: at each of the L + 1 boundaries between layers the values that some layer
/// asks for and the loss's derivatives by them (none at the inputs), and each layer's notes.
#[derive(Default)]
pub(super) struct Kept<T> {
    pub(super) values: Vec<Vec<T>>,
    adjoints: Vec<Vec<T>>,
    notes: Vec<Vec<T>>,
}

impl<T: Scalar> Network<T> {
    fn width(&self, boundary: usize) -> usize {
        match boundary {
            0 => self.inputs,
            _ => self.layers[boundary - 1].outputs(),
        }
    }

    /// Numbers in a sample's row at the widest boundary above the inputs.
    fn widest(&self) -> usize {
        (1..=self.layers.len())
            .map(|b| self.width(b))
            .max()
            .unwrap_or(1)
    }

    /// The layers' own gradients for `k` directions, as buffers to fill.
    fn gradients(&self, k: usize) -> Vec<Vec<T>> {
        let layers = self.layers.iter();
        layers
            .map(|layer| vec![T::ZERO; k * layer.parameters()])
            .collect()
    }

    fn arrange(&self, vectors: &[&[T]]) -> Vec<Arranged<T>> {
        let layers = self.layers.iter();
        layers
            .map(|layer| Arranged::new(layer.as_ref(), vectors))
            .collect()
    }

    /// The sum of all samples' losses, and how many of them are classified right.
    pub(super) fn loss(&self, theta: &[T], samples: Samples<T>) -> (f64, usize) {
        let arranged = self.arrange(&[theta]);
        let mut total = (0.0, 0);
        over_groups(
            samples.count,
            || (Kept::default(), (0.0, 0)),
            |tiles, (kept, sum)| {
                for tile in tiles {
                    self.forward(&arranged, samples.tile(*tile, self), false, kept);
                    let targets = samples.targets(*tile, self);
                    let (loss, right) = self.head.score(&kept.values[self.layers.len()], targets);
                    *sum = (sum.0 + loss, sum.1 + right);
                }
            },
            |(_, sum)| {
                let (loss, right) = std::mem::take(sum);
                total = (total.0 + loss, total.1 + right);
            },
        );
        total
    }

    /// The sum of all samples' losses, and the gradient of their mean.
    pub(super) fn gradient(&self, theta: &[T], samples: Samples<T>) -> (f64, Vec<f64>) {
        let arranged = self.arrange(&[theta]);
        let mut total = 0.0;
        let mut gradient = [vec![0.0; self.parameters]];
        over_groups(
            samples.count,
            || (Kept::default(), self.gradients(1), 0.0),
            |tiles, (kept, buffers, loss)| {
                for (i, tile) in tiles.iter().enumerate() {
                    self.forward(&arranged, samples.tile(*tile, self), true, kept);
                    let targets = samples.targets(*tile, self);
                    *loss += self.head.loss(&kept.values[self.layers.len()], targets);
                    self.backward(&arranged, samples, *tile, kept);
                    for (l, layer) in self.layers.iter().enumerate() {
                        let at = self.at(l, samples.tile(*tile, self), kept);
                        layer.gradient(&at, &mut buffers[l], i == 0);
                    }
                }
            },
            |(_, buffers, loss)| {
                total += std::mem::take(loss);
                for (layer, buffer) in self.layers.iter().zip(buffers) {
                    layer.add_gradient(buffer, &mut gradient);
                }
            },
        );
        let [mut gradient] = gradient;
        scale(&mut gradient, 1.0 / samples.count as f64);
        (total, gradient)
    }

    /// The primal pass at θ, kept for products.
    pub(super) fn point(&self, theta: Vec<T>, samples: Samples<T>) -> Point<T> {
        let arranged = self.arrange(&[&theta]);
        let mut groups = Vec::new();
        over_groups(
            samples.count,
            Vec::new,
            |tiles, group| {
                for tile in tiles {
                    let mut kept = Kept::default();
                    self.forward(&arranged, samples.tile(*tile, self), true, &mut kept);
                    self.backward(&arranged, samples, *tile, &mut kept);
                    group.push(kept.thin(self));
                }
            },
            |group| groups.push(std::mem::take(group)),
        );
        Point {
            theta,
            arranged,
            groups,
        }
    }

    /// The products of `directions` with a curvature matrix at the point.
    ///
    /// As many go together as a core's cache holds tangents of, but two at least.
    pub(super) fn products(
        &self,
        point: &Point<T>,
        samples: Samples<T>,
        directions: &[&[T]],
        curvature: Curvature,
    ) -> Vec<Vec<f64>> {
        let row = self.widest() * Split::of(samples.count).tile * size_of::<T>();
        let together = (CACHE_BYTES / row).max(2);
        let some = directions.chunks(together);
        some.flat_map(|some| self.products_together(point, samples, some, curvature))
            .collect()
    }

    fn products_together(
        &self,
        point: &Point<T>,
        samples: Samples<T>,
        directions: &[&[T]],
        curvature: Curvature,
    ) -> Vec<Vec<f64>> {
        let (k, split) = (directions.len(), Split::of(samples.count));
        let arranged = self.arrange(directions);
        let mut products = vec![vec![0.0; self.parameters]; k];
        let widest = self.widest();
        let rows = split.tile * k;
        let above = || {
            self.layers
                .iter()
                .map(|layer| vec![T::ZERO; rows * layer.outputs()])
        };
        let scratch = || Scratch {
            // The inputs have no tangents.
            tangents: std::iter::once(Vec::new()).chain(above()).collect(),
            rdy: vec![T::ZERO; rows * widest],
            rdx: vec![T::ZERO; rows * widest],
            gradients: self.gradients(k),
        };
        over_groups(
            samples.count,
            scratch,
            |tiles, scratch| {
                for (i, tile) in tiles.iter().enumerate() {
                    let kept = &point.groups[tile.start / split.group][i];
                    let at = (point, &arranged[..], curvature);
                    self.tile_products(at, samples, *tile, kept, scratch, i == 0);
                }
            },
            |scratch| {
                for (layer, buffer) in self.layers.iter().zip(&scratch.gradients) {
                    layer.add_gradient(buffer, &mut products);
                }
            },
        );
        for product in &mut products {
            scale(product, 1.0 / samples.count as f64);
        }
        products
    }

    fn forward(&self, arranged: &[Arranged<T>], x: &[T], derivatives: bool, kept: &mut Kept<T>) {
        let samples = x.len() / self.inputs;
        kept.fit(self, 0, samples, derivatives);
        self.layers[0].forward(&arranged[0], x, &mut kept.values[1], &mut kept.notes[0]);
        self.forward_above(1, &arranged[1..], samples, derivatives, kept);
    }

    /// The forward pass from a boundary whose values are there, through the layers above it.
    pub(super) fn forward_above(
        &self,
        from: usize,
        arranged: &[Arranged<T>],
        samples: usize,
        derivatives: bool,
        kept: &mut Kept<T>,
    ) {
        for (l, arranged) in (from..).zip(arranged) {
            kept.fit(self, l, samples, derivatives);
            let (below, above) = kept.values.split_at_mut(l + 1);
            self.layers[l].forward(arranged, &below[l], &mut above[0], &mut kept.notes[l]);
        }
    }

    fn backward(
        &self,
        arranged: &[Arranged<T>],
        samples: Samples<T>,
        tile: Tile,
        kept: &mut Kept<T>,
    ) {
        let depth = self.layers.len();
        kept.adjoints.resize_with(depth + 1, Vec::new);
        for b in 1..=depth {
            kept.adjoints[b].resize(tile.len * self.width(b), T::ZERO);
        }
        let targets = samples.targets(tile, self);
        self.head
            .gradient(&kept.values[depth], targets, &mut kept.adjoints[depth]);
        for l in (1..depth).rev() {
            let mut dx = std::mem::take(&mut kept.adjoints[l]);
            let at = self.at(l, samples.tile(tile, self), kept);
            self.layers[l].backward(&arranged[l], &at, &mut dx);
            kept.adjoints[l] = dx;
        }
    }

    fn at<'a>(&self, l: usize, x: &'a [T], kept: &'a Kept<T>) -> At<'a, T> {
        At {
            samples: x.len() / self.inputs,
            x: if l == 0 { x } else { &kept.values[l] },
            y: &kept.values[l + 1],
            notes: &kept.notes[l],
            dy: &kept.adjoints[l + 1],
        }
    }

    fn tile_products(
        &self,
        (point, directions, curvature): (&Point<T>, &[Arranged<T>], Curvature),
        samples: Samples<T>,
        tile: Tile,
        kept: &Kept<T>,
        scratch: &mut Scratch<T>,
        first: bool,
    ) {
        let depth = self.layers.len();
        let k = directions[0].count;
        let at = |l: usize| self.at(l, samples.tile(tile, self), kept);
        let size = |b: usize| tile.len * k * self.width(b);
        for l in 0..depth {
            let (below, above) = scratch.tangents.split_at_mut(l + 1);
            let rx = (l > 0).then(|| &below[l][..size(l)]);
            let ry = &mut above[0][..size(l + 1)];
            self.layers[l].forward_tangent(&point.arranged[l], &directions[l], &at(l), rx, ry);
        }
        let (z, dz) = (&kept.values[depth], &kept.adjoints[depth]);
        let rz = &scratch.tangents[depth][..size(depth)];
        self.head
            .tangent(curvature, z, dz, rz, &mut scratch.rdy[..size(depth)]);
        let gauss_newton = curvature != Curvature::Hessian;
        for l in (0..depth).rev() {
            let (layer, at) = (&self.layers[l], at(l));
            let rx = (l > 0).then(|| &scratch.tangents[l][..size(l)]);
            let rdy = &scratch.rdy[..size(l + 1)];
            layer.gradient_tangent(&at, rx, rdy, &mut scratch.gradients[l], first, gauss_newton);
            if l > 0 {
                let (point, rdx) = ((&point.arranged[l], &at), &mut scratch.rdx[..size(l)]);
                layer.backward_tangent(point, &directions[l], rx, rdy, rdx, gauss_newton);
                std::mem::swap(&mut scratch.rdy, &mut scratch.rdx);
            }
        }
    }
}

impl<'a, T: Scalar> Samples<'a, T> {
    pub(super) fn tile(self, tile: Tile, network: &Network<T>) -> &'a [T] {
        &self.inputs[tile.start * network.inputs..][..tile.len * network.inputs]
    }

    pub(super) fn targets(self, tile: Tile, network: &Network<T>) -> Targets<'a, T> {
        self.targets.rows(tile.start, tile.len, network.head.width)
    }
}

impl<T: Scalar> Kept<T> {
    /// Makes room for what layer `l` writes.
    pub(super) fn fit(
        &mut self,
        network: &Network<T>,
        l: usize,
        samples: usize,
        derivatives: bool,
    ) {
        let layer = &network.layers[l];
        self.values.resize_with(network.layers.len() + 1, Vec::new);
        self.notes.resize_with(network.layers.len(), Vec::new);
        let notes = if derivatives { layer.notes() } else { 0 };
        self.notes[l].resize(samples * notes, T::ZERO);
        self.values[l + 1].resize(samples * layer.outputs(), T::ZERO);
    }

    /// Without the values that no layer's derivatives need.
    fn thin(mut self, network: &Network<T>) -> Self {
        let depth = network.layers.len();
        for b in 1..depth {
            if !network.layers[b].keeps_input() && !network.layers[b - 1].keeps_output() {
                self.values[b] = Vec::new();
            }
        }
        self
    }
}

/// A thread's buffers for products.
struct Scratch<T> {
    tangents: Vec<Vec<T>>,
    rdy: Vec<T>,
    rdx: Vec<T>,
    gradients: Vec<Vec<T>>,
}
