//! Sharpness against the thresholds of optimizers: where it is exact, and the plateaus of the papers on small networks.

mod common;

use common::{bits, numbers};
use loss_landscape::landscape::{
    BatchSharpness, CentralFlow, CriticalSharpness, StabilityMeasure, StabilityReport,
    stability_threshold,
};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{Value, json};
use loss_landscape::train::{Adam, Optimizer, Schedule, Sgd, Step};

use StabilityMeasure::{Batch, Critical, Sharpness};

const CPU: Device = Device::Cpu;

/// L(b, w) = b² + 4w² at (0, w), with the largest eigenvalue 8.
fn bowl(w: f64) -> (Mlp, Objective) {
    let x = Tensor::new(&[[-2.0], [2.0]], &CPU).unwrap();
    let data = Dataset::regression(&x, &x.zeros_like().unwrap()).unwrap();
    let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    model.parameters().set_flat(&[0.0, w]).unwrap();
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    (model, objective)
}

/// Approximately standard normal numbers, as sums of twelve uniform ones.
fn normal(n: usize, seed: u64) -> Vec<f64> {
    let uniform = numbers(12 * n, seed);
    let sums = uniform.chunks(12).map(|u| u.iter().sum::<f64>() / 2.0);
    sums.collect()
}

/// The squared error of a tanh network on random inputs whose targets are ±1: the sign of x₀x₁, or random.
fn network(samples: usize, inputs: usize, hidden: usize, random: bool) -> (Mlp, Objective) {
    let x = normal(samples * inputs, 1);
    let coin = numbers(samples, 5);
    let sign = |i: usize| match random {
        true => coin[i].signum(),
        false => (x[i * inputs] * x[i * inputs + 1]).signum(),
    };
    let y: Vec<f64> = (0..samples).map(sign).collect();
    let x = Tensor::from_vec(x, (samples, inputs), &CPU).unwrap();
    let y = Tensor::from_vec(y, (samples, 1), &CPU).unwrap();
    let data = Dataset::regression(&x, &y).unwrap();
    let model = Mlp::new(&[inputs, hidden, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    (model, objective)
}

fn full_batch(optimizer: impl Optimizer + 'static, rate: f64, steps: u32) -> Trainer {
    Trainer::new(optimizer, rate)
        .with_batch_size(1000)
        .with_epochs(steps)
}

fn train(settings: Stability, trainer: &Trainer, objective: &Objective) -> StabilityReport {
    settings.train(trainer, objective).unwrap()
}

/// On a quadratic loss a training converges 1 % below the threshold and diverges 1 % above, for each rule.
#[test]
fn thresholds_are_exact_on_quadratics() {
    let check = |optimizer: &dyn Fn() -> Trainer, metric: f64| {
        for factor in [0.99, 1.01] {
            // λ is this fraction of the threshold.
            let mut trainer = optimizer();
            // The threshold is a/η − b for constants a and b.
            let at = |rate| stability_threshold(&*trainer.optimizer, rate).unwrap();
            let slope = (at(1.0) - at(2.0)) / 0.5;
            let rate = slope / (8.0 / metric / factor + slope - at(1.0));
            trainer.learning_rate = rate;
            let (model, objective) = bowl(1e-12);
            let trainer = trainer.with_epochs(1500);
            let report = train(Stability::default(), &trainer, &objective);
            let last = report.points[report.points.len() - 1];
            let w = model.parameters().to_flat().unwrap()[1].abs();
            if factor > 1.0 {
                assert!(w > 1e-5, "{trainer:?}: {w}");
                continue;
            }
            assert!(w < 1e-7, "{trainer:?}: {w}");
            let expected = 8.0 / metric;
            assert!(
                (last.value - expected).abs() < 1e-5,
                "{trainer:?}: {last:?}"
            );
            assert!(
                (last.ratio() - factor).abs() < 1e-5,
                "{trainer:?}: {last:?}"
            );
        }
    };
    let sgd = |momentum: f64, nesterov: bool| {
        let sgd = Sgd::default().with_momentum(momentum);
        Trainer::new(sgd.with_nesterov(nesterov), 1.0)
    };
    check(&|| sgd(0.0, false), 1.0);
    check(&|| sgd(0.5, false), 1.0);
    check(&|| sgd(0.9, false), 1.0);
    check(&|| sgd(0.5, true), 1.0);
    check(&|| sgd(0.9, true), 1.0);
    // A large ε is the whole preconditioner. The first steps, in which the bias correction makes P small, are not stable.
    let adam = Adam::default().with_epsilon(10.0).with_beta2(0.98);
    check(&|| Trainer::new(adam, 1.0), 10.0);
    check(&|| Trainer::new(adam.with_beta1(0.0), 1.0), 10.0);
    check(&|| Trainer::new(adam.with_weight_decay(0.02), 1.0), 10.0);
}

/// A penalty λ‖θ‖² adds 2λ to the Hessian, whether of the objective or of the trainer. The schedule's rate sets the threshold.
#[test]
fn penalties_and_schedules_count() {
    let (_, objective) = bowl(1.0);
    let objective = objective.with_l2(0.25).unwrap();
    let schedule = Schedule::Decay {
        every: 10,
        factor: 0.5,
    };
    let trainer = Trainer::sgd(0.1).with_l2(0.75).with_epochs(21);
    let trainer = trainer.with_schedule(schedule);
    let report = train(Stability::default().with_interval(10), &trainer, &objective);
    let found = report.points.iter().map(|p| (p.step, p.value, p.threshold));
    for ((step, value, threshold), rate) in found.zip([0.1, 0.05, 0.025]) {
        assert!((value - 10.0).abs() < 1e-6, "{step}: {value}");
        assert!((threshold - 2.0 / rate).abs() < 1e-9, "{step}: {threshold}");
    }
    assert_eq!(report.points.len(), 3);
    assert!(
        report.median_ratio(Sharpness, 20).is_some() && report.median_ratio(Batch, 0).is_none()
    );
}

/// The preconditioner of Adam in its first step, from one gradient: P = (1 − β₁)(|g| + ε).
#[test]
fn adam_is_corrected_for_its_first_steps() {
    let (model, objective) = bowl(0.5);
    model.parameters().set_flat(&[1.0, 0.5]).unwrap(); // g = (2, 4)
    let report = train(Stability::default(), &Trainer::adam(1e-3), &objective);
    let expected = f64::max(2.0 / (0.1 * 2.0), 8.0 / (0.1 * 4.0));
    assert!(
        (report.points[0].value - expected).abs() < 1e-6,
        "{report:?}"
    );
    assert!((report.points[0].threshold - 38e3).abs() < 1e-6);
}

/// Full-batch trainings of a small tanh network reach the thresholds within 5 % and stay there.
#[test]
fn full_batch_trainings_are_at_the_edge() {
    let momentum = Sgd::default().with_momentum(0.5);
    for (trainer, from) in [
        (full_batch(Sgd::default(), 0.2, 3000), 1500),
        (full_batch(momentum, 0.3, 3000), 2000),
        (full_batch(momentum.with_nesterov(true), 0.2, 3000), 2000),
        (
            full_batch(Adam::default().with_beta2(0.99), 0.02, 3000),
            1000,
        ),
        // RMSProp
        (
            full_batch(Adam::default().with_beta1(0.0), 1e-3, 3000),
            2000,
        ),
    ] {
        let (_, objective) = network(64, 4, 16, false);
        let report = train(Stability::default(), &trainer, &objective);
        let ratio = report.median_ratio(Sharpness, from).unwrap();
        println!("{:?}: {ratio:.4}", trainer.optimizer);
        assert!((ratio - 1.0).abs() < 0.05, "{trainer:?}: {ratio}");
        let first = report.points[0].ratio();
        assert!(report.points.iter().all(|p| p.error < 0.02 * p.value.abs()));
        assert!(first < 0.95, "{first}");
    }
}

/// Losses along the steps of gradient descent show the same threshold, as does the curvature along the gradient.
#[test]
fn critical_sharpness_is_at_the_edge() {
    let (_, objective) = network(64, 4, 16, false);
    let settings = Stability::default().with_measures([Batch, Critical]);
    let trainer = full_batch(Sgd::default(), 0.2, 3000);
    let report = train(settings, &trainer, &objective);
    for measure in [Batch, Critical] {
        let ratio = report.median_ratio(measure, 1500).unwrap();
        assert!((ratio - 1.0).abs() < 0.05, "{measure}: {ratio}");
    }
    let critical = report.points.iter().filter(|p| p.measure == Critical);
    assert!(
        critical
            .filter(|p| p.step >= 1500)
            .all(|p| p.error < 0.03 * p.value)
    );
}

/// With batches the batch sharpness reaches 2/η within 5 %, and λ_max stays far below.
#[test]
fn batches_are_at_the_stochastic_edge() {
    let (_, objective) = network(128, 10, 64, true);
    let settings = Stability::default().with_measures([Batch, Sharpness]);
    let trainer = Trainer::sgd(0.1).with_batch_size(16).with_epochs(1000);
    let report = train(settings, &trainer, &objective);
    let ratio = report.median_ratio(Batch, 3000).unwrap();
    println!("batch sharpness: {ratio:.4}");
    assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
    let ratio = report.median_ratio(Sharpness, 3000).unwrap();
    assert!(ratio < 0.85, "{ratio}");
}

/// Batch sharpness by losses along the steps is that by products, and its definition for batches of one sample.
#[test]
fn batch_sharpness_has_its_definition() {
    let (_, objective) = network(40, 4, 5, false);
    let of = |rows: &[usize]| {
        let batch = objective.data().select(rows).unwrap();
        let batch = objective.with_data(&batch).unwrap();
        let g = batch.gradient().unwrap();
        (
            common::dot(&g, &batch.hvp(&g).unwrap()),
            common::dot(&g, &g),
        )
    };
    let sums = (0..40)
        .map(|i| of(&[i]))
        .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
    let found = BatchSharpness::new(1)
        .with_batches(2000)
        .run(&objective)
        .unwrap();
    let [low, high] = found.interval(0.999).unwrap();
    assert!(low < sums.0 / sums.1 && sums.0 / sums.1 < high, "{found}");
    assert_eq!(found.products, 2000);

    let all: Vec<usize> = (0..40).collect();
    let exact = of(&all);
    let found = BatchSharpness::new(40).run(&objective).unwrap();
    assert!((found.value - exact.0 / exact.1).abs() < 1e-10 * found.value.abs());
    assert_eq!((found.standard_error, found.products), (0.0, 1));
    let settings = Stability::default().with_measures([Batch]);
    let report = train(settings, &full_batch(Sgd::default(), 0.05, 1), &objective);
    let value = report.points[0].value;
    assert!(
        (value - found.value).abs() < 1e-3 * found.value.abs(),
        "{value} {found}"
    );

    for (settings, words) in [
        (BatchSharpness::new(0), "use 1 to 40"),
        (BatchSharpness::new(41), "use 1 to 40"),
        (BatchSharpness::new(4).with_batches(2), "use 3 or more"),
    ] {
        let error = settings.run(&objective).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let (_, minimum) = bowl(0.0);
    let error = BatchSharpness::new(1)
        .run(&minimum)
        .unwrap_err()
        .to_string();
    assert!(error.contains("not defined"), "{error}");
}

/// The error of the curvature along full-batch steps covers that of the dense Hessian along the gradient, for steps so short that the
/// losses are equal and so long that the network saturates.
#[test]
fn full_batch_curvature_has_its_error_at_any_step_size() {
    let (exact, exact_objective) = network(40, 4, 5, false);
    let data = exact_objective.data();
    let (mut found, mut useful) = (0, 0);
    for (dtype, seed) in [DType::F32, DType::F64]
        .into_iter()
        .flat_map(|dtype| (0..4).map(move |seed| (dtype, seed)))
    {
        let model = Mlp::new(&[4, 5, 1], Activation::Tanh, seed, &CPU).unwrap();
        let model = model.to_dtype(dtype).unwrap();
        let start = model.parameters().to_flat().unwrap();
        exact.parameters().set_flat(&start).unwrap();
        let rounded = data.to_dtype(dtype).unwrap();
        let exact_objective = exact_objective
            .with_data(&rounded.to_dtype(DType::F64).unwrap())
            .unwrap();
        let g = exact_objective.gradient().unwrap();
        let hessian = Dense::from_operator(&exact_objective.hessian()).unwrap();
        let truth = common::dot(&g, &hessian.apply(&g).unwrap()) / common::dot(&g, &g);
        let objective = Objective::of(&model, &rounded, Loss::Mse).unwrap();
        for power in -20..=10 {
            let rate = 10f64.powf(f64::from(power) / 2.0);
            model.parameters().set_flat(&start).unwrap();
            let trainer = full_batch(Sgd::default(), rate, 1);
            let settings = Stability::default().with_measures([Batch]);
            let report = train(settings, &trainer, &objective);
            // A step may be shorter than the rounding of θ.
            let Some(point) = report.points.first() else {
                assert!(rate < 1e-5, "{dtype:?}, {rate}");
                continue;
            };
            let difference = (point.value - truth).abs();
            println!(
                "{dtype:?} {seed} {rate:.1e}: {:.4} ± {:.1e}, {truth:.4}",
                point.value, point.error
            );
            assert!(
                difference <= point.error,
                "{dtype:?}, {seed}, {rate}: {point:?}, not {truth}"
            );
            found += 1;
            useful += usize::from(point.error <= 0.2 * truth.abs());
        }
    }
    println!("{useful} of {found} within 20 %");
    assert!(useful > found / 2);
}

/// The 95 % intervals of batch sharpness contain the value of 30,000 batches in 95 % of 600 runs, up to three standard deviations.
#[test]
fn batch_sharpness_has_calibrated_intervals() {
    const RUNS: u64 = 600;
    let (_, objective) = network(64, 4, 5, false);
    let settings = BatchSharpness::new(8);
    let many = settings.clone().with_batches(30_000).with_seed(RUNS);
    let truth = many.run(&objective).unwrap().value;
    for batches in [20, 100] {
        let covers = |seed: &u64| {
            let settings = settings.clone().with_batches(batches).with_seed(*seed);
            let [low, high] = settings.run(&objective).unwrap().interval(0.95).unwrap();
            (low..=high).contains(&truth)
        };
        let share = (0..RUNS).filter(covers).count() as f64 / RUNS as f64;
        println!("{batches} batches: {share:.3}");
        assert!(
            (0.923..0.977).contains(&share),
            "{batches} batches: {share}"
        );
    }
}

/// The critical rate of a quadratic loss from any rate, and of directions that ascend or never do.
#[test]
fn critical_sharpness_is_exact_on_quadratics() {
    let (_, objective) = bowl(1.0);
    let gradient = objective.gradient().unwrap();
    for rate in [0.01, 0.1, 0.25, 0.3, 0.9] {
        let found = CriticalSharpness::measure(&objective, &gradient, rate).unwrap();
        let context = format!("from {rate}: {found}, {} losses", found.losses);
        assert!((found.sharpness.value - 8.0).abs() < 1e-8, "{context}");
        assert!(found.losses <= 6, "{context}");
        assert!(
            found.sharpness.low <= 8.0 && found.sharpness.high >= 8.0,
            "{context}"
        );
        if (0.05..0.6).contains(&rate) {
            assert!(
                found.sharpness.high < 1.02 * found.sharpness.low,
                "{context}"
            );
        }
    }
    let ascent: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let found = CriticalSharpness::measure(&objective, &ascent, 0.1).unwrap();
    assert_eq!(
        (found.rate.value, found.sharpness.value),
        (0.0, f64::INFINITY)
    );
    // b does not change the loss: neither an increase nor a decrease.
    let found = CriticalSharpness::measure(&objective, &[1.0, 8.0], 1e-30).unwrap();
    assert!(
        found.rate.low == 0.0 && found.rate.high.is_infinite(),
        "{found}"
    );
    for (direction, rate, words) in [
        (vec![0.0, 0.0], 0.1, "the step is zero"),
        (vec![0.0], 0.1, "direction"),
        (vec![f64::NAN, 1.0], 0.1, "finite"),
        (vec![0.0, 1.0], 0.0, "the learning rate is 0"),
        (vec![0.0, 1.0], f64::NAN, "the learning rate is NaN"),
    ] {
        let error = CriticalSharpness::measure(&objective, &direction, rate).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// Watching changes no bit of a training, and the same training gives the same numbers.
#[test]
fn watching_does_not_change_the_training() {
    let settings = Stability::default().with_measures([Sharpness, Batch, Critical]);
    let settings = settings.with_interval(7).with_samples(30);
    for autograd in [false, true] {
        let trainer = Trainer::sgd(0.05).with_batch_size(12).with_epochs(10);
        let objective = || {
            let (model, objective) = network(40, 4, 5, false);
            match autograd {
                true => (model, objective.by_autograd()),
                false => (model, objective),
            }
        };
        let (model, plain) = objective();
        trainer.fit_objective(&plain, &plain).unwrap();
        let runs = [(); 2].map(|()| {
            let (model, watched) = objective();
            (
                train(settings.clone(), &trainer, &watched),
                bits(model.parameters()),
            )
        });
        assert_eq!(runs[0].1, bits(model.parameters()));
        assert_eq!(runs[0].0.points, runs[1].0.points);
        assert_eq!(runs[0].0.samples, 30);
        let last = runs[0].0.points.last().unwrap();
        assert_eq!((last.step, last.measure), (35, Critical));
    }
}

/// Without settings the measure fits the training.
#[test]
fn the_default_measure_fits_the_training() {
    let (_, objective) = network(40, 4, 5, false);
    let sgd = Trainer::sgd(1e-3).with_batch_size(10);
    let adam = Trainer::adam(1e-3).with_batch_size(10);
    for (trainer, measure) in [
        (sgd.clone(), Batch),
        (sgd.clone().with_batch_size(40), Sharpness),
        (sgd.with_sam(0.1), Critical),
        (adam.clone(), Sharpness),
        (adam.with_clip_norm(1.0), Critical),
        (Trainer::new(Signs, 1e-3), Critical),
        (
            Trainer::new(Sgd::default().with_momentum(0.9), 1e-3),
            Sharpness,
        ),
    ] {
        let settings = Stability::default().with_interval(1);
        let report = train(settings, &trainer, &objective);
        assert!(
            report.points.iter().all(|p| p.measure == measure),
            "{trainer:?}"
        );
        assert!(!report.points.is_empty(), "{trainer:?}");
    }
}

/// θ ← θ − η sign(g)
#[derive(Debug)]
struct Signs;

impl Optimizer for Signs {
    fn settings(&self) -> Value {
        json!("Signs")
    }

    fn update(
        &self,
        theta: &Tensor,
        gradient: &Tensor,
        _moments: &mut [Tensor],
        step: Step,
    ) -> candle::Result<Tensor> {
        theta - (gradient.sign()? * step.learning_rate)?
    }
}

#[test]
fn what_does_not_apply_is_refused() {
    let (_, objective) = network(40, 4, 5, false);
    let gd = || full_batch(Sgd::default(), 0.1, 2);
    let settings = Stability::default;
    for (settings, trainer, words) in [
        (settings().with_interval(0), gd(), "0 steps"),
        (
            settings().with_measures([Batch, Critical, Batch]),
            gd(),
            "batch sharpness twice",
        ),
        (settings().with_samples(0), gd(), "give 1 to 40"),
        (settings().with_samples(41), gd(), "give 1 to 40"),
        (
            settings(),
            gd().with_checkpoint("/tmp/none"),
            "without with_checkpoint",
        ),
        (settings(), Trainer::sgd(-1.0), "the learning rate is -1"),
        (
            settings().with_measures([Sharpness]),
            gd().with_sam(0.1),
            "sharpness-aware",
        ),
        (
            settings().with_measures([Sharpness]),
            gd().with_clip_norm(1.0),
            "clipped",
        ),
        (
            settings().with_measures([Sharpness]),
            Trainer::new(Signs, 0.1),
            "Signs",
        ),
        (
            settings().with_measures([Batch]),
            Trainer::adam(0.1),
            "with Adam",
        ),
        (
            settings().with_measures([Batch]),
            Trainer::new(Sgd::default().with_momentum(0.9), 0.1),
            "with momentum",
        ),
    ] {
        let error = settings
            .train(&trainer, &objective)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    for (optimizer, rate) in [
        (&Signs as &dyn Optimizer, 0.1),
        (&Sgd::default(), 0.0),
        (&Sgd::default(), f64::INFINITY),
        (&Sgd::default().with_momentum(1.0), 0.1),
    ] {
        assert!(stability_threshold(optimizer, rate).is_err());
    }
}

/// A training that diverges, a minimum, and a single sample.
#[test]
fn hard_trainings_have_reports() {
    let (_, objective) = bowl(1.0);
    let settings = Stability::default().with_measures([Sharpness, Batch, Critical]);
    let report = train(
        settings.clone(),
        &Trainer::sgd(1.0).with_epochs(1000),
        &objective,
    );
    let reason = report.stopped.as_ref().unwrap();
    assert!(reason.contains("diverged"), "{reason}");
    assert!(report.points.len() > 10 && report.notes().concat().contains("stopped"));
    assert!((report.median_ratio(Sharpness, 0).unwrap() - 4.0).abs() < 1e-6);

    // At the minimum every gradient and step is zero.
    for trainer in [Trainer::sgd(0.1), Trainer::adam(0.1)] {
        let (_, objective) = bowl(0.0);
        let settings = match trainer == Trainer::sgd(0.1) {
            true => settings.clone(),
            false => Stability::default().with_measures([Sharpness, Critical]),
        };
        let report = train(settings, &trainer.with_epochs(41), &objective);
        assert!(
            report
                .points
                .iter()
                .all(|p| p.measure == Sharpness && p.value.is_finite())
        );
        assert_eq!(report.points.len(), 3);
    }

    let (_, objective) = network(1, 4, 5, false);
    let report = train(settings, &Trainer::sgd(0.1).with_epochs(41), &objective);
    assert_eq!(report.points.len(), 9);
    assert!(
        report.points.iter().all(|p| p.value.is_finite()),
        "{report:?}"
    );
}

/// The central flow stays at the edge, and predicts the mean loss of gradient descent within 3 %.
#[test]
fn the_central_flow_predicts_gradient_descent() {
    let (model, objective) = network(64, 4, 16, false);
    let before = bits(model.parameters());
    let flow = CentralFlow::new(0.2).with_interval(100);
    let report = flow.run(&objective, 2000).unwrap();
    assert_eq!(bits(model.parameters()), before);
    assert_eq!(report.points.len(), 20);
    let mut sums = [0.0; 3];
    for point in &report.points {
        assert!(point.sharpness < 10.0 * (1.0 + 1e-6), "{point:?}");
        if point.step >= 1000 {
            assert!(point.sharpness > 10.0 * (1.0 - 1e-6), "{point:?}");
            assert_eq!(point.at_edge, 1);
            let losses = [point.descent_loss, point.predicted_loss, point.flow_loss];
            sums.iter_mut()
                .zip(losses)
                .for_each(|(sum, loss)| *sum += loss);
        }
    }
    let [descent, predicted, flow] = sums;
    assert!((predicted / descent - 1.0).abs() < 0.03, "{sums:?}");
    // Without the oscillation the loss is too small.
    assert!(flow < 0.93 * descent, "{sums:?}");
}

#[test]
fn a_central_flow_without_a_meaning_is_refused() {
    let (_, objective) = network(40, 4, 5, false);
    for (flow, words) in [
        (CentralFlow::new(0.0), "the learning rate is 0"),
        (CentralFlow::new(f64::NAN), "the learning rate is NaN"),
        (CentralFlow::new(0.1).with_interval(0), "at least 1 step"),
        (CentralFlow::new(0.1).with_pairs(0), "give 1 to 31"),
        (CentralFlow::new(0.1).with_pairs(32), "give 1 to 31"),
    ] {
        let error = flow.run(&objective, 10).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // Gradient descent diverges.
    let (_, bowl) = bowl(1.0);
    let error = CentralFlow::new(1.0)
        .with_pairs(1)
        .run(&bowl, 1000)
        .unwrap_err();
    assert!(matches!(error, Error::NotFinite(_)), "{error}");
}
