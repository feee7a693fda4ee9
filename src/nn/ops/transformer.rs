//! Functions of sequences for transformers, in candle's plain operations.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use candle_core::shape::Dim;
use candle_core::{D, DType, Result, Tensor, bail};

/// Softmax along an axis: exp xᵢ / Σⱼ exp xⱼ. Counterpart of [`candle_nn::ops::softmax`].
///
/// # Shapes
/// Any, to the same shape.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let x = Tensor::new(&[[1e4, 1e4], [0.0, 3f64.ln()]], &Device::Cpu)?;
/// let p = nn::ops::softmax(&x, 1)?.to_vec2::<f64>()?;
/// assert_eq!(p[0], [0.5, 0.5]);
/// assert!((p[1][1] - 0.75).abs() < 1e-15);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// An axis out of range; a tensor that is not floating point.
pub fn softmax<I: Dim>(x: &Tensor, dim: I) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "softmax")?;
    // A constant shift changes no value.
    let shifted = x.broadcast_sub(&x.max_keepdim(dim)?.detach())?;
    let exponentials = shifted.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(dim)?)
}

/// [`softmax`] along the last axis. Replaces [`candle_nn::ops::softmax_last_dim`], which has no derivative.
///
/// # Errors
/// As [`softmax`].
pub fn softmax_last_dim(x: &Tensor) -> Result<Tensor> {
    softmax(x, D::Minus1)
}

/// Layer normalisation over the last axis: α (x − μ)/√(σ² + ε) + β with the mean μ and the biased variance σ². Replaces
/// [`candle_nn::ops::layer_norm`], which has no derivative. [`nn::layer_norm`](crate::nn::layer_norm) makes a layer of it.
///
/// # Shapes
/// `x` (…, features), `alpha` and `beta` (features,), to the shape of `x`.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let x = Tensor::new(&[[1.0, 3.0]], &Device::Cpu)?;
/// let (alpha, beta) = (Tensor::new(&[2.0, 2.0], &Device::Cpu)?, Tensor::new(&[5.0, 5.0], &Device::Cpu)?);
/// let y = nn::ops::layer_norm(&x, &alpha, &beta, 0.0)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[3.0, 7.0]]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(x: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    normalize(x, alpha, Some(beta), eps.into(), true)
}

/// Root-mean-square normalisation over the last axis: α x/√(mean x² + ε). Replaces [`candle_nn::ops::rms_norm`], which has no
/// derivative. [`nn::rms_norm`](crate::nn::rms_norm) makes a layer of it.
///
/// # Shapes
/// `x` (…, features), `alpha` (features,), to the shape of `x`.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let x = Tensor::new(&[[1.0, 7.0]], &Device::Cpu)?; // a mean square of 25
/// let y = nn::ops::rms_norm(&x, &Tensor::new(&[10.0, 10.0], &Device::Cpu)?, 0.0)?;
/// assert_eq!(y.to_vec2::<f64>()?, [[2.0, 14.0]]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm(x: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    normalize(x, alpha, None, eps.into(), false)
}

/// Normalisation over the last axis, with or without the mean. Half precision is computed in `f32`, as in candle.
pub(in crate::nn) fn normalize(
    x: &Tensor,
    alpha: &Tensor,
    beta: Option<&Tensor>,
    eps: f64,
    remove_mean: bool,
) -> Result<Tensor> {
    let features = x.dim(D::Minus1)?;
    for scale in [Some(alpha), beta].into_iter().flatten() {
        if scale.dims() != [features] {
            bail!(
                "a scale or shift of shape {:?} for a last axis of {features}: it must have shape ({features},)",
                scale.dims()
            );
        }
    }
    let dtype = x.dtype();
    let mut y = match dtype {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32)?,
        _ => x.clone(),
    };
    if remove_mean {
        y = y.broadcast_sub(&y.mean_keepdim(D::Minus1)?)?;
    }
    let size = (y.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let y = y
        .broadcast_div(&size)?
        .to_dtype(dtype)?
        .broadcast_mul(alpha)?;
    match beta {
        Some(beta) => y.broadcast_add(beta),
        None => Ok(y),
    }
}

/// Scaled dot-product attention: softmax(q kᵀ/√d) v. With `is_causal`, a query sees only keys up to its own position.
/// Counterpart of `scaled_dot_product_attention` in PyTorch.
///
/// # Shapes
/// `q` (…, queries, d), `k` (…, keys, d), `v` (…, keys, features), to (…, queries, features), with the same leading axes,
/// such as samples and heads.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // Queries of 0 attend equally to every key that they see: the mean of the values so far.
/// let q = Tensor::zeros((1, 3, 2), DType::F64, &Device::Cpu)?;
/// let v = Tensor::new(&[[[2.0], [4.0], [9.0]]], &Device::Cpu)?;
/// let means = nn::ops::attention(&q, &q, &v, true)?.flatten_all()?.to_vec1::<f64>()?;
/// assert!((means[1] - 3.0).abs() < 1e-15 && (means[2] - 5.0).abs() < 1e-15);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Shapes that do not fit; causal attention with different numbers of queries and keys.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, is_causal: bool) -> Result<Tensor> {
    let scale = 1.0 / (q.dim(D::Minus1)? as f64).sqrt();
    let keys = k.transpose(D::Minus2, D::Minus1)?.contiguous()?;
    let mut scores = (q.contiguous()?.matmul(&keys)? * scale)?;
    if is_causal {
        let (queries, keys) = (scores.dim(D::Minus2)?, scores.dim(D::Minus1)?);
        if queries != keys {
            bail!(
                "causal attention of {queries} queries to {keys} keys: it needs as many keys as queries"
            );
        }
        let hidden = |i: usize| {
            if i % keys > i / keys {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        };
        let mask: Vec<f32> = (0..queries * keys).map(hidden).collect();
        let mask = Tensor::from_vec(mask, (queries, keys), q.device())?;
        scores = scores.broadcast_add(&mask.to_dtype(q.dtype())?)?;
    }
    softmax_last_dim(&scores)?.matmul(&v.contiguous()?)
}

/// Rotary position embedding: rotates the pair of features i and i + d/2 at position t by the angle with cosine `cos`\[t, i\].
/// Replaces [`candle_nn::rotary_emb::rope`], which has no derivative.
///
/// # Shapes
/// `x` (n, heads, tokens, d); `cos` and `sin` (positions, d/2), or (n, positions, d/2), with at least as many positions as tokens;
/// to the shape of `x`.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // A rotation by 90°.
/// let x = Tensor::new(&[[[[3.0, 4.0]]]], &Device::Cpu)?;
/// let (cos, sin) = (Tensor::new(&[[0.0]], &Device::Cpu)?, Tensor::new(&[[1.0]], &Device::Cpu)?);
/// let y = nn::ops::rope(&x, &cos, &sin)?.flatten_all()?.to_vec1::<f64>()?;
/// assert_eq!(y, [-4.0, 3.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Shapes that do not fit.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, _, _, d) = x.dims4()?;
    let [cos, sin] = [angles(x, cos)?, angles(x, sin)?];
    let [a, b] = [x.narrow(3, 0, d / 2)?, x.narrow(3, d / 2, d / 2)?];
    let [left, right] = rotated([&a, &b], [&cos, &sin])?;
    Tensor::cat(&[left, right], 3)
}

/// [`rope`] of the pairs of features 2i and 2i + 1. Replaces [`candle_nn::rotary_emb::rope_i`], which has no derivative.
///
/// # Errors
/// Shapes that do not fit.
pub fn rope_i(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (n, heads, tokens, d) = x.dims4()?;
    let [cos, sin] = [angles(x, cos)?, angles(x, sin)?];
    let pairs = x.reshape((n, heads, tokens, d / 2, 2))?;
    let [a, b] = [
        pairs.narrow(4, 0, 1)?.squeeze(4)?,
        pairs.narrow(4, 1, 1)?.squeeze(4)?,
    ];
    let [left, right] = rotated([&a, &b], [&cos, &sin])?;
    Tensor::stack(&[left, right], 4)?.reshape((n, heads, tokens, d))
}

/// [`rope`] of a tensor of shape (n, tokens, heads, d). Replaces [`candle_nn::rotary_emb::rope_thd`], which has no derivative.
///
/// # Errors
/// Shapes that do not fit.
pub fn rope_thd(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rope(&x.transpose(1, 2)?, cos, sin)?
        .transpose(1, 2)?
        .contiguous()
}

/// The pair of features, rotated.
fn rotated([a, b]: [&Tensor; 2], [cos, sin]: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    let left = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    Ok([left, (a.broadcast_mul(sin)? + b.broadcast_mul(cos)?)?])
}

/// Cosines or sines of x's tokens, shape (1 or n, 1, tokens, d/2).
fn angles(x: &Tensor, table: &Tensor) -> Result<Tensor> {
    let (n, _, tokens, d) = x.dims4()?;
    let fits = match *table.dims() {
        [positions, half] => positions >= tokens && 2 * half == d,
        [samples, positions, half] => samples == n && positions >= tokens && 2 * half == d,
        _ => false,
    };
    if !fits {
        bail!(
            "cosines or sines of shape {:?} for {tokens} tokens of {d} features: they need shape (positions, d/2) or \
             (n, positions, d/2) with an even d and at least {tokens} positions",
            table.dims()
        );
    }
    let table = table.narrow(D::Minus2, 0, tokens)?;
    match table.rank() {
        2 => table.unsqueeze(0)?.unsqueeze(0),
        _ => table.unsqueeze(1),
    }
}

/// GELU by the tanh approximation, ½ x (1 + tanh(√(2/π)(x + 0.044715 x³))): [`Tensor::gelu`], whose derivative in candle has
/// constants of six digits.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let x = Tensor::new(&[0.0, 1.0], &Device::Cpu)?;
/// let y = nn::ops::gelu(&x)?.to_vec1::<f64>()?;
/// assert!(y[0] == 0.0 && (y[1] - 0.841_191_990_608_276_8).abs() < 1e-15);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A tensor that is not floating point.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let inner = ((x.sqr()? * x)? * 0.044_715)?;
    let inner = ((x + inner)? * FRAC_2_PI.sqrt())?;
    (x * 0.5)? * (inner.tanh()? + 1.0)?
}

/// GELU, x Φ(x) with the Gaussian distribution function Φ: [`Tensor::gelu_erf`], whose derivative in candle has a constant of six
/// digits.
///
/// # Errors
/// A tensor that is not floating point.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    (x * 0.5)? * ((x * FRAC_1_SQRT_2)?.erf()? + 1.0)?
}
