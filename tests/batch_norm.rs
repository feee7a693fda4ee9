//! Batch normalisation with batch statistics in training and running statistics in analysis; dropout.

mod common;

use common::{Opaque, assert_close, bits, dot, numbers};
use loss_landscape::landscape::{
    Curve, RunningStatistics, StatisticsSource, directional_sharpness,
};
use loss_landscape::layers;
use loss_landscape::model::LayerKind;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// Creates the variables of a network, with values of about 1/√inputs.
#[derive(Default)]
struct Builder {
    vars: Vec<(String, Var)>,
    statistics: Vec<(String, Var)>,
}

impl Builder {
    fn var(&mut self, name: String, shape: &[usize]) -> String {
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        let values = numbers(shape.iter().product(), self.vars.len() as u64 + 1);
        let values: Vec<f64> = values.iter().map(|v| v / fan_in.sqrt()).collect();
        let var = Var::from_vec(values, shape, &CPU).unwrap();
        self.vars.push((name.clone(), var));
        name
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> LayerKind {
        LayerKind::Linear(layers::Linear {
            weight: self.var(format!("{name}.weight"), &[outputs, inputs]),
            bias: Some(self.var(format!("{name}.bias"), &[outputs])),
        })
    }

    fn conv(&mut self, name: &str, inputs: usize, outputs: usize, stride: usize) -> LayerKind {
        LayerKind::Conv2d(layers::Conv2d {
            weight: self.var(format!("{name}.weight"), &[outputs, inputs, 3, 3]),
            bias: None,
            stride,
            padding: 1,
            dilation: 1,
            groups: 1,
        })
    }

    fn norm(&mut self, name: &str, channels: usize) -> LayerKind {
        let mut statistic = |part: &str, values: Vec<f64>| {
            let var = Var::from_vec(values, channels, &CPU).unwrap();
            self.statistics.push((format!("{name}.{part}"), var));
            format!("{name}.{part}")
        };
        let positive = numbers(channels, 31).iter().map(|v| 1.2 + v).collect();
        let mean = statistic("running_mean", numbers(channels, 30));
        let variance = statistic("running_var", positive);
        LayerKind::BatchNorm(layers::BatchNorm {
            weight: self.var(format!("{name}.weight"), &[channels]),
            bias: self.var(format!("{name}.bias"), &[channels]),
            mean,
            variance,
            epsilon: 1e-3,
            momentum: 0.3,
        })
    }

    fn finish(self, layers: Vec<LayerKind>) -> Layered {
        let parameters = Parameters::new(self.vars).unwrap();
        Layered::new(layers, parameters.with_statistics(self.statistics).unwrap())
    }
}

fn tanh() -> LayerKind {
    LayerKind::Activation(Activation::Tanh)
}

/// Networks for images of 2 × 4 × 4 and three classes.
fn networks() -> Vec<(&'static str, Layered)> {
    let mut all = Vec::new();
    let mut add = |name, build: &dyn Fn(&mut Builder) -> Vec<LayerKind>| {
        let mut builder = Builder::default();
        let layers = build(&mut builder);
        all.push((name, builder.finish(layers)));
    };
    add("after a convolution", &|m| {
        vec![
            m.conv("a", 2, 3, 1),
            m.norm("a.norm", 3),
            tanh(),
            LayerKind::GlobalAveragePool(layers::GlobalAveragePool),
            LayerKind::Flatten(layers::Flatten),
            m.linear("out", 3, 3),
        ]
    });
    add("after a dense layer, and before the loss", &|m| {
        vec![
            LayerKind::Flatten(layers::Flatten),
            m.linear("a", 32, 7),
            m.norm("a.norm", 7),
            tanh(),
            m.linear("out", 7, 3),
            m.norm("out.norm", 3),
        ]
    });
    add("on the inputs, and twice in a row", &|m| {
        vec![
            m.norm("in.norm", 2),
            m.conv("a", 2, 3, 2),
            m.norm("a.norm", 3),
            m.norm("b.norm", 3),
            tanh(),
            LayerKind::Flatten(layers::Flatten),
            m.linear("out", 12, 3),
        ]
    });
    add("in residual blocks", &|m| {
        vec![
            m.conv("stem", 2, 3, 1),
            m.norm("stem.norm", 3),
            LayerKind::Residual(layers::Residual {
                body: vec![
                    tanh(),
                    m.conv("a", 3, 4, 2),
                    m.norm("a.norm", 4),
                    tanh(),
                    m.conv("b", 4, 4, 1),
                    m.norm("b.norm", 4),
                ],
                shortcut: vec![m.conv("c", 3, 4, 2), m.norm("c.norm", 4)],
            }),
            LayerKind::Residual(layers::Residual {
                body: vec![m.norm("d.norm", 4), tanh()],
                shortcut: vec![],
            }),
            LayerKind::Flatten(layers::Flatten),
            m.linear("out", 16, 3),
        ]
    });
    add("in dense blocks and both branches", &|m| {
        vec![
            LayerKind::Concat(layers::Concat::dense(vec![
                m.norm("a.norm", 2),
                tanh(),
                m.conv("a", 2, 3, 1),
            ])),
            LayerKind::Residual(layers::Residual {
                body: vec![m.norm("b.norm", 5), tanh()],
                shortcut: vec![m.norm("c.norm", 5)],
            }),
            LayerKind::Concat(layers::Concat::dense(vec![
                m.norm("d.norm", 5),
                tanh(),
                m.conv("d", 5, 2, 1),
            ])),
            LayerKind::GlobalAveragePool(layers::GlobalAveragePool),
            LayerKind::Flatten(layers::Flatten),
            m.linear("out", 7, 3),
        ]
    });
    all
}

fn data(n: usize) -> Dataset {
    let inputs = Tensor::from_vec(numbers(n * 32, 99), (n, 2, 4, 4), &CPU).unwrap();
    let labels: Vec<u32> = (0..n as u32).map(|i| i * i % 3).collect();
    Dataset::classification(&inputs, &Tensor::from_vec(labels, n, &CPU).unwrap()).unwrap()
}

fn copy(model: &Layered) -> Layered {
    model.to_dtype(DType::F64).unwrap()
}

fn statistics(parameters: &Parameters) -> Vec<f64> {
    let all = parameters.statistics();
    all.flat_map(|(_, var)| var.to_vec1::<f64>().unwrap())
        .collect()
}

/// Loss and gradient of a training step on all samples, and the running statistics after it.
fn step<M: Model + Clone + Send + Sync + 'static>(
    model: &M,
    data: &Dataset,
) -> (f64, Vec<f64>, Vec<f64>) {
    let before = model.parameters().to_flat().unwrap();
    let trainer = Trainer::sgd(1.0).with_batch_size(data.len());
    let history = trainer.fit(model, data, &data.first(1).unwrap()).unwrap();
    let after = model.parameters().to_flat().unwrap();
    let gradient = before.iter().zip(&after).map(|(b, a)| b - a).collect();
    (
        history.epochs[0].train_loss,
        gradient,
        statistics(model.parameters()),
    )
}

#[test]
fn engine_and_graph_take_the_same_step() {
    for (name, model) in networks() {
        // One tile, incomplete tiles, and more tiles than parts of a batch.
        let many = if name.contains("dense layer") {
            10_300
        } else {
            200
        };
        for samples in [2, 5, 130, many] {
            let data = data(samples);
            let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
            assert!(objective.is_hand_derived(), "{name}");
            let by_hand = step(&copy(&model), &data);
            let by_graph = step(&Opaque(copy(&model)), &data);
            assert_close(&[by_hand.0], &[by_graph.0], 1e-12);
            assert_close(&by_hand.1, &by_graph.1, 1e-10);
            assert_close(&by_hand.2, &by_graph.2, 1e-12);
        }
    }
}

#[test]
fn a_step_uses_the_gradient_of_the_batch_loss() {
    let data = data(70);
    for (_, model) in networks() {
        let theta = model.parameters().to_flat().unwrap();
        let direction = numbers(theta.len(), 17);
        let loss = |t: f64| {
            let moved = copy(&model);
            let theta: Vec<f64> = theta
                .iter()
                .zip(&direction)
                .map(|(a, b)| a + t * b)
                .collect();
            moved.parameters().set_flat(&theta).unwrap();
            step(&moved, &data).0
        };
        let central = |h: f64| (loss(h) - loss(-h)) / (2.0 * h);
        let slope = (4.0 * central(1e-4) - central(2e-4)) / 3.0;
        let gradient = step(&copy(&model), &data).1;
        assert_close(&[dot(&gradient, &direction)], &[slope], 1e-8);
    }
}

#[test]
fn running_statistics_move_towards_batch_statistics() {
    let samples = 37;
    let data = data(samples);
    let mut builder = Builder::default();
    let layers = vec![
        builder.norm("in", 2),
        LayerKind::Flatten(layers::Flatten),
        builder.linear("out", 32, 3),
    ];
    let model = builder.finish(layers);
    // Expected statistics of each channel: the mean and the unbiased variance.
    let x = data
        .inputs()
        .flatten_from(2)
        .unwrap()
        .to_vec3::<f64>()
        .unwrap();
    let n = (samples * 16) as f64;
    let channel = |c: usize| -> Vec<f64> { x.iter().flat_map(|x| x[c].clone()).collect() };
    let means = [0, 1].map(|c| channel(c).iter().sum::<f64>() / n);
    let squares = |c: usize| {
        channel(c)
            .iter()
            .map(|x| (x - means[c]).powi(2))
            .sum::<f64>()
    };
    let batch = [
        means[0],
        means[1],
        squares(0) / (n - 1.0),
        squares(1) / (n - 1.0),
    ];
    let start = statistics(model.parameters());
    for steps in [1, 3] {
        let decay = 0.7_f64.powi(steps);
        let expected = start
            .iter()
            .zip(batch)
            .map(|(r, s)| decay * r + (1.0 - decay) * s);
        let expected: Vec<f64> = expected.collect();
        // The learning rate is too small to change the parameters.
        let trainer = Trainer::sgd(1e-300)
            .with_epochs(steps as u32)
            .with_batch_size(samples);
        let (by_hand, by_graph) = (copy(&model), Opaque(copy(&model)));
        trainer.fit(&by_hand, &data, &data).unwrap();
        trainer.fit(&by_graph, &data, &data).unwrap();
        assert_close(&statistics(by_hand.parameters()), &expected, 1e-14);
        assert_close(&statistics(by_graph.parameters()), &expected, 1e-14);
    }
}

#[test]
fn trainings_agree_between_engine_and_graph_and_repeat_exactly() {
    let data = data(60);
    for (_, model) in networks() {
        // Batches of 25, 25 and 10.
        // A bias before a normalisation has a gradient of 0 up to rounding, which Adam divides by about 10⁻⁸.
        let both = [(Trainer::sgd(0.1), 1e-12), (Trainer::adam(0.003), 1e-8)];
        for (trainer, tolerance) in both {
            let trainer = trainer.with_epochs(2).with_batch_size(25).with_seed(4);
            let [by_hand, again, on_one_thread] = [(); 3].map(|()| copy(&model));
            let by_graph = Opaque(copy(&model));
            let history = trainer.fit(&by_hand, &data, &data).unwrap();
            let other = trainer.fit(&by_graph, &data, &data).unwrap();
            trainer.fit(&again, &data, &data).unwrap();
            let one = rayon::ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .unwrap();
            one.install(|| trainer.fit(&on_one_thread, &data, &data))
                .unwrap();
            let both = [by_hand.parameters(), by_graph.parameters()];
            let [a, b] = both.map(|parameters| parameters.to_flat().unwrap());
            assert_close(&a, &b, tolerance);
            let [a, b] = both.map(statistics);
            assert_close(&a, &b, tolerance);
            for same in [&again, &on_one_thread] {
                assert_eq!(bits(same.parameters()), bits(by_hand.parameters()));
                assert_eq!(statistics(same.parameters()), a);
            }
            for (a, b) in history.epochs.iter().zip(&other.epochs) {
                assert_close(
                    &[a.train_loss, a.test_loss],
                    &[b.train_loss, b.test_loss],
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn analysis_uses_the_current_running_statistics() {
    let data = data(50);
    for (_, model) in networks() {
        let model = copy(&model);
        let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        let graph = objective.clone().by_autograd();
        let n = objective.dim();
        assert_eq!(n, model.parameters().len());
        let [v, w] = [8, 9].map(|seed| numbers(n, seed));
        let early = objective.hvp(&v).unwrap();
        let theta = model.parameters().to_flat().unwrap();
        Trainer::sgd(0.1)
            .with_batch_size(25)
            .fit(&model, &data, &data)
            .unwrap();
        // Restore θ, so that only the statistics differ.
        model.parameters().set_flat(&theta).unwrap();
        let moved = statistics(model.parameters());
        let late = objective.hvp(&v).unwrap();
        let change = early
            .iter()
            .zip(&late)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(change > 1e-6, "the statistics have an effect: {change}");
        let fresh = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        assert_eq!(fresh.hvp(&v).unwrap(), late);
        assert_close(&late, &graph.hvp(&v).unwrap(), 1e-10);
        let other = objective.hvp(&w).unwrap();
        assert_close(&[dot(&late, &w)], &[dot(&other, &v)], 1e-11);
        assert_close(
            &objective.gradient().unwrap(),
            &graph.gradient().unwrap(),
            1e-10,
        );
        assert_close(
            &[objective.loss().unwrap()],
            &[graph.loss().unwrap()],
            1e-12,
        );
        let plane = |o: &Objective| Plane::random(o, 3, 0.5, 3).unwrap().losses;
        let [by_hand, by_graph] =
            [&objective, &graph].map(|o| plane(o).into_raw_vec_and_offset().0);
        assert_close(&by_hand, &by_graph, 1e-11);
        assert_eq!(
            statistics(model.parameters()),
            moved,
            "analysis does not change the statistics"
        );
    }
}

#[test]
fn hand_derived_losses_use_estimated_statistics() {
    let data = data(60);
    for (_, model) in networks() {
        let model = copy(&model);
        let trained = model.clone();
        let running = RunningStatistics::new(model.parameters(), &data, 30, move |x| {
            trained.forward_training(x, 0)
        });
        let running = running.unwrap();
        let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        let n = objective.dim();
        let before = statistics(model.parameters());
        let path = Curve::linear(&numbers(n, 3), &numbers(n, 4)).unwrap();
        let losses = |o: &Objective| path.profile_with_statistics(o, 4, &running).unwrap().losses;
        let by_hand = losses(&objective);
        assert_close(&by_hand, &losses(&objective.clone().by_autograd()), 1e-11);
        assert_ne!(by_hand, path.profile(&objective, 4).unwrap().losses);
        assert_eq!(statistics(model.parameters()), before);
    }
}

#[test]
fn a_file_restores_parameters_and_statistics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let (_, model) = networks().remove(3);
    let data = data(40);
    let trained = copy(&model);
    let trainer = Trainer::adam(0.01).with_epochs(2);
    trainer.fit(&trained, &data, &data).unwrap();
    trained.parameters().save(&path).unwrap();
    let all = |model: &Layered| (bits(model.parameters()), statistics(model.parameters()));
    let restored = copy(&model);
    assert_ne!(all(&restored).1, all(&trained).1);
    restored.parameters().load(&path).unwrap();
    assert_eq!(all(&restored), all(&trained));

    // Copies have their own statistics; clones share them.
    let (copied, shared) = (copy(&trained), trained.clone());
    let zero = |model: &Layered| {
        let (_, var) = model.parameters().statistics().next().unwrap();
        var.set(&var.zeros_like().unwrap()).unwrap();
    };
    zero(&copied);
    assert_eq!(all(&restored).1, all(&trained).1);
    zero(&shared);
    assert_eq!(all(&copied).1, all(&trained).1);
    let single = trained.to_dtype(DType::F32).unwrap();
    let (name, var) = single.parameters().statistics().next().unwrap();
    assert_eq!(
        (name.as_str(), var.dtype()),
        ("a.norm.running_mean", DType::F32)
    );

    // Files without statistics, or with wrong ones, are rejected and change nothing.
    let refused = |from: &Parameters, expected: &str| {
        from.save(&path).unwrap();
        let before = all(&restored);
        let error = restored.parameters().load(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(all(&restored), before);
    };
    let plain = || Parameters::new(trained.parameters().iter().cloned()).unwrap();
    let own_statistics = || trained.parameters().statistics().cloned();
    refused(
        &plain(),
        "10 tensors of the model have no partner in the file. The file has no running statistics of batch normalisation",
    );
    let mut longer: Vec<_> = own_statistics().collect();
    longer[0].1 = Var::zeros(5, DType::F64, &CPU).unwrap();
    let longer = plain().with_statistics(longer).unwrap();
    refused(
        &longer,
        "  a.norm.running_mean [4]  a.norm.running_mean [5]",
    );
    let more = [("more".to_owned(), Var::zeros(1, DType::F64, &CPU).unwrap())];
    let more = plain()
        .with_statistics(own_statistics().chain(more))
        .unwrap();
    refused(
        &more,
        "1 tensor (`more`) of the file has no partner in the model",
    );
    let (_, first) = own_statistics().next().unwrap();
    first
        .set(&Tensor::full(f64::NAN, 4, &CPU).unwrap())
        .unwrap();
    refused(trained.parameters(), "not finite");
}

#[test]
fn wrong_statistics_are_refused() {
    let var = |dtype| Var::zeros(3, dtype, &CPU).unwrap();
    let named = |name: &str, var: &Var| (name.to_owned(), var.clone());
    let (a, b) = (var(DType::F64), var(DType::F64));
    let parameters = || Parameters::new([named("a", &a)]).unwrap();
    let message = |statistics: Vec<(String, Var)>| {
        let error = parameters().with_statistics(statistics).unwrap_err();
        error.to_string()
    };
    assert!(message(vec![named("a", &b)]).contains("are the same"));
    assert!(message(vec![named("b", &a)]).contains("are the same"));
    assert!(message(vec![named("b", &b), named("c", &b)]).contains("are the same"));
    assert!(message(vec![named("b", &var(DType::F32))]).contains("use one type"));
    let both = parameters().with_statistics([named("b", &b)]).unwrap();
    assert_eq!((both.len(), both.to_flat().unwrap().len()), (3, 3));
}

/// Error of a training with batches of four. candle's graph gives the same error, except for layers that do not fit, where
/// the error is candle's own.
fn training_error(layers: impl Fn(&mut Builder) -> Vec<LayerKind>, samples: usize) -> String {
    let mut builder = Builder::default();
    let layers = layers(&mut builder);
    let model = builder.finish(layers);
    let (data, trainer) = (data(samples), Trainer::sgd(0.1).with_batch_size(4));
    let before = (bits(model.parameters()), statistics(model.parameters()));
    let by_graph = trainer
        .fit(&Opaque(copy(&model)), &data, &data)
        .unwrap_err()
        .to_string();
    let by_hand = trainer.fit(&model, &data, &data).unwrap_err().to_string();
    if !by_hand.contains("cannot take samples of shape") {
        assert!(
            by_graph.contains(&by_hand),
            "{by_graph} does not contain {by_hand}"
        );
    }
    if samples <= 4 {
        let after = (bits(model.parameters()), statistics(model.parameters()));
        assert_eq!(after, before);
    }
    by_hand
}

#[test]
fn invalid_normalisation_and_dropout_are_refused() {
    let normalised = |m: &mut Builder| {
        vec![
            LayerKind::Flatten(layers::Flatten),
            m.linear("a", 32, 5),
            m.norm("n", 5),
            tanh(),
            m.linear("out", 5, 3),
        ]
    };
    for samples in [1, 5] {
        let error = training_error(normalised, samples);
        assert!(
            error.contains("one value per channel has no variance"),
            "{error}"
        );
    }
    let with = |change: &dyn Fn(&mut f64, &mut f64, &mut String)| {
        let changed = |m: &mut Builder| {
            let mut layers = normalised(m);
            if let LayerKind::BatchNorm(layers::BatchNorm {
                epsilon,
                momentum,
                mean,
                ..
            }) = &mut layers[2]
            {
                change(epsilon, momentum, mean);
            }
            layers
        };
        training_error(changed, 4)
    };
    assert!(with(&|_, m, _| *m = 1.5).contains("a momentum from 0 to 1, not 0.001 and 1.5"));
    assert!(with(&|_, m, _| *m = f64::NAN).contains("a momentum from 0 to 1, not 0.001 and NaN"));
    assert!(
        with(&|e, _, _| *e = -1.0)
            .contains("an epsilon ≥ 0 and a momentum from 0 to 1, not -1 and 0.3")
    );
    let unknown = with(&|_, _, mean| *mean = "missing".into());
    assert!(
        unknown.contains("no running statistic is called `missing`"),
        "{unknown}"
    );
    let misfit = |m: &mut Builder| {
        vec![
            LayerKind::Flatten(layers::Flatten),
            m.linear("a", 32, 5),
            m.norm("n", 4),
            m.linear("out", 5, 3),
        ]
    };
    let misfit = training_error(misfit, 4);
    assert!(
        misfit.contains("(5,)")
            && misfit.contains("`n.weight` of shape (5,), one number per channel, not [4]"),
        "{misfit}"
    );
    for rate in [-0.1, 1.0, f64::NAN] {
        let dropped = |m: &mut Builder| {
            vec![
                LayerKind::Dropout(layers::Dropout { rate }),
                LayerKind::Flatten(layers::Flatten),
                m.linear("out", 32, 3),
            ]
        };
        let error = training_error(dropped, 4);
        assert!(
            error.contains(&format!("a rate of at least 0 and less than 1, not {rate}")),
            "{error}"
        );
    }
}

#[test]
fn a_training_that_diverges_leaves_finite_statistics() {
    let data = data(8);
    for (_, model) in networks() {
        // The first of two steps makes θ so large that the second overflows.
        let trainer = Trainer::sgd(1e308).with_batch_size(4);
        let [by_hand, by_graph] = [copy(&model), copy(&model)];
        let found = [
            trainer.fit(&by_hand, &data, &data),
            trainer.fit(&Opaque(by_graph.clone()), &data, &data),
        ];
        for found in found {
            let error = found.unwrap_err().to_string();
            assert!(error.contains("no longer finite at step 1"), "{error}");
        }
        let [by_hand, by_graph] = [by_hand, by_graph].map(|m| statistics(m.parameters()));
        assert!(by_hand.iter().all(|s| s.abs() < 10.0), "{by_hand:?}");
        assert_close(&by_hand, &by_graph, 1e-12);
        assert_ne!(by_hand, statistics(model.parameters()));
    }
}

#[test]
fn the_variance_is_accurate_with_a_mean_far_from_zero() {
    let samples = 300;
    let x: Vec<f32> = numbers(samples * 32, 5)
        .iter()
        .map(|x| *x as f32 + 3000.0)
        .collect();
    let inputs = Tensor::from_slice(&x, (samples, 2, 4, 4), &CPU).unwrap();
    let labels = Tensor::from_iter((0..samples as u32).map(|i| i % 3), &CPU).unwrap();
    let data = Dataset::classification(&inputs, &labels).unwrap();
    let mut builder = Builder::default();
    let mut norm = builder.norm("in", 2);
    if let LayerKind::BatchNorm(layers::BatchNorm { momentum, .. }) = &mut norm {
        *momentum = 1.0;
    }
    let layers = vec![
        norm,
        LayerKind::Flatten(layers::Flatten),
        builder.linear("out", 32, 3),
    ];
    let model = builder.finish(layers).to_dtype(DType::F32).unwrap();
    let trainer = Trainer::sgd(1e-3).with_batch_size(samples);
    trainer.fit(&model, &data, &data).unwrap();
    let n = (samples * 16) as f64;
    let moments = [0, 1].map(|c| {
        let channel = || {
            x.chunks(16)
                .skip(c)
                .step_by(2)
                .flatten()
                .map(|x| f64::from(*x))
        };
        let mean = channel().sum::<f64>() / n;
        [
            mean,
            channel().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0),
        ]
    });
    for (i, (_, var)) in model.parameters().statistics().enumerate() {
        let found = var.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        assert_close(&found, &moments.map(|m| m[i]), 1e-6);
    }
}

#[test]
fn dropout_only_affects_training() {
    let dropout = |rate| LayerKind::Dropout(layers::Dropout { rate });
    let network = |m: &mut Builder, rate: f64| {
        vec![
            dropout(rate),
            LayerKind::Flatten(layers::Flatten),
            m.linear("a", 32, 20),
            tanh(),
            LayerKind::Residual(layers::Residual {
                body: vec![dropout(0.0), m.linear("b", 20, 20)],
                shortcut: vec![dropout(rate)],
            }),
            m.norm("n", 20),
            m.linear("out", 20, 3),
        ]
    };
    let [model, plain] = [0.3, 0.0].map(|rate| {
        let mut builder = Builder::default();
        let layers = network(&mut builder, rate);
        builder.finish(layers)
    });
    let data = data(30);
    let [with, without] = [&model, &plain].map(|model| {
        let objective = Objective::of(model, &data, Loss::CrossEntropy).unwrap();
        assert!(objective.is_hand_derived());
        objective
    });
    let v = numbers(with.dim(), 3);
    assert_eq!(with.loss().unwrap(), without.loss().unwrap());
    assert_eq!(with.hvp(&v).unwrap(), without.hvp(&v).unwrap());
    let graph = with.by_autograd();
    assert_close(&graph.hvp(&v).unwrap(), &without.hvp(&v).unwrap(), 1e-10);

    let trained = |seed| {
        let model = copy(&model);
        let trainer = Trainer::adam(0.01)
            .with_batch_size(10)
            .with_epochs(2)
            .with_seed(seed);
        trainer.fit(&model, &data, &data).unwrap();
        (bits(model.parameters()), statistics(model.parameters()))
    };
    assert_eq!(trained(1), trained(1));
    assert_ne!(trained(1), trained(2));
    // Each step and each seed draws another mask. All samples are equal and θ does not change, so only the mask can change the
    // loss.
    let losses = |seed| {
        let inputs = Tensor::from_vec(numbers(32, 6), (1, 2, 4, 4), &CPU).unwrap();
        let labels = Tensor::zeros(30, DType::U32, &CPU).unwrap();
        let equal = Dataset::classification(&inputs.repeat((30, 1, 1, 1)).unwrap(), &labels);
        let equal = equal.unwrap();
        let trainer = Trainer::sgd(1e-300)
            .with_batch_size(30)
            .with_epochs(2)
            .with_seed(seed);
        let history = trainer.fit(&copy(&model), &equal, &equal).unwrap();
        [0, 1].map(|epoch| history.epochs[epoch].train_loss)
    };
    let ([a, b], [c, _]) = (losses(1), losses(2));
    assert!(
        (a - b).abs() > 1e-6 && (a - c).abs() > 1e-6,
        "{a}, {b}, {c}"
    );
    let [dropped, whole] = [&model, &plain].map(|model| step(&copy(model), &data).1);
    let off = dropped
        .iter()
        .zip(&whole)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(off > 1e-3, "dropout changes the step: {off}");
}

#[test]
fn dropout_preserves_the_mean() {
    let rate = 0.3;
    let mut builder = Builder::default();
    builder.linear("unused", 1, 1);
    let model = builder.finish(vec![LayerKind::Dropout(layers::Dropout { rate })]);
    let x = Tensor::ones((100, 1000), DType::F64, &CPU).unwrap();
    let numbers = |y: Tensor| y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let dropped = |seed| numbers(model.forward_training(&x, seed).unwrap());
    let y = dropped(1);
    assert!(y.iter().all(|y| *y == 0.0 || *y == 1.0 / (1.0 - rate)));
    // Four standard errors, √(p/(1 − p)/n).
    let mean = y.iter().sum::<f64>() / 1e5;
    let error = (rate / (1.0 - rate) / 1e5).sqrt();
    assert!((mean - 1.0).abs() < 4.0 * error, "{mean}");
    assert_eq!(dropped(1), y);
    assert_ne!(dropped(2), y);
    assert_eq!(numbers(model.forward(&x).unwrap()), numbers(x));
}

fn objective(model: &Layered, data: &Dataset) -> Objective {
    Objective::of(model, data, Loss::CrossEntropy).unwrap()
}

/// The Hessian's columns by central differences of the gradient. Other tests compare the gradient with the loss.
fn dense_differences(objective: &Objective) -> Vec<f64> {
    let theta = objective.parameters().to_flat().unwrap();
    let step = 1e-5;
    let column = |j: usize| {
        let slope = |h: f64| {
            let mut moved = theta.clone();
            moved[j] += h;
            objective.gradient_at(&moved).unwrap().1
        };
        let pairs = slope(step).into_iter().zip(slope(-step));
        pairs
            .map(|(a, b)| (a - b) / (2.0 * step))
            .collect::<Vec<_>>()
    };
    (0..theta.len()).flat_map(column).collect()
}

#[test]
fn the_hessian_with_batch_statistics_matches_differences() {
    let data = data(24);
    for (i, (name, model)) in networks().into_iter().enumerate() {
        let model = copy(&model);
        let before = (bits(model.parameters()), statistics(model.parameters()));
        let frozen = objective(&model, &data);
        let sizes = [&[usize::MAX, 9][..], &[usize::MAX], &[9]][i.min(1 + i % 2)];
        for size in sizes.iter().copied() {
            let batch = frozen.clone().with_batch_statistics(size).unwrap();
            let found = batch.hessian().dense().unwrap();
            let entries = found.matrix().as_slice().unwrap();
            assert_close(entries, &dense_differences(&batch), 1e-7);
            assert!(found.asymmetry() < 1e-10, "{name}");
            // Running statistics give another matrix.
            let other = frozen.hessian().dense().unwrap();
            let difference = (found.matrix() - other.matrix()).mapv(f64::abs).sum();
            assert!(difference > 1e-3, "{name}");
        }
        let after = (bits(model.parameters()), statistics(model.parameters()));
        assert_eq!(after, before, "{name}");
    }
}

/// With hand-derived rules and candle's graph, with L2, and in `f32`.
#[test]
fn losses_with_batch_statistics_are_means_over_batches() {
    let data = data(31);
    for (name, model) in networks() {
        let model = copy(&model);
        let frozen = objective(&model, &data).with_l2(0.1).unwrap();
        let by_hand = frozen.clone().with_batch_statistics(11).unwrap();
        let by_graph = frozen.by_autograd().with_batch_statistics(11).unwrap();
        // Three batches of 10, 10 and 11.
        let theta = model.parameters().to_flat().unwrap();
        let (mut loss, mut gradient) = (0.1 * dot(&theta, &theta), vec![0.0; theta.len()]);
        for (start, end) in [(0, 10), (10, 20), (20, 31)] {
            let rows: Vec<usize> = (start..end).collect();
            let share = rows.len() as f64 / 31.0;
            let (value, slope, _) = step(&copy(&model), &data.select(&rows).unwrap());
            loss += share * value;
            for (sum, g) in gradient.iter_mut().zip(slope) {
                *sum += share * g;
            }
        }
        for (g, t) in gradient.iter_mut().zip(&theta) {
            *g += 0.2 * t;
        }
        for objective in [&by_hand, &by_graph] {
            assert_close(&[objective.loss().unwrap()], &[loss], 1e-13);
            assert_close(&objective.gradient().unwrap(), &gradient, 1e-11);
            let moved: Vec<f64> = theta.iter().map(|t| 0.9 * t).collect();
            assert_ne!(objective.loss_at(&moved).unwrap(), loss);
            assert_eq!(objective.score().unwrap().loss, objective.loss().unwrap());
        }
        let (a, b) = (by_hand.score().unwrap(), by_graph.score().unwrap());
        assert_eq!(a.accuracy, b.accuracy, "{name}");
        assert!(!by_hand.is_hand_derived());

        let single = model.to_dtype(DType::F32).unwrap();
        let single = Objective::of(
            &single,
            &data.to_dtype(DType::F32).unwrap(),
            Loss::CrossEntropy,
        );
        let single = single.unwrap().with_l2(0.1).unwrap();
        let single = single.with_batch_statistics(11).unwrap();
        assert_close(&single.gradient().unwrap(), &gradient, 1e-4);
        let v = numbers(theta.len(), 5);
        let product = by_hand.hvp(&v).unwrap();
        assert_close(&single.hvp(&v).unwrap(), &product, 1e-3);
        // One thread gives the same bits.
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let on_one_thread = one.unwrap().install(|| by_hand.gradient().unwrap());
        assert_eq!(on_one_thread, by_hand.gradient().unwrap());
    }
}

/// Without ε, the outputs of batch normalisation are the same for the weights w and cw of the layer before it, and do not depend
/// on that layer's bias. So ∇L(cw) = ∇L(w)/c and H(w, 0) = −(∇_w L, 0) for w, and ∇L and H vanish for the bias.
#[test]
fn the_scale_of_weights_before_batch_normalisation_has_no_effect() {
    let data = data(40);
    let mut builder = Builder::default();
    let mut layers = vec![
        LayerKind::Flatten(layers::Flatten),
        builder.linear("a", 32, 4),
        builder.norm("n", 4),
        tanh(),
    ];
    layers.push(builder.linear("out", 4, 3));
    if let LayerKind::BatchNorm(layers::BatchNorm { epsilon, .. }) = &mut layers[2] {
        *epsilon = 0.0;
    }
    let model = builder.finish(layers);
    let parameters = model.parameters();
    let theta = parameters.to_flat().unwrap();
    let frozen = objective(&model, &data);
    let batch = frozen.clone().with_batch_statistics(usize::MAX).unwrap();
    let gradient = batch.gradient().unwrap();
    let only = |name: &str, values: &[f64]| {
        let range = parameters.range(name).unwrap();
        let mut v = vec![0.0; theta.len()];
        v[range.clone()].copy_from_slice(&values[range]);
        v
    };
    let scale = only("a.weight", &theta);
    assert!(dot(&scale, &gradient).abs() < 1e-15);
    let expected: Vec<f64> = only("a.weight", &gradient).iter().map(|g| -g).collect();
    let product = batch.hvp(&scale).unwrap();
    assert_close(&product, &expected, 1e-11);
    assert!(directional_sharpness(&batch, &scale).unwrap().abs() < 1e-15);
    // The weights of a single unit can be scaled as well.
    let first = parameters.range("a.weight").unwrap().start;
    let mut unit = vec![0.0; theta.len()];
    unit[first..first + 32].copy_from_slice(&theta[first..first + 32]);
    assert!(directional_sharpness(&batch, &unit).unwrap().abs() < 1e-15);
    let bias = only("a.bias", &vec![1.0; theta.len()]);
    let curvature = |v: &[f64]| batch.hvp(v).unwrap().iter().map(|h| h.abs()).sum::<f64>();
    assert!(curvature(&bias) < 1e-14);
    // With running statistics, the loss is curved along both.
    for v in [&scale, &bias] {
        let product = frozen.hvp(v).unwrap();
        assert!(
            product.iter().map(|h| h.abs()).sum::<f64>() > 1e-2,
            "{product:?}"
        );
    }
    // The loss is constant along the scale.
    let line = Line::along(&batch, &scale, 0.5, 5).unwrap();
    for loss in &line.losses {
        assert!((loss - line.center).abs() < 1e-14);
    }
    assert_eq!(line.statistics, StatisticsSource::Batches { size: 40 });
}

#[test]
fn per_sample_quantities_and_missing_statistics_are_refused() {
    let data = data(30);
    let (_, model) = networks().remove(1);
    let frozen = objective(&model, &data);
    let batch = frozen.clone().with_batch_statistics(10).unwrap();
    let text = |error: Option<Error>| error.unwrap().to_string();
    let v = numbers(batch.dim(), 1);
    for message in [
        text(batch.empirical_fisher().apply(&v).err()),
        text(batch.gradient_covariance().err()),
        text(batch.jacobian().err()),
        text(batch.tangent_kernel().err()),
        text(GradientNoise::default().run(&batch).err()),
        text(ImplicitBias::new(0.1, 10).run(&batch).err()),
    ] {
        assert!(message.contains("depend on each other"), "{message}");
    }
    assert!(batch.gauss_newton().apply(&v).is_ok() && batch.fisher().apply(&v).is_ok());
    let running = RunningStatistics::from_objective(&frozen).unwrap();
    let path = Curve::linear(&v, &v).unwrap();
    let message = text(path.profile_with_statistics(&batch, 3, &running).err());
    assert!(message.contains("no running statistics"), "{message}");
    for objective in [&frozen, &batch] {
        let start = model.parameters().to_flat().unwrap();
        let message = text(PacBayes::default().run(objective, &start).err());
        assert!(message.contains("KL divergence"), "{message}");
    }

    let refused =
        |objective: Objective, size: usize| text(objective.with_batch_statistics(size).err());
    assert!(refused(frozen.clone(), 1).contains("at least 2"));
    let one = frozen.with_data(&data.first(1).unwrap()).unwrap();
    assert!(refused(one, 10).contains("at least 2"));
    let plain = Architecture::Shallow.build(&[32], 3, 0, &CPU).unwrap();
    let plain = plain.to_dtype(DType::F64).unwrap();
    assert!(refused(objective(&plain, &data), 10).contains("no running statistics"));
    let evaluated = model.clone();
    let evaluated = Objective::from_fn(model.parameters(), &data, Loss::CrossEntropy, move |x| {
        evaluated.forward(x)
    });
    assert!(refused(evaluated.unwrap(), 10).contains("not in training mode"));
    let mut builder = Builder::default();
    let layers = vec![
        LayerKind::Flatten(layers::Flatten),
        builder.linear("a", 32, 5),
        builder.norm("n", 5),
        LayerKind::Dropout(layers::Dropout { rate: 0.5 }),
        builder.linear("out", 5, 3),
    ];
    let with_dropout = builder.finish(layers);
    assert!(refused(objective(&with_dropout, &data), 10).contains("random numbers"));

    // A closure with a training pass gives the same as a model.
    let (evaluated, trained) = (model.clone(), model.clone());
    let before = statistics(model.parameters());
    let closure = Objective::from_fn(model.parameters(), &data, Loss::CrossEntropy, move |x| {
        evaluated.forward(x)
    });
    let closure = closure.unwrap();
    let closure = closure.with_training_pass(move |x| trained.forward_training(x, 0));
    let profile = Curve::linear(&v, &v).unwrap().profile(&closure, 2).unwrap();
    assert_eq!(
        profile.statistics,
        StatisticsSource::Estimated { samples: 30 }
    );
    let closure = closure.with_batch_statistics(10).unwrap();
    assert_close(&closure.hvp(&v).unwrap(), &batch.hvp(&v).unwrap(), 1e-12);
    assert_close(
        &closure.gradient().unwrap(),
        &batch.gradient().unwrap(),
        1e-12,
    );
    assert_eq!(statistics(model.parameters()), before);
}

/// A training that changes the statistics. Returns the snapshots, and the loss at the time of each.
fn recorded(model: &Layered, data: &Dataset) -> (Trajectory, Vec<f64>) {
    let mut trajectory = Trajectory::every(1000).unwrap();
    let trained = objective(model, data);
    let mut losses = Vec::new();
    for epoch in 0..4 {
        if epoch > 0 {
            let trainer = Trainer::adam(0.03).with_batch_size(10).with_seed(epoch);
            trainer.fit(model, data, data).unwrap();
        }
        trajectory.push(epoch as usize, model.parameters()).unwrap();
        losses.push(trained.loss().unwrap());
    }
    (trajectory, losses)
}

#[test]
fn snapshots_are_evaluated_with_their_own_statistics() {
    let data = data(40);
    let settings = EvolutionSettings::default()
        .with_trace(None)
        .with_sharpness(None)
        .with_test_data(data.clone());
    for (name, model) in networks() {
        let model = copy(&model);
        let (trajectory, losses) = recorded(&model, &data);
        let before = (bits(model.parameters()), statistics(model.parameters()));
        let objective = objective(&model, &data);
        let evolution = settings.run(&objective, &trajectory).unwrap();
        assert_eq!(evolution.statistics, StatisticsSource::Snapshots);
        let found: Vec<f64> = evolution.snapshots.iter().map(|s| s.loss).collect();
        assert_eq!(found, losses, "{name}");
        for snapshot in &evolution.snapshots {
            assert_eq!(snapshot.test_loss, Some(snapshot.loss));
        }
        let html = evolution.bundle().unwrap();
        let html = html.get("text/html").unwrap();
        assert!(
            html.contains("by the running statistics of each snapshot"),
            "{html}"
        );
        assert_eq!(
            (bits(model.parameters()), statistics(model.parameters())),
            before
        );

        // With batch statistics, the loss depends only on θ.
        let batch = objective.with_batch_statistics(20).unwrap();
        let evolution = settings.run(&batch, &trajectory).unwrap();
        assert_eq!(evolution.statistics, StatisticsSource::Batches { size: 20 });
        for (i, snapshot) in evolution.snapshots.iter().enumerate() {
            let theta = trajectory.snapshot(i).unwrap();
            assert_eq!(snapshot.loss, batch.loss_at(&theta).unwrap());
        }
    }
}

#[test]
fn snapshots_are_saved_with_their_statistics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trajectory.safetensors");
    let data = data(40);
    let (_, first) = networks().remove(0);
    for dtype in [DType::F64, DType::F32] {
        let model = first.to_dtype(dtype).unwrap();
        let data = data.to_dtype(dtype).unwrap();
        let (trajectory, losses) = recorded(&model, &data);
        trajectory.save(&path).unwrap();
        let read = Trajectory::load(&path).unwrap();
        let objective = objective(&model, &data);
        for (i, loss) in losses.iter().enumerate() {
            assert_eq!(read.snapshot(i).unwrap(), trajectory.snapshot(i).unwrap());
            assert_eq!(
                read.statistics(i).unwrap(),
                trajectory.statistics(i).unwrap()
            );
            assert_eq!(read.statistics(i).unwrap().len(), 2 * 3);
            read.restore(i, model.parameters()).unwrap();
            assert_eq!(objective.loss().unwrap(), *loss);
        }
        assert!(read.restore(losses.len(), model.parameters()).is_err());
    }

    // Snapshots without statistics, as in files of earlier versions.
    let model = copy(&first);
    let plain = Parameters::new(model.parameters().iter().cloned()).unwrap();
    let mut without = Trajectory::every(1).unwrap();
    without.push(0, &plain).unwrap();
    assert_eq!(without.statistics(0).unwrap(), [0.0; 0]);
    without.save(&path).unwrap();
    let without = Trajectory::load(&path).unwrap();
    assert!(without.restore(0, &plain).is_ok());
    let objective = objective(&model, &data);
    let settings = EvolutionSettings::default()
        .with_trace(None)
        .with_sharpness(None);
    for error in [
        without.restore(0, model.parameters()).err(),
        settings.run(&objective, &without).err(),
    ] {
        let message = error.unwrap().to_string();
        assert!(message.contains("the snapshots have none"), "{message}");
    }
    let batch = objective.with_batch_statistics(20).unwrap();
    assert!(settings.run(&batch, &without).is_ok());
    let mut mixed = without.clone();
    let message = mixed.push(1, model.parameters()).unwrap_err().to_string();
    assert!(
        message.contains("as in the previous snapshots"),
        "{message}"
    );
}

/// A path is profiled with statistics estimated at each point. Lines to another model are refused. Results state the source of
/// the statistics.
#[test]
fn paths_are_profiled_with_estimated_statistics() {
    let data = data(60);
    for (name, model) in networks() {
        let model = copy(&model);
        let objective = objective(&model, &data);
        let theta = model.parameters().to_flat().unwrap();
        let other = numbers(theta.len(), 4);
        let path = Curve::linear(&theta, &other).unwrap();
        let before = (bits(model.parameters()), statistics(model.parameters()));
        let found = path.profile(&objective, 4).unwrap();
        assert_eq!(
            found.statistics,
            StatisticsSource::Estimated { samples: 60 }
        );
        // The other end on its own, with statistics estimated on the dataset.
        let end = copy(&model);
        end.parameters().set_flat(&other).unwrap();
        let alone = Objective::of(&end, &data, Loss::CrossEntropy).unwrap();
        RunningStatistics::from_objective(&alone)
            .unwrap()
            .estimate()
            .unwrap();
        assert_close(&[found.losses[3]], &[alone.loss().unwrap()], 1e-12);
        assert!(
            (objective.loss_at(&other).unwrap() - found.losses[3]).abs() > 1e-6,
            "{name}"
        );
        let after = (bits(model.parameters()), statistics(model.parameters()));
        assert_eq!(after, before);

        let message = Line::between(&objective, &other, 3)
            .unwrap_err()
            .to_string();
        assert!(message.contains("with_batch_statistics"), "{message}");
        let batch = objective.clone().with_batch_statistics(usize::MAX).unwrap();
        let line = Line::between(&batch, &other, 3).unwrap();
        assert_eq!(line.statistics, StatisticsSource::Batches { size: 60 });
        // A single batch divides the variance by n, the estimate by n − 1. Nothing else differs.
        let ends = [line.losses[2], found.losses[3]];
        assert!(
            (ends[0] - ends[1]).abs() < 0.02 * ends[0],
            "{name}: {ends:?}"
        );
        let profile = path.profile(&batch, 4).unwrap();
        assert_eq!(profile.statistics, StatisticsSource::Batches { size: 60 });
        assert_close(&[profile.losses[3]], &[line.losses[2]], 1e-13);
        let plane = Plane::random(&objective, 0, 0.1, 3).unwrap();
        assert_eq!(plane.statistics, StatisticsSource::Model);
    }
    let (_, model) = networks().remove(0);
    let evaluated = model.clone();
    let closure = Objective::from_fn(model.parameters(), &data, Loss::CrossEntropy, move |x| {
        evaluated.forward(x)
    });
    let closure = closure.unwrap();
    let theta = model.parameters().to_flat().unwrap();
    let path = Curve::linear(&theta, &theta).unwrap();
    let message = path.profile(&closure, 3).unwrap_err().to_string();
    assert!(message.contains("in training mode"), "{message}");
    let trainer = PathTrainer::default().with_epochs(1);
    let message = trainer.connect(&closure, &theta, &theta).unwrap_err();
    assert!(
        message.to_string().contains("in training mode"),
        "{message}"
    );
}

/// A path is trained with batch statistics, so the model's running statistics have no effect.
#[test]
fn a_trained_path_does_not_depend_on_running_statistics() {
    let data = data(60);
    for (name, model) in networks() {
        let model = copy(&model);
        let objective = objective(&model, &data);
        let n = objective.dim();
        let (a, b) = (numbers(n, 3), numbers(n, 4));
        let trainer = PathTrainer::default().with_epochs(2).with_batch_size(20);
        let connect = |objective: &Objective| {
            let curve = trainer.connect(objective, &a, &b).unwrap();
            curve.points()[1].clone()
        };
        let found = connect(&objective);
        let by_graph = connect(&objective.clone().by_autograd());
        assert_close(&found, &by_graph, 1e-8);
        for (_, var) in model.parameters().statistics() {
            var.set(&(var.as_tensor() * 7.0).unwrap()).unwrap();
        }
        assert_eq!(connect(&objective), found, "{name}");
    }
    let (_, model) = networks().remove(0);
    let trainer = PathTrainer::default().with_batch_size(59);
    let theta = model.parameters().to_flat().unwrap();
    let message = trainer
        .connect(&objective(&model, &data), &theta, &theta)
        .unwrap_err()
        .to_string();
    assert!(message.contains("last batch of one"), "{message}");
}

/// A trajectory projected onto the plane of its principal components, with batch statistics.
#[test]
fn a_trajectory_is_projected_with_batch_statistics() {
    let data = data(40);
    let (_, model) = networks().remove(3);
    let model = copy(&model);
    let (trajectory, _) = recorded(&model, &data);
    let objective = objective(&model, &data);
    let pca = Pca::fit(&trajectory, 2).unwrap();
    let [d1, d2] = &pca.components[..] else {
        panic!("{} components", pca.components.len())
    };
    let message = Projection::onto(&objective, d1, d2, &trajectory)
        .unwrap_err()
        .to_string();
    assert!(message.contains("with_batch_statistics"), "{message}");
    let batch = objective.with_batch_statistics(20).unwrap();
    let path = Projection::onto(&batch, d1, d2, &trajectory).unwrap();
    assert_eq!(path.statistics, StatisticsSource::Batches { size: 20 });
    for i in 0..trajectory.len() {
        let theta = trajectory.snapshot(i).unwrap();
        assert_eq!(path.losses[i], batch.loss_at(&theta).unwrap());
    }
    let last = trajectory.len() - 1;
    assert!(path.distances[last] == 0.0);
    let plane = Plane::on_grid(&batch, d1, d2, &path.grid(3).unwrap()).unwrap();
    assert_eq!(plane.statistics, path.statistics);
    assert!((path.plane_losses[last] - plane.center).abs() < 1e-13);
    let grid = Grid::square(0.1, 2).unwrap();
    let plane = Plane::on_grid(&batch, d1, d2, &grid).unwrap();
    let plane = plane.with_eigenvalues(&batch, d1, d2, &grid).unwrap();
    assert!(plane.eigenvalues.is_some());
}
