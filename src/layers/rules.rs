//! [`Rules`]: a layer's forward pass and its derivatives on a tile of samples.

use std::ops::Range;

use rayon::prelude::*;

use super::row_product::RowProduct;
use crate::kernels::Scalar;
use crate::kernels::sparse::SparseTile;
use crate::kernels::transpose::transpose;

/// Number of rows of a transposed matrix that a thread writes at a time.
const STRIP: usize = 16;

/// The hand-derived rules of a layer.
///
/// A tile has one row per sample: all values of its input x or output y. A *tangent* tile has k rows per sample, one
/// for each of k directions in θ-space: the derivatives of the sample's row along them. In
///
/// y = f(x, θ), dx = (∂y/∂x)ᵀ dy, dθ = (∂y/∂θ)ᵀ dy,
///
/// the tangents ry, rdx and rdθ are the derivatives of y, dx and dθ along the directions: Pearlmutter's
/// R-operator ("Fast exact multiplication by the Hessian", 1994), applied to the forward pass and then to the backward pass.
pub(crate) trait Rules<T: Scalar>: Send + Sync {
    /// Number of values in a row of y.
    fn output_len(&self) -> usize;

    /// Whether y is affine in the layer's parameters, so that for a fixed x [`Rules::forward_tangent`] of any
    /// vector of θ-space is that vector's part of y.
    fn is_affine(&self) -> bool {
        false
    }

    /// Whether each direction needs its own matrix product, so that batching directions gives no speed-up.
    fn multiplies_directions_apart(&self) -> bool {
        false
    }

    /// Whether tangents read the layer's part of directions that are zero there.
    fn reads_zero_directions(&self) -> bool {
        true
    }

    /// Whether derivatives read x.
    fn needs_input(&self) -> bool;

    /// Whether derivatives read y.
    fn needs_output(&self) -> bool {
        false
    }

    /// Number of extra forward values cached per sample for the derivatives.
    fn cached_len(&self) -> usize {
        0
    }

    /// Number of values in a row of the inputs, if the layer reads them compressed: [`Primal::sparse`].
    fn sparse_row(&self) -> Option<usize> {
        None
    }

    /// Shape of the transposed gradient of the first parameter, if the layer computes that.
    fn transposed_gradient(&self) -> Option<[usize; 2]> {
        None
    }

    /// Ranges of the layer's parameters in θ.
    fn param_ranges(&self) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// The products of rows with weights that the layer consists of, if these are all its parameters.
    fn row_products(&self) -> Vec<RowProduct> {
        Vec::new()
    }

    /// Number of the layer's parameters.
    fn num_params(&self) -> usize {
        self.param_ranges().iter().map(Range::len).sum()
    }

    /// The statistics over a whole batch that a training step uses, if the layer has any.
    fn batch_statistics(&self) -> Option<&dyn BatchStatistics<T>> {
        None
    }

    /// The layer's part of each θ-space vector, in the layout that the forward rules read.
    fn pack_forward(&self, _vectors: &[&[T]]) -> Vec<T> {
        Vec::new()
    }

    /// The same in the layout that the backward rules read.
    fn pack_backward(&self, _vectors: &[&[T]]) -> Vec<T> {
        Vec::new()
    }

    /// Writes y, and the cached values unless `cached` is empty.
    fn forward(&self, theta: &Packed<T>, x: &[T], y: &mut [T], cached: &mut [T]);

    /// Writes dx.
    fn backward(&self, primal: &Primal<T>, dx: &mut [T]) {
        self.backward_tangent(primal, &Tangent::of_gradient(primal), dx, Mode::GaussNewton);
    }

    /// Writes dθ or adds to it, in the layout of [`Rules::gradient_tangent`].
    fn gradient(&self, primal: &Primal<T>, gradient: &mut [T], write: Write) {
        let tangent = Tangent::of_gradient(primal);
        self.gradient_tangent(primal, &tangent, gradient, write, Mode::GaussNewton);
    }

    /// Writes ry.
    fn forward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, ry: &mut [T]);

    /// Writes rdx.
    fn backward_tangent(&self, primal: &Primal<T>, tangent: &Tangent<T>, rdx: &mut [T], mode: Mode);

    /// Writes rdθ or adds to it. For one direction its layout is that of [`Rules::param_ranges`], with the first parameter transposed if
    /// the layer has a [`Rules::transposed_gradient`].
    fn gradient_tangent(
        &self,
        _primal: &Primal<T>,
        _tangent: &Tangent<T>,
        _gradient: &mut [T],
        _write: Write,
        _mode: Mode,
    ) {
    }

    /// Adds a gradient along each of several directions to the window's part of the θ-space vectors. By default the directions
    /// are contiguous in `gradient`. The entries of a [`Rules::transposed_gradient`] stay transposed.
    fn add_gradient(&self, gradient: &[T], window: &mut Window) {
        let each = gradient.len() / window.vectors.len();
        for j in 0..window.vectors.len() {
            let mut gradient = &gradient[j * each..][..each];
            for range in self.param_ranges() {
                let part = gradient.split_off(..range.len()).unwrap_or_default();
                window.add(j, range, part);
            }
        }
    }

    /// Puts the layer's part of a sum of gradients, in a θ-space vector, in the order of θ: it transposes what
    /// [`Rules::add_gradient`] leaves transposed.
    fn order(&self, sum: &mut [f64]) {
        if let Some([inputs, outputs]) = self.transposed_gradient() {
            let sum = &mut sum[self.param_ranges().swap_remove(0)];
            let transposed = sum.to_vec();
            let strips = sum.par_chunks_mut(STRIP * inputs).enumerate();
            strips.for_each(|(i, strip)| {
                let shape = [inputs, strip.len() / inputs];
                transpose(&transposed[i * STRIP..], strip, shape, [outputs, inputs]);
            });
        }
    }
}

/// A range of θ in several θ-space vectors.
pub(crate) struct Window<'a> {
    /// First entry of the range.
    pub(crate) start: usize,
    /// The range of each vector.
    pub(crate) vectors: Vec<&'a mut [f64]>,
}

impl<'a> Window<'a> {
    /// Splits vectors of length n into windows of `size` entries, at least one.
    pub(crate) fn split(vectors: &'a mut [Vec<f64>], size: usize) -> Vec<Self> {
        let n = vectors.first().map_or(0, Vec::len);
        let starts = (0..n.max(1)).step_by(size);
        let mut windows: Vec<Self> = starts
            .map(|start| Window {
                start,
                vectors: Vec::new(),
            })
            .collect();
        for vector in vectors {
            for (window, part) in windows.iter_mut().zip(vector.chunks_mut(size)) {
                window.vectors.push(part);
            }
        }
        windows
    }

    /// The part of a range of θ that is in the window.
    pub(crate) fn overlap(&self, range: &Range<usize>) -> Range<usize> {
        let len = self.vectors.first().map_or(0, |vector| vector.len());
        let start = range.start.max(self.start);
        start..range.end.min(self.start + len).max(start)
    }

    /// The entries of vector `j` in a range of θ, which is within the window.
    pub(crate) fn entries(&mut self, j: usize, range: Range<usize>) -> &mut [f64] {
        &mut self.vectors[j][range.start - self.start..range.end - self.start]
    }

    /// Adds the values of a range of θ to vector `j`, as far as they are in the window.
    pub(crate) fn add<T: Scalar>(&mut self, j: usize, range: Range<usize>, values: &[T]) {
        let overlap = self.overlap(&range);
        if !overlap.is_empty() {
            let values = &values[overlap.start - range.start..overlap.end - range.start];
            for (sum, value) in self.entries(j, overlap).iter_mut().zip(values) {
                *sum += value.f64();
            }
        }
    }
}

/// Which second derivatives a product includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All of them.
    Hessian,
    /// None of the network's own: the network is treated as linear in θ.
    GaussNewton,
}

/// Whether a rule's result replaces the target or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Replace,
    Add,
}

impl Write {
    /// Zeros the target before a result is added to it.
    pub(crate) fn prepare<T: Scalar>(self, target: &mut [T]) {
        if self == Self::Replace {
            target.fill(T::ZERO);
        }
    }
}

/// A layer's part of one or several θ-space vectors, in the layouts of its rules.
pub(crate) struct Packed<T> {
    pub(crate) forward: Vec<T>,
    pub(crate) backward: Vec<T>,
    /// Number of vectors.
    pub(crate) count: usize,
    /// Whether these are directions that are zero here.
    pub(crate) is_zero: bool,
}

/// Which layouts a [`Packed`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layouts {
    Forward,
    Both,
}

impl<T: Scalar> Packed<T> {
    pub(crate) fn new(rules: &dyn Rules<T>, vectors: &[&[T]], layouts: Layouts) -> Self {
        Self {
            forward: rules.pack_forward(vectors),
            backward: match layouts {
                Layouts::Forward => Vec::new(),
                Layouts::Both => rules.pack_backward(vectors),
            },
            count: vectors.len(),
            is_zero: false,
        }
    }

    /// Packs directions, which with `block` are zero outside of these ranges of θ.
    pub(crate) fn of_directions(
        rules: &dyn Rules<T>,
        directions: &[&[T]],
        layouts: Layouts,
        block: Option<&[Range<usize>]>,
    ) -> Self {
        let is_zero = |range: &Range<usize>| {
            let mut parts = directions.iter().map(|v| &v[range.clone()]);
            parts.all(|part| part.iter().all(|x| *x == T::ZERO))
        };
        let is_outside = |range: &Range<usize>| {
            let meets = |part: &Range<usize>| part.start < range.end && range.start < part.end;
            block.is_some_and(|block| !block.iter().any(meets))
        };
        let mut ranges = rules.param_ranges().into_iter();
        match ranges.all(|range| is_outside(&range) || is_zero(&range)) {
            true if !rules.reads_zero_directions() => Self::empty(directions.len()),
            is_zero => Self {
                is_zero,
                ..Self::new(rules, directions, layouts)
            },
        }
    }

    /// For a node without parameters, or whose rules do not read zero directions.
    pub(crate) fn empty(count: usize) -> Self {
        Self {
            forward: Vec::new(),
            backward: Vec::new(),
            count,
            is_zero: true,
        }
    }
}

/// A tile at the point of differentiation, with the values that the layer requests.
#[derive(Clone, Copy)]
pub(crate) struct Primal<'a, T> {
    pub(crate) theta: &'a Packed<T>,
    pub(crate) samples: usize,
    pub(crate) x: &'a [T],
    /// x again, if the layer is the first one and reads it compressed.
    pub(crate) sparse: Option<&'a SparseTile<T>>,
    pub(crate) y: &'a [T],
    pub(crate) cached: &'a [T],
    /// The loss's derivative with respect to y.
    pub(crate) dy: &'a [T],
}

/// The derivatives of a tile along k directions.
#[derive(Clone, Copy)]
pub(crate) struct Tangent<'a, T> {
    /// The layer's part of the directions.
    pub(crate) directions: &'a Packed<T>,
    /// `None` if x does not change along the directions.
    pub(crate) rx: Option<&'a [T]>,
    /// Empty in the forward pass.
    pub(crate) rdy: &'a [T],
}

impl<'a, T> Tangent<'a, T> {
    /// Uses dy in place of one rdy: the backward rules then write first derivatives.
    pub(crate) fn of_gradient(primal: &Primal<'a, T>) -> Self {
        Self {
            directions: primal.theta,
            rx: None,
            rdy: primal.dy,
        }
    }

    /// For a forward pass in which x does not change.
    pub(crate) fn along(directions: &'a Packed<T>) -> Self {
        Self {
            directions,
            rx: None,
            rdy: &[],
        }
    }

    /// Number of directions.
    pub(crate) fn count(&self) -> usize {
        self.directions.count
    }
}

/// Statistics over a whole batch, which couple its samples in a training step.
///
/// In analysis the rules read running statistics, which follow θ. A training step replaces them by the batch's, and
/// adds the derivative of the batch's statistics.
pub(crate) trait BatchStatistics<T: Scalar>: Sync {
    /// Number of values per channel in `samples` samples.
    fn count(&self, samples: usize) -> usize;

    /// Moments of each channel in a tile.
    fn moments(&self, x: &[T]) -> Vec<ChannelMoments>;

    /// Moments of the batch from those of its tiles, each with its number of samples (Chan, Golub and LeVeque, 1983).
    fn merge(&self, tiles: &[(usize, &[ChannelMoments])]) -> Vec<ChannelMoments>;

    /// Replaces the running mean and variance by the batch's mean and biased variance.
    fn set_forward(&self, batch: &[ChannelMoments], samples: usize, theta: &mut Packed<T>);

    /// Sets what the batch's statistics add to dx, from dγ and dβ summed over the batch.
    fn set_backward(&self, gradient: &[f64], samples: usize, theta: &mut Packed<T>);

    /// Moves the running mean and variance towards the batch's mean and unbiased variance; `running` is the part of a
    /// point from index `start` on.
    fn update_running(
        &self,
        batch: &[ChannelMoments],
        samples: usize,
        running: &mut [T],
        start: usize,
    );
}

/// The mean of a channel's values, and the sum of their squared distances from it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChannelMoments {
    pub(crate) mean: f64,
    pub(crate) squares: f64,
}
