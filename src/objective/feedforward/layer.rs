//! [`Layer`]: what every kind of layer knows.

use std::ops::Range;

use super::Scalar;
use super::norm::BatchNorm;

/// A kind of layer: how it maps a tile of samples, and the derivatives of that.
///
/// A tile has a row for each sample, a *tangent* tile a row for each sample and direction: the
/// derivatives of the sample's row along `k` directions in θ-space, side by side. In
///
/// y = f(x, θ), dx = (∂y/∂x)ᵀ dy, dθ = (∂y/∂θ)ᵀ dy,
///
/// the tangents ry, rdx and rdθ are the derivatives of y, dx and dθ along the directions: Pearlmutter's
/// R-operator (1994), applied first to the forward and then to the backward pass.
pub(super) trait Layer<T: Scalar>: Send + Sync {
    /// Numbers in a row of y.
    fn outputs(&self) -> usize;

    /// Whether y is affine in the layer's parameters, so that for a fixed x [`Layer::forward_tangent`] of any
    /// θ-space vector is its part of y.
    fn is_affine(&self) -> bool {
        false
    }

    /// Whether derivatives need x.
    fn keeps_input(&self) -> bool;

    /// Whether derivatives need y.
    fn keeps_output(&self) -> bool {
        false
    }

    /// Numbers that derivatives need of each sample besides x and y.
    fn notes(&self) -> usize {
        0
    }

    /// Where in θ the layer's parameters lie.
    fn places(&self) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// How many they are.
    fn parameters(&self) -> usize {
        self.places().iter().map(Range::len).sum()
    }

    /// The layer as batch normalisation, which in a step of training looks at the whole batch.
    fn batch_norm(&self) -> Option<&BatchNorm> {
        None
    }

    /// The layer's part of each θ-space vector, arranged for [`Layer::forward`] (of θ itself) or
    /// [`Layer::forward_tangent`] (of the directions).
    fn arrange_forward(&self, _vectors: &[&[T]]) -> Vec<T> {
        Vec::new()
    }

    /// The same for [`Layer::backward`] and [`Layer::backward_tangent`].
    fn arrange_backward(&self, _vectors: &[&[T]]) -> Vec<T> {
        Vec::new()
    }

    /// Writes y, and the notes if derivatives are wanted.
    fn forward(&self, theta: &Arranged<T>, x: &[T], y: &mut [T], notes: &mut [T]);

    /// Writes dx: what [`Layer::backward_tangent`] makes of rdy where x and θ stay.
    fn backward(&self, theta: &Arranged<T>, at: &At<T>, dx: &mut [T]) {
        self.backward_tangent((theta, at), theta, None, at.dy, dx, true);
    }

    /// Adds to dθ, or writes it if `first`, as [`Layer::gradient_tangent`] does.
    fn gradient(&self, theta: &Arranged<T>, at: &At<T>, gradient: &mut [T], first: bool) {
        self.gradient_tangent((theta, at), None, at.dy, gradient, first, true);
    }

    /// Writes ry. Without rx, x does not depend on θ.
    fn forward_tangent(
        &self,
        theta: &Arranged<T>,
        directions: &Arranged<T>,
        at: &At<T>,
        rx: Option<&[T]>,
        ry: &mut [T],
    );

    /// Writes rdx.
    ///
    /// For `gauss_newton` products, here and below, the network is taken for linear in θ: what comes of
    /// its second derivatives is left out.
    fn backward_tangent(
        &self,
        point: (&Arranged<T>, &At<T>),
        directions: &Arranged<T>,
        rx: Option<&[T]>,
        rdy: &[T],
        rdx: &mut [T],
        gauss_newton: bool,
    );

    /// Adds to rdθ, or writes it if `first`. For one direction its numbers are those of [`Layer::places`], in their
    /// order.
    fn gradient_tangent(
        &self,
        _point: (&Arranged<T>, &At<T>),
        _rx: Option<&[T]>,
        _rdy: &[T],
        _gradient: &mut [T],
        _first: bool,
        _gauss_newton: bool,
    ) {
    }

    /// Adds a gradient, for each of `vectors.len()` directions, to the θ-space vectors. Where nothing else is said here,
    /// directions lie one after another.
    fn add_gradient(&self, gradient: &[T], vectors: &mut [Vec<f64>]) {
        let each = gradient.len() / vectors.len();
        for (j, vector) in vectors.iter_mut().enumerate() {
            let mut gradient = &gradient[j * each..][..each];
            for place in self.places() {
                let part = gradient.split_off(..place.len()).unwrap_or_default();
                for (v, g) in vector[place].iter_mut().zip(part) {
                    *v += g.f64();
                }
            }
        }
    }
}

/// A layer's part of one or several θ-space vectors, arranged for its products.
pub(super) struct Arranged<T> {
    pub(super) forward: Vec<T>,
    pub(super) backward: Vec<T>,
    /// How many vectors.
    pub(super) count: usize,
}

impl<T: Scalar> Arranged<T> {
    /// Nothing where there is no layer, and nothing backwards where that is not asked for.
    pub(super) fn new(layer: Option<&dyn Layer<T>>, vectors: &[&[T]], backward: bool) -> Self {
        let back = layer.filter(|_| backward);
        Self {
            forward: layer.map_or_else(Vec::new, |layer| layer.arrange_forward(vectors)),
            backward: back.map_or_else(Vec::new, |layer| layer.arrange_backward(vectors)),
            count: vectors.len(),
        }
    }
}

/// A tile at the point of differentiation, as far as a layer keeps it.
#[derive(Clone, Copy)]
pub(super) struct At<'a, T> {
    pub(super) samples: usize,
    pub(super) x: &'a [T],
    pub(super) y: &'a [T],
    pub(super) notes: &'a [T],
    /// The loss's derivative by y.
    pub(super) dy: &'a [T],
}
