//! Derivatives of all samples' losses along one direction, by one forward pass with tangents.

use super::network::{CachedTile, Network, Purpose, Samples, fit};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::tiles::over_tiles;
use crate::losses::Curvature;

/// A thread's buffers, and the derivatives of a group's samples.
struct State<T> {
    cached: CachedTile<T>,
    tangents: Vec<Vec<T>>,
    dz: Vec<T>,
    derivatives: Vec<f64>,
}

impl<T: Scalar> Network<T> {
    /// ∇ℓᵢ·v for each sample i: dzᵢ·(Jᵢv), with the loss's gradient dzᵢ in the outputs and their Jacobian Jᵢ.
    pub(super) fn sample_derivatives(
        &self,
        theta: &[T],
        samples: Samples<T>,
        direction: &[T],
    ) -> Result<Vec<f64>> {
        let (depth, size) = (self.nodes.len(), self.loss.size());
        let pass = self.pass(&[direction], Curvature::GaussNewton, None);
        if !pass.has_tangent[depth] {
            return Ok(vec![0.0; samples.count]);
        }
        let packed = self.pack(0, &[theta]);
        let mut derivatives = Vec::with_capacity(samples.count);
        over_tiles(
            samples.count,
            self.split(samples.count),
            || State {
                cached: CachedTile::default(),
                tangents: Vec::new(),
                dz: Vec::new(),
                derivatives: Vec::new(),
            },
            |_, tile, state| {
                let State {
                    cached,
                    tangents,
                    dz,
                    derivatives,
                } = state;
                let x = samples.tile(tile, self);
                self.forward_from(0, &packed, &x, Purpose::Derivatives, cached);
                // Tangents of outputs read no derivatives.
                cached.adjoints.resize_with(depth + 1, Vec::new);
                fit(tangents, (0..=depth).map(|b| tile.len * self.width(b)));
                let primal = |l: usize| self.primal(l, &packed[l], &x, cached);
                self.forward_tangents(&pass, tile.len, primal, tangents);
                dz.resize(tile.len * size, T::ZERO);
                let targets = samples.targets(tile, self);
                self.loss.gradient(&cached.values[depth], targets, dz);
                let rows = dz
                    .chunks_exact(size)
                    .zip(tangents[depth].chunks_exact(size));
                derivatives.extend(rows.map(|(dz, rz)| -> f64 {
                    let products = dz.iter().zip(rz).map(|(d, r)| d.f64() * r.f64());
                    products.sum()
                }));
                Ok(())
            },
            [|state: &mut State<T>| derivatives.append(&mut state.derivatives)],
        )?;
        Ok(derivatives)
    }
}
