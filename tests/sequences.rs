//! Samples of any shape: tokens, layers over the last axis, outputs and labels per token.

mod common;

use common::{assert_close, assert_engines_agree, numbers};
use loss_landscape::layers::{Concat, Embedding, Flatten, GroupNorm, LayerNorm, Linear, Residual};
use loss_landscape::model::LayerKind;
use loss_landscape::objective::{Engine, GraphReason, LayerTile};
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;
const TOKENS: usize = 7;
const LENGTH: usize = 5;
const WIDTH: usize = 4;

fn parameters(shapes: &[(&str, &[usize])], dtype: DType) -> Parameters {
    let vars = shapes.iter().enumerate().map(|(i, (name, shape))| {
        let values = numbers(shape.iter().product(), i as u64 + 1);
        let tensor = Tensor::from_vec(values, *shape, &CPU).unwrap();
        let var = Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap();
        ((*name).to_owned(), var)
    });
    Parameters::new(vars).unwrap()
}

fn linear(name: &str) -> LayerKind {
    Linear::new(format!("{name}.weight"), format!("{name}.bias")).into()
}

fn norm(name: &str) -> LayerKind {
    LayerNorm::new(format!("{name}.weight"), format!("{name}.bias")).into()
}

const SHAPES: [(&str, &[usize]); 11] = [
    ("table", &[TOKENS, WIDTH]),
    ("a.weight", &[6, WIDTH]),
    ("a.bias", &[6]),
    ("b.weight", &[WIDTH, 6]),
    ("b.bias", &[WIDTH]),
    ("norm.weight", &[WIDTH]),
    ("norm.bias", &[WIDTH]),
    ("c.weight", &[2, WIDTH]),
    ("c.bias", &[2]),
    ("out.weight", &[TOKENS, 2 * WIDTH + 2]),
    ("out.bias", &[TOKENS]),
];

/// Layers that map features to token scores, for each position separately.
fn body() -> Vec<LayerKind> {
    let tanh = || LayerKind::from(Activation::Tanh);
    vec![
        Residual::new(vec![norm("norm"), linear("a"), tanh(), linear("b")]).into(),
        Concat::new(vec![vec![], vec![linear("c"), tanh()], vec![tanh()]])
            .with_axis(1)
            .into(),
        linear("out"),
    ]
}

/// A language model without attention: it predicts each token's label from the token alone.
fn language_model(dtype: DType) -> Layered {
    let layers = [vec![Embedding::new("table").into()], body()].concat();
    Layered::new(layers, parameters(&SHAPES, dtype))
}

fn tokens(n: usize, step: u32) -> Tensor {
    let count = (n * LENGTH) as u32;
    let tokens = (0..count).map(|i| (i * i + step * i + i / 3) % TOKENS as u32);
    Tensor::from_iter(tokens, &CPU)
        .unwrap()
        .reshape((n, LENGTH))
        .unwrap()
}

#[test]
fn a_loss_per_token_has_the_derivatives_of_candles_graph() {
    for n in [1, 3, 40] {
        let data = Dataset::classification(&tokens(n, 1), &tokens(n, 2)).unwrap();
        let objective = |dtype| Objective::of(&language_model(dtype), &data, Loss::CrossEntropy);
        assert_engines_agree(&objective(DType::F64).unwrap(), 1e-12);
        let (single, double) = (
            objective(DType::F32).unwrap(),
            objective(DType::F64).unwrap(),
        );
        assert_close(
            &single.gradient().unwrap(),
            &double.gradient().unwrap(),
            1e-5,
        );
        let v = numbers(double.dim(), 3);
        assert_close(&single.hvp(&v).unwrap(), &double.hvp(&v).unwrap(), 1e-5);
    }
}

/// Objectives on other data share the engine, which keeps the converted tokens of the last dataset.
#[test]
fn each_product_is_on_its_own_tokens() {
    let data = [1, 3].map(|step| Dataset::classification(&tokens(6, step), &tokens(6, 2)).unwrap());
    let model = language_model(DType::F64);
    let fresh = data
        .clone()
        .map(|data| Objective::of(&model, &data, Loss::CrossEntropy).unwrap());
    let v = numbers(fresh[0].dim(), 3);
    let expected = fresh.each_ref().map(|o| o.hvp(&v).unwrap());
    assert_ne!(expected[0], expected[1]);
    let shared = data.map(|data| fresh[0].with_data(&data).unwrap());
    for i in [0, 1, 1, 0] {
        assert_eq!(shared[i].hvp(&v).unwrap(), expected[i]);
    }
}

#[test]
fn the_loss_of_a_sample_is_the_mean_over_its_tokens() {
    let n = 6;
    let data = Dataset::classification(&tokens(n, 1), &tokens(n, 2)).unwrap();
    let model = language_model(DType::F64);
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let logits = model.forward(data.inputs()).unwrap();
    let logits = logits.to_vec3::<f64>().unwrap().concat();
    let labels = data.labels().unwrap();
    let losses = logits.iter().zip(&labels).map(|(z, label)| {
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        sum.ln() - z[*label as usize]
    });
    let mean = losses.sum::<f64>() / (n * LENGTH) as f64;
    assert!((objective.loss().unwrap() - mean).abs() < 1e-13);
    let correct = logits.iter().zip(&labels).filter(|(z, label)| {
        let best = (0..TOKENS).max_by(|a, b| z[*a].total_cmp(&z[*b]));
        best == Some(**label as usize)
    });
    let accuracy = correct.count() as f64 / (n * LENGTH) as f64;
    assert!((objective.accuracy().unwrap() - accuracy).abs() < 1e-15);
}

#[test]
fn layers_over_the_last_axis_accept_floats_and_targets_of_any_shape() {
    let (n, shape) = (9, (9, LENGTH, WIDTH));
    let x = Tensor::from_vec(numbers(n * LENGTH * WIDTH, 5), shape, &CPU).unwrap();
    let y = Tensor::from_vec(numbers(n * LENGTH * TOKENS, 6), (n, LENGTH, TOKENS), &CPU).unwrap();
    let model = Layered::new(body(), parameters(&SHAPES[1..], DType::F64));
    let data = Dataset::regression(&x, &y).unwrap();
    assert_engines_agree(&Objective::of(&model, &data, Loss::Mse).unwrap(), 1e-12);

    // The same values with each position as a sample.
    let rows = |t: &Tensor| t.flatten(0, 1).unwrap();
    let flat = Dataset::regression(&rows(&x), &rows(&y)).unwrap();
    let layers = body().into_iter().map(|layer| match layer {
        LayerKind::Concat(concat) => concat.with_axis(0).into(),
        layer => layer,
    });
    let flat_model = Layered::new(layers.collect(), model.parameters().clone());
    let [a, b] = [(&model, &data), (&flat_model, &flat)]
        .map(|(model, data)| Objective::of(model, data, Loss::Mse).unwrap());
    assert_close(&a.gradient().unwrap(), &b.gradient().unwrap(), 1e-13);
    let v = numbers(a.dim(), 8);
    assert_close(&a.hvp(&v).unwrap(), &b.hvp(&v).unwrap(), 1e-13);
}

#[test]
fn a_closure_over_tokens_gets_the_same_derivatives() {
    let data = Dataset::classification(&tokens(8, 1), &tokens(8, 2)).unwrap();
    let model = language_model(DType::F64);
    let by_hand = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let parameters = model.parameters().clone();
    let forward = move |x: &Tensor| model.forward(x);
    let closure = Objective::from_fn(parameters, &data, Loss::CrossEntropy, forward).unwrap();
    assert_eq!(closure.engine(), Engine::ByGraph(GraphReason::NoLayers));
    let v = numbers(by_hand.dim(), 4);
    assert_close(&closure.hvp(&v).unwrap(), &by_hand.hvp(&v).unwrap(), 1e-12);
}

#[test]
fn trainings_on_tokens_agree_between_engine_and_graph() {
    let data = Dataset::classification(&tokens(30, 1), &tokens(30, 2)).unwrap();
    let trainer = Trainer::sgd(0.5).with_batch_size(7).with_epochs(3);
    let [by_hand, by_graph] = [(); 2].map(|()| language_model(DType::F64));
    let history = trainer.fit(&by_hand, &data, &data).unwrap();
    let objective = Objective::of(&by_graph, &data, Loss::CrossEntropy).unwrap();
    let graph = objective.by_autograd();
    trainer.fit_objective(&graph, &graph).unwrap();
    let [a, b] = [&by_hand, &by_graph].map(|m| m.parameters().to_flat().unwrap());
    assert_close(&a, &b, 1e-11);
    assert!(history.epochs[2].train_loss < history.epochs[0].train_loss);
}

#[test]
fn errors_name_the_layer_and_the_shape() {
    let message = |layers: Vec<LayerKind>, inputs: &Tensor, labels: &Tensor| {
        let data = Dataset::classification(inputs, labels).unwrap();
        let model = Layered::new(layers, parameters(&SHAPES, DType::F64));
        let result = Objective::of(&model, &data, Loss::CrossEntropy);
        result.unwrap_err().to_string()
    };
    let embed = || LayerKind::from(Embedding::new("table"));
    let found = message(vec![embed(), linear("b")], &tokens(4, 1), &tokens(4, 2));
    assert!(
        found.contains("Linear (`b.weight`, `b.bias`) cannot take")
            && found.contains("(5, 4)")
            && found.contains("a last axis of 6"),
        "{found}"
    );
    let one_label_per_sample = Tensor::new(&[0u32, 1, 2, 0], &CPU).unwrap();
    let all = [vec![embed()], body()].concat();
    let found = message(all.clone(), &tokens(4, 1), &one_label_per_sample);
    assert!(
        found.contains("outputs of shape (n, 5, 7) need labels of shape (n, 5)"),
        "{found}"
    );
    let flattened = [vec![embed(), Flatten.into()], body()].concat();
    let found = message(flattened, &tokens(4, 1), &tokens(4, 2));
    assert!(found.contains("`norm.weight` of shape (20,)"), "{found}");
    let unknown = Tensor::full(TOKENS as u32, (4, LENGTH), &CPU).unwrap();
    let found = message(all.clone(), &unknown, &tokens(4, 2));
    assert!(found.contains("invalid index 7"), "{found}");
    // An invalid token in a later sample, which the check of the first sample does not cover.
    let late = Tensor::cat(&[&tokens(3, 1), &unknown.narrow(0, 0, 1).unwrap()], 0).unwrap();
    let found = message(all.clone(), &late, &tokens(4, 2));
    assert!(found.contains("token 7 of sample 3"), "{found}");
    let floats = Tensor::zeros((4, LENGTH), DType::F64, &CPU).unwrap();
    let found = message(all, &floats, &tokens(4, 2));
    assert!(found.contains("u32"), "{found}");
}

#[test]
fn a_jacobian_has_a_row_per_output_of_every_token() {
    let n = 3;
    let x = Tensor::from_vec(numbers(n * LENGTH * WIDTH, 5), (n, LENGTH, WIDTH), &CPU).unwrap();
    let y = Tensor::zeros((n, LENGTH, TOKENS), DType::F64, &CPU).unwrap();
    let data = Dataset::regression(&x, &y).unwrap();
    let model = Layered::new(body(), parameters(&SHAPES[1..], DType::F64));
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    let jacobian = objective.jacobian().unwrap();
    assert_eq!(jacobian.dim(), (n * LENGTH * TOKENS, objective.dim()));
    // The Gauss-Newton matrix of squared errors is 2 JᵀJ over the number of outputs.
    let v = numbers(objective.dim(), 3);
    let jv = jacobian.dot(&loss_landscape::ndarray::Array1::from(v.clone()));
    let product = jacobian.t().dot(&jv) * (2.0 / (n * LENGTH * TOKENS) as f64);
    let expected = objective.gauss_newton().apply(&v).unwrap();
    assert_close(&product.to_vec(), &expected, 1e-12);
}

#[test]
fn quantities_that_need_one_label_per_sample_are_refused() {
    let data = Dataset::classification(&tokens(4, 1), &tokens(4, 2)).unwrap();
    for result in [
        data.one_hot(TOKENS),
        data.balanced(2, 0),
        data.with_label_noise(0.1, 0),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("one label per sample"), "{message}");
    }
}

/// Per-sample gradients of a linear layer are sums over its positions of dy xᵀ.
#[test]
fn a_visitor_sees_inputs_and_output_gradients() {
    let data = Dataset::classification(&tokens(700, 1), &tokens(700, 2)).unwrap();
    let model = language_model(DType::F64);
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let (mut weight, mut bias) = (vec![0.0; 6 * WIDTH], vec![0.0; 6]);
    let (mut next, mut layers) = (0, Vec::new());
    objective
        .visit_layers(|tile: LayerTile| {
            if tile.start == 0 {
                layers.push(tile.parameters.join(" "));
            }
            if tile.parameters != ["a.weight", "a.bias"] {
                return;
            }
            assert_eq!(tile.start, next);
            next += tile.samples;
            assert_eq!(tile.inputs.len(), tile.samples * LENGTH * WIDTH);
            assert_eq!(tile.outputs.len(), tile.samples * LENGTH * 6);
            let rows = tile
                .inputs
                .chunks(WIDTH)
                .zip(tile.output_gradients.chunks(6));
            for (x, dy) in rows {
                for (i, dy) in dy.iter().enumerate() {
                    bias[i] += dy / 700.0;
                    for (j, x) in x.iter().enumerate() {
                        weight[i * WIDTH + j] += dy * x / 700.0;
                    }
                }
            }
        })
        .unwrap();
    assert_eq!(next, 700);
    let with_parameters: Vec<_> = layers.iter().filter(|names| !names.is_empty()).collect();
    assert_eq!(
        with_parameters,
        [
            "table",
            "norm.weight norm.bias",
            "a.weight a.bias",
            "b.weight b.bias",
            "c.weight c.bias",
            "out.weight out.bias"
        ]
    );
    let gradient = objective.gradient().unwrap();
    let part = |name: &str| &gradient[objective.parameters().range(name).unwrap()];
    assert_close(&weight, part("a.weight"), 1e-12);
    assert_close(&bias, part("a.bias"), 1e-12);
    let none = objective.by_autograd().visit_layers(|_| {});
    assert!(
        none.unwrap_err()
            .to_string()
            .contains("automatic differentiation")
    );
}

/// Each value is its own mean, so that the outputs do not depend on the inputs of the normalisation.
#[test]
fn groups_of_one_value_pass_the_check_of_derivatives() {
    let shapes: [(&str, &[usize]); 6] = [
        ("a.weight", &[6, WIDTH]),
        ("a.bias", &[6]),
        ("norm.weight", &[6]),
        ("norm.bias", &[6]),
        ("out.weight", &[3, 6]),
        ("out.bias", &[3]),
    ];
    let layers = vec![
        linear("a"),
        GroupNorm::new("norm.weight", "norm.bias", 6).into(),
        Activation::Tanh.into(),
        linear("out"),
    ];
    let inputs = Tensor::from_vec(numbers(40 * WIDTH, 9), (40, WIDTH), &CPU).unwrap();
    let labels: Vec<u32> = (0..40).map(|i| i * i % 3).collect();
    let labels = Tensor::from_vec(labels, 40, &CPU).unwrap();
    let data = Dataset::classification(&inputs, &labels).unwrap();
    let model = Layered::new(layers, parameters(&shapes, DType::F64));
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let before = objective.parameters().range("a.weight").unwrap().end;
    let gradient = objective.gradient().unwrap();
    assert!(gradient[..before].iter().all(|g| *g == 0.0), "{gradient:?}");
    let product = objective.hvp(&numbers(objective.dim(), 2)).unwrap();
    assert!(product[..before].iter().all(|h| *h == 0.0), "{product:?}");
    assert_engines_agree(&objective, 1e-12);
}
