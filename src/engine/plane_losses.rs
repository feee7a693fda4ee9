//! Losses on a plane in θ-space, with the first layer's products computed once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::network::{CachedTile, Network, Purpose, Samples, TileInputs};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;
use crate::kernels::tiles::over_tiles;
use crate::layers::graph::Node;
use crate::layers::rules::{Layouts, Packed, Rules, Tangent};
use crate::progress;

/// The first layer's outputs at θ, along d₁ and along d₂, which losses at all points of a plane need, cached up to a budget.
pub(super) struct PlaneStart<T> {
    /// θ, d₁ and d₂, which is empty for a line.
    vectors: [Vec<T>; 3],
    /// In bytes.
    budget: usize,
    /// Bytes of all cached tiles.
    held: AtomicUsize,
    tiles: Vec<OnceLock<[Vec<T>; 3]>>,
}

impl<T: Scalar> PlaneStart<T> {
    /// Whether this is the plane through these vectors, with this budget.
    pub(super) fn is_on(&self, vectors: &[Vec<T>; 3], budget: usize) -> bool {
        self.budget == budget && self.vectors == *vectors
    }

    /// Whether the budget allows to cache a tile of this size; if so, it is counted.
    fn has_room(&self, bytes: usize) -> bool {
        let add = |held: usize| (held + bytes <= self.budget).then_some(held + bytes);
        let added = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.is_ok()
    }
}

impl<T: Scalar> Network<T> {
    /// The rules of the first layer, if [`Network::on_plane`] applies.
    pub(super) fn affine_start(&self) -> Option<&dyn Rules<T>> {
        let rules = self.nodes[0].rules();
        rules.filter(|rules| rules.is_affine())
    }

    /// The plane through `vectors` θ, d₁, d₂, of which nothing is cached yet. Without d₂ it is a line.
    pub(super) fn plane_start(
        &self,
        vectors: [Vec<T>; 3],
        samples: usize,
        budget: usize,
    ) -> PlaneStart<T> {
        let tiles = self.split(samples).count(samples);
        PlaneStart {
            vectors,
            budget,
            held: AtomicUsize::new(0),
            tiles: (0..tiles).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The sum of all samples' losses and the number of correct predictions at θ + αd₁ + βd₂ for several points (α, β).
    ///
    /// The first layer, which has these `rules`, is affine in its parameters: its output is y(θ) + αy(d₁) + βy(d₂), three
    /// products for all points of all calls. They are computed one by one, as in a forward pass, so the results at θ are
    /// bit-identical to it.
    pub(super) fn on_plane(
        &self,
        rules: &dyn Rules<T>,
        start: &PlaneStart<T>,
        samples: Samples<T>,
        points: &[[T; 2]],
    ) -> Result<Vec<(f64, usize)>> {
        let vectors = start.vectors.each_ref().map(Vec::as_slice);
        // Cached outputs need no weights of the first layer.
        let is_cached = start.tiles.iter().all(|tile| tile.get().is_some());
        let first = vectors.map(|v| {
            (!is_cached && !v.is_empty()).then(|| Packed::new(rules, &[v], Layouts::Forward))
        });
        let write_outputs = |x: &TileInputs<T>, parts: &mut [Vec<T>; 3]| {
            for (first, part) in first.iter().zip(parts) {
                let Some(first) = first else { continue };
                part.resize(rules.output_len() * x.samples, T::ZERO);
                rules.forward_tangent(&x.first_layer(first), &Tangent::along(first), part);
            }
        };
        let moved = |point: &[T; 2]| self.pack_rest(vectors, *point);
        let moved: Vec<Vec<Packed<T>>> = points.par_iter().map(moved).collect();
        let split = self.split(samples.count);
        let mut totals = vec![(0.0, 0); points.len()];
        over_tiles(
            samples.count,
            split,
            || {
                (
                    [(); 3].map(|()| Vec::new()),
                    CachedTile::default(),
                    vec![(0.0, 0); points.len()],
                )
            },
            |_, tile, (uncached, cached, sums)| {
                let x = samples.tile(tile, self);
                let bytes = 3 * rules.output_len() * tile.len * size_of::<T>();
                let kept = &start.tiles[split.index(tile)];
                let parts = match kept.get() {
                    Some(parts) => parts,
                    None if start.has_room(bytes) => kept.get_or_init(|| {
                        let mut parts = [(); 3].map(|()| Vec::new());
                        write_outputs(&x, &mut parts);
                        parts
                    }),
                    None => {
                        write_outputs(&x, uncached);
                        &*uncached
                    }
                };
                let parts = parts.each_ref().map(Vec::as_slice);
                let targets = samples.targets(tile, self);
                for ((packed, point), sum) in moved.iter().zip(points).zip(sums.iter_mut()) {
                    // A tile goes through the network once for each point.
                    progress::check()?;
                    cached.fit(self, 0, tile.len, Purpose::Values);
                    combine(parts, *point, &mut cached.values[1]);
                    self.forward_from(1, packed, &x, Purpose::Values, cached);
                    let (loss, correct) =
                        self.loss.score(&cached.values[self.nodes.len()], targets);
                    *sum = (sum.0 + loss, sum.1 + correct);
                }
                Ok(())
            },
            [|(_, _, sums): &mut (_, _, Vec<(f64, usize)>)| {
                for (total, sum) in totals.iter_mut().zip(sums) {
                    let (loss, correct) = std::mem::take(sum);
                    *total = (total.0 + loss, total.1 + correct);
                }
            }],
        )?;
        Ok(totals)
    }

    /// The parts of a + αb + βc that belong to each node but the first, for forward passes.
    fn pack_rest(&self, vectors: [&[T]; 3], point: [T; 2]) -> Vec<Packed<T>> {
        let rest = &self.nodes[1..];
        let mut moved = vec![T::ZERO; vectors[0].len()];
        let ranges = rest.iter().filter_map(|node| node.rules());
        let ranges = ranges.flat_map(|rules| rules.param_ranges());
        // The running statistics follow θ.
        for range in ranges.chain(std::iter::once(self.num_params..vectors[0].len())) {
            let parts = vectors.map(|v| v.get(range.clone()).unwrap_or_default());
            combine(parts, point, &mut moved[range]);
        }
        let pack = |node: &Node<T>| match node.rules() {
            Some(rules) => Packed::new(rules, &[&moved], Layouts::Forward),
            None => Packed::empty(1),
        };
        rest.iter().map(pack).collect()
    }
}

vectorised! {
    /// target ← a + αb + βc, or a + αb if c is empty.
    fn combine<T: Scalar>(vectors: [&[T]; 3], point: [T; 2], target: &mut [T]) {
        let ([a, b, c], [alpha, beta]) = (vectors, point);
        for ((t, a), b) in target.iter_mut().zip(a).zip(b) {
            *t = *a + alpha * *b;
        }
        for (t, c) in target.iter_mut().zip(c) {
            *t += beta * *c;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device, Tensor};

    use super::super::{HandDerived, Typed};
    use crate::data::Dataset;
    use crate::data::synthetic::two_moons;
    use crate::losses::{Loss, MeanLoss};
    use crate::model::{Activation, Architecture, Mlp, Model, Norm};
    use crate::random::{Purpose, normal};

    #[test]
    fn the_first_layers_products_are_computed_once_for_a_plane() {
        let data = two_moons(1_500, 0.1, 0, &Device::Cpu).unwrap();
        let model = Mlp::new(&[2, 5, 2], Activation::Tanh, 0, &Device::Cpu).unwrap();
        let (layers, parameters) = (model.layers().unwrap(), model.parameters());
        let loss = MeanLoss::new(Loss::CrossEntropy, data.targets()).unwrap();
        let new = || Typed::<f64>::new(&layers, parameters, &data, &loss).unwrap();
        let theta = parameters.to_flat().unwrap();
        let [d1, d2] = [0, 1].map(|i| normal(theta.len(), Purpose::Lanczos, 3, i));
        let points: Vec<[f64; 2]> = (0..9).map(|i| [f64::from(i % 3), f64::from(i)]).collect();
        let losses = |engine: &Typed<f64>, points: &[[f64; 2]], budget| {
            let found = engine.on_plane(&theta, [&d1, &d2], &data, points, budget);
            found.unwrap().unwrap()
        };

        let mut engine = new();
        let all = losses(&engine, &points, 1 << 20);
        assert_eq!(all[0], engine.loss(&theta, &data).unwrap());
        // In two calls; with room for some of the tiles, 3 · 5 · 1,500 numbers; without caching.
        assert_eq!(losses(&engine, &points[4..], 1 << 20), all[4..]);
        for budget in [80_000, 0] {
            let engine = new();
            for _ in 0..2 {
                assert_eq!(losses(&engine, &points, budget), all, "{budget}");
            }
            let plane = engine.plane.lock().unwrap();
            let tiles = &plane.as_ref().unwrap().1.tiles;
            let cached = tiles.iter().filter(|tile| tile.get().is_some()).count();
            assert_eq!(cached > 0, budget > 0);
            assert!(cached < tiles.len() && cached * 3 * 5 * 94 * 8 <= budget);
        }

        // Later calls read what the first one has computed.
        let (_, start) = engine.plane.get_mut().unwrap().as_mut().unwrap();
        for tile in &mut Arc::get_mut(start).unwrap().tiles {
            tile.get_mut().unwrap()[0].fill(f64::NAN);
        }
        assert!(losses(&engine, &points, 1 << 20)[0].0.is_nan());
        let other = engine.on_plane(&theta, [&d2, &d1], &data, &[[0.0; 2]], 1 << 20);
        assert_eq!(other.unwrap().unwrap(), all[..1]);
    }

    /// Losses on a line are those on a plane whose second direction is zero, for a network with batch normalisation.
    #[test]
    fn a_line_has_one_direction() {
        let images = |n: usize| {
            let x = normal(n * 64, Purpose::Lanczos, 5, 0);
            let x = Tensor::from_vec(x, (n, 1, 8, 8), &Device::Cpu).unwrap();
            let labels: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
            let labels = Tensor::from_vec(labels, n, &Device::Cpu).unwrap();
            Dataset::classification(&x, &labels).unwrap()
        };
        let data = images(40);
        let mut design = Architecture::Cnn.design();
        design.normalization = Norm::Batch;
        let model = design.build(&[1, 8, 8], 3, 0, &Device::Cpu).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        let (layers, parameters) = (model.layers().unwrap(), model.parameters());
        let loss = MeanLoss::new(Loss::CrossEntropy, data.targets()).unwrap();
        let engine = Typed::<f64>::new(&layers, parameters, &data, &loss).unwrap();
        let theta = parameters.to_flat().unwrap();
        let point = [theta.clone(), parameters.flat_statistics().unwrap()].concat();
        let d = normal(theta.len(), Purpose::Lanczos, 3, 0);
        let points = [[0.0, 0.0], [0.01, 0.0], [-0.02, 0.0]];
        let losses = |second: &[f64]| {
            let found = engine.on_plane(&point, [&d, second], &data, &points, 1 << 30);
            found.unwrap().unwrap()
        };
        let line = losses(&[]);
        assert_eq!(line, losses(&vec![0.0; theta.len()]));
        assert_eq!(line[0], engine.loss(&point, &data).unwrap());
        // Twice, because the second call reads what the first has cached.
        assert_eq!(line, losses(&[]));
        let moved: Vec<f64> = theta.iter().zip(&d).map(|(t, d)| t - 0.02 * d).collect();
        let moved = [&moved[..], &point[theta.len()..]].concat();
        let found = engine.loss(&moved, &data).unwrap();
        assert!((line[2].0 - found.0).abs() < 1e-12 && line[2].1 == found.1);
    }
}
