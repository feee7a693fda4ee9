//! Layers for custom candle models, compared with the same maps as matrix products, which candle differentiates correctly.

mod common;

use common::{assert_close, dot, numbers};
use loss_landscape::candle::{self, D};
use loss_landscape::candle_nn::{Conv2dConfig, linear};
use loss_landscape::prelude::*;
use rayon::ThreadPoolBuilder;

const CPU: Device = Device::Cpu;

#[derive(Clone, Copy, Debug)]
struct Case {
    image: [usize; 3],
    weight: [usize; 4],
    padding: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
    samples: usize,
}

const PLAIN: Case = Case {
    image: [2, 5, 5],
    weight: [3, 2, 3, 3],
    padding: 0,
    stride: 1,
    dilation: 1,
    groups: 1,
    samples: 5,
};

fn cases() -> Vec<Case> {
    let case = PLAIN;
    vec![
        PLAIN,
        Case {
            padding: 1,
            samples: 1,
            ..case
        },
        // The last rows and columns are not covered, more columns than rows.
        Case {
            image: [2, 6, 8],
            stride: 2,
            ..case
        },
        Case {
            image: [2, 7, 5],
            stride: 3,
            padding: 1,
            ..case
        },
        Case {
            image: [1, 1, 1],
            weight: [1, 1, 1, 1],
            ..case
        },
        Case {
            image: [1, 1, 1],
            weight: [2, 1, 3, 3],
            padding: 1,
            samples: 70,
            ..case
        },
        Case {
            image: [1, 4, 6],
            weight: [1, 1, 2, 2],
            stride: 5,
            ..case
        },
        Case {
            image: [1, 4, 6],
            weight: [2, 1, 1, 1],
            stride: 3,
            ..case
        },
        Case {
            image: [4, 5, 4],
            weight: [4, 1, 3, 3],
            groups: 4,
            padding: 1,
            ..case
        },
        Case {
            image: [4, 4, 4],
            weight: [6, 2, 2, 2],
            groups: 2,
            stride: 2,
            ..case
        },
        Case {
            dilation: 2,
            padding: 2,
            ..case
        },
        Case {
            image: [2, 7, 6],
            dilation: 2,
            stride: 2,
            padding: 1,
            ..case
        },
        Case {
            weight: [2, 2, 1, 4],
            ..case
        },
        Case {
            image: [2, 3, 9],
            weight: [2, 2, 3, 2],
            padding: 1,
            stride: 2,
            ..case
        },
        Case {
            image: [2, 3, 2],
            weight: [2, 2, 2, 2],
            padding: 4,
            ..case
        },
        Case {
            image: [2, 3, 3],
            weight: [2, 2, 1, 1],
            padding: 3,
            stride: 2,
            ..case
        },
    ]
}

impl Case {
    fn ours(self, x: &Tensor, weight: &Tensor) -> candle::Result<Tensor> {
        nn::ops::conv2d(
            x,
            weight,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
        )
    }

    fn candle(self, x: &Tensor, weight: &Tensor) -> candle::Result<Tensor> {
        x.conv2d(
            weight,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
        )
    }

    /// The convolution by its definition: a product with a matrix that is linear in W.
    fn matrix(self, x: &Tensor, weight: &Tensor) -> candle::Result<Tensor> {
        let [channels, height, width] = self.image;
        let [outputs, inputs, down, right] = self.weight;
        let out = |size: usize, kernel: usize| {
            (size + 2 * self.padding - self.dilation * (kernel - 1) - 1) / self.stride + 1
        };
        let (rows, columns) = (out(height, down), out(width, right));
        let (from, to) = (channels * height * width, outputs * rows * columns);
        let mut map = vec![0.0; outputs * inputs * down * right * from * to];
        for (o, row, column) in indices([outputs, rows, columns]) {
            for (i, u, v) in indices([inputs, down, right]) {
                let y = (row * self.stride + u * self.dilation).checked_sub(self.padding);
                let x = (column * self.stride + v * self.dilation).checked_sub(self.padding);
                if let (Some(y), Some(x)) = (y.filter(|y| *y < height), x.filter(|x| *x < width)) {
                    let channel = o / (outputs / self.groups) * inputs + i;
                    let tap = ((o * inputs + i) * down + u) * right + v;
                    let source = (channel * height + y) * width + x;
                    let target = (o * rows + row) * columns + column;
                    map[(tap * from + source) * to + target] = 1.0;
                }
            }
        }
        let map = Tensor::from_vec(map, (weight.elem_count(), from * to), &CPU)?;
        let matrix = weight.reshape((1, ()))?.matmul(&map)?.reshape((from, to))?;
        x.flatten_from(1)?
            .matmul(&matrix)?
            .reshape(((), outputs, rows, columns))
    }
}

fn indices([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a * b * c).map(move |i| (i / (b * c), i / c % b, i % c))
}

fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let empty = shape.contains(&0);
    let values = numbers(if empty { 0 } else { shape.iter().product() }, seed);
    Tensor::from_vec(values, shape, &CPU).unwrap()
}

/// Loss of a network that applies `part` to images and a weight, between other layers with parameters.
fn objective<F>(image: [usize; 3], weight: &[usize], samples: usize, part: F) -> Objective
where
    F: Fn(&Tensor, &Tensor) -> candle::Result<Tensor> + Send + Sync + 'static,
{
    let [channels, height, width] = image;
    let x = tensor(&[samples, channels, height, width], 1);
    let labels: Vec<u32> = (0..samples as u32).map(|i| i * i % 3).collect();
    let labels = Tensor::from_vec(labels, samples, &CPU).unwrap();
    let data = Dataset::classification(&x, &labels).unwrap();
    let var = |shape: &[usize], seed| Var::from_tensor(&tensor(shape, seed)).unwrap();
    let [scale, shift] = [2, 3].map(|seed| var(&[1, channels, 1, 1], seed));
    let weight = var(weight, 4);
    let outputs = part(&x, &weight)
        .unwrap()
        .flatten_from(1)
        .unwrap()
        .dim(1)
        .unwrap();
    let (last, bias) = (var(&[outputs, 3], 5), var(&[3], 6));
    let named = [
        ("scale", &scale),
        ("shift", &shift),
        ("weight", &weight),
        ("last", &last),
        ("bias", &bias),
    ];
    let named = named.map(|(name, var)| (name.to_owned(), var.clone()));
    Objective::from_fn(
        Parameters::new(named).unwrap(),
        &data,
        Loss::CrossEntropy,
        move |x| {
            let h = x.broadcast_mul(&scale)?.broadcast_add(&shift)?.tanh()?;
            let h = part(&h, &weight)?.tanh()?.flatten_from(1)?;
            h.matmul(&last)?.broadcast_add(&bias)
        },
    )
    .unwrap()
}

/// Asserts that losses, gradients and Hessian-vector products are equal, and that the Hessian is symmetric.
#[track_caller]
fn assert_same(ours: &Objective, expected: &Objective) {
    let (a, b) = (ours.loss().unwrap(), expected.loss().unwrap());
    assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} is not {b}");
    assert_close(
        &ours.gradient().unwrap(),
        &expected.gradient().unwrap(),
        1e-10,
    );
    let [u, v] = [7, 8].map(|seed| numbers(ours.dim(), seed));
    let [hu, hv] = [&u, &v].map(|v| ours.hvp(v).unwrap());
    assert_close(&hv, &expected.hvp(&v).unwrap(), 1e-10);
    let (left, right) = (dot(&u, &hv), dot(&v, &hu));
    assert!((left - right).abs() <= 1e-12 * (dot(&u, &u) * dot(&hv, &hv)).sqrt());
}

#[test]
fn convolutions_and_their_derivatives_match_the_definition() {
    for case in cases() {
        println!("{case:?}");
        let of = |part: fn(Case, &Tensor, &Tensor) -> candle::Result<Tensor>| {
            objective(case.image, &case.weight, case.samples, move |x, w| {
                part(case, x, w)
            })
        };
        assert_same(&of(Case::ours), &of(Case::matrix));
    }
}

#[test]
fn values_match_candle() {
    for case in cases() {
        let [channels, height, width] = case.image;
        let x = tensor(&[case.samples, channels, height, width], 1);
        let weight = tensor(&case.weight, 2);
        let (ours, expected) = (
            case.ours(&x, &weight).unwrap(),
            case.candle(&x, &weight).unwrap(),
        );
        assert_eq!(ours.dims(), expected.dims());
        assert_close(&flat(&ours), &flat(&expected), 1e-13);
        let single = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
        let y = case.ours(&single(&x), &single(&weight)).unwrap();
        assert_eq!(y.dtype(), DType::F32);
        assert_close(&flat(&y), &flat(&expected), 1e-6);
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// For convolutions that candle itself can differentiate.
#[test]
fn derivatives_match_candle() {
    let strided = Case {
        image: [2, 7, 7],
        stride: 2,
        padding: 1,
        ..PLAIN
    };
    for case in [PLAIN, strided] {
        let of = |part: fn(Case, &Tensor, &Tensor) -> candle::Result<Tensor>| {
            objective(case.image, &case.weight, case.samples, move |x, w| {
                part(case, x, w)
            })
        };
        assert_same(&of(Case::ours), &of(Case::candle));
    }
}

#[test]
fn strided_tensors_give_the_results_of_contiguous_ones() {
    let square = Case {
        image: [2, 6, 4],
        weight: [2, 2, 3, 3],
        ..PLAIN
    };
    let strided = |part: fn(Case, &Tensor, &Tensor) -> candle::Result<Tensor>| {
        // Drops the first row of images of 2 × 7 × 6, transposes, and drops two columns.
        objective([2, 7, 6], &square.weight, 4, move |x, w| {
            let x = x.narrow(2, 1, 6)?.transpose(2, 3)?.narrow(3, 1, 4)?;
            part(square, &x, &w.t()?.transpose(0, 1)?)?.transpose(1, 2)
        })
    };
    assert_same(
        &strided(Case::ours),
        &strided(|case, x, w| case.matrix(&x.contiguous()?, &w.contiguous()?)),
    );
}

#[test]
fn tensors_without_gradient_tracking_get_no_gradient() {
    let x = tensor(&[3, 2, 5, 5], 1);
    let weight = tensor(&[3, 2, 3, 3], 2);
    assert!(!PLAIN.ours(&x, &weight).unwrap().track_op());
    let (x_var, weight_var) = (
        Var::from_tensor(&x).unwrap(),
        Var::from_tensor(&weight).unwrap(),
    );
    let gradients = |x: &Tensor, weight: &Tensor| {
        let y = PLAIN.ours(x, weight).unwrap();
        y.sqr().unwrap().sum_all().unwrap().backward().unwrap()
    };
    let both = gradients(&x_var, &weight_var);
    let of_weight = gradients(&x, &weight_var);
    let of_x = gradients(&x_var, &weight);
    assert!(of_weight.get(&x).is_none() && of_x.get(&weight).is_none());
    let same =
        |a: Option<&Tensor>, b: Option<&Tensor>| assert_eq!(flat(a.unwrap()), flat(b.unwrap()));
    same(of_weight.get(&weight_var), both.get(&weight_var));
    same(of_x.get(&x_var), both.get(&x_var));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let case = Case {
        image: [3, 9, 8],
        weight: [5, 3, 3, 3],
        padding: 1,
        stride: 2,
        ..PLAIN
    };
    let weight = Var::from_tensor(&tensor(&case.weight, 1).to_dtype(DType::F32).unwrap()).unwrap();
    let x = tensor(&[300, 3, 9, 8], 2).to_dtype(DType::F32).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    let run = |threads| {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let y = case.ours(&x, &weight).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let [dx, dw] = [&x, &weight].map(|var| flat(gradients.get(var).unwrap()));
            [flat(&y), dx, dw]
        })
    };
    let once = run(1);
    assert_eq!(once, run(1));
    assert_eq!(once, run(3));
    assert_eq!(once, run(8));
}

#[test]
fn modules_have_the_parameters_and_results_of_candles() {
    let config = Conv2dConfig {
        padding: 1,
        stride: 2,
        groups: 2,
        ..Default::default()
    };
    let (plain, vars) = (Conv2dConfig::default(), VarMap::new());
    let vb = VarBuilder::from_varmap(&vars, DType::F64, &CPU);
    let first = nn::conv2d_no_bias(2, 4, 3, plain, vb.pp("first")).unwrap();
    let second = nn::conv2d(4, 6, 3, config, vb.pp("second")).unwrap();
    let last = linear(6, 3, vb.pp("last")).unwrap();
    assert_eq!(second.weight().dims(), [6, 2, 3, 3]);
    assert_eq!(second.bias().unwrap().dims(), [6]);
    assert!(first.bias().is_none());
    assert_eq!(*second.config(), config);
    let named = vars
        .data()
        .lock()
        .unwrap()
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    for name in ["first.weight", "second.weight", "second.bias"] {
        assert!(
            named.iter().any(|n| n == name),
            "{name} is not in {named:?}"
        );
    }
    let reference = (
        candle_nn::conv2d_no_bias(2, 4, 3, plain, vb.pp("first")).unwrap(),
        candle_nn::conv2d(4, 6, 3, config, vb.pp("second")).unwrap(),
    );
    let x = tensor(&[5, 2, 7, 7], 1);
    let labels = Tensor::new(&[0u32, 1, 2, 0, 1], &CPU).unwrap();
    let data = Dataset::classification(&x, &labels).unwrap();
    let of = |first: Box<dyn Module + Send + Sync>, second: Box<dyn Module + Send + Sync>| {
        let last = last.clone();
        Objective::from_fn(&vars, &data, Loss::CrossEntropy, move |x| {
            let h = second.forward(&first.forward(x)?.tanh()?)?.tanh()?;
            last.forward(&h.mean((D::Minus1, D::Minus2))?)
        })
        .unwrap()
    };
    let converted = nn::Conv2d::from(reference.1.clone());
    let expected = of(Box::new(reference.0), Box::new(reference.1));
    assert_same(&of(Box::new(first.clone()), Box::new(second)), &expected);
    assert_same(&of(Box::new(first), Box::new(converted)), &expected);
}

/// candle's own convolution is used for other dtypes.
#[test]
fn half_precision_uses_candles_convolution() {
    let half = |tensor: Tensor| tensor.to_dtype(DType::F16).unwrap();
    let (x, weight) = (
        half(tensor(&[1, 2, 5, 5], 1)),
        half(tensor(&[3, 2, 3, 3], 2)),
    );
    let y = PLAIN.ours(&x, &weight).unwrap();
    assert_eq!(flat(&y), flat(&PLAIN.candle(&x, &weight).unwrap()));
    let conv = nn::Conv2d::new(weight, None, Conv2dConfig::default());
    assert_eq!(flat(&conv.forward(&x).unwrap()), flat(&y));
}

/// Pooling as a product with a matrix for each image. `shares` maps the values of a window to the weights of its entries.
fn pool_by_matrix(
    x: &Tensor,
    [kernel, stride]: [usize; 2],
    shares: impl Fn(&[f64]) -> Vec<f64>,
) -> candle::Result<Tensor> {
    let (n, channels, height, width) = x.dims4()?;
    let [rows, columns] = [height, width].map(|size| (size - kernel) / stride + 1);
    let (from, to) = (height * width, rows * columns);
    let mut matrices = vec![0.0; n * channels * from * to];
    let images = flat(x);
    for (image, row, column) in indices([n * channels, rows, columns]) {
        let pixels: Vec<usize> = indices([1, kernel, kernel])
            .map(|(_, i, j)| (row * stride + i) * width + column * stride + j)
            .collect();
        let window: Vec<f64> = pixels
            .iter()
            .map(|pixel| images[image * from + pixel])
            .collect();
        for (pixel, share) in pixels.iter().zip(shares(&window)) {
            matrices[(image * from + pixel) * to + row * columns + column] = share;
        }
    }
    let matrices = Tensor::from_vec(matrices, (n * channels, from, to), &CPU)?;
    let x = x.reshape((n * channels, 1, from))?;
    x.matmul(&matrices)?.reshape((n, channels, rows, columns))
}

#[test]
fn pooling_and_its_derivatives_match_the_definition() {
    let mean = |window: &[f64]| vec![1.0 / window.len() as f64; window.len()];
    let largest = |window: &[f64]| {
        let largest = window.iter().copied().fold(f64::MIN, f64::max);
        window.iter().map(|x| f64::from(*x == largest)).collect()
    };
    for ([height, width], kernel, stride) in [
        ([4, 4], 2, 2),
        // Windows overlap, and do not cover the last column.
        ([6, 7], 3, 2),
        ([5, 4], 2, 1),
        ([5, 7], 2, 3),
        ([3, 3], 3, 9),
        ([1, 1], 1, 1),
    ] {
        let of = |pool: fn(&Tensor, usize, usize) -> candle::Result<Tensor>| {
            objective([2, height, width], &[1, 1, 1, 1], 3, move |x, w| {
                pool(&x.broadcast_mul(w)?.transpose(2, 3)?, kernel, stride)
            })
        };
        let by_matrix = |shares: fn(&[f64]) -> Vec<f64>| {
            objective([2, height, width], &[1, 1, 1, 1], 3, move |x, w| {
                let x = x.broadcast_mul(w)?.transpose(2, 3)?;
                pool_by_matrix(&x, [kernel, stride], shares)
            })
        };
        assert_same(&of(nn::ops::avg_pool2d), &by_matrix(mean));
        assert_same(&of(nn::ops::max_pool2d), &by_matrix(largest));
    }
}

#[test]
fn equal_maxima_share_the_gradient() {
    let x = Var::ones((1, 1, 4, 4), DType::F64, &CPU).unwrap();
    let y = nn::ops::max_pool2d(&x, 2, 2).unwrap();
    assert_eq!(flat(&y), [1.0; 4]);
    let gradient = y.sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
    let shares = nn::ops::avg_pool2d(&gradient, 2, 2).unwrap();
    assert_eq!(flat(&shares), [0.25; 4]);
    assert!(flat(&gradient).iter().all(|share| *share > 0.0));
}

#[test]
fn an_empty_batch_gives_an_empty_batch() {
    let x = Tensor::zeros((0, 2, 5, 5), DType::F64, &CPU).unwrap();
    let weight = Var::from_tensor(&tensor(&[3, 2, 3, 3], 2)).unwrap();
    let y = PLAIN.ours(&x, &weight).unwrap();
    assert_eq!(y.dims(), [0, 3, 3, 3]);
    let gradient = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(gradient.get(&weight).unwrap()), vec![0.0; 54]);
}

#[test]
fn invalid_shapes_and_settings_are_errors() {
    let x = tensor(&[2, 4, 5, 6], 1);
    let refused =
        |weight: &[usize], [padding, stride, dilation, groups]: [usize; 4], words: &[&str]| {
            let result = nn::ops::conv2d(&x, &tensor(weight, 2), padding, stride, dilation, groups);
            let message = result.unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message:?} does not say {word:?}");
            }
        };
    refused(&[3, 2, 3, 3], [0, 1, 1, 1], &["[3, 2, 3, 3]", "4 channels"]);
    refused(&[3, 2, 3, 3], [0, 1, 1, 2], &["2 groups", "must divide 3"]);
    refused(&[3, 4, 3, 3], [0, 1, 1, 0], &["0 groups"]);
    refused(&[3, usize::MAX / 2, 0, 3], [0, 1, 1, 4], &["4 groups"]);
    refused(&[3, 4, 6, 3], [0, 1, 1, 1], &["6 × 3", "5 × 6"]);
    refused(&[3, 4, 3, 3], [0, 1, 3, 1], &["dilation 3"]);
    refused(&[3, 4, 0, 3], [0, 1, 1, 1], &["0 × 3"]);
    refused(
        &[0, 4, 3, 3],
        [0, 1, 1, 1],
        &["a stride and a dilation of at least 1"],
    );
    refused(&[3, 4, 3, 3], [0, 0, 1, 1], &["stride 0"]);
    refused(&[3, 4, 3, 3], [0, 1, 0, 1], &["dilation 0"]);
    refused(
        &[3, 4, 3, 3],
        [0, 1, usize::MAX, 1],
        &["dilation 18446744073709551615"],
    );
    refused(
        &[3, 4, 3, 3],
        [usize::MAX, 1, 1, 1],
        &["padding 18446744073709551615"],
    );
    refused(
        &[3, 4, 3, 3],
        [usize::MAX / 4, 1, 1, 1],
        &["from a padding of 4611686018427387903, are too large"],
    );
    refused(
        &[3, 4, 3],
        [0, 1, 1, 1],
        &["unexpected rank, expected: 4, got: 3"],
    );

    let single = tensor(&[3, 4, 3, 3], 2).to_dtype(DType::F32).unwrap();
    let message = nn::ops::conv2d(&x, &single, 0, 1, 1, 1)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("images of F64 and kernels of F32"),
        "{message}"
    );
    let config = Conv2dConfig::default();
    let wrong = nn::Conv2d::new(tensor(&[3, 4, 3, 3], 2), Some(tensor(&[4], 3)), config);
    let message = wrong.forward(&x).unwrap_err().to_string();
    assert!(message.contains("[4] for 3 channels"), "{message}");
    // A stride is never too large.
    let y = nn::ops::conv2d(&x, &tensor(&[3, 4, 3, 3], 2), 1, usize::MAX, 1, 1).unwrap();
    assert_eq!(y.dims(), [2, 3, 1, 1]);

    for pool in [nn::ops::avg_pool2d, nn::ops::max_pool2d] {
        for (kernel, stride) in [(0, 1), (2, 0), (6, 1), (usize::MAX, 1)] {
            let message = pool(&x, kernel, stride).unwrap_err().to_string();
            assert!(message.contains("5 × 6"), "{message}");
        }
        assert!(pool(&x.flatten_all().unwrap(), 2, 2).is_err());
    }
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F64, &CPU);
    let none = Conv2dConfig {
        groups: 0,
        ..Default::default()
    };
    assert!(nn::conv2d(2, 4, 3, none, vb.clone()).is_err());
    assert!(nn::conv2d_no_bias(2, 4, 3, none, vb).is_err());
}

/// A sequence computes what its layers compute one after another, on any thread, and clones share the layers.
#[test]
fn a_sequence_of_layers_moves_between_threads() {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F64, &CPU);
    let first = linear(3, 4, vb.pp("first")).unwrap();
    let last = linear(4, 2, vb.pp("last")).unwrap();
    let net = nn::seq()
        .add(first.clone())
        .add_fn(|x| x.tanh())
        .add(nn::seq().add(last.clone()));
    assert_eq!((net.len(), net.is_empty()), (3, false));
    assert!(nn::seq().is_empty());
    let x = Tensor::from_vec(numbers(15, 1), (5, 3), &CPU).unwrap();
    let values = |y: candle::Result<Tensor>| y.unwrap().to_vec2::<f64>().unwrap();
    let expected = first.forward(&x).and_then(|h| h.tanh());
    let expected = values(expected.and_then(|h| last.forward(&h)));
    let (copy, input) = (net.clone(), x.clone());
    let found = std::thread::spawn(move || copy.forward(&input));
    assert_eq!(values(found.join().unwrap()), expected);
    vars.all_vars()[0]
        .set(&vars.all_vars()[0].zeros_like().unwrap())
        .unwrap();
    assert_eq!(values(net.forward(&x)), values(net.clone().forward(&x)));
}
