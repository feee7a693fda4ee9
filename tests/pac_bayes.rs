//! The PAC-Bayes bound: its formula, and its validity where the true error is known.

mod common;

use common::{assert_close, dot};
use loss_landscape::landscape::{DiagonalPacBayes, PacBayesBound};
use loss_landscape::prelude::*;
use loss_landscape::serde_json;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

const CPU: Device = Device::Cpu;

fn gaussian(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..n).map(|_| StandardNormal.sample(rng)).collect()
}

/// `n` samples from N(0, I) in `d` dimensions, labelled by the sign of their first coordinate; each label is flipped with
/// probability `flipped`. The model is the sign of w·x, with w = 0.
fn half_spaces(n: usize, d: usize, flipped: f64, seed: u64) -> Objective {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let x = gaussian(n * d, &mut rng);
    let labels = x.chunks(d).map(|x| (x[0] > 0.0) ^ rng.random_bool(flipped));
    let labels: Vec<u32> = labels.map(u32::from).collect();
    let data = Dataset::classification(
        &Tensor::from_vec(x, (n, d), &CPU).unwrap(),
        &Tensor::from_vec(labels, n, &CPU).unwrap(),
    );
    let w = Var::zeros((d, 1), DType::F64, &CPU).unwrap();
    let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
    let forward = move |x: &Tensor| x.matmul(&w);
    Objective::from_fn(&parameters, &data.unwrap(), Loss::CrossEntropy, forward).unwrap()
}

fn train(objective: &Objective, rate: f64, steps: usize) {
    for _ in 0..steps {
        let theta = objective.parameters().to_flat().unwrap();
        let g = objective.gradient().unwrap();
        let next: Vec<f64> = theta.iter().zip(&g).map(|(t, g)| t - rate * g).collect();
        objective.parameters().set_flat(&next).unwrap();
    }
}

/// Error of w on the whole distribution: the angle between w and the first axis, over π.
fn true_error(w: &[f64], flipped: f64) -> f64 {
    let angle = (w[0] / dot(w, w).sqrt()).acos();
    flipped + (1.0 - 2.0 * flipped) * angle / std::f64::consts::PI
}

/// Mean of the error over N(w, σ²I).
fn true_posterior_error(w: &[f64], sigma: f64, flipped: f64, seed: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let errors = (0..4000).map(|_| {
        let z = gaussian(w.len(), &mut rng);
        let drawn: Vec<f64> = w.iter().zip(&z).map(|(w, z)| w + sigma * z).collect();
        true_error(&drawn, flipped)
    });
    errors.sum::<f64>() / 4000.0
}

/// q ln(q/p) + (1 − q) ln((1 − q)/(1 − p)) for 0 < q, p < 1.
fn kl(q: f64, p: f64) -> f64 {
    q * (q / p).ln() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).ln()
}

#[test]
fn the_bound_equals_its_formula() {
    let objective = half_spaces(400, 3, 0.1, 1);
    train(&objective, 1.0, 20);
    let theta = objective.parameters().to_flat().unwrap();
    let center = vec![0.3, -0.2, 0.1];
    let settings = PacBayes::default()
        .with_sigmas(vec![0.1, 0.5, 2.0])
        .with_draws(50)
        .with_delta(0.1)
        .with_seed(4);
    let found = settings.run(&objective, &center).unwrap();
    let distance: f64 = theta
        .iter()
        .zip(&center)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    for (row, sigma) in found.rows.iter().zip(&settings.sigmas) {
        assert_eq!(row.sigma, *sigma);
        let size = distance / (2.0 * sigma * sigma);
        assert!((row.kl - size).abs() < 1e-12 * size);
        // δ = 0.1 is split over three σ, and half of each share is for the draws.
        let share: f64 = 0.1 / 6.0;
        let complexity = (size + (2.0 * 400f64.sqrt() / share).ln()) / 400.0;
        let error = row.mcallester - (complexity / 2.0).sqrt();
        assert!((kl(row.empirical_error.value, error) - (1.0 / share).ln() / 50.0).abs() < 1e-12);
        assert!((kl(error, row.bound) - complexity).abs() < 1e-12);
        assert!(row.empirical_error.value < error && error < row.bound);
        assert!(row.bound < row.mcallester, "{row:?}");
        // Many other draws from the same posterior.
        let (mut errors, mut losses) = (Vec::new(), Vec::new());
        for draw in 0..1_000 {
            let z = direction::gaussian(objective.parameters(), draw);
            let drawn: Vec<f64> = theta.iter().zip(&z).map(|(t, z)| t + sigma * z).collect();
            let score = objective.score_at(&drawn).unwrap();
            errors.push(1.0 - score.accuracy.unwrap());
            losses.push(score.loss);
        }
        for (estimate, many) in [(row.empirical_error, errors), (row.loss, losses)] {
            let mean = many.iter().sum::<f64>() / 1_000.0;
            let spread = many.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 999.0;
            let deviation = (spread / 50.0 + spread / 1_000.0).sqrt();
            assert!(
                (estimate.value - mean).abs() < 4.0 * deviation,
                "{estimate}, not {mean}"
            );
            assert_close(&[estimate.standard_error], &[(spread / 50.0).sqrt()], 0.4);
        }
    }
    let best = found.rows.iter().map(|row| row.bound).fold(1.0, f64::min);
    assert_eq!((found.bound, found.delta), (best, 0.1));
    let row = found
        .rows
        .iter()
        .find(|row| row.sigma == found.sigma)
        .unwrap();
    assert_eq!((row.bound, row.kl), (found.bound, found.kl));
    assert_eq!(row.empirical_error, found.empirical_error);
}

/// With few samples in many dimensions, the model overfits. The bound must still hold.
#[test]
fn the_bound_holds_where_the_true_error_is_known() {
    let (mut tightest, mut overfitted) = (f64::INFINITY, 0);
    for seed in 0..50 {
        let (n, d, flipped) = if seed % 2 == 0 {
            (40, 20, 0.2)
        } else {
            (400, 5, 0.0)
        };
        let objective = half_spaces(n, d, flipped, 1000 + seed);
        train(&objective, 1.0, 50);
        let theta = objective.parameters().to_flat().unwrap();
        let settings = PacBayes::default()
            .with_sigmas(vec![0.1, 0.5, 1.0])
            .with_draws(60)
            .with_seed(seed);
        let found = settings.run(&objective, &vec![0.0; d]).unwrap();
        for row in found.rows {
            let truth = true_posterior_error(&theta, row.sigma, flipped, seed);
            assert!(truth <= row.bound, "{seed}: {truth} is above {row:?}");
            tightest = f64::min(tightest, row.bound - truth);
            overfitted += usize::from(truth > row.empirical_error.value);
        }
    }
    println!("tightest {tightest:.4}, {overfitted} of 150 above the empirical error");
    assert!(overfitted > 75, "{overfitted}");
}

/// A draw of w ~ N(0, 1) is right or wrong everywhere, so the error is ½, and two draws are both right with probability ¼.
/// The bound then fails, which δ = 0.6 permits.
#[test]
fn the_bound_fails_at_most_as_often_as_stated() {
    let objective = half_spaces(5_000, 1, 0.0, 3);
    let fails = (0..200).filter(|seed| {
        let settings = PacBayes::default()
            .with_sigmas(vec![1.0])
            .with_draws(2)
            .with_delta(0.6)
            .with_seed(*seed);
        let found = settings.run(&objective, &[0.0]).unwrap();
        assert_eq!(found.kl, 0.0);
        found.bound < 0.5
    });
    let fails = fails.count();
    println!("{fails} of 200 bounds fail");
    assert!((30..=70).contains(&fails), "{fails} of 200");
}

#[test]
fn an_easy_problem_with_enough_data_has_a_low_bound() {
    let bounds = [250, 1000, 4000].map(|n| {
        let objective = half_spaces(n, 2, 0.0, 5);
        train(&objective, 2.0, 100);
        let settings = PacBayes::default()
            .with_sigmas(vec![0.2, 0.5, 1.0])
            .with_draws(300);
        settings.run(&objective, &[0.0, 0.0]).unwrap().bound
    });
    println!("bounds {bounds:?}");
    assert!(bounds.is_sorted_by(|a, b| a > b), "{bounds:?}");
    assert!(bounds[2] < 0.15, "{bounds:?}");
}

#[test]
fn both_engines_give_the_same_bound() {
    let data = two_moons(300, 0.1, 1, &CPU).unwrap();
    let model = Mlp::new(&[2, 6, 2], Activation::Tanh, 2, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let start = model.parameters().to_flat().unwrap();
    Trainer::adam(0.05)
        .with_epochs(20)
        .fit(&model, &data, &data)
        .unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let before = model.parameters().to_flat().unwrap();
    let settings = PacBayes::default().with_draws(30);
    let fast = settings.run(&objective, &start).unwrap();
    let plain = settings
        .run(&objective.clone().by_autograd(), &start)
        .unwrap();
    assert!(objective.is_hand_derived());
    for (a, b) in fast.rows.iter().zip(&plain.rows) {
        assert!((a.bound - b.bound).abs() < 1e-12 && (a.loss.value - b.loss.value).abs() < 1e-12);
    }
    assert_eq!(model.parameters().to_flat().unwrap(), before);
    assert_eq!(fast, settings.run(&objective, &start).unwrap());

    let read: PacBayesBound = serde_json::from_str(&serde_json::to_string(&fast).unwrap()).unwrap();
    assert_eq!(read.rows.len(), 5);
    let shown = fast.bundle().unwrap();
    assert!(shown.get("text/html").unwrap().contains("McAllester"));
}

/// A prior at the model's parameters costs nothing; a distant one makes the bound vacuous.
#[test]
fn the_distance_from_the_prior_determines_the_cost() {
    let objective = half_spaces(500, 3, 0.0, 6);
    train(&objective, 1.0, 50);
    let theta = objective.parameters().to_flat().unwrap();
    let settings = PacBayes::default().with_draws(50);
    let here = settings.run(&objective, &theta).unwrap();
    assert!(here.rows.iter().all(|row| row.kl == 0.0));
    assert!(here.bound < 0.3, "{here:?}");
    let narrow = settings.clone().with_sigmas(vec![1e-200]);
    let narrow = narrow.run(&objective, &theta).unwrap();
    assert!(narrow.kl == 0.0 && narrow.bound > narrow.empirical_error.value);
    let far = settings.run(&objective, &[1e9, 0.0, 0.0]).unwrap();
    assert!(
        far.rows
            .iter()
            .all(|row| row.bound == 1.0 && row.mcallester > 1.0),
        "{far:?}"
    );
    let beyond = settings.run(&objective, &[1e200, 0.0, 0.0]).unwrap();
    assert_eq!((beyond.bound, beyond.kl), (1.0, f64::INFINITY));
}

#[test]
fn invalid_settings_are_errors() {
    let objective = half_spaces(20, 2, 0.0, 7);
    let center = [0.0, 0.0];
    let refused = |settings: PacBayes, word: &str| {
        let message = settings.run(&objective, &center).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    let default = PacBayes::default;
    for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let sigmas = vec![0.1, sigma];
        refused(default().with_sigmas(sigmas), "standard deviation");
    }
    refused(default().with_sigmas(Vec::new()), "no values of σ");
    for draws in [0, 1] {
        refused(default().with_draws(draws), "at least 2");
    }
    for delta in [0.0, 1.0, -0.1, 1.5, f64::NAN] {
        refused(default().with_delta(delta), "between 0 and 1");
    }
    assert!(default().run(&objective, &[0.0]).is_err());
    assert!(default().run(&objective, &[0.0, f64::NAN]).is_err());

    let fitted = objective.data().one_hot(2).unwrap();
    let model = Mlp::new(&[2, 2], Activation::Tanh, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, &fitted, Loss::Mse).unwrap();
    let message = default()
        .run(&objective, &[0.0; 6])
        .unwrap_err()
        .to_string();
    assert!(message.contains("not labels"), "{message}");
}

#[test]
fn the_diagonal_bound_equals_its_formula() {
    let objective = half_spaces(400, 3, 0.1, 1);
    train(&objective, 1.0, 20);
    let center = [0.3, -0.2, 0.1];
    let settings = DiagonalPacBayes::default().with_steps(200).with_draws(300);
    let found = settings.run(&objective, &center).unwrap();
    let lambda = found.prior_variance;
    let kl_of = |w: f64, s: f64, w0: f64| {
        0.5 * (s * s / lambda - 1.0 + (w - w0).powi(2) / lambda + (lambda / (s * s)).ln())
    };
    let entries = found.center.iter().zip(&found.deviations).zip(center);
    let size: f64 = entries.map(|((w, s), w0)| kl_of(*w, *s, w0)).sum();
    assert!((found.kl - size).abs() < 1e-9 * size, "{} {size}", found.kl);
    let j = -100.0 * lambda.ln();
    assert!((j - j.round()).abs() < 1e-9 && j > 0.5);
    let share = 0.05 / 2.0 * 6.0 / (std::f64::consts::PI * j).powi(2);
    let complexity = (size + (2.0 * 400f64.sqrt() / share).ln()) / 400.0;
    // kl(ê‖error) = ln(2/δ)/m and kl(error‖bound) = complexity, where `error` lies between.
    let (mut low, mut high) = (found.empirical_error.value, found.bound);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        match kl(found.empirical_error.value, middle) < 40f64.ln() / 300.0 {
            true => low = middle,
            false => high = middle,
        }
    }
    assert!((kl(low, found.bound) - complexity).abs() < 1e-9);
}

/// The optimised bound is lower than that with one variance, and holds where the true error is known.
#[test]
fn the_diagonal_bound_is_lower_and_holds() {
    let mut lower = 0;
    for seed in 0..8 {
        let objective = half_spaces(400, 5, 0.0, 2000 + seed);
        train(&objective, 1.0, 50);
        let prior = vec![0.0; 5];
        let settings = DiagonalPacBayes::default()
            .with_steps(200)
            .with_draws(400)
            .with_learning_rate(0.05)
            .with_initial_deviation(0.5);
        let found = settings.with_seed(seed).run(&objective, &prior).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let errors = (0..2000).map(|_| {
            let z = gaussian(5, &mut rng);
            let drawn = found.center.iter().zip(&found.deviations).zip(z);
            let drawn: Vec<f64> = drawn.map(|((w, s), z)| w + s * z).collect();
            true_error(&drawn, 0.0)
        });
        let error = errors.sum::<f64>() / 2000.0;
        assert!(error < found.bound, "seed {seed}: {error} {}", found.bound);
        let sigmas = vec![0.1, 0.2, 0.5, 1.0, 2.0];
        let isotropic = PacBayes::default().with_sigmas(sigmas).with_draws(400);
        let isotropic = isotropic.run(&objective, &prior).unwrap().bound;
        lower += usize::from(found.bound < isotropic);
    }
    assert!(
        lower >= 6,
        "lower than with one variance in {lower} of 8 runs"
    );
}
