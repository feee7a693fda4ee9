//! Losses on a plane in θ-space, the first layer's products made once.

use rayon::prelude::*;

use super::Scalar;
use super::layer::{Arranged, At};
use super::network::{Kept, Network, Samples};
use super::tiles::over_groups;
use crate::simd::vectorised;

impl<T: Scalar> Network<T> {
    /// Whether [`Network::on_plane`] applies.
    pub(super) fn has_affine_start(&self) -> bool {
        self.nodes[0].layer().is_some_and(|layer| layer.is_affine())
    }

    /// The sum of all samples' losses at θ + αd₁ + βd₂ for `vectors` θ, d₁, d₂ and each of some points α, β, and how
    /// many samples are classified right.
    ///
    /// The first layer's output is affine in its parameters, so it is y(θ) + αy(d₁) + βy(d₂): three products
    /// for all points. They are made one by one, as that of a forward pass is: at θ both give the same bits.
    pub(super) fn on_plane(
        &self,
        vectors: [&[T]; 3],
        samples: Samples<T>,
        points: &[[T; 2]],
    ) -> Vec<(f64, usize)> {
        let Some(layer) = self.nodes[0].layer() else {
            return Vec::new();
        };
        let first = vectors.map(|v| Arranged::new(Some(layer), &[v], false));
        let moved = |point: &[T; 2]| -> Vec<Arranged<T>> {
            let mut theta = vec![T::ZERO; vectors[0].len()];
            combine(vectors, *point, &mut theta);
            self.arrange(1, &[&theta])
        };
        let moved: Vec<Vec<Arranged<T>>> = points.par_iter().map(moved).collect();
        let (width, split) = (layer.outputs(), self.split(samples.count));
        let mut totals = vec![(0.0, 0); points.len()];
        over_groups(
            samples.count,
            split,
            || {
                (
                    [(); 3].map(|()| vec![T::ZERO; width * split.tile]),
                    Kept::default(),
                    vec![(0.0, 0); points.len()],
                )
            },
            |tiles, (parts, kept, sums)| {
                for tile in tiles {
                    let at = At {
                        samples: tile.len,
                        x: samples.tile(*tile, self),
                        y: &[],
                        notes: &[],
                        dy: &[],
                    };
                    for (first, part) in first.iter().zip(parts.iter_mut()) {
                        let part = &mut part[..width * tile.len];
                        layer.forward_tangent(first, first, &at, None, part);
                    }
                    let [a, b, c] = &*parts;
                    let targets = samples.targets(*tile, self);
                    for ((arranged, point), sum) in moved.iter().zip(points).zip(sums.iter_mut()) {
                        kept.fit(self, 0, tile.len, false);
                        combine([a, b, c], *point, &mut kept.values[1]);
                        self.forward_above(1, arranged, at.x, false, kept);
                        let (loss, right) =
                            self.head.score(&kept.values[self.nodes.len()], targets);
                        *sum = (sum.0 + loss, sum.1 + right);
                    }
                }
            },
            |(_, _, sums)| {
                for (total, sum) in totals.iter_mut().zip(sums) {
                    let (loss, right) = std::mem::take(sum);
                    *total = (total.0 + loss, total.1 + right);
                }
            },
        );
        totals
    }
}

vectorised! {
    /// target ← a + αb + βc
    fn combine<T: Scalar>(vectors: [&[T]; 3], point: [T; 2], target: &mut [T]) {
        let ([a, b, c], [alpha, beta]) = (vectors, point);
        for (((t, a), b), c) in target.iter_mut().zip(a).zip(b).zip(c) {
            *t = *a + alpha * *b + beta * *c;
        }
    }
}
