//! [`Pointwise`]: y = φ(x), element by element.

use super::Scalar;
use super::layer::{Arranged, At, Layer};
use crate::model::Activation;
use crate::simd::vectorised;

/// An activation of `width` elements.
///
/// Where φ′ and φ″ follow from y they are computed when they are needed; else both are noted in
/// the forward pass, φ′ of a tile before φ″ of it.
pub(super) struct Pointwise {
    pub(super) activation: Activation,
    pub(super) width: usize,
}

/// φ′ and φ″ from y.
macro_rules! from_output {
    (sigmoid $y:expr) => {{
        let d = $y * (T::ONE - $y);
        (d, d * (T::ONE - T::TWO * $y))
    }};
    (tanh $y:expr) => {{
        let d = T::ONE - $y * $y;
        (d, -T::TWO * $y * d)
    }};
}

impl Pointwise {
    fn notes_derivatives(&self) -> bool {
        !matches!(self.activation, Activation::Sigmoid | Activation::Tanh)
    }
}

impl<T: Scalar> Layer<T> for Pointwise {
    fn outputs(&self) -> usize {
        self.width
    }

    fn keeps_input(&self) -> bool {
        false
    }

    fn keeps_output(&self) -> bool {
        !self.notes_derivatives()
    }

    fn notes(&self) -> usize {
        if self.notes_derivatives() {
            2 * self.width
        } else {
            0
        }
    }

    fn forward(&self, _theta: &Arranged<T>, x: &[T], y: &mut [T], notes: &mut [T]) {
        let (first, second) = notes.split_at_mut(notes.len() / 2);
        match self.activation {
            Activation::Sigmoid => map(x, y, |x| x.sigmoid()),
            Activation::Tanh => map(x, y, |x| x.tanh()),
            Activation::Relu => {
                map(x, y, |x| x.max(T::ZERO));
                note(x, first, second, |x| {
                    (if x >= T::ZERO { T::ONE } else { T::ZERO }, T::ZERO)
                });
            }
            Activation::Softplus => {
                map(x, y, |x| x.softplus());
                note(x, first, second, |x| {
                    let e = (-x.abs()).exp();
                    let r = T::ONE / (T::ONE + e);
                    (if x >= T::ZERO { r } else { e * r }, e * r * r)
                });
            }
            Activation::Gelu => {
                let root = T::of(std::f64::consts::FRAC_1_SQRT_2);
                let half = T::of(0.5);
                map(x, y, |x| half * x * (T::ONE + (x * root).erf()));
                // y = xΦ, y′ = Φ + xφ, y″ = φ(2 − x²) with Gauss' φ and Φ.
                let height = T::of(0.5 * std::f64::consts::FRAC_2_SQRT_PI) * root;
                note(x, first, second, |x| {
                    let density = height * (-half * x * x).exp();
                    let below = half * (T::ONE + (x * root).erf());
                    (below + x * density, density * (T::TWO - x * x))
                });
            }
        }
    }

    fn forward_tangent(
        &self,
        _theta: &Arranged<T>,
        directions: &Arranged<T>,
        at: &At<T>,
        rx: Option<&[T]>,
        ry: &mut [T],
    ) {
        let Some(rx) = rx else {
            return ry.fill(T::ZERO);
        };
        let shape = (self.width, directions.count);
        match self.activation {
            Activation::Sigmoid => {
                tangent(shape, at.y, rx, ry, |y, rx| from_output!(sigmoid y).0 * rx);
            }
            Activation::Tanh => {
                tangent(shape, at.y, rx, ry, |y, rx| from_output!(tanh y).0 * rx);
            }
            _ => {
                let first = &at.notes[..at.notes.len() / 2];
                tangent(shape, first, rx, ry, |d, rx| d * rx);
            }
        }
    }

    fn backward_tangent(
        &self,
        (_, at): (&Arranged<T>, &At<T>),
        directions: &Arranged<T>,
        rx: Option<&[T]>,
        rdy: &[T],
        rdx: &mut [T],
        gauss_newton: bool,
    ) {
        let shape = (self.width, directions.count);
        let (first, second) = at.notes.split_at(at.notes.len() / 2);
        match (self.activation, rx) {
            (Activation::Sigmoid, Some(rx)) if !gauss_newton => {
                bent(
                    shape,
                    (at.y, at.y, at.dy),
                    rx,
                    rdy,
                    rdx,
                    |y, _| from_output!(sigmoid y),
                );
            }
            (Activation::Tanh, Some(rx)) if !gauss_newton => {
                bent(
                    shape,
                    (at.y, at.y, at.dy),
                    rx,
                    rdy,
                    rdx,
                    |y, _| from_output!(tanh y),
                );
            }
            (Activation::Sigmoid, _) => {
                tangent(shape, at.y, rdy, rdx, |y, rdy| {
                    from_output!(sigmoid y).0 * rdy
                });
            }
            (Activation::Tanh, _) => {
                tangent(shape, at.y, rdy, rdx, |y, rdy| from_output!(tanh y).0 * rdy);
            }
            (Activation::Softplus | Activation::Gelu, Some(rx)) if !gauss_newton => {
                bent(shape, (first, second, at.dy), rx, rdy, rdx, |d, dd| (d, dd));
            }
            _ => tangent(shape, first, rdy, rdx, |d, rdy| d * rdy),
        }
    }
}

vectorised! {
    fn map<T: Scalar, F: Fn(T) -> T>(x: &[T], y: &mut [T], f: F) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = f(*x);
        }
    }

    /// Both derivatives of every element, where they are wanted.
    fn note<T: Scalar, F: Fn(T) -> (T, T)>(x: &[T], first: &mut [T], second: &mut [T], f: F) {
        for ((x, d), dd) in x.iter().zip(first).zip(second) {
            (*d, *dd) = f(*x);
        }
    }

    /// `f` of each sample's element and each of its `k` tangents.
    fn tangent<T: Scalar, F: Fn(T, T) -> T>(
        shape: (usize, usize),
        a: &[T],
        rb: &[T],
        rc: &mut [T],
        f: F,
    ) {
        let (width, k) = shape;
        for ((a, rb), rc) in a
            .chunks_exact(width)
            .zip(rb.chunks_exact(k * width))
            .zip(rc.chunks_exact_mut(k * width))
        {
            for (rb, rc) in rb.chunks_exact(width).zip(rc.chunks_exact_mut(width)) {
                for ((a, rb), rc) in a.iter().zip(rb).zip(rc) {
                    *rc = f(*a, *rb);
                }
            }
        }
    }

    /// rdx = φ′ rdy + φ″ dy rx, with φ′ and φ″ from `f` of two of the sample's rows.
    fn bent<T: Scalar, F: Fn(T, T) -> (T, T)>(
        shape: (usize, usize),
        at: (&[T], &[T], &[T]),
        rx: &[T],
        rdy: &[T],
        rdx: &mut [T],
        f: F,
    ) {
        let (width, k) = shape;
        for (s, rdx) in rdx.chunks_exact_mut(k * width).enumerate() {
            let row = s * width..(s + 1) * width;
            let (a, b, dy) = (&at.0[row.clone()], &at.1[row.clone()], &at.2[row]);
            for (j, rdx) in rdx.chunks_exact_mut(width).enumerate() {
                let row = (s * k + j) * width..(s * k + j + 1) * width;
                let (rx, rdy) = (&rx[row.clone()], &rdy[row]);
                for i in 0..width {
                    let (d, dd) = f(a[i], b[i]);
                    rdx[i] = d * rdy[i] + dd * dy[i] * rx[i];
                }
            }
        }
    }
}
