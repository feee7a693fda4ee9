//! Networks with shortcuts: hand-derived rules compared with candle's graph, and identities of the products.

mod common;

use common::{assert_close, dot, numbers};
use loss_landscape::layers;
use loss_landscape::model::LayerKind;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// A parameter's name and shape.
type NamedShape = (&'static str, &'static [usize]);

fn linear(name: &str) -> LayerKind {
    layers::Linear::new(format!("{name}.weight"), format!("{name}.bias")).into()
}

fn tanh() -> LayerKind {
    LayerKind::Activation(Activation::Tanh)
}

/// Parameters of these shapes, with values of about 1/√inputs.
fn parameters(shapes: &[(&str, &[usize])]) -> Parameters {
    let vars = shapes.iter().enumerate().map(|(i, (name, shape))| {
        let count = shape.iter().product();
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        let values = numbers(count, i as u64 + 1);
        let values = values.iter().map(|v| v / fan_in.sqrt()).collect::<Vec<_>>();
        let var = Var::from_vec(values, *shape, &CPU).unwrap();
        ((*name).to_owned(), var)
    });
    Parameters::new(vars).unwrap()
}

fn data(n: usize, shape: &[usize]) -> Dataset {
    let width: usize = shape.iter().product();
    let inputs = Tensor::from_vec(numbers(n * width, 99), (n, width), &CPU).unwrap();
    let dims = [&[n][..], shape].concat();
    let labels: Vec<u32> = (0..n as u32).map(|i| i * i % 3).collect();
    let labels = Tensor::from_vec(labels, n, &CPU).unwrap();
    Dataset::classification(&inputs.reshape(dims).unwrap(), &labels).unwrap()
}

/// Networks with 4 inputs and 3 outputs whose layers are connected in all possible ways.
fn networks() -> Vec<(&'static str, Layered)> {
    let dense = |name: &'static str, o: usize, i: usize| {
        let (w, b) = (format!("{name}.weight"), format!("{name}.bias"));
        [(w, vec![o, i]), (b, vec![o])]
    };
    let build = |layers: Vec<LayerKind>, shapes: Vec<[(String, Vec<usize>); 2]>| {
        let shapes: Vec<_> = shapes.concat();
        let shapes: Vec<(&str, &[usize])> =
            shapes.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
        Layered::new(layers, parameters(&shapes))
    };
    let residual = |body, shortcut| LayerKind::Residual(layers::Residual { body, shortcut });
    vec![
        (
            "identity shortcut",
            build(
                vec![
                    linear("a"),
                    residual(vec![tanh(), linear("b"), tanh(), linear("c")], vec![]),
                    tanh(),
                    linear("d"),
                ],
                vec![
                    dense("a", 5, 4),
                    dense("b", 6, 5),
                    dense("c", 5, 6),
                    dense("d", 3, 5),
                ],
            ),
        ),
        (
            "shortcut from the inputs, projection",
            build(
                vec![
                    residual(vec![linear("a"), tanh()], vec![]),
                    residual(vec![linear("b"), tanh()], vec![linear("c")]),
                    linear("d"),
                ],
                vec![
                    dense("a", 4, 4),
                    dense("b", 6, 4),
                    dense("c", 6, 4),
                    dense("d", 3, 6),
                ],
            ),
        ),
        (
            "dense blocks from the inputs",
            build(
                vec![
                    LayerKind::Concat(layers::Concat::dense(vec![linear("a"), tanh()])),
                    LayerKind::Concat(layers::Concat::dense(vec![linear("b"), tanh()])),
                    linear("d"),
                ],
                vec![dense("a", 3, 4), dense("b", 2, 7), dense("d", 3, 9)],
            ),
        ),
        (
            "nested blocks, each kind twice",
            build(
                vec![
                    linear("a"),
                    residual(
                        vec![
                            tanh(),
                            residual(vec![linear("b"), tanh()], vec![]),
                            LayerKind::Concat(layers::Concat::dense(vec![])),
                            linear("c"),
                        ],
                        vec![tanh(), residual(vec![], vec![])],
                    ),
                    residual(vec![tanh()], vec![]),
                    linear("d"),
                ],
                vec![
                    dense("a", 5, 4),
                    dense("b", 5, 5),
                    dense("c", 5, 10),
                    dense("d", 3, 5),
                ],
            ),
        ),
    ]
}

#[track_caller]
fn assert_engines_agree(name: &str, model: &Layered, data: &Dataset) {
    let by_hand = Objective::of(model, data, Loss::CrossEntropy).unwrap();
    assert!(by_hand.is_hand_derived(), "{name}");
    let graph = by_hand.clone().by_autograd();
    assert_close(&[by_hand.loss().unwrap()], &[graph.loss().unwrap()], 1e-12);
    assert_eq!(by_hand.accuracy().unwrap(), graph.accuracy().unwrap());
    assert_close(
        &by_hand.gradient().unwrap(),
        &graph.gradient().unwrap(),
        1e-10,
    );
    let n = by_hand.dim();
    let vectors: Vec<Vec<f64>> = (0..3).map(|i| numbers(n, 7 + i)).collect();
    let operators: [[Box<dyn LinearOperator>; 2]; 3] = [
        [Box::new(by_hand.hessian()), Box::new(graph.hessian())],
        [
            Box::new(by_hand.gauss_newton()),
            Box::new(graph.gauss_newton()),
        ],
        [
            Box::new(by_hand.empirical_fisher()),
            Box::new(graph.empirical_fisher()),
        ],
    ];
    for [a, b] in operators {
        let (a, b) = (
            a.apply_block(&vectors).unwrap(),
            b.apply_block(&vectors).unwrap(),
        );
        for (a, b) in a.iter().zip(&b) {
            assert_close(a, b, 1e-10);
        }
        let sides = [dot(&vectors[0], &a[1]), dot(&vectors[1], &a[0])];
        assert_close(&sides[..1], &sides[1..], 1e-11);
    }
    let plane = |o: &Objective| Plane::random(o, 3, 0.5, 3).unwrap();
    for (a, b) in plane(&by_hand).losses.iter().zip(&plane(&graph).losses) {
        assert!((a - b).abs() < 1e-11, "{name}: {a} is not {b}");
    }
}

#[test]
fn shortcuts_and_dense_blocks() {
    for (name, model) in networks() {
        for samples in [1, 2, 130] {
            assert_engines_agree(name, &model, &data(samples, &[4]));
        }
    }
}

/// Products have the same bits, no matter how much of the primal pass is cached.
#[test]
fn a_memory_budget_does_not_change_results() {
    for (_, model) in networks() {
        let objective = Objective::of(&model, &data(300, &[4]), Loss::CrossEntropy).unwrap();
        let v = numbers(objective.dim(), 5);
        let whole = objective.hvp(&v).unwrap();
        for bytes in [0, 1, 20_000, 60_000] {
            let bounded = objective.clone().with_memory(bytes);
            assert_eq!(bounded.hvp(&v).unwrap(), whole);
            assert_eq!(bounded.hvp(&v).unwrap(), whole);
        }
    }
}

/// Models with misfits are differentiated by candle, which reports the error.
#[test]
fn misfits_are_not_hand_derived() {
    let shapes: [(&str, &[usize]); 4] = [
        ("a.weight", &[5, 4]),
        ("a.bias", &[5]),
        ("d.weight", &[3, 5]),
        ("d.bias", &[3]),
    ];
    let residual = |body, shortcut| LayerKind::Residual(layers::Residual { body, shortcut });
    let wrong = Layered::new(
        vec![residual(vec![linear("a")], vec![]), linear("d")],
        parameters(&shapes),
    );
    assert!(Objective::of(&wrong, &data(5, &[4]), Loss::CrossEntropy).is_err());
    let unknown = Layered::new(vec![linear("missing")], parameters(&shapes));
    let error = Objective::of(&unknown, &data(5, &[4]), Loss::CrossEntropy).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no parameter is called `missing.weight`"),
        "{error}"
    );
}

/// Images of 2 × 7 × 7 through every kind of layer.
#[test]
fn every_kind_of_layer() {
    let conv = |name: &str, stride, padding, dilation, groups| {
        LayerKind::Conv2d(layers::Conv2d {
            weight: format!("{name}.weight"),
            bias: (name != "b").then(|| format!("{name}.bias")),
            stride,
            padding,
            dilation,
            groups,
        })
    };
    let group = |groups| {
        LayerKind::GroupNorm(layers::GroupNorm {
            weight: "g.weight".into(),
            bias: "g.bias".into(),
            groups,
            epsilon: 1e-5,
        })
    };
    let batch = LayerKind::BatchNorm(layers::BatchNorm {
        weight: "g.weight".into(),
        bias: "g.bias".into(),
        mean: "g.running_mean".into(),
        variance: "g.running_var".into(),
        epsilon: 1e-5,
        momentum: 0.1,
    });
    let a: (&str, &[usize]) = ("a.weight", &[4, 2, 3, 3]);
    let a_bias: (&str, &[usize]) = ("a.bias", &[4]);
    let scales: [(&str, &[usize]); 2] = [("g.weight", &[4]), ("g.bias", &[4])];
    let out = |inputs: &'static [usize]| [("d.weight", inputs), ("d.bias", &[3usize][..])];
    let networks: Vec<(&str, Vec<LayerKind>, Vec<NamedShape>)> = vec![
        (
            "convolution, stride, group norm",
            vec![
                conv("a", 2, 1, 1, 1),
                group(2),
                tanh(),
                LayerKind::Flatten(layers::Flatten),
                linear("d"),
            ],
            [&[a, a_bias][..], &scales, &out(&[3, 64])].concat(),
        ),
        (
            "frozen batch norm, average pooling",
            vec![
                conv("a", 1, 1, 1, 1),
                batch,
                tanh(),
                LayerKind::AveragePool(layers::AveragePool {
                    kernel: 3,
                    stride: 2,
                }),
                LayerKind::Flatten(layers::Flatten),
                linear("d"),
            ],
            [&[a, a_bias][..], &scales, &out(&[3, 36])].concat(),
        ),
        (
            "groups, dilation, global pooling",
            vec![
                conv("b", 1, 2, 2, 2),
                tanh(),
                conv("c", 3, 0, 1, 4),
                group(4),
                LayerKind::GlobalAveragePool(layers::GlobalAveragePool),
                LayerKind::Flatten(layers::Flatten),
                linear("d"),
            ],
            [
                &[
                    ("b.weight", &[4, 1, 3, 3][..]),
                    ("c.weight", &[4, 1, 1, 1]),
                    ("c.bias", &[4]),
                ][..],
                &scales,
                &out(&[3, 4]),
            ]
            .concat(),
        ),
        (
            "residual with a strided projection, concatenation of channels",
            vec![
                conv("a", 1, 1, 1, 1),
                LayerKind::Concat(layers::Concat::dense(vec![tanh(), conv("e", 1, 1, 1, 1)])),
                LayerKind::Residual(layers::Residual {
                    body: vec![tanh(), conv("f", 2, 1, 1, 1), group(1)],
                    shortcut: vec![conv("h", 2, 0, 1, 1)],
                }),
                LayerKind::MaxPool(layers::MaxPool::new(2, 2)),
                LayerKind::Flatten(layers::Flatten),
                linear("d"),
            ],
            [
                &[
                    a,
                    a_bias,
                    ("e.weight", &[2, 4, 3, 3][..]),
                    ("e.bias", &[2]),
                    ("f.weight", &[4, 6, 3, 3]),
                    ("f.bias", &[4]),
                    ("h.weight", &[4, 6, 1, 1]),
                    ("h.bias", &[4]),
                ][..],
                &scales,
                &out(&[3, 16]),
            ]
            .concat(),
        ),
    ];
    for (name, layers, shapes) in networks {
        let statistic =
            |name: &str, values: [f64; 4]| (format!("g.{name}"), Var::new(&values, &CPU).unwrap());
        let parameters = parameters(&shapes).with_statistics([
            statistic("running_mean", [0.1, -0.2, 0.3, 0.0]),
            statistic("running_var", [0.5, 1.0, 2.0, 0.1]),
        ]);
        let model = Layered::new(layers, parameters.unwrap());
        for samples in [1, 3, 70] {
            assert_engines_agree(name, &model, &data(samples, &[2, 7, 7]));
        }
    }
}
