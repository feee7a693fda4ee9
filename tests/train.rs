//! Training: seeds, optimizers, objectives, histories and errors.

mod common;

use common::Opaque;
use loss_landscape::data::Text;
use loss_landscape::prelude::*;
use loss_landscape::train::{Adam, DecayGroup, History, Optimizer, Schedule, Sgd, Step};
use loss_landscape::{serde, serde_json};

const CPU: Device = Device::Cpu;

#[test]
fn the_same_seed_gives_the_same_bits() {
    let theta = |seed: u64| {
        let model = Mlp::new(&[4, 7, 3], Activation::Tanh, seed, &CPU).unwrap();
        model.parameters().to_flat().unwrap()
    };
    assert_eq!(theta(1), theta(1));
    assert_ne!(theta(1), theta(2));
    assert!(theta(1)[..7].iter().all(|b| b.abs() <= 0.5));

    let trained = |seed: u64| {
        let data = two_moons(100, 0.1, 3, &CPU)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        let model = Mlp::new(&[2, 16, 2], Activation::Relu, 1, &CPU).unwrap();
        let trainer = Trainer::adam(0.01)
            .with_epochs(3)
            .with_batch_size(16)
            .with_seed(seed);
        trainer.fit(&model, &data, &data).unwrap();
        model.parameters().to_flat().unwrap()
    };
    assert_eq!(trained(5), trained(5));
    assert_ne!(trained(5), trained(6));
}

/// A training of some steps is the beginning of a longer one, and its last epoch counts the samples that it used.
#[test]
fn a_number_of_steps_ends_within_an_epoch() {
    let data = two_moons(60, 0.1, 0, &CPU).unwrap();
    let model = || {
        let model = Mlp::new(&[2, 5, 1], Activation::Tanh, 1, &CPU).unwrap();
        model.to_dtype(DType::F64).unwrap()
    };
    let trainer = Trainer::adam(0.05).with_batch_size(20);
    let (short, long) = (model(), model());
    let history = trainer.clone().with_steps(5);
    let history = history.fit(&short, &data, &data).unwrap();
    let mut trajectory = Trajectory::every(1).unwrap();
    let longer = trainer.with_epochs(3);
    let whole = longer.fit_recorded(&long, &data, &data, &mut trajectory);
    let whole = whole.unwrap();
    assert_eq!(
        short.parameters().to_flat().unwrap(),
        trajectory.snapshot(5).unwrap()
    );
    assert_eq!(history.epochs.len(), 2);
    assert_eq!(history.epochs[0].train_loss, whole.epochs[0].train_loss);

    // Steps that are too small to move: the samples of a part of an epoch have nearly the mean loss of all.
    let objective = Objective::of(&model(), &data, Loss::CrossEntropy).unwrap();
    let all = objective.score().unwrap();
    for steps in [1, 2, 3] {
        let trainer = Trainer::sgd(1e-300).with_batch_size(20).with_steps(steps);
        let epoch = trainer
            .fit(&model(), &data, &data)
            .unwrap()
            .epochs
            .remove(0);
        let tolerance = if steps == 3 { 1e-12 } else { 0.2 };
        assert!((epoch.train_loss - all.loss).abs() < tolerance * all.loss);
        let accuracies = [epoch.train_accuracy, all.accuracy].map(Option::unwrap);
        assert!((accuracies[0] - accuracies[1]).abs() < tolerance.max(1e-12));
    }
}

#[test]
fn training_learns() {
    let data = two_moons(200, 0.05, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 16, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let history = Trainer::adam(0.02)
        .with_epochs(150)
        .with_batch_size(20)
        .fit(&model, &data, &data);
    let history = history.unwrap();
    let last = history.epochs.last().unwrap();
    assert!(last.test_accuracy.unwrap() > 0.99, "{last:?}");
    assert_eq!(history.table().unwrap().shape(), (150, 8));
}

/// Gradient descent on a quadratic converges below η = 2/λ₁ and diverges above.
#[test]
fn gradient_descent_diverges_above_two_over_the_sharpness() {
    let inputs = Tensor::new(&[[2f64, 0.0], [0.0, 1.0]], &CPU).unwrap();
    let data = Dataset::regression(&inputs, &Tensor::new(&[1f64, -1.0], &CPU).unwrap()).unwrap();
    let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    let limit = 2.0 / common::hessian_values(&objective)[0];
    let start = model.parameters().to_flat().unwrap();

    let below = Trainer::sgd(0.95 * limit)
        .with_batch_size(2)
        .with_epochs(500);
    below.fit(&model, &data, &data).unwrap();
    assert!(objective.loss().unwrap() < 1e-6);

    model.parameters().set_flat(&start).unwrap();
    let above = Trainer::sgd(1.05 * limit)
        .with_batch_size(2)
        .with_epochs(50_000);
    let error = above.fit(&model, &data, &data).unwrap_err().to_string();
    assert!(
        error.contains("training diverged: the loss is no longer finite at step "),
        "{error}"
    );
}

#[test]
fn invalid_settings_are_refused() {
    let data = two_moons(10, 0.1, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 2], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    for trainer in [
        Trainer::sgd(0.0),
        Trainer::sgd(-1.0),
        Trainer::adam(f64::NAN),
        Trainer::sgd(0.1).with_batch_size(0),
        Trainer::new(Sgd::default().with_momentum(1.0), 0.1),
        Trainer::new(Sgd::default().with_momentum(-0.1), 0.1),
        Trainer::new(Adam::default().with_beta1(1.0), 0.1),
        Trainer::new(Adam::default().with_epsilon(0.0), 0.1),
        Trainer::adamw(0.1, -1.0),
        Trainer::sgd(0.1).with_sam(0.0),
        Trainer::sgd(0.1).with_asam(f64::NAN),
        Trainer::sgd(0.1).with_l2(-0.1),
        Trainer::sgd(0.1).with_patience(0),
        Trainer::sgd(0.1).with_clip_norm(0.0),
        Trainer::sgd(0.1).with_clip_norm(-1.0),
        Trainer::sgd(0.1).with_clip_norm(f64::NAN),
        Trainer::sgd(0.1).with_schedule(Schedule::CosineTo { floor: 1.5 }),
        Trainer::sgd(0.1).with_schedule(Schedule::CosineTo { floor: f64::NAN }),
        Trainer::sgd(0.1).with_schedule(Schedule::Decay {
            every: 0,
            factor: 0.1,
        }),
    ] {
        assert!(trainer.fit(&model, &data, &data).is_err());
    }
    for widths in [&[][..], &[3], &[3, 0, 2]] {
        assert!(Mlp::new(widths, Activation::Tanh, 0, &CPU).is_err());
    }
    assert!(model.to_dtype(DType::U32).is_err());
    let error = model
        .parameters()
        .get("layers.7.weight")
        .unwrap_err()
        .to_string();
    assert!(error.contains("layers.0.bias, layers.0.weight"), "{error}");
}

/// A small network, its data and its initial θ.
struct Descent {
    model: Mlp,
    data: Dataset,
    objective: Objective,
    start: Vec<f64>,
}

impl Descent {
    fn new() -> Self {
        let data = two_moons(40, 0.1, 0, &CPU).unwrap();
        let model = Mlp::new(&[2, 5, 2], Activation::Tanh, 3, &CPU).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        let start = model.parameters().to_flat().unwrap();
        Self {
            model,
            data,
            objective,
            start,
        }
    }

    /// θ after some full-batch steps, by the engine. Checks that candle's graph gives the same.
    fn after(&self, trainer: Trainer, steps: u32) -> Vec<f64> {
        let trainer = trainer.with_batch_size(40).with_epochs(steps);
        let parameters = self.model.parameters();
        parameters.set_flat(&self.start).unwrap();
        let opaque = Opaque(self.model.clone());
        trainer.fit(&opaque, &self.data, &self.data).unwrap();
        let by_graph = parameters.to_flat().unwrap();
        parameters.set_flat(&self.start).unwrap();
        trainer.fit(&self.model, &self.data, &self.data).unwrap();
        let by_hand = parameters.to_flat().unwrap();
        close(&by_graph, &by_hand);
        by_hand
    }

    fn gradient(&self, theta: &[f64]) -> Vec<f64> {
        self.objective.gradient_at(theta).unwrap().1
    }
}

fn close(a: &[f64], b: &[f64]) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }
}

fn plus(a: &[f64], factor: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + factor * b).collect()
}

#[test]
fn momentum_matches_the_formula() {
    let descent = Descent::new();
    for nesterov in [false, true] {
        let (rate, momentum) = (0.3, 0.8);
        let mut theta = descent.start.clone();
        let mut velocity = vec![0.0; theta.len()];
        for _ in 0..5 {
            let gradient = descent.gradient(&theta);
            velocity = plus(&gradient, momentum, &velocity);
            let step = match nesterov {
                true => plus(&gradient, momentum, &velocity),
                false => velocity.clone(),
            };
            theta = plus(&theta, -rate, &step);
        }
        let sgd = Sgd::default()
            .with_momentum(momentum)
            .with_nesterov(nesterov);
        close(&descent.after(Trainer::new(sgd, rate), 5), &theta);
    }
}

#[test]
fn sharpness_aware_steps_match_the_formula() {
    let descent = Descent::new();
    for adaptive in [false, true] {
        let (rate, radius) = (0.3, 0.2);
        let mut theta = descent.start.clone();
        for _ in 0..3 {
            let gradient = descent.gradient(&theta);
            let scale = |t: &f64| if adaptive { t.abs() } else { 1.0 };
            let scaled: Vec<f64> = theta
                .iter()
                .zip(&gradient)
                .map(|(t, g)| scale(t) * g)
                .collect();
            let norm = scaled.iter().map(|p| p * p).sum::<f64>().sqrt();
            let ascent: Vec<f64> = theta
                .iter()
                .zip(&scaled)
                .map(|(t, p)| scale(t) * p)
                .collect();
            let ahead = descent.gradient(&plus(&theta, radius / norm, &ascent));
            theta = plus(&theta, -rate, &ahead);
        }
        let trainer = Trainer::sgd(rate);
        let trainer = match adaptive {
            true => trainer.with_asam(radius),
            false => trainer.with_sam(radius),
        };
        close(&descent.after(trainer, 3), &theta);
    }
}

#[test]
fn l2_and_schedules_match_the_formula() {
    let descent = Descent::new();
    let (rate, strength) = (0.3, 0.05);
    let mut theta = descent.start.clone();
    for step in 0..4 {
        let gradient = plus(&descent.gradient(&theta), 2.0 * strength, &theta);
        let warmup = [0.5, 1.0, 1.0, 1.0][step];
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / 4.0).cos());
        theta = plus(&theta, -rate * warmup * cosine, &gradient);
    }
    let trainer = Trainer::sgd(rate).with_l2(strength).with_warmup(2);
    close(
        &descent.after(trainer.with_schedule(Schedule::Cosine), 4),
        &theta,
    );

    // nanoGPT's get_lr, with 2 steps of warm-up and 5 steps.
    let min_rate = 0.2 * rate;
    let mut theta = descent.start.clone();
    for step in 0..5 {
        let decayed = f64::from(step - 2) / 3.0;
        let coefficient = 0.5 * (1.0 + (std::f64::consts::PI * decayed).cos());
        let rate = match step < 2 {
            true => rate * f64::from(step + 1) / 2.0,
            false => min_rate + coefficient * (rate - min_rate),
        };
        theta = plus(&theta, -rate, &descent.gradient(&theta));
    }
    let trainer = Trainer::sgd(rate).with_warmup(2);
    let schedule = Schedule::CosineTo { floor: 0.2 };
    close(&descent.after(trainer.with_schedule(schedule), 5), &theta);

    let mut theta = descent.start.clone();
    for step in 0..5 {
        let rate = rate * 0.1f64.powi(step / 2);
        theta = plus(&theta, -rate, &descent.gradient(&theta));
    }
    let decay = Schedule::Decay {
        every: 2,
        factor: 0.1,
    };
    close(
        &descent.after(Trainer::sgd(rate).with_schedule(decay), 5),
        &theta,
    );
}

/// Decoupled weight decay shrinks the weights before Adam's step.
#[test]
fn weight_decay_is_decoupled() {
    let descent = Descent::new();
    let (rate, decay) = (0.01, 0.5);
    let plain = descent.after(Trainer::adam(rate), 1);
    let step = plus(&plain, -1.0, &descent.start);
    let shrunk: Vec<f64> = descent
        .start
        .iter()
        .map(|t| t * (1.0 - rate * decay))
        .collect();
    close(
        &descent.after(Trainer::adamw(rate, decay), 1),
        &plus(&shrunk, 1.0, &step),
    );
}

/// The weights of layers decay, and the biases do not.
#[test]
fn weight_decay_of_matrices_leaves_biases() {
    let descent = Descent::new();
    let (rate, decay) = (0.01, 0.5);
    let mut expected = descent.after(Trainer::adam(rate), 1);
    for (name, range) in descent.model.parameters().blocks() {
        if name.ends_with(".weight") {
            for i in range {
                expected[i] -= rate * decay * descent.start[i];
            }
        }
    }
    let adam = Adam::default()
        .with_weight_decay(decay)
        .with_decay_group(DecayGroup::Matrices);
    close(&descent.after(Trainer::new(adam, rate), 1), &expected);
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The gradient that a step uses is clipped: with sharpness-aware steps the second one.
#[test]
fn clipping_matches_the_formula() {
    let descent = Descent::new();
    let (rate, momentum, strength) = (0.5, 0.5, 0.05);
    for radius in [0.0, 0.2] {
        let gradient_at = |theta: &[f64]| plus(&descent.gradient(theta), 2.0 * strength, theta);
        let gradient_of_step = |theta: &[f64]| {
            let gradient = gradient_at(theta);
            match radius > 0.0 {
                true => gradient_at(&plus(theta, radius / norm(&gradient), &gradient)),
                false => gradient,
            }
        };
        let limit = 0.8 * norm(&gradient_of_step(&descent.start));
        let mut theta = descent.start.clone();
        let mut velocity = vec![0.0; theta.len()];
        let mut clipped = 0;
        for _ in 0..20 {
            let gradient = gradient_of_step(&theta);
            let length = norm(&gradient);
            clipped += usize::from(length > limit);
            let factor = (limit / (length + 1e-6)).min(1.0);
            velocity = plus(&vec![0.0; theta.len()], momentum, &velocity);
            velocity = plus(&velocity, factor, &gradient);
            theta = plus(&theta, -rate, &velocity);
        }
        assert!((1..20).contains(&clipped), "{clipped} of 20 are clipped");
        let in_place = Trainer::new(Sgd::default().with_momentum(momentum), rate);
        for trainer in [in_place, Trainer::new(Heavy(momentum), rate)] {
            let trainer = trainer.with_l2(strength).with_clip_norm(limit);
            let trainer = match radius > 0.0 {
                true => trainer.with_sam(radius),
                false => trainer,
            };
            close(&descent.after(trainer, 20), &theta);
        }
    }

    // The history has the norm before clipping.
    descent.model.parameters().set_flat(&descent.start).unwrap();
    let trainer = Trainer::sgd(rate).with_clip_norm(0.01);
    let history = trainer.fit(&descent.model, &descent.data, &descent.data);
    let expected = norm(&descent.gradient(&descent.start));
    close(&[history.unwrap().epochs[0].gradient_norm], &[expected]);
}

/// The training ends when patience is exhausted, with the weights of the best epoch.
#[test]
fn patience_restores_the_best_weights() {
    let descent = Descent::new();
    let limit = StableRate::estimate(&descent.objective)
        .unwrap()
        .limit
        .value;
    // The learning rate is too large to converge: the loss oscillates.
    let trainer = Trainer::sgd(8.0 * limit)
        .with_batch_size(8)
        .with_seed(1)
        .with_epochs(200);
    let trainer = trainer.with_patience(3);
    let mut trajectory = Trajectory::every(5).unwrap();
    let history = trainer
        .fit_recorded(
            &descent.model,
            &descent.data,
            &descent.data,
            &mut trajectory,
        )
        .unwrap();
    let losses: Vec<f64> = history.epochs.iter().map(|e| e.train_loss).collect();
    let best = history.best.unwrap() as usize;
    let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(losses[best - 1], lowest);
    assert!(
        losses.len() < 200 && losses.len() == best + 3,
        "{best} of {losses:?}"
    );
    let theta = descent.model.parameters().to_flat().unwrap();
    assert_eq!(theta, trajectory.snapshot(best).unwrap());
}

/// With one batch per epoch, the history holds its loss, gradient norm and accuracy.
#[test]
fn the_history_of_full_batches() {
    let descent = Descent::new();
    let trainer = Trainer::sgd(0.1)
        .with_l2(0.01)
        .with_batch_size(40)
        .with_epochs(1);
    let history = trainer
        .fit(&descent.model, &descent.data, &descent.data)
        .unwrap();
    let epoch = &history.epochs[0];
    let objective = descent.objective.clone().with_l2(0.01).unwrap();
    let (loss, gradient) = objective.gradient_at(&descent.start).unwrap();
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    close(&[epoch.train_loss, epoch.gradient_norm], &[loss, norm]);
    let score = objective.score_at(&descent.start).unwrap();
    assert_eq!(epoch.train_accuracy, score.accuracy);
    assert_eq!(history.best, None);
}

/// Momentum, implemented on tensors only.
#[derive(Debug)]
struct Heavy(f64);

impl Optimizer for Heavy {
    fn settings(&self) -> serde_json::Value {
        serde_json::json!({ "Heavy": self.0 })
    }

    fn num_moments(&self) -> usize {
        1
    }

    fn update(
        &self,
        theta: &Tensor,
        gradient: &Tensor,
        moments: &mut [Tensor],
        step: Step,
    ) -> candle::Result<Tensor> {
        moments[0] = ((&moments[0] * self.0)? + gradient)?;
        theta - (&moments[0] * step.learning_rate)?
    }
}

#[test]
fn a_custom_optimizer_trains_and_resumes() {
    let descent = Descent::new();
    let trained = descent.after(Trainer::new(Heavy(0.8), 0.3), 5);
    let sgd = Trainer::new(Sgd::default().with_momentum(0.8), 0.3);
    close(&trained, &descent.after(sgd, 5));

    let dir = tempfile::tempdir().unwrap();
    let parameters = descent.model.parameters();
    let trainer = |epochs| {
        let trainer = Trainer::new(Heavy(0.8), 0.3)
            .with_batch_size(40)
            .with_epochs(epochs);
        trainer.with_checkpoint(dir.path().join("training"))
    };
    parameters.set_flat(&descent.start).unwrap();
    trainer(5)
        .fit(&descent.model, &descent.data, &descent.data)
        .unwrap();
    close(&parameters.to_flat().unwrap(), &trained);
    parameters.set_flat(&descent.start).unwrap();
    trainer(5)
        .fit(&descent.model, &descent.data, &descent.data)
        .unwrap();
    close(&parameters.to_flat().unwrap(), &trained); // restored from the file
}

/// Training an objective gives the same bits as training its model, by the engine and by the graph.
#[test]
fn training_an_objective_equals_training_its_model() {
    let descent = Descent::new();
    let trainer = Trainer::adam(0.02)
        .with_l2(0.01)
        .with_batch_size(16)
        .with_epochs(3);
    let parameters = descent.model.parameters();
    let reset = || parameters.set_flat(&descent.start).unwrap();
    for objective in [
        descent.objective.clone(),
        descent.objective.clone().by_autograd(),
    ] {
        reset();
        let by_objective = trainer.fit_objective(&objective, &objective).unwrap();
        let theta = parameters.to_flat().unwrap();
        reset();
        let by_model = match objective.is_hand_derived() {
            true => trainer.fit(&descent.model, &descent.data, &descent.data),
            false => trainer.fit(&Opaque(descent.model.clone()), &descent.data, &descent.data),
        };
        assert_eq!(parameters.to_flat().unwrap(), theta);
        let losses = |history: &History| -> Vec<(f64, f64)> {
            let epochs = history.epochs.iter();
            epochs
                .map(|epoch| (epoch.train_loss, epoch.test_loss))
                .collect()
        };
        assert_eq!(losses(&by_objective), losses(&by_model.unwrap()));
    }

    // The objective's own penalty counts as well.
    reset();
    let penalised = descent.objective.clone().with_l2(0.01).unwrap();
    let trainer = trainer.with_l2(0.0);
    trainer
        .fit_objective(&penalised, &descent.objective)
        .unwrap();
    let theta = parameters.to_flat().unwrap();
    reset();
    let trainer = trainer.with_l2(0.01);
    trainer
        .fit(&descent.model, &descent.data, &descent.data)
        .unwrap();
    assert_eq!(parameters.to_flat().unwrap(), theta);

    let other = Descent::new().objective;
    let error = trainer
        .fit_objective(&descent.objective, &other)
        .unwrap_err();
    assert!(error.to_string().contains("different models"), "{error}");
}

#[test]
fn a_checkpoint_and_a_trajectory_exclude_each_other() {
    let descent = Descent::new();
    let dir = tempfile::tempdir().unwrap();
    let trainer = Trainer::sgd(0.1).with_checkpoint(dir.path().join("training"));
    let mut trajectory = Trajectory::every(1).unwrap();
    let error = trainer
        .fit_recorded(
            &descent.model,
            &descent.data,
            &descent.data,
            &mut trajectory,
        )
        .unwrap_err();
    assert!(error.to_string().contains("checkpoint"), "{error}");
    assert!(trajectory.is_empty());
}

/// AdamW as language models are trained with it.
fn language_model_trainer() -> Trainer {
    let adam = Adam::default()
        .with_beta2(0.95)
        .with_weight_decay(0.1)
        .with_decay_group(DecayGroup::Matrices);
    Trainer::new(adam, 0.01)
        .with_warmup(5)
        .with_schedule(Schedule::CosineTo { floor: 0.1 })
        .with_clip_norm(1.0)
        .with_batch_size(16)
}

/// All rules of a language model's training, in both dtypes and by both engines.
#[test]
fn steps_in_single_precision_are_those_in_double() {
    let after = |dtype: DType, opaque: bool| {
        let data = two_moons(40, 0.1, 0, &CPU)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let model = Mlp::new(&[2, 5, 2], Activation::Tanh, 3, &CPU).unwrap();
        let model = model.to_dtype(dtype).unwrap();
        let trainer = language_model_trainer().with_epochs(5).with_clip_norm(0.1);
        let fitted = match opaque {
            true => trainer.fit(&Opaque(model.clone()), &data, &data),
            false => trainer.fit(&model, &data, &data),
        };
        assert!(fitted.unwrap().epochs[0].gradient_norm > 0.1);
        model.parameters().to_flat().unwrap()
    };
    let expected = after(DType::F64, false);
    common::assert_close(&after(DType::F64, true), &expected, 1e-12);
    common::assert_close(&after(DType::F32, false), &expected, 1e-5);
    common::assert_close(&after(DType::F32, true), &expected, 1e-5);
}

/// A small GPT learns from the plays which character follows: on unseen text its loss falls far below the entropy of single
/// characters. Steps by the engine and by candle's graph reach the same losses.
#[test]
fn a_language_model_learns() {
    let (length, width) = (32, 32);
    let (train, test) = Text::shakespeare().unwrap().split(0.1).unwrap();
    let tokens = train.vocabulary().len();
    let gpt = Architecture::Gpt {
        layers: 1,
        heads: 2,
        width,
        context: length,
    };
    let model = gpt.build(&[length], tokens, 0, &CPU).unwrap();
    let start = model.parameters().to_flat().unwrap();
    let data = |text: &Text, n| text.windows(length, n, 0, &CPU).unwrap();
    let (train, unseen) = (data(&train, 16 * 100), data(&test, 200));
    let trainer = language_model_trainer();
    let history = trainer.fit(&model, &train, &unseen).unwrap();
    let mut counts = vec![0.0; tokens];
    for token in test.tokens() {
        counts[*token as usize] += 1.0 / test.len() as f64;
    }
    let entropy: f64 = counts
        .iter()
        .filter(|p| **p > 0.0)
        .map(|p| -p * p.ln())
        .sum();
    let loss = history.epochs[0].test_loss;
    assert!(loss < entropy - 0.5, "{loss} is not far below {entropy}");

    // Losses are compared, because those of a GPT do not depend on the biases of its keys, which Adam moves by rounding errors.
    let few = train.first(32).unwrap();
    let losses = |opaque: bool| -> Vec<f64> {
        model.parameters().set_flat(&start).unwrap();
        let trainer = trainer.clone().with_epochs(8);
        let history = match opaque {
            true => trainer.fit(&Opaque(model.clone()), &few, &few),
            false => trainer.fit(&model, &few, &few),
        };
        let epochs = history.unwrap().epochs.into_iter();
        epochs.map(|epoch| epoch.test_loss).collect()
    };
    common::assert_close(&losses(true), &losses(false), 1e-4);
}

#[test]
fn settings_survive_serialisation() {
    let trainers = [
        Trainer::new(Sgd::default().with_momentum(0.9).with_nesterov(true), 0.1),
        Trainer::adam(0.01),
        Trainer::new(Adam::default().with_beta1(0.8).with_weight_decay(0.1), 0.01).with_asam(0.1),
        language_model_trainer(),
    ];
    for trainer in trainers {
        let json = serde_json::to_string(&trainer).unwrap();
        let read: Trainer = serde_json::from_str(&json).unwrap();
        assert_eq!(read, trainer, "{json}");
    }
    // Checkpoints are recognised by this text.
    assert_eq!(
        serde_json::to_string(&Trainer::adamw(0.1, 0.5).with_sam(0.05)).unwrap(),
        r#"{"method":{"Adam":{"decay":0.5}},"learning_rate":0.1,"schedule":"constant","warmup":0,"ascent":{"radius":0.05,"adaptive":false},"l2":0.0,"epochs":1,"patience":null,"batch_size":128,"seed":0}"#
    );
    assert_eq!(
        serde_json::to_string(&language_model_trainer()).unwrap(),
        r#"{"method":{"Adam":{"beta2":0.95,"decay":0.1,"decay_group":"matrices"}},"learning_rate":0.01,"schedule":{"cosine_to":{"floor":0.1}},"warmup":5,"ascent":null,"clip_norm":1.0,"l2":0.0,"epochs":1,"patience":null,"batch_size":16,"seed":0}"#
    );
    let json = serde_json::to_string(&Trainer::new(Heavy(0.8), 0.1)).unwrap();
    let error = serde_json::from_str::<Trainer>(&json)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Heavy") && error.contains("Trainer::new"),
        "{error}"
    );

    fn check<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
        settings: T,
    ) {
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(
            serde_json::from_str::<T>(&json).unwrap(),
            settings,
            "{json}"
        );
    }
    check(Lanczos::default().with_max_basis(30).with_block_size(2));
    check(PowerIteration::default().with_tolerance(1e-6));
    check(Trace::default().with_method(TraceMethod::Hutchinson));
    check(DensitySettings::default().with_probes(4));
}

/// The curvature along a recorded training is that of the Hessians at its snapshots. The model does not change.
#[test]
fn evolution_matches_the_hessians_at_the_snapshots() {
    let descent = Descent::new();
    let mut trajectory = Trajectory::every(4).unwrap();
    let trainer = Trainer::sgd(0.5).with_batch_size(40).with_epochs(8);
    trainer
        .fit_recorded(
            &descent.model,
            &descent.data,
            &descent.data,
            &mut trajectory,
        )
        .unwrap();
    let end = descent.model.parameters().to_flat().unwrap();
    let settings = EvolutionSettings::default().with_test_data(descent.data.clone());
    let evolution = settings.run(&descent.objective, &trajectory).unwrap();
    assert_eq!(descent.model.parameters().to_flat().unwrap(), end);
    assert_eq!(evolution.table().unwrap().shape(), (3, 16));
    for (i, snapshot) in evolution.snapshots.iter().enumerate() {
        let theta = trajectory.snapshot(i).unwrap();
        assert_eq!(snapshot.step, 4 * i);
        let loss = descent.objective.loss_at(&theta).unwrap();
        close(&[snapshot.loss, snapshot.test_loss.unwrap()], &[loss, loss]);
        let dense = descent
            .objective
            .hessian()
            .at(theta)
            .unwrap()
            .dense()
            .unwrap();
        let all = dense.eigen().unwrap().values();
        let (largest, smallest) = (all[0], all[all.len() - 1]);
        assert!(
            snapshot.largest.low - 1e-12 <= largest && largest <= snapshot.largest.high + 1e-12
        );
        assert!(
            snapshot.smallest.low - 1e-12 <= smallest && smallest <= snapshot.smallest.high + 1e-12
        );
        let trace = snapshot.trace.unwrap();
        let exact: f64 = all.iter().sum();
        assert!(
            (trace.value - exact).abs() <= 6.0 * trace.standard_error + 1e-9,
            "{trace} {exact}"
        );
        let ratio = snapshot.sharpness_ratio();
        assert!(ratio.low <= ratio.value && ratio.value <= ratio.high);
    }
}
