use candle_core::{DType, Device, Tensor, Var};
use ndarray::Array2;

use super::*;
use crate::data::Dataset;
use crate::layers::{
    Conv2d, Embedding, Flatten, GatedMlp, GroupNorm, LayerKind, LayerNorm, Linear,
    PositionEmbedding, Residual, SelfAttention,
};
use crate::model::{Activation, Layered, Mlp, Model, Parameters};
use crate::objective::Loss;
use crate::operator::{Dense, LinearOperator};
use crate::vector::{dot, gaussian, minus, norm};

const CPU: Device = Device::Cpu;

fn tensor(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(gaussian(shape.iter().product(), seed), shape, &CPU).unwrap()
}

fn parameters(shapes: &[(&str, &[usize])]) -> Parameters {
    let vars = shapes.iter().zip(1..).map(|((name, shape), seed)| {
        let values = (tensor(shape, seed) * 0.5).unwrap();
        ((*name).to_owned(), Var::from_tensor(&values).unwrap())
    });
    Parameters::new(vars).unwrap()
}

fn network(layers: Vec<LayerKind>, shapes: &[(&str, &[usize])]) -> Layered {
    Layered::new(layers, parameters(shapes))
}

/// The squared error of outputs of a shape.
fn fitted(model: &Layered, input: &[usize], output: &[usize], n: usize) -> Objective {
    let shape = |dims: &[usize]| [&[n], dims].concat();
    let (x, y) = (tensor(&shape(input), 50), tensor(&shape(output), 51));
    let data = Dataset::regression(&x, &y).unwrap();
    Objective::of(model, &data, Loss::Mse).unwrap()
}

fn classified(model: &Layered, x: &Tensor, classes: usize, labels: &[usize]) -> Objective {
    let count: usize = labels.iter().product();
    let values = (0..count).map(|i| ((i * i + i / 3) % classes) as u32);
    let labels = Tensor::from_iter(values, &CPU)
        .unwrap()
        .reshape(labels)
        .unwrap();
    let data = Dataset::classification(x, &labels).unwrap();
    Objective::of(model, &data, Loss::CrossEntropy).unwrap()
}

fn tokens(n: usize, length: usize, count: usize) -> Tensor {
    let values = (0..n * length).map(|i| ((i * i + 2 * i + i / 4) % count) as u32);
    let values = Tensor::from_iter(values, &CPU).unwrap();
    values.reshape((n, length)).unwrap()
}

fn linear(name: &str) -> LayerKind {
    Linear::new(format!("{name}.weight"), format!("{name}.bias")).into()
}

fn dense(operator: &dyn LinearOperator) -> Array2<f64> {
    Dense::from_operator(operator).unwrap().matrix().clone()
}

fn frobenius(matrix: &Array2<f64>) -> f64 {
    matrix.iter().map(|a| a * a).sum::<f64>().sqrt()
}

fn kfac() -> Kfac {
    Kfac::default().with_eigenvalue_correction(false)
}

/// Small networks of each kind of layer: their objectives and names.
fn networks() -> Vec<(&'static str, Objective)> {
    let tanh = || LayerKind::from(Activation::Tanh);
    let image = tensor(&[5, 2, 5, 4], 60);
    let convolutional = network(
        vec![
            Conv2d::new("a.weight")
                .with_bias("a.bias")
                .with_padding(1)
                .with_stride(2)
                .into(),
            GroupNorm::new("norm.weight", "norm.bias", 2).into(),
            tanh(),
            Conv2d::new("b.weight")
                .with_groups(2)
                .with_dilation(2)
                .into(),
            Flatten.into(),
            linear("out"),
        ],
        &[
            ("a.weight", &[4, 2, 3, 2]),
            ("a.bias", &[4]),
            ("norm.weight", &[4]),
            ("norm.bias", &[4]),
            ("b.weight", &[6, 2, 2, 1]),
            ("out.weight", &[3, 18]),
            ("out.bias", &[3]),
        ],
    );
    let perceptron = network(
        vec![linear("a"), tanh(), linear("b")],
        &[
            ("a.bias", &[4]),
            ("a.weight", &[4, 3]),
            ("b.bias", &[1]),
            ("b.weight", &[1, 4]),
        ],
    );
    let shapes: Vec<(String, Vec<usize>)> = ["query", "key", "value", "output"]
        .iter()
        .flat_map(|part| {
            [
                (format!("attention.{part}.weight"), vec![4, 4]),
                (format!("attention.{part}.bias"), vec![4]),
            ]
        })
        .chain(
            [("gate", 6, 4), ("up", 6, 4), ("down", 4, 6)]
                .map(|(part, m, n)| (format!("mlp.{part}.weight"), vec![m, n])),
        )
        .chain([
            ("table".into(), vec![5, 4]),
            ("places".into(), vec![3, 4]),
            ("norm.weight".into(), vec![4]),
            ("norm.bias".into(), vec![4]),
            ("out.weight".into(), vec![5, 4]),
        ])
        .collect();
    let shapes: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (&n[..], &s[..])).collect();
    let attention: LayerKind = SelfAttention::new("attention", 2).with_causal(true).into();
    let mlp: LayerKind = GatedMlp::new("mlp").without_biases().into();
    let transformer = network(
        vec![
            Embedding::new("table").into(),
            PositionEmbedding::new("places").into(),
            Residual::new(vec![attention]).into(),
            LayerNorm::new("norm.weight", "norm.bias").into(),
            Residual::new(vec![mlp]).into(),
            Linear::without_bias("out.weight").into(),
        ],
        &shapes,
    );
    vec![
        (
            "perceptron",
            classified(&perceptron, &tensor(&[7, 3], 61), 2, &[7]),
        ),
        ("convolutional", classified(&convolutional, &image, 3, &[5])),
        (
            "transformer",
            classified(&transformer, &tokens(4, 3, 5), 5, &[4, 3]),
        ),
    ]
}

#[test]
fn layers_whose_output_is_fitted_are_exact() {
    let conv = |groups| {
        let layer = Conv2d::new("w")
            .with_bias("b")
            .with_padding(1)
            .with_stride(2);
        network(
            vec![layer.with_groups(groups).into()],
            &[("w", &[4, 4 / groups, 2, 3]), ("b", &[4])],
        )
    };
    let positions = network(
        vec![linear("a")],
        &[("a.weight", &[2, 3]), ("a.bias", &[2])],
    );
    let two = network(
        vec![linear("a"), linear("b")],
        &[
            ("a.weight", &[3, 2]),
            ("a.bias", &[3]),
            ("b.weight", &[2, 3]),
            ("b.bias", &[2]),
        ],
    );
    for (objective, layers) in [
        (fitted(&conv(1), &[4, 5, 4], &[4, 3, 2], 6), 1),
        (fitted(&conv(2), &[4, 5, 4], &[4, 3, 2], 6), 1),
        (fitted(&positions, &[4, 3], &[4, 2], 5), 1),
        (fitted(&positions, &[3], &[2], 1), 1),
        // In a linear network all samples and positions have the same derivatives.
        (fitted(&two, &[3, 2], &[3, 2], 5), 2),
    ] {
        let objective = objective.with_l2(0.01).unwrap();
        let mut exact = dense(&objective.gauss_newton());
        let split = match layers {
            1 => objective.dim(),
            _ => 9,
        };
        let size = frobenius(&exact);
        for ((i, j), entry) in exact.indexed_iter_mut() {
            if (i < split) != (j < split) {
                *entry = 0.0;
            }
        }
        for settings in [kfac(), Kfac::default()] {
            let found = dense(&settings.run(&objective).unwrap());
            assert!(frobenius(&(found - &exact)) < 1e-12 * size, "{objective:?}");
        }
    }
}

#[test]
fn one_sample_of_a_softmax_layer_is_exact() {
    let model = network(
        vec![linear("a")],
        &[("a.weight", &[4, 3]), ("a.bias", &[4])],
    );
    for scale in [1.0, 30.0] {
        let theta: Vec<f64> = gaussian(16, 8).iter().map(|x| scale * x).collect();
        model.parameters().set_flat(&theta).unwrap();
        let objective = classified(&model, &tensor(&[1, 3], 7), 4, &[1]);
        let exact = dense(&objective.gauss_newton());
        for settings in [kfac(), Kfac::default()] {
            let found = dense(&settings.run(&objective).unwrap());
            assert!(frobenius(&(found - &exact)) < 1e-12 * frobenius(&exact));
        }
    }
}

#[test]
fn corrected_eigenvalues_are_the_diagonal_of_the_matrix_in_the_eigenbasis() {
    for (name, objective) in networks() {
        let exact = Dense::new(dense(&objective.gauss_newton())).unwrap();
        let found = Kfac::default().run(&objective).unwrap();
        let size = frobenius(exact.matrix());
        let n = objective.dim();
        let mut in_blocks = 0;
        for block in &found.parts.blocks {
            let [v, u] = block.vectors();
            let columns = v.len().isqrt();
            for (k, value) in block.values.iter().enumerate() {
                let (i, j) = (k / columns, k % columns);
                let rows = u.len().isqrt();
                let product = u[i * rows..][..rows].iter();
                let product =
                    product.flat_map(|u| v[j * columns..][..columns].iter().map(move |v| u * v));
                let mut vector = vec![0.0; n];
                block.scatter(&product.collect::<Vec<_>>(), &mut vector);
                let exact = dot(&vector, &exact.apply(&vector).unwrap());
                assert!(
                    (value - exact).abs() < 1e-12 * size,
                    "{name}: {value} {exact}"
                );
                in_blocks += 1;
            }
        }
        let others = n - in_blocks;
        assert_eq!(
            others,
            match name {
                "perceptron" => 0,
                "convolutional" => 8,
                _ => 20 + 12 + 8,
            }
        );
        let diagonal = found.parts.diagonal.iter().enumerate();
        let wrong = diagonal
            .filter(|(i, d)| **d != 0.0 && (**d - exact.matrix()[[*i, *i]]).abs() > 1e-12 * size);
        assert_eq!(wrong.count(), 0, "{name}");
        assert_eq!(
            found.parts.diagonal.iter().filter(|d| **d > 0.0).count(),
            others,
            "{name}"
        );
        let trace: f64 = found.eigenvalues().iter().sum();
        assert!((trace - exact.matrix().diag().sum()).abs() < 1e-12 * size * n as f64);
        // The corrected matrix is the nearest in this basis.
        let error = |matrix: &Array2<f64>| frobenius(&(matrix - exact.matrix()));
        let plain = dense(&kfac().run(&objective).unwrap());
        let [corrected, plain] = [error(&dense(&found)), error(&plain)];
        assert!(corrected < plain, "{name}: {corrected} {plain}");
    }
}

#[test]
fn inverses_are_exact() {
    for (name, objective) in networks() {
        let objective = objective.with_l2(1e-3).unwrap();
        let v = gaussian(objective.dim(), 2);
        for settings in [kfac(), Kfac::default()] {
            let found = settings.run(&objective).unwrap();
            for damping in [0.0, 0.3] {
                let inverse = found.inverse(damping).unwrap();
                let mut back =
                    dense(&found).dot(&ndarray::Array1::from(inverse.apply(&v).unwrap()));
                back += &(ndarray::Array1::from(inverse.apply(&v).unwrap()) * damping);
                assert!(norm(&minus(&back.to_vec(), &v)) < 1e-9 * norm(&v), "{name}");
            }
        }
    }
}

/// The uses of a shared table, as an embedding and as output weights, add up in a diagonal.
#[test]
fn shared_parameters_have_a_diagonal() {
    let layers = vec![
        Embedding::new("table").into(),
        LayerKind::from(Activation::Tanh),
        Linear::without_bias("table").into(),
    ];
    let model = network(layers, &[("table", &[5, 3])]);
    let objective = classified(&model, &tokens(6, 2, 5), 5, &[6, 2]);
    let found = Kfac::default().run(&objective).unwrap();
    let sum: f64 = found.eigenvalues().iter().sum();
    let apart = network(
        vec![
            Embedding::new("table").into(),
            LayerKind::from(Activation::Tanh),
            Linear::without_bias("out").into(),
        ],
        &[("out", &[5, 3]), ("table", &[5, 3])],
    );
    let table = model.parameters().to_flat().unwrap();
    apart.parameters().set_flat(&table.repeat(2)).unwrap();
    let apart = classified(&apart, &tokens(6, 2, 5), 5, &[6, 2]);
    let exact = dense(&apart.gauss_newton()).diag().sum();
    assert!((sum - exact).abs() < 1e-12, "{sum} {exact}");
}

#[test]
fn random_signs_leave_the_factors_unbiased() {
    let model = network(
        vec![linear("a")],
        &[("a.weight", &[6, 2]), ("a.bias", &[6])],
    );
    let objective = classified(&model, &tensor(&[12, 2], 3), 6, &[12]);
    let exact = dense(&kfac().run(&objective).unwrap());
    let mut mean = Array2::zeros(exact.dim());
    let count = 400;
    for seed in 0..count {
        let settings = kfac().with_max_passes(2).with_seed(seed);
        let found = settings.run(&objective).unwrap();
        assert_eq!(found.passes(), 2);
        mean += &(dense(&found) / count as f64);
    }
    let error = frobenius(&(mean - &exact)) / frobenius(&exact);
    assert!(error < 0.03, "{error}");
}

#[test]
fn dead_units_duplicated_inputs_and_nan_have_clear_results() {
    let model = Mlp::new(&[2, 4, 2], Activation::Relu, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let theta = model.parameters().to_flat().unwrap();
    // Two equal inputs, and units whose input is negative.
    let x = tensor(&[9, 1], 4).repeat((1, 2)).unwrap();
    let labels = Tensor::from_iter((0..9u32).map(|i| i % 2), &CPU).unwrap();
    let data = Dataset::classification(&x, &labels).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let dead: Vec<f64> = theta
        .iter()
        .enumerate()
        .map(|(i, x)| if i < 2 { -1e3 } else { *x })
        .collect();
    model.parameters().set_flat(&dead).unwrap();
    let found = Kfac::default().run(&objective).unwrap();
    let error = found.inverse(0.0).unwrap_err().to_string();
    assert!(error.contains("larger damping"), "{error}");
    let v = gaussian(objective.dim(), 5);
    let solved = found.inverse(1e-3).unwrap().apply(&v).unwrap();
    let back = found.apply(&solved).unwrap();
    let back: Vec<f64> = back
        .iter()
        .zip(&solved)
        .map(|(b, s)| b + 1e-3 * s)
        .collect();
    assert!(norm(&minus(&back, &v)) < 1e-10 * norm(&v));
    assert!(found.inverse(f64::NAN).is_err());
    assert!(found.apply(&v[1..]).is_err());
    let none = Kfac::default().with_max_passes(0).run(&objective);
    assert!(none.unwrap_err().to_string().contains("at least one"));
    let graph = Kfac::default().run(&objective.clone().by_autograd());
    assert!(
        graph
            .unwrap_err()
            .to_string()
            .contains("K-FAC needs hand-derived rules")
    );
    let mut wrong = theta;
    wrong[0] = f64::NAN;
    model.parameters().set_flat(&wrong).unwrap_err();
    wrong[0] = 1e300;
    wrong[5] = 1e300;
    model.parameters().set_flat(&wrong).unwrap();
    let error = Kfac::default().run(&objective).unwrap_err();
    assert!(matches!(error, Error::NotFinite(_)), "{error}");
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let model = Mlp::new(&[3, 16, 5], Activation::Tanh, 1, &CPU).unwrap();
    let data = Dataset::classification(
        &tensor(&[1500, 3], 4).to_dtype(DType::F32).unwrap(),
        &Tensor::from_iter((0..1500u32).map(|i| i % 5), &CPU).unwrap(),
    );
    let objective = Objective::of(&model, &data.unwrap(), Loss::CrossEntropy).unwrap();
    let v = gaussian(objective.dim(), 5);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let found = Kfac::default().with_max_passes(3).run(&objective).unwrap();
            let derivatives = objective.sample_derivatives(&v).unwrap();
            (found.eigenvalues(), found.apply(&v).unwrap(), derivatives)
        })
    };
    assert_eq!(run(1), run(3));
}
