//! Functions and layers for custom transformers: closed forms, derivatives, and the refusal of candle's fused operations.

mod common;

use common::{assert_close, dot, numbers};
use loss_landscape::candle::{self, D};
use loss_landscape::candle_nn::{Embedding, embedding, linear, linear_no_bias, rotary_emb};
use loss_landscape::objective::{CrossEntropy, Engine, GraphReason};
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;
const TOKENS: usize = 7;
const LENGTH: usize = 6;
const WIDTH: usize = 8;
const HEADS: usize = 2;

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    let values = numbers(shape.iter().product(), seed);
    Tensor::from_vec(values, shape, &CPU).unwrap()
}

fn flat(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Cosines and sines of the angles of LENGTH + 2 positions, more than there are tokens.
fn angles(half: usize) -> [Tensor; 2] {
    let shape = [LENGTH + 2, half];
    let angle = |i: usize| (i / half) as f64 * 10f64.powf(-((i % half) as f64) / half as f64);
    let values: Vec<f64> = (0..shape.iter().product()).map(angle).collect();
    let angles = Tensor::from_vec(values, &shape, &CPU).unwrap();
    [angles.cos().unwrap(), angles.sin().unwrap()]
}

/// candle's fused operations compute the same values.
#[test]
fn values_are_candles() {
    let x = tensor(1, &[3, HEADS, LENGTH, WIDTH]);
    let [alpha, beta] = [2, 3].map(|seed| tensor(seed, &[WIDTH]));
    let [cos, sin] = angles(WIDTH / 2);
    let thd = x.transpose(1, 2).unwrap().contiguous().unwrap();
    let [many_cos, many_sin] = [&cos, &sin].map(|t| {
        let t = t.narrow(0, 0, LENGTH).unwrap().unsqueeze(0).unwrap();
        Tensor::cat(&[&t, &(&t * 0.5).unwrap(), &(&t * 2.0).unwrap()], 0).unwrap()
    });
    let exact = [
        (
            nn::ops::softmax_last_dim(&x),
            candle_nn::ops::softmax_last_dim(&x),
        ),
        (nn::ops::softmax(&x, 1), candle_nn::ops::softmax(&x, 1)),
        (
            nn::ops::rope(&x, &cos, &sin),
            rotary_emb::rope(&x, &cos, &sin),
        ),
        (
            nn::ops::rope(&x, &many_cos, &many_sin),
            rotary_emb::rope(&x, &many_cos, &many_sin),
        ),
        (
            nn::ops::rope_i(&x, &cos, &sin),
            rotary_emb::rope_i(&x, &cos, &sin),
        ),
        (
            nn::ops::rope_thd(&thd, &cos, &sin),
            rotary_emb::rope_thd(&thd, &cos, &sin),
        ),
        (nn::ops::gelu(&x), x.gelu()),
        (nn::ops::gelu_erf(&x), x.gelu_erf()),
    ];
    // candle's fused normalisations work in f32 only.
    let [x, alpha, beta] = [x, alpha, beta].map(|t| t.to_dtype(DType::F32).unwrap());
    let single = [
        (
            nn::ops::layer_norm(&x, &alpha, &beta, 0.1),
            candle_nn::ops::layer_norm(&x, &alpha, &beta, 0.1),
        ),
        (
            nn::ops::rms_norm(&x, &alpha, 0.1),
            candle_nn::ops::rms_norm(&x, &alpha, 0.1),
        ),
        (
            nn::LayerNorm::new(alpha.clone(), beta.clone(), 0.1).forward(&x),
            candle_nn::LayerNorm::new(alpha.clone(), beta, 0.1).forward(&x),
        ),
        (
            nn::LayerNorm::new_no_bias(alpha.clone(), 0.1).forward(&x),
            candle_nn::LayerNorm::new_no_bias(alpha.clone(), 0.1).forward(&x),
        ),
        (
            nn::RmsNorm::new(alpha.clone(), 0.1).forward(&x),
            candle_nn::RmsNorm::new(alpha, 0.1).forward(&x),
        ),
    ];
    let exact = exact.into_iter().map(|pair| (pair, 1e-12));
    for ((ours, candles), tolerance) in exact.chain(single.into_iter().map(|pair| (pair, 1e-6))) {
        let (ours, candles) = (ours.unwrap(), candles.unwrap());
        assert_eq!(ours.dims(), candles.dims());
        let [ours, candles] = [ours, candles].map(|t| flat(&t.to_dtype(DType::F64).unwrap()));
        assert_close(&ours, &candles, tolerance);
    }
}

#[test]
fn attention_is_a_weighted_mean_of_values() {
    let [q, k] = [1, 2].map(|seed| tensor(seed, &[2, LENGTH, 3]));
    let v = tensor(3, &[2, LENGTH, 5]);
    let [rows_q, rows_k, rows_v] = [&q, &k, &v].map(|t| t.to_vec3::<f64>().unwrap());
    for is_causal in [false, true] {
        let found = nn::ops::attention(&q, &k, &v, is_causal).unwrap();
        let mut expected = Vec::new();
        for ((q, k), v) in rows_q.iter().zip(&rows_k).zip(&rows_v) {
            for (i, q) in q.iter().enumerate() {
                let seen = if is_causal { i + 1 } else { LENGTH };
                let weight = |k: &Vec<f64>| (dot(q, k) / 3f64.sqrt()).exp();
                let weights: Vec<f64> = k[..seen].iter().map(weight).collect();
                let total: f64 = weights.iter().sum();
                for c in 0..5 {
                    let sum: f64 = weights.iter().zip(v).map(|(w, v)| w * v[c]).sum();
                    expected.push(sum / total);
                }
            }
        }
        assert_eq!(found.dims(), [2, LENGTH, 5]);
        assert_close(&flat(&found), &expected, 1e-13);
    }
    // Cross attention, with other numbers of keys than queries.
    let few = k.narrow(1, 0, 2).unwrap();
    let values = v.narrow(1, 0, 2).unwrap();
    assert_eq!(
        nn::ops::attention(&q, &few, &values, false).unwrap().dims(),
        [2, LENGTH, 5]
    );
    let error = nn::ops::attention(&q, &few, &values, true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("6 queries to 2 keys"), "{error}");
}

#[test]
fn softmax_is_finite_at_extreme_values() {
    for dtype in [DType::F32, DType::F64] {
        let x = Tensor::new(&[[1e4, -1e4, 1e4], [f64::NEG_INFINITY, 0.0, -1e4]], &CPU).unwrap();
        let p = nn::ops::softmax_last_dim(&x.to_dtype(dtype).unwrap()).unwrap();
        let p = p.to_dtype(DType::F64).unwrap();
        assert_eq!(flat(&p), [0.5, 0.0, 0.5, 0.0, 1.0, 0.0]);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let x = tensor(1, &[3, HEADS, LENGTH, WIDTH]);
    let [cos, sin] = angles(WIDTH / 2);
    let short = cos.narrow(0, 0, LENGTH - 1).unwrap();
    let of_two = x.get(0).unwrap();
    for (cos, sin) in [(&short, &sin), (&cos, &x), (&of_two, &sin)] {
        let error = nn::ops::rope(&x, cos, sin).unwrap_err().to_string();
        assert!(error.contains("cosines or sines of shape"), "{error}");
    }
    let error = nn::ops::rms_norm(&x, &tensor(1, &[3]), 0.1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("[3]") && error.contains("(8,)"), "{error}");
}

/// Asserts that Hessian-vector products are symmetric and equal central differences of the gradient.
#[track_caller]
fn assert_second_derivatives(objective: &Objective) {
    let check = objective.derivative_check();
    assert!(check.gradient < 1e-6 && check.hvp < 1e-5, "{check}");
    let theta = objective.parameters().to_flat().unwrap();
    let [u, v] = [1, 2].map(|seed| numbers(theta.len(), seed));
    let [hu, hv] = [&u, &v].map(|v| objective.hvp(v).unwrap());
    let size = dot(&hu, &hu).sqrt() * dot(&v, &v).sqrt();
    assert!((dot(&u, &hv) - dot(&v, &hu)).abs() < 1e-12 * size);
    let step = 1e-5;
    let gradient = |sign: f64| {
        let moved = theta.iter().zip(&v).map(|(t, v)| t + sign * step * v);
        objective.gradient_at(&moved.collect::<Vec<_>>()).unwrap().1
    };
    let pairs = gradient(1.0).into_iter().zip(gradient(-1.0));
    let differences: Vec<f64> = pairs.map(|(a, b)| (a - b) / (2.0 * step)).collect();
    assert_close(&hv, &differences, 1e-7);
}

/// The mean square of `f` of a variable with this shape, as an objective.
fn squares(
    shape: &[usize],
    f: impl Fn(&Tensor) -> candle::Result<Tensor> + Send + Sync + 'static,
) -> Result<Objective, Error> {
    squares_in(DType::F64, shape, f)
}

fn squares_in(
    dtype: DType,
    shape: &[usize],
    f: impl Fn(&Tensor) -> candle::Result<Tensor> + Send + Sync + 'static,
) -> Result<Objective, Error> {
    let tensor = |seed, shape: &[usize]| tensor(seed, shape).to_dtype(dtype).unwrap();
    let var = Var::from_tensor(&tensor(5, shape)).unwrap();
    let parameters = Parameters::new([("x".to_owned(), var.clone())]).unwrap();
    let count: usize = shape.iter().product();
    let inputs = tensor(6, &[4, count]);
    let data = Dataset::regression(&inputs, &tensor(7, &[4, 3])).unwrap();
    let weights = tensor(8, &[count, 3]);
    Objective::from_fn(parameters, &data, Loss::Mse, move |x| {
        let y = f(var.as_tensor())?.flatten_all()?.unsqueeze(0)?;
        x.broadcast_mul(&y)?.matmul(&weights)
    })
}

#[test]
fn every_function_differentiates_twice() {
    let shape = [2, HEADS, 3, 4];
    let [alpha, beta] = [2, 3].map(|seed| tensor(seed, &[4]));
    let [cos, sin] = angles(2);
    let (a, b, c, d) = (alpha.clone(), beta, cos.clone(), sin.clone());
    assert_second_derivatives(&squares(&shape, nn::ops::softmax_last_dim).unwrap());
    assert_second_derivatives(&squares(&shape, |x| nn::ops::softmax(x, 2)).unwrap());
    let norm = move |x: &Tensor| nn::ops::layer_norm(x, &a, &b, 0.1);
    assert_second_derivatives(&squares(&shape, norm).unwrap());
    let norm = move |x: &Tensor| nn::ops::rms_norm(x, &alpha, 0.1);
    assert_second_derivatives(&squares(&shape, norm).unwrap());
    assert_second_derivatives(&squares(&shape, nn::ops::gelu).unwrap());
    assert_second_derivatives(&squares(&shape, nn::ops::gelu_erf).unwrap());
    let turn = move |x: &Tensor| nn::ops::rope(&x.tanh()?, &c, &d);
    assert_second_derivatives(&squares(&shape, turn).unwrap());
    let turn = move |x: &Tensor| nn::ops::rope_i(&x.tanh()?, &cos, &sin);
    assert_second_derivatives(&squares(&shape, turn).unwrap());
    for is_causal in [false, true] {
        let attend = move |x: &Tensor| {
            let q = x.narrow(D::Minus1, 0, 2)?;
            nn::ops::attention(&q, &x.narrow(D::Minus1, 1, 2)?, x, is_causal)
        };
        assert_second_derivatives(&squares(&shape, attend).unwrap());
    }
}

/// A rotation is linear and keeps lengths, so the Hessian of a rotated vector's squared length is that of the vector's.
#[test]
fn rotations_keep_lengths() {
    let x = tensor(1, &[3, HEADS, LENGTH, WIDTH]);
    let [cos, sin] = angles(WIDTH / 2);
    let length = |x: &Tensor| flat(&x.sqr().unwrap().sum_keepdim(3).unwrap());
    for y in [
        nn::ops::rope(&x, &cos, &sin),
        nn::ops::rope_i(&x, &cos, &sin),
    ] {
        assert_close(&length(&y.unwrap()), &length(&x), 1e-13);
    }
}

fn tokens(n: usize, step: usize) -> Tensor {
    let token = |i: usize| ((i * i + step * i + i / 3) % TOKENS) as u32;
    let tokens: Vec<u32> = (0..n * LENGTH).map(token).collect();
    Tensor::from_vec(tokens, (n, LENGTH), &CPU).unwrap()
}

/// Tokens of shape (n, T) to scores of shape (n, T, V): a pre-norm block with rotary causal attention and a gated MLP.
struct LanguageModel {
    table: Embedding,
    first: nn::LayerNorm,
    qkv: candle_nn::Linear,
    second: nn::RmsNorm,
    up: candle_nn::Linear,
    down: candle_nn::Linear,
    out: candle_nn::Linear,
    angles: [Tensor; 2],
}

impl LanguageModel {
    fn new(vb: VarBuilder) -> candle::Result<Self> {
        Ok(Self {
            table: embedding(TOKENS, WIDTH, vb.pp("table"))?,
            first: nn::layer_norm(WIDTH, 1e-5, vb.pp("first"))?,
            qkv: linear_no_bias(WIDTH, 3 * WIDTH, vb.pp("qkv"))?,
            second: nn::rms_norm(WIDTH, 1e-5, vb.pp("second"))?,
            up: linear(WIDTH, 2 * WIDTH, vb.pp("up"))?,
            down: linear(WIDTH, WIDTH, vb.pp("down"))?,
            out: linear(WIDTH, TOKENS, vb.pp("out"))?,
            angles: angles(WIDTH / HEADS / 2),
        })
    }
}

impl Module for LanguageModel {
    fn forward(&self, tokens: &Tensor) -> candle::Result<Tensor> {
        let x = self.table.forward(tokens)?;
        let (n, length, width) = x.dims3()?;
        let heads = self.qkv.forward(&self.first.forward(&x)?)?;
        let heads = heads.reshape((n, length, 3, HEADS, width / HEADS))?;
        let part = |i| {
            heads
                .narrow(2, i, 1)?
                .squeeze(2)?
                .transpose(1, 2)?
                .contiguous()
        };
        let [cos, sin] = &self.angles;
        let [q, k] = [
            nn::ops::rope(&part(0)?, cos, sin)?,
            nn::ops::rope(&part(1)?, cos, sin)?,
        ];
        let mixed = nn::ops::attention(&q, &k, &part(2)?, true)?;
        let x = (x + mixed.transpose(1, 2)?.reshape((n, length, width))?)?;
        let h = self.up.forward(&self.second.forward(&x)?)?;
        let [gate, value] = [h.narrow(2, 0, width)?, h.narrow(2, width, width)?];
        let x = (x + self.down.forward(&(nn::ops::gelu(&gate)? * value)?)?)?;
        self.out.forward(&x)
    }
}

#[test]
fn a_language_model_of_ones_own() {
    let vars = VarMap::new();
    let model = LanguageModel::new(VarBuilder::from_varmap(&vars, DType::F64, &CPU)).unwrap();
    let parameters = Parameters::try_from(&vars).unwrap();
    let theta: Vec<f64> = numbers(parameters.len(), 9)
        .iter()
        .map(|t| 0.7 * t)
        .collect();
    parameters.set_flat(&theta).unwrap();
    let mut labels = tokens(5, 2)
        .flatten_all()
        .unwrap()
        .to_vec1::<u32>()
        .unwrap();
    labels[LENGTH - 1] = 9;
    labels[2 * LENGTH..3 * LENGTH].fill(9);
    let labels = Tensor::from_vec(labels, (5, LENGTH), &CPU).unwrap();
    let data = Dataset::classification(&tokens(5, 1), &labels).unwrap();
    let loss = CrossEntropy::default()
        .with_ignored_label(9)
        .with_label_smoothing(0.1);
    let objective = Objective::from_fn(&vars, &data, loss, move |x| model.forward(x)).unwrap();
    assert_eq!(objective.engine(), Engine::ByGraph(GraphReason::NoLayers));
    assert_second_derivatives(&objective);
    let batches = objective.clone().with_batch_size(2).unwrap();
    assert_close(
        &[batches.loss().unwrap()],
        &[objective.loss().unwrap()],
        1e-13,
    );
    assert!(objective.accuracy().unwrap() <= 1.0);
}

/// The loss of a token does not depend on later tokens.
#[test]
fn causal_attention_sees_no_later_token() {
    let x = tensor(4, &[1, LENGTH, 3]);
    let changed = {
        let late = tensor(9, &[1, 1, 3]);
        Tensor::cat(&[&x.narrow(1, 0, LENGTH - 1).unwrap(), &late], 1).unwrap()
    };
    let [a, b] = [&x, &changed].map(|x| {
        let y = nn::ops::attention(x, x, x, true).unwrap();
        y.to_vec3::<f64>().unwrap().swap_remove(0)
    });
    assert_eq!(a[..LENGTH - 1], b[..LENGTH - 1]);
    assert_ne!(a[LENGTH - 1], b[LENGTH - 1]);
}

/// candle's fused operations leave no trace in the graph. Whether they cut all of it or a part, the error names them and what
/// replaces them.
#[test]
fn fused_operations_are_refused_with_their_replacements() {
    type Fused = fn(&Tensor) -> candle::Result<Tensor>;
    fn scale(x: &Tensor) -> candle::Result<Tensor> {
        tensor(2, &[4]).to_dtype(x.dtype())
    }
    fn turn(x: &Tensor) -> candle::Result<[Tensor; 2]> {
        let [cos, sin] = angles(2);
        Ok([cos.to_dtype(x.dtype())?, sin.to_dtype(x.dtype())?])
    }
    let fused: [(Fused, &str); 6] = [
        (
            candle_nn::ops::softmax_last_dim,
            "nn::ops::softmax_last_dim",
        ),
        (
            |x| candle_nn::LayerNorm::new(scale(x)?, scale(x)?, 0.1).forward(x),
            "nn::LayerNorm",
        ),
        (
            |x| candle_nn::RmsNorm::new(scale(x)?, 0.1).forward(x),
            "nn::RmsNorm",
        ),
        (
            |x| rotary_emb::rope(x, &turn(x)?[0], &turn(x)?[1]),
            "nn::ops::rope",
        ),
        (
            |x| rotary_emb::rope_i(x, &turn(x)?[0], &turn(x)?[1]),
            "nn::ops::rope",
        ),
        (
            |x| rotary_emb::rope_thd(x, &turn(x)?[0], &turn(x)?[1]),
            "nn::ops::rope",
        ),
    ];
    let shape = [2, HEADS, 3, 4];
    for dtype in [DType::F32, DType::F64] {
        for (fused, replacement) in fused {
            let cut = squares_in(dtype, &shape, fused).unwrap_err().to_string();
            let partly = move |x: &Tensor| x + (fused(&(x * 3.0)?)? * 20.0)?;
            let partly = squares_in(dtype, &shape, partly).unwrap_err().to_string();
            for (message, problem) in [
                (cut, "`x` gets no gradient"),
                (partly, "the gradient is wrong"),
            ] {
                // candle's normalisations have no kernels for f64.
                let has_kernel = dtype == DType::F32 || !replacement.ends_with("Norm");
                let problem = if has_kernel {
                    problem
                } else {
                    "unsupported dtype"
                };
                assert!(message.contains(problem), "{message}");
                assert!(message.contains(replacement), "{message}");
            }
        }
    }
}
