//! Batch normalisation by the batch's own statistics in training, by the running ones in analysis; dropout.

mod common;

use common::{Opaque, assert_close, bits, dot, numbers};
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// A network in the making: variables with numbers of about 1/√inputs.
#[derive(Default)]
struct Making {
    vars: Vec<(String, Var)>,
    statistics: Vec<(String, Var)>,
}

impl Making {
    fn var(&mut self, name: String, shape: &[usize]) -> String {
        let fan = shape[1..].iter().product::<usize>() as f64;
        let values = numbers(shape.iter().product(), self.vars.len() as u64 + 1);
        let values: Vec<f64> = values.iter().map(|v| v / fan.sqrt()).collect();
        let var = Var::from_vec(values, shape, &CPU).unwrap();
        self.vars.push((name.clone(), var));
        name
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> LayerKind {
        LayerKind::Linear {
            weight: self.var(format!("{name}.weight"), &[outputs, inputs]),
            bias: self.var(format!("{name}.bias"), &[outputs]),
        }
    }

    fn conv(&mut self, name: &str, inputs: usize, outputs: usize, stride: usize) -> LayerKind {
        LayerKind::Conv2d {
            weight: self.var(format!("{name}.weight"), &[outputs, inputs, 3, 3]),
            bias: None,
            stride,
            padding: 1,
            dilation: 1,
            groups: 1,
        }
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
        LayerKind::BatchNorm {
            weight: self.var(format!("{name}.weight"), &[channels]),
            bias: self.var(format!("{name}.bias"), &[channels]),
            mean,
            variance,
            epsilon: 1e-3,
            momentum: 0.3,
        }
    }

    fn finish(self, layers: Vec<LayerKind>) -> Layered {
        let parameters = Parameters::new(self.vars).unwrap();
        Layered::new(layers, parameters.with_statistics(self.statistics).unwrap())
    }
}

fn act() -> LayerKind {
    LayerKind::Activation(Activation::Tanh)
}

/// Networks for images of 2 × 4 × 4 and three classes.
fn networks() -> Vec<(&'static str, Layered)> {
    let mut all = Vec::new();
    let mut add = |name, build: &dyn Fn(&mut Making) -> Vec<LayerKind>| {
        let mut making = Making::default();
        let layers = build(&mut making);
        all.push((name, making.finish(layers)));
    };
    add("after a convolution", &|m| {
        vec![
            m.conv("a", 2, 3, 1),
            m.norm("a.norm", 3),
            act(),
            LayerKind::GlobalAveragePool,
            m.linear("out", 3, 3),
        ]
    });
    add("after a dense layer, and before the loss", &|m| {
        vec![
            m.linear("a", 32, 7),
            m.norm("a.norm", 7),
            act(),
            m.linear("out", 7, 3),
            m.norm("out.norm", 3),
        ]
    });
    add("of the inputs, and twice in a row", &|m| {
        vec![
            m.norm("in.norm", 2),
            m.conv("a", 2, 3, 2),
            m.norm("a.norm", 3),
            m.norm("b.norm", 3),
            act(),
            m.linear("out", 12, 3),
        ]
    });
    add("in residual blocks", &|m| {
        vec![
            m.conv("stem", 2, 3, 1),
            m.norm("stem.norm", 3),
            LayerKind::Residual {
                body: vec![
                    act(),
                    m.conv("a", 3, 4, 2),
                    m.norm("a.norm", 4),
                    act(),
                    m.conv("b", 4, 4, 1),
                    m.norm("b.norm", 4),
                ],
                shortcut: vec![m.conv("c", 3, 4, 2), m.norm("c.norm", 4)],
            },
            LayerKind::Residual {
                body: vec![m.norm("d.norm", 4), act()],
                shortcut: vec![],
            },
            m.linear("out", 16, 3),
        ]
    });
    add("in dense blocks, and of one boundary twice", &|m| {
        vec![
            LayerKind::Concat {
                body: vec![m.norm("a.norm", 2), act(), m.conv("a", 2, 3, 1)],
            },
            LayerKind::Residual {
                body: vec![m.norm("b.norm", 5), act()],
                shortcut: vec![m.norm("c.norm", 5)],
            },
            LayerKind::Concat {
                body: vec![m.norm("d.norm", 5), act(), m.conv("d", 5, 2, 1)],
            },
            LayerKind::GlobalAveragePool,
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

/// Loss and gradient of a step of training on all the data, and the running statistics after it.
fn step<M: Model + Clone + Send + Sync + 'static>(
    model: &M,
    data: &Dataset,
) -> (f64, Vec<f64>, Vec<f64>) {
    let before = model.parameters().to_flat().unwrap();
    let trainer = Trainer::sgd(1.0).batch_size(data.len());
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
fn both_ways_take_the_same_step() {
    for (name, model) in networks() {
        // One tile, ragged ones, and more of them than parts of a batch.
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
fn the_gradient_of_a_step_is_that_of_the_batch_loss() {
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
fn running_statistics_move_towards_those_of_the_batch() {
    let samples = 37;
    let data = data(samples);
    let mut making = Making::default();
    let layers = vec![making.norm("in", 2), making.linear("out", 32, 3)];
    let model = making.finish(layers);
    // What the statistics of each channel are: the mean, and the variance without bias.
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
        let rest = 0.7_f64.powi(steps);
        let moved = start
            .iter()
            .zip(batch)
            .map(|(r, s)| rest * r + (1.0 - rest) * s);
        let moved: Vec<f64> = moved.collect();
        // So slow that the parameters stay.
        let trainer = Trainer::sgd(1e-300)
            .epochs(steps as u32)
            .batch_size(samples);
        let (by_hand, by_graph) = (copy(&model), Opaque(copy(&model)));
        trainer.fit(&by_hand, &data, &data).unwrap();
        trainer.fit(&by_graph, &data, &data).unwrap();
        assert_close(&statistics(by_hand.parameters()), &moved, 1e-14);
        assert_close(&statistics(by_graph.parameters()), &moved, 1e-14);
    }
}

#[test]
fn trainings_agree_on_both_ways_and_repeat_to_the_bit() {
    let data = data(60);
    for (_, model) in networks() {
        // Batches of 25, 25 and 10.
        // Adam divides by 10⁻⁸ what is left of the gradient, 0, of a bias before a normalisation.
        let both = [(Trainer::sgd(0.1), 1e-12), (Trainer::adam(0.003), 1e-8)];
        for (trainer, tolerance) in both {
            let trainer = trainer.epochs(2).batch_size(25).seed(4);
            let [by_hand, again, alone] = [(); 3].map(|()| copy(&model));
            let by_graph = Opaque(copy(&model));
            let history = trainer.fit(&by_hand, &data, &data).unwrap();
            let other = trainer.fit(&by_graph, &data, &data).unwrap();
            trainer.fit(&again, &data, &data).unwrap();
            let one = rayon::ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .unwrap();
            one.install(|| trainer.fit(&alone, &data, &data)).unwrap();
            let both = [by_hand.parameters(), by_graph.parameters()];
            let [a, b] = both.map(|parameters| parameters.to_flat().unwrap());
            assert_close(&a, &b, tolerance);
            let [a, b] = both.map(statistics);
            assert_close(&a, &b, tolerance);
            for same in [&again, &alone] {
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
fn analysis_is_frozen_at_the_statistics_of_the_moment() {
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
            .batch_size(25)
            .fit(&model, &data, &data)
            .unwrap();
        // θ as before, so that only the statistics differ.
        model.parameters().set_flat(&theta).unwrap();
        let moved = statistics(model.parameters());
        let late = objective.hvp(&v).unwrap();
        let change = early
            .iter()
            .zip(&late)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(change > 1e-6, "statistics count: {change}");
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
            "analysis moves nothing"
        );
    }
}

#[test]
fn statistics_are_estimated_anew_by_hand_too() {
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
    let trainer = Trainer::adam(0.01).epochs(2);
    trainer.fit(&trained, &data, &data).unwrap();
    trained.parameters().save(&path).unwrap();
    let all = |model: &Layered| (bits(model.parameters()), statistics(model.parameters()));
    let restored = copy(&model);
    assert_ne!(all(&restored).1, all(&trained).1);
    restored.parameters().load(&path).unwrap();
    assert_eq!(all(&restored), all(&trained));

    // Copies have statistics of their own, clones share them.
    let (own, shared) = (copy(&trained), trained.clone());
    let zero = |model: &Layered| {
        let (_, var) = model.parameters().statistics().next().unwrap();
        var.set(&var.zeros_like().unwrap()).unwrap();
    };
    zero(&own);
    assert_eq!(all(&restored).1, all(&trained).1);
    zero(&shared);
    assert_eq!(all(&own).1, all(&trained).1);
    let single = trained.to_dtype(DType::F32).unwrap();
    let (name, var) = single.parameters().statistics().next().unwrap();
    assert_eq!(
        (name.as_str(), var.dtype()),
        ("a.norm.running_mean", DType::F32)
    );

    // Files without statistics, or with others, change nothing.
    let refused = |from: &Parameters, says: &str| {
        from.save(&path).unwrap();
        let before = all(&restored);
        let error = restored.parameters().load(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(all(&restored), before);
    };
    let plain = || Parameters::new(trained.parameters().iter().cloned()).unwrap();
    let ours = || trained.parameters().statistics().cloned();
    refused(&plain(), "no tensor `a.norm.running_mean`");
    let mut longer: Vec<_> = ours().collect();
    longer[0].1 = Var::zeros(5, DType::F64, &CPU).unwrap();
    let longer = plain().with_statistics(longer).unwrap();
    refused(
        &longer,
        "`a.norm.running_mean` of shape [5], where the model's is [4]",
    );
    let more = [("more".to_owned(), Var::zeros(1, DType::F64, &CPU).unwrap())];
    let more = plain().with_statistics(ours().chain(more)).unwrap();
    refused(&more, "`more`, which the model has not");
    let (_, first) = ours().next().unwrap();
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
    let says = |statistics: Vec<(String, Var)>| {
        let error = parameters().with_statistics(statistics).unwrap_err();
        error.to_string()
    };
    assert!(says(vec![named("a", &b)]).contains("are the same"));
    assert!(says(vec![named("b", &a)]).contains("are the same"));
    assert!(says(vec![named("b", &b), named("c", &b)]).contains("are the same"));
    assert!(says(vec![named("b", &var(DType::F32))]).contains("use one type"));
    let both = parameters().with_statistics([named("b", &b)]).unwrap();
    assert_eq!((both.len(), both.to_flat().unwrap().len()), (3, 3));
}

/// The error of a training in batches of four, the same on both ways.
fn refusal(layers: impl Fn(&mut Making) -> Vec<LayerKind>, samples: usize) -> String {
    let mut making = Making::default();
    let layers = layers(&mut making);
    let model = making.finish(layers);
    let (data, trainer) = (data(samples), Trainer::sgd(0.1).batch_size(4));
    let before = (bits(model.parameters()), statistics(model.parameters()));
    let by_graph = trainer
        .fit(&Opaque(copy(&model)), &data, &data)
        .unwrap_err()
        .to_string();
    let by_hand = trainer.fit(&model, &data, &data).unwrap_err().to_string();
    assert!(by_graph.contains(&by_hand), "{by_graph} is not {by_hand}");
    if samples <= 4 {
        let after = (bits(model.parameters()), statistics(model.parameters()));
        assert_eq!(after, before);
    }
    by_hand
}

#[test]
fn what_cannot_be_normalised_is_refused() {
    let normalised = |m: &mut Making| {
        vec![
            m.linear("a", 32, 5),
            m.norm("n", 5),
            act(),
            m.linear("out", 5, 3),
        ]
    };
    for samples in [1, 5] {
        let error = refusal(normalised, samples);
        assert!(error.contains("one number has no variance"), "{error}");
    }
    let with = |change: &dyn Fn(&mut f64, &mut f64, &mut String)| {
        let changed = |m: &mut Making| {
            let mut layers = normalised(m);
            if let LayerKind::BatchNorm {
                epsilon,
                momentum,
                mean,
                ..
            } = &mut layers[1]
            {
                change(epsilon, momentum, mean);
            }
            layers
        };
        refusal(changed, 4)
    };
    assert!(with(&|_, m, _| *m = 1.5).contains("momentum 1.5"));
    assert!(with(&|_, m, _| *m = f64::NAN).contains("momentum NaN"));
    assert!(with(&|e, _, _| *e = -1.0).contains("epsilon -1"));
    let unknown = with(&|_, _, mean| *mean = "nobody".into());
    assert!(
        unknown.contains("no running statistic is called `nobody`"),
        "{unknown}"
    );
    let misfit = |m: &mut Making| vec![m.linear("a", 32, 5), m.norm("n", 4), m.linear("out", 5, 3)];
    let misfit = refusal(misfit, 4);
    assert!(
        misfit.contains("shape mismatch in broadcast_sub, lhs: [1, 5], rhs: [1, 4]"),
        "{misfit}"
    );
    for rate in [-0.1, 1.0, f64::NAN] {
        let dropped = |m: &mut Making| vec![LayerKind::Dropout { rate }, m.linear("out", 32, 3)];
        let error = refusal(dropped, 4);
        assert!(
            error.contains(&format!("dropout at a rate of {rate}")),
            "{error}"
        );
    }
}

#[test]
fn a_training_that_diverges_leaves_finite_statistics() {
    let data = data(8);
    for (_, model) in networks() {
        // The first of two steps throws θ so far that the second overflows.
        let trainer = Trainer::sgd(1e308).batch_size(4);
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
fn a_mean_far_from_zero_leaves_the_variance_right() {
    let samples = 300;
    let x: Vec<f32> = numbers(samples * 32, 5)
        .iter()
        .map(|x| *x as f32 + 3000.0)
        .collect();
    let inputs = Tensor::from_slice(&x, (samples, 2, 4, 4), &CPU).unwrap();
    let labels = Tensor::from_iter((0..samples as u32).map(|i| i % 3), &CPU).unwrap();
    let data = Dataset::classification(&inputs, &labels).unwrap();
    let mut making = Making::default();
    let mut norm = making.norm("in", 2);
    if let LayerKind::BatchNorm { momentum, .. } = &mut norm {
        *momentum = 1.0;
    }
    let layers = vec![norm, making.linear("out", 32, 3)];
    let model = making.finish(layers).to_dtype(DType::F32).unwrap();
    let trainer = Trainer::sgd(1e-3).batch_size(samples);
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
fn dropout_is_for_training_alone() {
    let dropout = |rate| LayerKind::Dropout { rate };
    let network = |m: &mut Making, rate: f64| {
        vec![
            dropout(rate),
            m.linear("a", 32, 20),
            act(),
            LayerKind::Residual {
                body: vec![dropout(0.0), m.linear("b", 20, 20)],
                shortcut: vec![dropout(rate)],
            },
            m.norm("n", 20),
            m.linear("out", 20, 3),
        ]
    };
    let [model, plain] = [0.3, 0.0].map(|rate| {
        let mut making = Making::default();
        let layers = network(&mut making, rate);
        making.finish(layers)
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
        let trainer = Trainer::adam(0.01).batch_size(10).epochs(2).seed(seed);
        trainer.fit(&model, &data, &data).unwrap();
        (bits(model.parameters()), statistics(model.parameters()))
    };
    assert_eq!(trained(1), trained(1));
    assert_ne!(trained(1), trained(2));
    // Each step draws anew, and each seed: here samples are all alike, whatever their order, and θ stays.
    let losses = |seed| {
        let inputs = Tensor::from_vec(numbers(32, 6), (1, 2, 4, 4), &CPU).unwrap();
        let labels = Tensor::zeros(30, DType::U32, &CPU).unwrap();
        let alike = Dataset::classification(&inputs.repeat((30, 1, 1, 1)).unwrap(), &labels);
        let alike = alike.unwrap();
        let trainer = Trainer::sgd(1e-300).batch_size(30).epochs(2).seed(seed);
        let history = trainer.fit(&copy(&model), &alike, &alike).unwrap();
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
fn dropout_keeps_the_mean() {
    let rate = 0.3;
    let mut making = Making::default();
    making.linear("unused", 1, 1);
    let model = making.finish(vec![LayerKind::Dropout { rate }]);
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
