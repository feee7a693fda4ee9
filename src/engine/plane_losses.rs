//! Losses on a plane in θ-space, with the first layer's products computed once.

use rayon::prelude::*;

use super::network::{CachedTile, Network, Purpose, Samples};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::simd::vectorised;
use crate::kernels::tiles::over_tiles;
use crate::layers::rules::{Layouts, Packed, Tangent};
use crate::progress;

impl<T: Scalar> Network<T> {
    /// Whether [`Network::on_plane`] applies.
    pub(crate) fn has_affine_start(&self) -> bool {
        self.nodes[0].rules().is_some_and(|rules| rules.is_affine())
    }

    /// The sum of all samples' losses and the number of correct predictions at θ + αd₁ + βd₂ for `vectors` θ, d₁, d₂
    /// and several points (α, β).
    ///
    /// The first layer's output is affine in its parameters, so it is y(θ) + αy(d₁) + βy(d₂): three products for all
    /// points. They are computed one by one, as in a forward pass, so the results at θ are bit-identical to it.
    pub(crate) fn on_plane(
        &self,
        vectors: [&[T]; 3],
        samples: Samples<T>,
        points: &[[T; 2]],
    ) -> Result<Vec<(f64, usize)>> {
        let Some(rules) = self.nodes[0].rules() else {
            return Ok(Vec::new());
        };
        let first = vectors.map(|v| Packed::new(rules, &[v], Layouts::Forward));
        let moved = |point: &[T; 2]| -> Vec<Packed<T>> {
            let mut theta = vec![T::ZERO; vectors[0].len()];
            combine(vectors, *point, &mut theta);
            self.pack(1, &[&theta])
        };
        let moved: Vec<Vec<Packed<T>>> = points.par_iter().map(moved).collect();
        let (width, split) = (rules.output_len(), self.split(samples.count));
        let mut totals = vec![(0.0, 0); points.len()];
        over_tiles(
            samples.count,
            split,
            || {
                (
                    [(); 3].map(|()| vec![T::ZERO; width * split.tile]),
                    CachedTile::default(),
                    vec![(0.0, 0); points.len()],
                )
            },
            |_, tile, (parts, cached, sums)| {
                let x = samples.tile(tile, self);
                for (first, part) in first.iter().zip(parts.iter_mut()) {
                    let part = &mut part[..width * tile.len];
                    rules.forward_tangent(&x.first_layer(first), &Tangent::along(first), part);
                }
                let [a, b, c] = &*parts;
                let targets = samples.targets(tile, self);
                for ((packed, point), sum) in moved.iter().zip(points).zip(sums.iter_mut()) {
                    // A tile goes through the network once for each point.
                    progress::check()?;
                    cached.fit(self, 0, tile.len, Purpose::Values);
                    combine([a, b, c], *point, &mut cached.values[1]);
                    self.forward_from(1, packed, &x, Purpose::Values, cached);
                    let (loss, correct) =
                        self.loss.score(&cached.values[self.nodes.len()], targets);
                    *sum = (sum.0 + loss, sum.1 + correct);
                }
                Ok(())
            },
            |(_, _, sums)| {
                for (total, sum) in totals.iter_mut().zip(sums) {
                    let (loss, correct) = std::mem::take(sum);
                    *total = (total.0 + loss, total.1 + correct);
                }
            },
        )?;
        Ok(totals)
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
