//! Loss, gradient and Hessian-vector product compared with closed forms and identities, in `f64`.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{assert_close, dot, numbers};
use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

fn inputs(n: usize, d: usize, seed: u64) -> Tensor {
    Tensor::from_vec(numbers(n * d, seed), (n, d), &CPU).unwrap()
}

fn labelled(n: usize, d: usize, classes: u32, seed: u64) -> Dataset {
    let labels: Vec<u32> = (0..n as u32).map(|i| (i * i + i / 3) % classes).collect();
    let labels = Tensor::from_vec(labels, n, &CPU).unwrap();
    Dataset::classification(&inputs(n, d, seed), &labels).unwrap()
}

fn with_values(n: usize, d: usize, outputs: usize, seed: u64) -> Dataset {
    Dataset::regression(&inputs(n, d, seed), &inputs(n, outputs, seed + 1)).unwrap()
}

fn mlp(widths: &[usize], activation: Activation) -> Mlp {
    let model = Mlp::new(widths, activation, 3, &CPU).unwrap();
    model.to_dtype(DType::F64).unwrap()
}

fn hessian(objective: &Objective) -> Array2<f64> {
    objective.hessian().dense().unwrap().matrix().clone()
}

/// One objective with hand-derived rules, one with automatic differentiation.
fn both_engines(model: &Mlp, data: &Dataset, loss: Loss) -> [Objective; 2] {
    let objective = Objective::of(model, data, loss).unwrap();
    let by_autograd = objective.clone().by_autograd();
    assert!(objective.is_hand_derived() && !by_autograd.is_hand_derived());
    [objective, by_autograd]
}

/// Asserts that the Hessian and the Gauss–Newton matrix equal `expected`.
fn assert_curvature(objectives: &[Objective], expected: &Array2<f64>) {
    let expected = expected.as_slice().unwrap();
    for objective in objectives {
        assert_close(hessian(objective).as_slice().unwrap(), expected, 1e-10);
        let gauss_newton = objective.gauss_newton().dense().unwrap();
        assert_close(gauss_newton.matrix().as_slice().unwrap(), expected, 1e-10);
    }
}

/// Inputs with a leading 1 for the bias, which precedes the weight in θ.
fn design_matrix(data: &Dataset) -> Vec<Vec<f64>> {
    let rows = data.inputs().to_vec2::<f64>().unwrap();
    rows.into_iter()
        .map(|row| [vec![1.0], row].concat())
        .collect()
}

/// (1/n) Σᵢ Cᵢ ⊗ xᵢxᵢᵀ for a linear model with `k` outputs, in the order of θ: k biases, then k
/// rows of weights.
fn linear_model_hessian(
    rows: &[Vec<f64>],
    k: usize,
    curvature: impl Fn(usize) -> Vec<Vec<f64>>,
) -> Array2<f64> {
    let d = rows[0].len() - 1;
    let index = |output: usize, input: usize| match input {
        0 => output,
        _ => k + output * d + input - 1,
    };
    let mut h = Array2::zeros((k * (d + 1), k * (d + 1)));
    for (i, x) in rows.iter().enumerate() {
        let c = curvature(i);
        for (a, b) in (0..k).flat_map(|a| (0..k).map(move |b| (a, b))) {
            for (p, q) in (0..=d).flat_map(|p| (0..=d).map(move |q| (p, q))) {
                h[[index(a, p), index(b, q)]] += c[a][b] * x[p] * x[q] / rows.len() as f64;
            }
        }
    }
    h
}

#[test]
fn linear_model_with_squared_error() {
    let (data, k) = (with_values(17, 4, 3, 1), 3);
    let objectives = both_engines(&mlp(&[4, k], Activation::Tanh), &data, Loss::Mse);
    // The mean over k outputs divides (2/n) XᵀX by k.
    let expected = linear_model_hessian(&design_matrix(&data), k, |_| {
        let diagonal = |a: usize, b: usize| if a == b { 2.0 / k as f64 } else { 0.0 };
        (0..k)
            .map(|a| (0..k).map(|b| diagonal(a, b)).collect())
            .collect()
    });
    assert_curvature(&objectives, &expected);
}

#[test]
fn logistic_regression() {
    let data = labelled(23, 3, 2, 2);
    let model = mlp(&[3, 1], Activation::Tanh);
    let objectives = both_engines(&model, &data, Loss::CrossEntropy);
    let z = model.forward(data.inputs()).unwrap().flatten_all().unwrap();
    let z = z.to_vec1::<f64>().unwrap();
    let sigma = |i: usize| 1.0 / (1.0 + (-z[i]).exp());
    let expected = linear_model_hessian(&design_matrix(&data), 1, |i| {
        vec![vec![sigma(i) * (1.0 - sigma(i))]]
    });
    assert_curvature(&objectives, &expected);

    let labels = data.labels().unwrap();
    let losses = (0..data.len()).map(|i| {
        let p = if labels[i] == 1 {
            sigma(i)
        } else {
            1.0 - sigma(i)
        };
        -p.ln()
    });
    let mean = losses.sum::<f64>() / data.len() as f64;
    for objective in objectives {
        assert!((objective.loss().unwrap() - mean).abs() < 1e-14);
    }
}

#[test]
fn softmax_regression() {
    let (data, k) = (labelled(19, 4, 5, 3), 5);
    let model = mlp(&[4, k], Activation::Tanh);
    let objectives = both_engines(&model, &data, Loss::CrossEntropy);
    let z = model
        .forward(data.inputs())
        .unwrap()
        .to_vec2::<f64>()
        .unwrap();
    let expected = linear_model_hessian(&design_matrix(&data), k, |i| {
        let total: f64 = z[i].iter().map(|z| z.exp()).sum();
        let p: Vec<f64> = z[i].iter().map(|z| z.exp() / total).collect();
        let entry = |a: usize, b: usize| {
            if a == b {
                p[a] - p[a] * p[a]
            } else {
                -p[a] * p[b]
            }
        };
        (0..k)
            .map(|a| (0..k).map(|b| entry(a, b)).collect())
            .collect()
    });
    assert_curvature(&objectives, &expected);
}

/// ½(w₁w₂w₃ − y)² at a minimum has one nonzero eigenvalue, y² Σ 1/wᵢ².
#[test]
fn chain_of_scalars() {
    let w = [0.5f64, -2.0, 1.25];
    let y: f64 = w.iter().product();
    let vars = w.map(|w| Var::new(&[w], &CPU).unwrap());
    let named = vars
        .iter()
        .enumerate()
        .map(|(i, v)| (format!("w{i}"), v.clone()));
    let parameters = Parameters::new(named).unwrap();
    let data = Dataset::regression(
        &Tensor::new(&[[1f64]], &CPU).unwrap(),
        &Tensor::new(&[[y]], &CPU).unwrap(),
    );
    let forward = move |x: &Tensor| {
        vars.iter()
            .try_fold(x.clone(), |h, w| h.broadcast_mul(w.as_tensor()))
    };
    let objective = Objective::from_fn(&parameters, &data.unwrap(), Loss::Mse, forward).unwrap();
    let values = common::hessian_values(&objective);
    // The loss is (…)², twice the ½(…)² of the formula.
    let expected = 2.0 * y * y * w.iter().map(|w| 1.0 / (w * w)).sum::<f64>();
    assert!((values[0] - expected).abs() < 1e-12 * expected);
    assert!(values[1].abs() < 1e-12 && values[2].abs() < 1e-12);
}

/// ½‖W₂W₁ − M‖² at zero residual: the nonzero eigenvalues are σᵢ(W₂)² + σⱼ(W₁)² for i over W₂'s rows
/// and j over W₁'s columns, zero singular values included.
#[test]
fn product_of_two_matrices() {
    let (d, h, k) = (4, 3, 2);
    let var = |rows: usize, columns: usize, seed: u64| {
        Var::from_tensor(&inputs(rows, columns, seed)).unwrap()
    };
    let (w1, w2) = (var(h, d, 21), var(k, h, 22));
    let parameters =
        Parameters::new([("w1".to_owned(), w1.clone()), ("w2".to_owned(), w2.clone())]).unwrap();
    // The loss is the mean over d samples, the unit vectors, and k outputs: 2/(dk) of ½‖…‖².
    let x = Tensor::eye(d, DType::F64, &CPU).unwrap();
    let y = x
        .matmul(&w1.t().unwrap())
        .unwrap()
        .matmul(&w2.t().unwrap())
        .unwrap();
    let squares = |w: &Var| {
        let gram = w.t().unwrap().matmul(w).unwrap().to_vec2::<f64>().unwrap();
        let n = gram.len();
        let gram = Array2::from_shape_vec((n, n), gram.concat()).unwrap();
        Dense::new(gram).unwrap().eigen().unwrap().values()
    };
    let (s1, s2) = (squares(&w1), squares(&w2));
    let factor = 2.0 / (d * k) as f64;
    let sums = (0..k).flat_map(|i| (0..d).map(move |j| (i, j)));
    let mut expected: Vec<f64> = sums.map(|(i, j)| factor * (s2[i] + s1[j])).collect();
    expected.sort_by(|a, b| b.total_cmp(a));

    let data = Dataset::regression(&x, &y).unwrap();
    let forward = move |x: &Tensor| x.matmul(&w1.t()?)?.matmul(&w2.t()?);
    let objective = Objective::from_fn(&parameters, &data, Loss::Mse, forward).unwrap();
    let mut found = common::hessian_values(&objective);
    assert!(found[d * k..].iter().all(|v| v.abs() < 1e-12));
    found.truncate(d * k);
    assert_close(&found, &expected, 1e-12);
}

#[test]
fn every_activation_and_loss_agrees_with_central_differences() {
    for activation in Activation::ALL {
        for (data, outputs, loss) in [
            (labelled(21, 5, 3, 4), 3, Loss::CrossEntropy),
            (labelled(21, 5, 2, 4), 1, Loss::CrossEntropy),
            (with_values(21, 5, 2, 4), 2, Loss::Mse),
        ] {
            for objective in
                both_engines(&mlp(&[5, 6, 4, outputs], activation), &data, loss.clone())
            {
                let n = objective.dim();
                let theta = objective.parameters().to_flat().unwrap();
                let (u, v) = (numbers(n, 5), numbers(n, 6));
                let gradient = objective.gradient().unwrap();
                let (hu, hv) = (objective.hvp(&u).unwrap(), objective.hvp(&v).unwrap());

                let shift =
                    |h: f64| -> Vec<f64> { theta.iter().zip(&v).map(|(t, v)| t + h * v).collect() };
                let h = 1e-5;
                let slope =
                    objective.loss_at(&shift(h)).unwrap() - objective.loss_at(&shift(-h)).unwrap();
                let slope = slope / (2.0 * h);
                assert!(
                    (slope - dot(&gradient, &v)).abs() < 1e-8 * (1.0 + slope.abs()),
                    "{activation:?} {loss:?}: slope {slope}, gᵀv {}",
                    dot(&gradient, &v)
                );

                let gradient_at = |theta: &[f64]| {
                    objective.parameters().set_flat(theta).unwrap();
                    objective.gradient().unwrap()
                };
                let (ahead, behind) = (gradient_at(&shift(h)), gradient_at(&shift(-h)));
                objective.parameters().set_flat(&theta).unwrap();
                let differences: Vec<f64> = ahead
                    .iter()
                    .zip(&behind)
                    .map(|(a, b)| (a - b) / (2.0 * h))
                    .collect();
                assert_close(&hv, &differences, 1e-6);

                let (a, b) = (dot(&u, &hv), dot(&v, &hu));
                assert!(
                    (a - b).abs() < 1e-12 * (a.abs() + 1.0),
                    "uᵀHv = {a}, vᵀHu = {b}"
                );
                assert!(objective.derivative_check().gradient < 1e-6);
                assert!(objective.derivative_check().hvp < 1e-5);
            }
        }
    }
}

/// For a 2-3-1 network with 13 parameters, products agree with second differences of the loss.
#[test]
fn toy_hessian_entry_by_entry() {
    let data = two_moons(40, 0.1, 0, &CPU).unwrap();
    let objective = Objective::of(
        &mlp(&[2, 3, 1], Activation::Tanh),
        &data,
        Loss::CrossEntropy,
    )
    .unwrap();
    assert_eq!(objective.dim(), 13);
    let found = hessian(&objective);
    let theta = objective.parameters().to_flat().unwrap();
    let h = 1e-3;
    let loss = |i: usize, a: f64, j: usize, b: f64| {
        let mut moved = theta.clone();
        moved[i] += a * h;
        moved[j] += b * h;
        objective.loss_at(&moved).unwrap()
    };
    for (i, j) in (0..13).flat_map(|i| (0..13).map(move |j| (i, j))) {
        let difference = loss(i, 1.0, j, 1.0) - loss(i, 1.0, j, -1.0) - loss(i, -1.0, j, 1.0)
            + loss(i, -1.0, j, -1.0);
        let second = difference / (4.0 * h * h);
        assert!((found[[i, j]] - second).abs() < 1e-6, "H[{i},{j}]");
    }
}

#[test]
fn batches_add_up_to_the_whole() {
    let data = labelled(103, 5, 4, 7);
    let objective = Objective::of(
        &mlp(&[5, 8, 4], Activation::Gelu),
        &data,
        Loss::CrossEntropy,
    )
    .unwrap();
    let v = numbers(objective.dim(), 8);
    let objective = objective.by_autograd();
    let whole = objective.clone().with_batch_size(1000).unwrap();
    // The last batch is smaller: 103 = 10 · 10 + 3 = 102 + 1.
    for size in [1, 10, 102, 103] {
        let parts = objective.clone().with_batch_size(size).unwrap();
        assert!((parts.loss().unwrap() - whole.loss().unwrap()).abs() < 1e-14);
        assert_close(
            &parts.gradient().unwrap(),
            &whole.gradient().unwrap(),
            1e-12,
        );
        assert_close(&parts.hvp(&v).unwrap(), &whole.hvp(&v).unwrap(), 1e-12);
        assert_eq!(parts.accuracy().unwrap(), whole.accuracy().unwrap());
    }
}

#[test]
fn one_sample() {
    let data = labelled(1, 3, 2, 9);
    let objective =
        Objective::of(&mlp(&[3, 2], Activation::Tanh), &data, Loss::CrossEntropy).unwrap();
    // (diag p − ppᵀ) ⊗ xxᵀ has rank 1 for two classes.
    let values = common::hessian_values(&objective);
    assert!(values[0] > 0.1);
    assert!(values[1..].iter().all(|v| v.abs() < 1e-14));
}

#[test]
fn l2_adds_its_terms() {
    let data = labelled(20, 4, 3, 10);
    let plain = Objective::of(
        &mlp(&[4, 5, 3], Activation::Tanh),
        &data,
        Loss::CrossEntropy,
    )
    .unwrap();
    let strength = 0.03;
    let with = plain.clone().with_l2(strength).unwrap();
    let theta = plain.parameters().to_flat().unwrap();
    let v = numbers(plain.dim(), 11);
    let loss = plain.loss().unwrap() + strength * dot(&theta, &theta);
    assert!((with.loss().unwrap() - loss).abs() < 1e-14);
    let gradient = plain.gradient().unwrap();
    let gradient: Vec<f64> = gradient
        .iter()
        .zip(&theta)
        .map(|(g, t)| g + 2.0 * strength * t)
        .collect();
    assert_close(&with.gradient().unwrap(), &gradient, 1e-14);
    let product = plain.hvp(&v).unwrap();
    let product: Vec<f64> = product
        .iter()
        .zip(&v)
        .map(|(h, v)| h + 2.0 * strength * v)
        .collect();
    assert_close(&with.hvp(&v).unwrap(), &product, 1e-14);
    assert!(plain.with_l2(-1.0).is_err());
}

/// candle fixes how a thread differentiates at its first backward pass. Products must not depend on that.
#[test]
fn products_do_not_depend_on_earlier_backward_passes() {
    let data = labelled(30, 4, 3, 12);
    let model = mlp(&[4, 5, 3], Activation::Sigmoid);
    let x = Var::new(2f64, &CPU).unwrap();
    x.sqr().unwrap().backward().unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy)
        .unwrap()
        .by_autograd();
    let v = numbers(objective.dim(), 13);
    let here = objective.hvp(&v).unwrap();
    let on_threads = std::thread::scope(|scope| {
        let products = (0..4).map(|i| {
            let (objective, v) = (&objective, &v);
            scope.spawn(move || {
                let x = Var::new(f64::from(i), &CPU).unwrap();
                x.sqr().unwrap().backward().unwrap();
                objective.hvp(v).unwrap()
            })
        });
        let products: Vec<_> = products.collect();
        products
            .into_iter()
            .map(|p| p.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(here.iter().any(|h| h.abs() > 1e-3));
    assert!(on_threads.iter().all(|product| *product == here));
    assert!(std::env::var_os("CANDLE_GRAD_DO_NOT_DETACH").is_none());
}

#[test]
fn same_point_same_bits() {
    let data = labelled(2_000, 6, 3, 14).to_dtype(DType::F32).unwrap();
    let model = Mlp::new(&[6, 16, 3], Activation::Relu, 5, &CPU).unwrap();
    for objective in both_engines(&model, &data, Loss::CrossEntropy) {
        let v = numbers(objective.dim(), 15);
        assert_eq!(
            objective.loss().unwrap().to_bits(),
            objective.loss().unwrap().to_bits()
        );
        assert_eq!(objective.gradient().unwrap(), objective.gradient().unwrap());
        assert_eq!(objective.hvp(&v).unwrap(), objective.hvp(&v).unwrap());
    }
}

#[test]
fn custom_model_from_a_var_map() {
    let map = VarMap::new();
    let builder = VarBuilder::from_varmap(&map, DType::F64, &CPU);
    let first = candle_nn::linear(4, 6, builder.pp("first")).unwrap();
    let last = candle_nn::linear(6, 3, builder.pp("last")).unwrap();
    // Running statistics of batch normalisation are not parameters.
    candle_nn::batch_norm(6, 1e-5, builder.pp("norm")).unwrap();
    let data = labelled(25, 4, 3, 16);
    let forward = move |x: &Tensor| last.forward(&first.forward(x)?.tanh()?);
    let names: Vec<String> = Parameters::try_from(&map)
        .unwrap()
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(
        names,
        [
            "first.bias",
            "first.weight",
            "last.bias",
            "last.weight",
            "norm.bias",
            "norm.weight"
        ]
    );
    let message = Objective::from_fn(&map, &data, Loss::CrossEntropy, forward).unwrap_err();
    assert!(
        message.to_string().contains("`norm.bias` gets no gradient"),
        "{message}"
    );
}

fn custom_linear(
    forward: impl Fn(&Tensor, &Var) -> candle_core::Result<Tensor> + Send + Sync + 'static,
) -> Result<Objective, Error> {
    let w = Var::from_vec(numbers(12, 17), (4, 3), &CPU).unwrap();
    let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
    let data = labelled(25, 4, 3, 16);
    Objective::from_fn(&parameters, &data, Loss::CrossEntropy, move |x| {
        forward(x, &w)
    })
}

fn message(result: Result<Objective, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn an_operation_that_cuts_the_graph_is_an_error() {
    let cut = message(custom_linear(|x, w| {
        candle_nn::ops::softmax_last_dim(&x.matmul(w)?)
    }));
    assert!(cut.contains("`w` gets no gradient"), "{cut}");

    // Here the parameter gets a gradient, but a wrong one.
    let partly = message(custom_linear(|x, w| {
        let y = x.matmul(w)?;
        y.clone() + (candle_nn::ops::softmax_last_dim(&(&y * 3.0)?)? * 20.0)?
    }));
    assert!(partly.contains("the gradient is wrong"), "{partly}");
}

#[test]
fn an_operation_without_second_derivative_is_an_error_that_names_it() {
    let first = Var::from_vec(numbers(6, 18), (2, 1, 3), &CPU).unwrap();
    let last = Var::from_vec(numbers(12, 18), (2, 2, 3), &CPU).unwrap();
    let named = [
        ("first".to_owned(), first.clone()),
        ("last".to_owned(), last.clone()),
    ];
    let data = labelled(12, 7, 2, 19);
    let forward = move |x: &Tensor| {
        let h = x.unsqueeze(1)?.conv1d(&first, 0, 1, 1, 1)?.tanh()?;
        h.conv1d(&last, 0, 1, 1, 1)?.sum(2)
    };
    let parameters = Parameters::new(named).unwrap();
    let found = message(Objective::from_fn(
        &parameters,
        &data,
        Loss::CrossEntropy,
        forward,
    ));
    assert!(
        found.contains("the operation `conv-transpose1d` a second time"),
        "{found}"
    );
}

/// The check detects that candle 0.11.1 has a wrong derivative of `conv1d`.
#[test]
fn a_wrong_derivative_is_an_error() {
    let w = Var::from_vec(numbers(6, 18), (2, 1, 3), &CPU).unwrap();
    let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
    let data = labelled(12, 5, 2, 19);
    let found = message(Objective::from_fn(
        &parameters,
        &data,
        Loss::CrossEntropy,
        move |x| x.unsqueeze(1)?.conv1d(&w, 0, 1, 1, 1)?.tanh()?.sum(2),
    ));
    assert!(found.contains("the gradient is wrong"), "{found}");
}

/// candle's derivative of `max_pool2d` is too small by a factor of 4 for windows of 2 × 2.
#[test]
fn a_wrong_derivative_of_pooling_is_an_error() {
    let w = Var::from_vec(numbers(16, 18), (1, 16), &CPU).unwrap();
    let v = Var::from_vec(numbers(8, 19), (4, 2), &CPU).unwrap();
    let named = [("w".to_owned(), w.clone()), ("v".to_owned(), v.clone())];
    let data = labelled(12, 16, 2, 19);
    let forward = move |x: &Tensor| {
        let h = x.broadcast_mul(&w)?.reshape((x.dim(0)?, 1, 4, 4))?;
        h.max_pool2d(2)?.flatten_from(1)?.matmul(&v)
    };
    let parameters = Parameters::new(named).unwrap();
    let found = message(Objective::from_fn(
        &parameters,
        &data,
        Loss::CrossEntropy,
        forward,
    ));
    assert!(found.contains("the gradient is wrong"), "{found}");
}

#[test]
fn two_dimensional_convolutions_differentiate_twice() {
    let first = Var::from_vec(numbers(27, 18), (3, 1, 3, 3), &CPU).unwrap();
    let last = Var::from_vec(numbers(54, 19), (2, 3, 3, 3), &CPU).unwrap();
    let named = [
        ("first".to_owned(), first.clone()),
        ("last".to_owned(), last.clone()),
    ];
    let data = labelled(12, 49, 2, 19);
    let forward = move |x: &Tensor| {
        let h = x
            .reshape((x.dim(0)?, 1, 7, 7))?
            .conv2d(&first, 1, 2, 1, 1)?
            .tanh()?;
        h.conv2d(&last, 1, 1, 1, 1)?.mean((2, 3))
    };
    let parameters = Parameters::new(named).unwrap();
    let objective = Objective::from_fn(&parameters, &data, Loss::CrossEntropy, forward).unwrap();
    let check = objective.derivative_check();
    assert!(check.gradient < 1e-8 && check.hvp < 1e-7, "{check:?}");
}

#[test]
fn errors_of_models_and_data_are_specific() {
    let data = labelled(12, 5, 4, 20);
    let model = mlp(&[5, 3], Activation::Tanh);
    let labels = message(Objective::of(&model, &data, Loss::CrossEntropy));
    assert!(
        labels.contains("label 3 of sample") && labels.contains("0 to 2"),
        "{labels}"
    );

    let wrong_loss = message(Objective::of(&model, &data, Loss::Mse));
    assert!(
        wrong_loss.contains("dataset.one_hot(classes)"),
        "{wrong_loss}"
    );
    let fitted = data.one_hot(4).unwrap();
    let wrong_width = message(Objective::of(&model, &fitted, Loss::Mse));
    assert!(
        wrong_width
            .contains("outputs of shape (n, 3) need values of that shape to fit, not (n, 4)"),
        "{wrong_width}"
    );

    let wrong_input = message(Objective::of(
        &mlp(&[7, 4], Activation::Tanh),
        &data,
        Loss::CrossEntropy,
    ));
    assert!(
        wrong_input.starts_with(
            "Linear (`layers.0.weight`, `layers.0.bias`) cannot take samples of shape (5,): it needs a last axis of 7"
        ),
        "{wrong_input}"
    );

    let panics = message(custom_linear(|_, _| panic!("out of cheese")));
    assert!(panics.contains("out of cheese"), "{panics}");

    let calls = Arc::new(AtomicU32::new(0));
    let random = message(custom_linear(move |x, w| {
        x.matmul(w)? * (1.0 + f64::from(calls.fetch_add(1, Ordering::Relaxed)))
    }));
    assert!(
        random.contains("different outputs for the same inputs: switch dropout"),
        "{random}"
    );

    let theta = vec![f64::NAN; model.parameters().len()];
    assert!(model.parameters().set_flat(&theta).is_err());
    let nan = message(custom_linear(|x, w| x.matmul(w)?.log()));
    assert!(nan.contains("the loss is NaN"), "{nan}");
}

#[test]
fn wrong_vectors_are_refused() {
    let data = labelled(12, 5, 3, 21);
    let objective =
        Objective::of(&mlp(&[5, 3], Activation::Tanh), &data, Loss::CrossEntropy).unwrap();
    let short = objective.hvp(&[1.0]).unwrap_err().to_string();
    assert!(
        short.contains("1 entry but the model has 18 parameters"),
        "{short}"
    );
    let mut nan = vec![0.0; 18];
    nan[7] = f64::NAN;
    let nan = objective.hvp(&nan).unwrap_err().to_string();
    assert!(nan.contains("entry 7"), "{nan}");
    assert!(objective.loss_at(&[0.0; 17]).is_err());
}

/// Products alternate between datasets at the same θ. Cached values of one dataset must not be used for another.
#[test]
fn products_use_the_dataset_of_their_objective() {
    let model = mlp(&[3, 4, 2], Activation::Tanh);
    let data = [
        labelled(30, 3, 2, 1),
        labelled(30, 3, 2, 7),
        labelled(41, 3, 2, 9),
    ];
    let first = Objective::of(&model, &data[0], Loss::CrossEntropy).unwrap();
    let v = numbers(first.dim(), 5);
    for other in &data {
        first.hvp(&v).unwrap();
        let found = first.with_data(other).unwrap().hvp(&v).unwrap();
        let alone = Objective::of(&model, other, Loss::CrossEntropy).unwrap();
        assert_eq!(found, alone.hvp(&v).unwrap());
    }
}

/// A custom squared error equals the built-in loss, with all its derivatives.
#[test]
fn a_custom_loss_equals_the_built_in_one() {
    let (data, model) = (with_values(40, 3, 2, 5), mlp(&[3, 4, 2], Activation::Tanh));
    let built_in = Objective::of(&model, &data, Loss::Mse).unwrap();
    let custom = |loss: fn(&Tensor, &Tensor) -> candle::Result<Tensor>| {
        let network = model.clone();
        let compare = move |z: &Tensor, targets: &Targets| match targets {
            Targets::Values(y) => loss(z, y),
            Targets::Labels(_) => candle::bail!("expected values, found labels"),
        };
        Objective::from_loss(
            model.parameters().clone(),
            &data,
            move |x| network.forward(x),
            compare,
        )
    };
    let same = custom(|z, y| (z - y)?.sqr()?.mean(1)).unwrap();
    assert!((same.loss().unwrap() - built_in.loss().unwrap()).abs() < 1e-12);
    assert_close(
        &same.gradient().unwrap(),
        &built_in.gradient().unwrap(),
        1e-12,
    );
    let v = numbers(built_in.dim(), 9);
    assert_close(&same.hvp(&v).unwrap(), &built_in.hvp(&v).unwrap(), 1e-12);
    let [a, b] = [&same, &built_in].map(|o| o.gauss_newton().apply(&v).unwrap());
    assert_close(&a, &b, 1e-12);

    let error = same.fisher().apply(&v).unwrap_err().to_string();
    assert!(error.contains("unknown for a custom loss"), "{error}");
    let error = custom(|z, y| (z - y)?.sqr()?.mean_all())
        .unwrap_err()
        .to_string();
    assert!(error.contains("one loss per sample, shape (1,)"), "{error}");
    let error = custom(|z, y| (z - y)?.abs()?.sum(1)?.detach().affine(1.0, 0.0))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("parameter `layers.0.bias` gets no gradient"),
        "{error}"
    );
}

#[test]
fn errors_state_the_mismatch_of_model_and_data() {
    let data = labelled(10, 2, 2, 0);
    let error = |model: &Mlp| {
        Objective::of(model, &data, Loss::CrossEntropy)
            .unwrap_err()
            .to_string()
    };
    let wide = error(&mlp(&[3, 4, 2], Activation::Tanh));
    assert!(
        wide.contains("samples of shape (2,): it needs a last axis of 3"),
        "{wide}"
    );
    let single = error(&Mlp::new(&[2, 4, 2], Activation::Tanh, 3, &CPU).unwrap());
    assert!(
        single.contains("parameters are F32 and the data is F64") && single.contains("to_dtype"),
        "{single}"
    );
}
