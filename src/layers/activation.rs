//! [`Activation`]: y = φ(x), element by element.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::graph::GraphBuilder;
use super::rules::{Mode, Packed, Primal, Rules, Tangent};
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::kernels::erf::erf;
use crate::kernels::simd::vectorised;
use crate::nn;
use crate::parameters::Parameters;
use crate::tensor_functions::softplus;

/// An element-wise non-linearity.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let x = Tensor::new(&[0.0], &Device::Cpu)?;
/// let at_zero =
///     |activation: Activation| Ok::<_, Error>(activation.apply(&x)?.to_vec1::<f64>()?[0]);
/// assert_eq!(at_zero(Activation::Sigmoid)?, 0.5);
/// assert!((at_zero(Activation::Softplus)? - 2f64.ln()).abs() < 1e-15);
/// use Activation::{Gelu, GeluTanh, Relu, Relu6, Silu, Tanh};
/// for activation in [Tanh, Relu, Gelu, GeluTanh, Silu, Relu6] {
///     assert_eq!(at_zero(activation)?, 0.0);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// σ(x) = 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// tanh x
    Tanh,
    /// max(x, 0); its derivative at 0 is 1, as in candle
    Relu,
    /// x Φ(x) with the Gaussian distribution function Φ, by erf rather than the tanh approximation (Hendrycks and
    /// Gimpel, 2016)
    Gelu,
    /// ln(1 + eˣ)
    Softplus,
    /// ½x (1 + tanh(√(2/π) (x + 0.044715 x³))), the approximation of [`Activation::Gelu`] that GPT-2 uses
    GeluTanh,
    /// x σ(x) (Elfwing, Uchibe and Doya, 2018)
    Silu,
    /// min(max(x, 0), 6); its derivative is 1 at 0, as that of [`Activation::Relu`], and 0 at 6
    Relu6,
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

/// The coefficient of x³ in the tanh approximation of GELU.
const CUBIC: f64 = 0.044715;

/// The largest value of [`Activation::Relu6`].
const SIX: f64 = 6.0;

/// √(2/π)
const SLOPE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;

impl Activation {
    /// All activations.
    pub const ALL: [Self; 8] = [
        Self::Sigmoid,
        Self::Tanh,
        Self::Relu,
        Self::Gelu,
        Self::Softplus,
        Self::GeluTanh,
        Self::Silu,
        Self::Relu6,
    ];

    /// The activation of each element of `x`.
    ///
    /// # Errors
    /// Errors of candle, for a tensor that is not floating point.
    pub fn apply(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Sigmoid => candle_nn::ops::sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Relu => x.relu(),
            Self::Gelu => nn::ops::gelu_erf(x),
            Self::Softplus => softplus(x),
            Self::GeluTanh => nn::ops::gelu(x),
            Self::Silu => x * candle_nn::ops::sigmoid(x)?,
            Self::Relu6 => x.ge(SIX)?.where_cond(&(x.zeros_like()? + SIX)?, &x.relu()?),
        }
    }

    /// Writes φ(x), and φ′ and φ″ unless `first` and `second` are empty.
    pub(super) fn evaluate<T: Scalar>(
        self,
        x: &[T],
        y: &mut [T],
        first: &mut [T],
        second: &mut [T],
    ) {
        match self {
            Self::Sigmoid => {
                map(x, y, |x| x.sigmoid());
                write_derivatives([y, y], first, second, |y, _| from_output!(sigmoid y));
            }
            Self::Tanh => {
                map(x, y, |x| x.tanh());
                write_derivatives([y, y], first, second, |y, _| from_output!(tanh y));
            }
            Self::Relu => {
                map(x, y, |x| x.max(T::ZERO));
                write_derivatives([x, y], first, second, |x, _| {
                    (if x >= T::ZERO { T::ONE } else { T::ZERO }, T::ZERO)
                });
            }
            Self::Relu6 => {
                let six = T::from_f64(SIX);
                map(x, y, |x| if x >= six { six } else { x.max(T::ZERO) });
                write_derivatives([x, y], first, second, |x, _| {
                    let is_inside = x >= T::ZERO && x < six;
                    (if is_inside { T::ONE } else { T::ZERO }, T::ZERO)
                });
            }
            Self::Softplus => {
                map(x, y, |x| x.softplus());
                write_derivatives([x, y], first, second, |x, _| {
                    let e = (-x.abs()).exp();
                    let r = T::ONE / (T::ONE + e);
                    (if x >= T::ZERO { r } else { e * r }, e * r * r)
                });
            }
            Self::Gelu => {
                let root = T::from_f64(std::f64::consts::FRAC_1_SQRT_2);
                let half = T::from_f64(0.5);
                erf(root, x, y);
                // y = xΦ, y′ = Φ + xφ, y″ = φ(2 − x²) with the Gaussian φ and Φ.
                let height = T::from_f64(0.5 * std::f64::consts::FRAC_2_SQRT_PI) * root;
                write_derivatives([x, y], first, second, |x, erf| {
                    let density = height * (-half * x * x).exp();
                    let below = half * (T::ONE + erf);
                    (below + x * density, density * (T::TWO - x * x))
                });
                update(x, y, |x, erf| half * x * (T::ONE + erf));
            }
            Self::GeluTanh => {
                let [half, cubic, slope, three] = [0.5, CUBIC, SLOPE, 3.0].map(T::from_f64);
                map(x, y, |x| (slope * (x + cubic * x * x * x)).tanh());
                // y = ½x(1 + t) with t = tanh u, whose derivative is u′(1 − t²).
                write_derivatives([x, y], first, second, |x, t| {
                    let d = T::ONE - t * t;
                    let du = slope * (T::ONE + three * cubic * x * x);
                    let ddu = T::TWO * three * slope * cubic * x;
                    let dt = d * du;
                    (
                        half * (T::ONE + t + x * dt),
                        dt + x * (half * d * ddu - t * dt * du),
                    )
                });
                update(x, y, |x, t| half * x * (T::ONE + t));
            }
            Self::Silu => {
                map(x, y, |x| x.sigmoid());
                write_derivatives([x, y], first, second, |x, s| {
                    let rest = T::ONE - s;
                    (
                        s * (T::ONE + x * rest),
                        s * rest * (T::TWO + x * (rest - s)),
                    )
                });
                update(x, y, |x, s| x * s);
            }
        }
    }
}

impl Layer for Activation {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        Ok(input.clone())
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        self.apply(x)
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let shape = network.shape().clone();
        let rules = ActivationRules {
            activation: *self,
            width: shape.len(),
        };
        network.push(rules, shape);
        Ok(())
    }

    fn add_units(&self, _graph: &mut UnitGraph) -> Result<(), Misfit> {
        Ok(())
    }
}

/// An activation of `width` elements.
///
/// If φ′ and φ″ are functions of y, they are computed when needed. Otherwise the forward pass caches both: φ′ of a
/// whole tile, then φ″.
struct ActivationRules {
    activation: Activation,
    width: usize,
}

impl ActivationRules {
    fn caches_derivatives(&self) -> bool {
        !matches!(self.activation, Activation::Sigmoid | Activation::Tanh)
    }
}

impl<T: Scalar> Rules<T> for ActivationRules {
    fn output_len(&self) -> usize {
        self.width
    }

    fn needs_input(&self) -> bool {
        false
    }

    fn needs_output(&self) -> bool {
        !self.caches_derivatives()
    }

    fn cached_len(&self) -> usize {
        if self.caches_derivatives() {
            2 * self.width
        } else {
            0
        }
    }

    fn forward(&self, _theta: &Packed<T>, x: &[T], y: &mut [T], cached: &mut [T]) {
        let (first, second) = cached.split_at_mut(cached.len() / 2);
        self.activation.evaluate(x, y, first, second);
    }

    fn forward_tangent(&self, primal: &Primal<T>, tangents: &Tangent<T>, ry: &mut [T]) {
        let Some(rx) = tangents.rx else {
            return ry.fill(T::ZERO);
        };
        let shape = (self.width, tangents.count());
        match self.activation {
            Activation::Sigmoid => {
                tangent(shape, primal.y, rx, ry, |y, rx| {
                    from_output!(sigmoid y).0 * rx
                });
            }
            Activation::Tanh => {
                tangent(shape, primal.y, rx, ry, |y, rx| from_output!(tanh y).0 * rx);
            }
            _ => {
                let first = &primal.cached[..primal.cached.len() / 2];
                tangent(shape, first, rx, ry, |d, rx| d * rx);
            }
        }
    }

    fn backward_tangent(
        &self,
        primal: &Primal<T>,
        tangents: &Tangent<T>,
        rdx: &mut [T],
        mode: Mode,
    ) {
        let (shape, rdy) = ((self.width, tangents.count()), tangents.rdy);
        let (first, second) = primal.cached.split_at(primal.cached.len() / 2);
        let rx = tangents.rx.filter(|_| mode == Mode::Hessian);
        match (self.activation, rx) {
            (Activation::Sigmoid, Some(rx)) => {
                curved_tangent(
                    shape,
                    (primal.y, primal.y, primal.dy),
                    rx,
                    rdy,
                    rdx,
                    |y, _| from_output!(sigmoid y),
                );
            }
            (Activation::Tanh, Some(rx)) => {
                curved_tangent(
                    shape,
                    (primal.y, primal.y, primal.dy),
                    rx,
                    rdy,
                    rdx,
                    |y, _| from_output!(tanh y),
                );
            }
            (Activation::Sigmoid, _) => {
                tangent(shape, primal.y, rdy, rdx, |y, rdy| {
                    from_output!(sigmoid y).0 * rdy
                });
            }
            (Activation::Tanh, _) => {
                tangent(shape, primal.y, rdy, rdx, |y, rdy| {
                    from_output!(tanh y).0 * rdy
                });
            }
            (Activation::Relu | Activation::Relu6, _) | (_, None) => {
                tangent(shape, first, rdy, rdx, |d, rdy| d * rdy);
            }
            (_, Some(rx)) => {
                curved_tangent(shape, (first, second, primal.dy), rx, rdy, rdx, |d, dd| {
                    (d, dd)
                });
            }
        }
    }
}

vectorised! {
    fn map<T: Scalar, F: Fn(T) -> T>(x: &[T], y: &mut [T], f: F) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = f(*x);
        }
    }

    /// y ← f(x, y)
    fn update<T: Scalar, F: Fn(T, T) -> T>(x: &[T], y: &mut [T], f: F) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = f(*x, *y);
        }
    }

    /// Writes both derivatives of every element, unless `first` and `second` are empty.
    fn write_derivatives<T: Scalar, F: Fn(T, T) -> (T, T)>(
        rows: [&[T]; 2],
        first: &mut [T],
        second: &mut [T],
        f: F,
    ) {
        let [a, b] = rows;
        for (((a, b), d), dd) in a.iter().zip(b).zip(first).zip(second) {
            (*d, *dd) = f(*a, *b);
        }
    }

    /// Applies `f` to each sample's elements and each of their `k` tangents.
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

    /// rdx = φ′ rdy + φ″ dy rx, where `f` computes φ′ and φ″ from two rows of the sample.
    fn curved_tangent<T: Scalar, F: Fn(T, T) -> (T, T)>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, close, evaluate};
    use candle_core::Device;

    #[test]
    fn derivatives_match_differences_and_values_candles() {
        for activation in Activation::ALL {
            for (width, samples, k) in [(7, 3, 2), (1, 1, 1)] {
                let rules = ActivationRules { activation, width };
                let mut tile = Tile::random([width, width, 1], samples, k, 8);
                // Far enough for all of ReLU6.
                tile.x.iter_mut().for_each(|x| *x *= 5.0);
                assert!(width == 1 || tile.x.iter().any(|x| *x > 6.0));
                check(&rules, &tile, 1e-8);
                let x = Tensor::from_slice(&tile.x, tile.x.len(), &Device::Cpu).unwrap();
                let expected = activation.apply(&x).unwrap().to_vec1::<f64>().unwrap();
                close("y", &evaluate::<f64>(&rules, &tile).y, &expected, 1e-14);
            }
        }
    }
}
