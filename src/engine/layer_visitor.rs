//! [`LayerTile`]: a layer's inputs and output gradients, as K-FAC, activation statistics and per-layer spectra read them.

use super::network::{Network, Samples};
use crate::error::Result;
use crate::kernels::Scalar;
use crate::kernels::tiles::Tile;

/// A layer's inputs, outputs and output gradients, for a tile of samples at a point.
///
/// Rows are samples. Tiles come in the order of the samples, and in a tile layers come in the order of the network.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LayerTile<'a> {
    /// Index of the layer among those with hand-derived rules.
    pub layer: usize,
    /// Names of its parameters.
    pub parameters: &'a [String],
    /// Index of the tile's first sample.
    pub start: usize,
    /// Number of samples in the tile.
    pub samples: usize,
    /// x, shape (samples, inputs).
    pub inputs: &'a [f64],
    /// y, shape (samples, outputs).
    pub outputs: &'a [f64],
    /// The derivative of each sample's loss in y, shape (samples, outputs).
    pub output_gradients: &'a [f64],
}

impl<T: Scalar> Network<T> {
    /// Calls `visitor` for each tile and layer, in order.
    pub(super) fn visit(
        &self,
        theta: &[T],
        samples: Samples<T>,
        visitor: &mut (dyn FnMut(LayerTile) + Send),
    ) -> Result<()> {
        let names = self.param_names();
        let wide = |numbers: &[T]| -> Vec<f64> { numbers.iter().map(|x| x.f64()).collect() };
        self.over_layers(
            theta,
            samples,
            Vec::new,
            |tiles: &mut Vec<_>, tile, _, layer, primal| {
                tiles.push((tile, layer, [primal.x, primal.y, primal.dy].map(wide)));
            },
            [|tiles: &mut Vec<_>, _| {
                tiles.sort_by_key(|(tile, layer, _): &(Tile, usize, [Vec<f64>; 3])| {
                    (tile.start, *layer)
                });
                for (tile, layer, [inputs, outputs, output_gradients]) in tiles.drain(..) {
                    visitor(LayerTile {
                        layer,
                        parameters: &names[layer],
                        start: tile.start,
                        samples: tile.len,
                        inputs: &inputs,
                        outputs: &outputs,
                        output_gradients: &output_gradients,
                    });
                }
            }],
        )
    }

    /// For each node the names of its parameters.
    fn param_names(&self) -> Vec<Vec<String>> {
        let names = |ranges: Vec<std::ops::Range<usize>>| {
            let ranges = ranges.into_iter();
            let name = ranges.map(|range| {
                let mut params = self.params.iter();
                params
                    .find(|(_, r)| *r == range)
                    .map(|(name, _)| name.clone())
            });
            name.flatten().collect()
        };
        let nodes = self.nodes.iter();
        nodes
            .map(|node| {
                node.rules()
                    .map_or_else(Vec::new, |rules| names(rules.param_ranges()))
            })
            .collect()
    }
}
