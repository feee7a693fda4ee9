//! Known coefficients: quadratic losses, monomials and deep linear networks.

use ndarray::{Array1, Array2};
use rand_distr::{Distribution, StandardNormal};

use super::chains::Agreement;
use super::langevin::Langevin;
use super::report::Setting;
use super::sampling::{Chain, Sampler, Sampling, Target, count};
use super::trajectory::NoUTurn;
use super::*;
use crate::progress::Progress;
use crate::random::{Purpose, generator};

type Loss = Box<dyn Fn(&[f64]) -> (f64, Vec<f64>) + Sync>;

/// A loss around its minimum 0 at x = 0, and its coefficients.
struct Case {
    name: String,
    loss: Loss,
    dim: usize,
    /// nβ
    temperature: f64,
    /// λ and its multiplicity m.
    coefficient: f64,
    multiplicity: usize,
    /// The expectation at this nβ with γ = 1, if it is known.
    expectation: Option<f64>,
}

/// Settings whose chains do not run out of gradients.
fn settings() -> LearningCoefficient {
    LearningCoefficient::default()
        .with_relative_error(0.012)
        .with_max_gradients(20_000_000)
}

impl Case {
    fn run(&self, settings: &LearningCoefficient, parallel: bool) -> LearningCoefficientReport {
        let excess = |x: &[f64]| scaled(self.temperature, 0.0, Some((self.loss)(x)));
        let target = Target {
            excess: &excess,
            localization: settings.localization.unwrap_or(1.0),
        };
        self.sample(settings, &NoUTurn { target }, parallel)
    }

    fn sample(
        &self,
        settings: &LearningCoefficient,
        sampler: &dyn Sampler,
        parallel: bool,
    ) -> LearningCoefficientReport {
        let target = sampler.target();
        let start = target.at(vec![0.0; self.dim]).unwrap().unwrap();
        let sampling = Sampling {
            chains: settings.chains,
            relative_error: settings.relative_error,
            max_gradients: settings.max_gradients,
            seed: settings.seed,
            parallel,
        };
        let setting = Setting {
            samples: 1,
            dim: self.dim,
            beta: self.temperature,
            localization: target.localization,
            loss: 0.0,
            rounding: 0.0,
            epsilon: f64::EPSILON,
        };
        let samples = sampling.run(sampler, &start).unwrap();
        LearningCoefficientReport::new(settings, samples, setting)
    }
}

/// Σ ½ hᵢ xᵢ² with h from 1 to 1/κ.
fn quadratic(dim: usize, condition: f64, temperature: f64) -> Case {
    let last = (dim - 1).max(1) as f64;
    let h: Vec<f64> = (0..dim)
        .map(|i| condition.powf(-(i as f64) / last))
        .collect();
    let share = |h: &f64| 0.5 * temperature * h / (temperature * h + 1.0);
    Case {
        name: format!("quadratic, d = {dim}, κ = {condition}"),
        dim,
        temperature,
        coefficient: 0.5 * dim as f64,
        multiplicity: 1,
        expectation: Some(h.iter().map(share).sum()),
        loss: Box::new(move |x| {
            let slope: Vec<f64> = x.iter().zip(&h).map(|(x, h)| h * x).collect();
            (0.5 * dot(x, &slope), slope)
        }),
    }
}

/// x²ᵏ y²ᵐ.
fn monomial(k: i32, m: i32, temperature: f64) -> Case {
    Case {
        name: format!("x^{} y^{}, nβ = {temperature:e}", 2 * k, 2 * m),
        dim: 2,
        temperature,
        coefficient: 0.5 / f64::from(k.max(m)),
        multiplicity: if k == m { 2 } else { 1 },
        expectation: Some(integral(k, m, temperature)),
        loss: Box::new(move |v| {
            let (x, y) = (v[0], v[1]);
            let (a, b) = (x.powi(2 * k - 1) * y.powi(2 * m - 1), [2 * k, 2 * m]);
            (
                a * x * y,
                vec![f64::from(b[0]) * a * y, f64::from(b[1]) * a * x],
            )
        }),
    }
}

/// The mean of nβ x²ᵏ y²ᵐ for the density exp(−nβ x²ᵏ y²ᵐ − ½x² − ½y²), by the trapezoidal rule in ln x and ln y.
fn integral(k: i32, m: i32, temperature: f64) -> f64 {
    let grid = || (-400..40).map(|i| 0.1 * f64::from(i));
    let (mut total, mut mean) = (0.0, 0.0);
    for s in grid() {
        for t in grid() {
            let excess = temperature * (2.0 * f64::from(k) * s + 2.0 * f64::from(m) * t).exp();
            let half_square = 0.5 * ((2.0 * s).exp() + (2.0 * t).exp());
            let weight = (s + t - excess - half_square).exp();
            total += weight;
            mean += weight * excess;
        }
    }
    mean / total
}

/// ‖W_L ⋯ W₁ − diag(1, …, 1, 0, …)‖²_F with `rank` ones, at W = diag(1, …, 1, 0, …).
fn deep_linear(widths: &[usize], rank: usize, temperature: f64) -> Case {
    let (coefficient, multiplicity) = aoyagi(widths, rank);
    let shapes: Vec<[usize; 2]> = widths.windows(2).map(|w| [w[1], w[0]]).collect();
    let identity = move |shape: [usize; 2]| {
        Array2::from_shape_fn(shape, |(i, j)| f64::from(u8::from(i == j && i < rank)))
    };
    Case {
        name: format!("deep linear {widths:?}, rank {rank}"),
        dim: shapes.iter().map(|[a, b]| a * b).sum(),
        temperature,
        coefficient,
        multiplicity,
        expectation: None,
        loss: Box::new(move |x| {
            let mut rest = x;
            let layers: Vec<Array2<f64>> = shapes
                .iter()
                .map(|[a, b]| {
                    let (own, after) = rest.split_at(a * b);
                    rest = after;
                    let own = Array2::from_shape_vec([*a, *b], own.to_vec()).unwrap();
                    own + identity([*a, *b])
                })
                .collect();
            let mut products = vec![layers[0].clone()];
            for layer in &layers[1..] {
                products.push(layer.dot(products.last().unwrap()));
            }
            let whole = products.last().unwrap();
            let difference = whole - identity([whole.nrows(), whole.ncols()]);
            let loss = difference.iter().map(|d| d * d).sum();
            let mut back = 2.0 * difference;
            let mut slopes = Vec::new();
            for i in (0..layers.len()).rev() {
                let slope = match i {
                    0 => back.clone(),
                    _ => back.dot(&products[i - 1].t()),
                };
                slopes.push(slope.into_iter().collect::<Vec<f64>>());
                back = layers[i].t().dot(&back);
            }
            slopes.reverse();
            (loss, slopes.concat())
        }),
    }
}

/// λ and m of a deep linear network whose true matrix has this rank (Aoyagi, "Consideration on the Learning Efficiency of
/// Multiple-Layered Neural Networks with Linear Units", 2023).
fn aoyagi(widths: &[usize], rank: usize) -> (f64, usize) {
    let mut excess: Vec<f64> = widths.iter().map(|w| (w - rank) as f64).collect();
    excess.sort_by(f64::total_cmp);
    let fits = |l: &usize| {
        let sum: f64 = excess[..=*l].iter().sum();
        let next = excess.get(l + 1);
        sum >= *l as f64 * excess[*l] && next.is_none_or(|next| sum < *l as f64 * next)
    };
    let l = (1..excess.len()).rev().find(fits).unwrap();
    let (set, count, rank) = (&excess[..=l], l as f64, rank as f64);
    let sum: f64 = set.iter().sum();
    let a = sum - ((sum / count).ceil() - 1.0) * count;
    let squares: f64 = set.iter().map(|m| m * m).sum();
    let pairs = 0.5 * (sum * sum - squares);
    let ends = (widths[0] + widths[widths.len() - 1]) as f64;
    let coefficient = 0.5 * (rank * ends - rank * rank) + a * (count - a) / (4.0 * count)
        - (count - 1.0) / (4.0 * count) * sum * sum
        + 0.5 * pairs;
    (coefficient, (a * (count - a)) as usize + 1)
}

#[test]
fn formula_of_deep_linear_networks() {
    // a b has λ = ½ and m = 2; a (b₁, b₂) has ½ and 1; a full-rank factorisation has half the entries of the product.
    assert_eq!(aoyagi(&[1, 1, 1], 0), (0.5, 2));
    assert_eq!(aoyagi(&[1, 1, 2], 0), (0.5, 1));
    assert_eq!(aoyagi(&[3, 3, 3], 3), (4.5, 1));
    // Reduced-rank regression with equal widths (Aoyagi and Watanabe, 2005).
    assert_eq!(aoyagi(&[2, 2, 2], 0), (1.5, 1));
}

#[test]
fn integral_of_monomials() {
    // With one factor the integral is that of a gamma distribution in the limit: λ = 1/2m.
    assert!((integral(1, 3, 1e12) - 1.0 / 6.0).abs() < 1e-3);
    // E[½·2nβx²/(1 + 2nβx²)] over the marginal density exp(−½x²)/√(1 + 2nβx²) of x.
    let density = |x: f64| (-0.5 * x * x).exp() / (1.0 + 200.0 * x * x).sqrt();
    let grid: Vec<f64> = (-80_000..80_000).map(|i| 1e-4 * f64::from(i)).collect();
    let total: f64 = grid.iter().map(|x| density(*x)).sum();
    let mean: f64 = grid
        .iter()
        .map(|x| density(*x) * 100.0 * x * x / (1.0 + 200.0 * x * x))
        .sum();
    assert!((integral(1, 1, 100.0) - mean / total).abs() < 1e-6);
}

#[test]
fn quadratic_losses_are_exact() {
    for (dim, condition) in [(1, 1.0), (2, 100.0), (20, 10.0), (50, 1000.0)] {
        let case = quadratic(dim, condition, 1e4);
        let found = case.run(&settings(), false);
        let exact = case.expectation.unwrap();
        let error = (found.coefficient.value - exact).abs();
        assert!(
            error < 5.0 * found.coefficient.standard_error,
            "{}: {found}",
            case.name
        );
        assert!(error < 2e-3 * exact, "{}: {found}", case.name);
        assert!(found.verdict.is_converged() && found.descent == 0.0);
        // The step is stable: below 2/√(nβ h + γ).
        assert!(found.step < 2.0 / (1e4f64 + 1.0).sqrt());
    }
}

#[test]
fn monomials_have_their_integral() {
    for (k, m, temperature) in [(1, 1, 1e2), (1, 2, 1e3), (2, 2, 1e2), (1, 3, 1e4)] {
        let case = monomial(k, m, temperature);
        let found = case.run(&settings(), false);
        let exact = case.expectation.unwrap();
        let error = (found.coefficient.value - exact).abs();
        assert!(
            error < 4.5 * found.coefficient.standard_error,
            "{}: {exact}, {found}",
            case.name
        );
        assert!(error < 0.05 * exact, "{}: {exact}, {found}", case.name);
        assert!(found.verdict.is_converged());
        assert!((found.balance.value - 1.0).abs() < 0.1);
    }
}

#[test]
fn deep_linear_networks_have_aoyagis_coefficient() {
    for (widths, rank) in [(vec![2, 1, 4], 1), (vec![3, 2, 4], 2), (vec![2, 2, 5], 0)] {
        let case = deep_linear(&widths, rank, 1e3);
        let found = case.run(&settings(), false);
        assert_eq!(case.multiplicity, 1);
        let error = (found.coefficient.value / case.coefficient - 1.0).abs();
        assert!(error < 0.05, "{}: {}, {found}", case.name, case.coefficient);
        assert!(found.verdict.is_converged());
    }
}

/// With multiplicity 2 the expectation approaches λ as 1/ln nβ.
#[test]
fn multiplicity_biases_the_expectation() {
    let at = |temperature| monomial(1, 1, temperature).expectation.unwrap();
    let gaps = [1e2, 1e4, 1e8].map(|temperature: f64| (0.5 - at(temperature)) * temperature.ln());
    assert!(gaps.iter().all(|gap| (0.5..1.1).contains(gap)), "{gaps:?}");
}

#[test]
fn intervals_cover() {
    // With this localisation the control variate leaves some variance.
    let case = quadratic(5, 1e3, 1e3);
    let exact = case.expectation.unwrap();
    let covered = (0..100).filter(|seed| {
        let settings = LearningCoefficient::default().with_seed(*seed);
        let [low, high] = case.run(&settings, false).interval(0.95).unwrap();
        (low..=high).contains(&exact)
    });
    let covered = covered.count();
    assert!((90..=100).contains(&covered), "{covered} of 100");
}

#[test]
fn diagnostics_of_correlated_chains() {
    // xₜ = ρxₜ₋₁ + ξ has N(1 − ρ)/(1 + ρ) effective samples.
    let series = |seed: u64, mean: f64| -> Vec<f64> {
        let mut x = 0.0;
        let noise = crate::random::normal(4000, Purpose::LearningCoefficient, seed, 0);
        let steps = noise.into_iter().map(|noise| {
            x = 0.8 * x + noise;
            mean + x
        });
        steps.collect()
    };
    let chains: Vec<Vec<f64>> = (0..4).map(|seed| series(seed, 3.0)).collect();
    let found = Agreement::of(&chains);
    assert!(
        (found.effective / (16_000.0 / 9.0) - 1.0).abs() < 0.2,
        "{found:?}"
    );
    assert!(found.r_hat < 1.01 && (found.variance * 0.36 - 1.0).abs() < 0.1);
    let estimate = found.estimate(&chains);
    assert!((estimate.value - 3.0).abs() < 4.0 * estimate.standard_error);
    assert_eq!(estimate.samples, 4);
    let apart: Vec<Vec<f64>> = (0..4).map(|seed| series(seed, seed as f64)).collect();
    assert!(Agreement::of(&apart).r_hat > 1.1);
    // A drift that all chains share.
    let drift = |chain: &Vec<f64>| {
        chain
            .iter()
            .enumerate()
            .map(|(i, x)| x + i as f64 / 1e3)
            .collect()
    };
    let drifting: Vec<Vec<f64>> = chains.iter().map(drift).collect();
    assert!(Agreement::of(&drifting).r_hat > 1.1);
}

#[test]
fn results_do_not_depend_on_threads() {
    let case = monomial(1, 2, 100.0);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap()
            .install(|| case.run(&LearningCoefficient::default(), true))
    };
    let alone = case.run(&LearningCoefficient::default(), false);
    assert_eq!(alone, run(1));
    assert_eq!(alone, run(3));
    let other = LearningCoefficient::default().with_seed(1);
    assert_ne!(alone.coefficient, case.run(&other, false).coefficient);
}

fn case(dim: usize, temperature: f64, loss: Loss) -> Case {
    Case {
        name: String::new(),
        loss,
        dim,
        temperature,
        coefficient: f64::NAN,
        multiplicity: 1,
        expectation: None,
    }
}

#[test]
fn a_point_that_is_no_minimum_is_not_estimated() {
    // ½ (x − 1)² at x = 0: the loss falls by ½, and the mean is negative.
    let slope: Loss = Box::new(|x| (0.5 * (x[0] - 1.0).powi(2) - 0.5, vec![x[0] - 1.0]));
    let found = case(1, 100.0, slope).run(&settings(), false);
    assert_eq!(found.verdict, LearningCoefficientVerdict::NotAMinimum);
    assert!((found.descent - 50.0).abs() < 1.0, "{found}");
    assert!(!found.coefficient.converged && found.coefficient.value < 0.0);
    // Ten good directions hide a small descent along the eleventh.
    let hidden: Loss = Box::new(|x| {
        let mut slope = x.to_vec();
        slope[0] -= 0.1;
        (0.5 * dot(x, x) - 0.1 * x[0], slope)
    });
    let found = case(11, 1000.0, hidden).run(&settings(), false);
    assert_eq!(found.verdict, LearningCoefficientVerdict::NotAMinimum);
    assert!((found.descent - 5.0).abs() < 0.1, "{found}");
    // A saddle point, and a loss without a lower bound.
    let saddle: Loss = Box::new(|x| {
        let (a, b) = (x[0], x[1]);
        (
            a * a - b * b + b.powi(4),
            vec![2.0 * a, 4.0 * b.powi(3) - 2.0 * b],
        )
    });
    let found = case(2, 1000.0, saddle).run(&settings(), false);
    assert_eq!(found.verdict, LearningCoefficientVerdict::NotAMinimum);
    let unbounded: Loss = Box::new(|x| (-x[0].powi(4), vec![-4.0 * x[0].powi(3)]));
    let found = case(1, 1000.0, unbounded).run(&LearningCoefficient::default(), false);
    assert_eq!(found.verdict, LearningCoefficientVerdict::NotAMinimum);
}

#[test]
fn chains_that_need_more_gradients_say_so() {
    let few = LearningCoefficient::default().with_max_gradients(20_000);
    let found = monomial(1, 1, 1e8).run(&few, false);
    assert!(
        !found.verdict.is_converged() && !found.coefficient.converged,
        "{found}"
    );
    assert!(found.gradients <= 25_000);
}

/// Trajectories are shortened so that choosing the step size does not exceed its budget.
#[test]
fn adapting_the_step_size_has_a_budget() {
    let case = monomial(2, 1, 1e6);
    let excess = |x: &[f64]| scaled(case.temperature, 0.0, Some((case.loss)(x)));
    let target = Target {
        excess: &excess,
        localization: 1.0,
    };
    let start = target.at(vec![0.0; case.dim]).unwrap().unwrap();
    let sampler = NoUTurn { target };
    let used = |budget: usize| {
        let mut chains: Vec<Chain> = (0..8)
            .map(|i| Chain {
                point: start.clone(),
                generator: generator(Purpose::LearningCoefficient, 0, i),
                max_gradients: usize::MAX,
            })
            .collect();
        let each = |chains: &mut [Chain], step: f64| {
            let found = chains.iter_mut().map(|c| sampler.advance(c, step));
            found.collect()
        };
        let mut progress = Progress::start("test");
        let found = sampler.adapt(&mut chains, &each, budget, &mut progress);
        count(&found.unwrap().1)
    };
    let whole = used(usize::MAX);
    for budget in [8, 50, 200, whole / 2] {
        let used = used(budget);
        assert!((budget / 2..=budget).contains(&used), "{used} of {budget}");
    }
}

#[test]
fn a_constant_loss_has_coefficient_zero() {
    let found = case(3, 1e4, Box::new(|x| (0.0, vec![0.0; x.len()]))).run(&settings(), false);
    assert_eq!(
        (found.coefficient.value, found.coefficient.standard_error),
        (0.0, 0.0)
    );
    assert!(
        found.verdict.is_converged() && (found.balance.value - 1.0).abs() < 0.2,
        "{found}"
    );
}

#[test]
fn losses_that_are_not_finite_are_avoided() {
    // ½ x² for |x| < 0.1, which is not finite elsewhere.
    let wall: Loss = Box::new(|x| match x[0].abs() < 0.1 {
        true => (0.5 * x[0] * x[0], vec![x[0]]),
        false => (f64::NAN, vec![f64::NAN]),
    });
    let found = case(1, 1e4, wall).run(&settings(), false);
    assert!((found.coefficient.value - 0.5).abs() < 0.02, "{found}");
}

#[test]
fn batches_have_a_stated_bias() {
    let truth = quadratic(10, 10.0, 1e3);
    let excess = |x: &[f64]| scaled(truth.temperature, 0.0, Some((truth.loss)(x)));
    // The gradient of a batch: noise of the size of the gradient.
    let batch = |x: &[f64], chain: &mut Chain| {
        let (mut excess, mut slope) = excess(x)?.unwrap();
        for (slope, x) in slope.iter_mut().zip(x) {
            let noise: f64 = StandardNormal.sample(&mut chain.generator);
            *slope += 20.0 * noise;
            excess += 20.0 * noise * x;
        }
        Ok(Some((excess, slope)))
    };
    let target = || Target {
        excess: &excess,
        localization: 1.0,
    };
    let sampler = Langevin {
        target: target(),
        excess: &batch,
        relative_bias: 0.01,
    };
    let settings = LearningCoefficient::default()
        .with_batch_size(1)
        .with_max_gradients(4_000_000);
    let found = truth.sample(&settings, &sampler, false);
    let exact = truth.expectation.unwrap();
    assert!(found.verdict.is_converged(), "{found}");
    assert!(
        (found.coefficient.value / exact - 1.0).abs() < 0.03,
        "{found}"
    );
    assert!(
        found.step_bias > 0.0 && found.step_bias < 0.02 * exact,
        "{found}"
    );
}

/// 40 quadratic losses, 36 monomials and 24 deep linear networks. Prints each, with its error and interval.
#[test]
#[ignore = "takes five minutes: cargo test --lib -- --ignored --nocapture hundred_known_coefficients"]
fn hundred_known_coefficients() {
    let mut cases = Vec::new();
    for dim in [1, 2, 3, 5, 8, 13, 20, 30, 50, 100] {
        cases.extend([1.0, 10.0, 100.0, 1000.0].map(|condition| quadratic(dim, condition, 1e5)));
    }
    for (k, m) in [
        (1, 1),
        (2, 2),
        (3, 3),
        (1, 2),
        (1, 3),
        (2, 3),
        (1, 4),
        (2, 4),
        (3, 4),
    ] {
        cases.extend([1e2, 1e3, 1e4, 1e5].map(|temperature| monomial(k, m, temperature)));
    }
    for (widths, ranks) in [
        (vec![1, 1, 3], vec![0]),
        (vec![2, 1, 4], vec![0, 1]),
        (vec![3, 2, 4], vec![0, 1, 2]),
        (vec![2, 2, 5], vec![0, 1, 2]),
        (vec![3, 4, 3], vec![0, 1, 2, 3]),
        (vec![4, 3, 4], vec![1, 3]),
        (vec![5, 2, 2, 5], vec![1, 2]),
        (vec![2, 2, 2, 2], vec![1, 2]),
        (vec![3, 3, 3, 3], vec![1, 2, 3]),
        (vec![4, 1, 4], vec![0, 1]),
    ] {
        cases.extend(ranks.iter().map(|rank| deep_linear(&widths, *rank, 1e3)));
    }
    assert_eq!(cases.len(), 100);
    // Number of cases, of intervals that contain the expectation, and largest errors.
    let (mut known, mut covered, mut errors) = (0, 0, Array1::<f64>::zeros(2));
    for case in &cases {
        let found = case.run(&settings(), true);
        let value = found.coefficient.value;
        let [low, high] = found.interval(0.95).unwrap();
        let relative = |exact: f64| (value / exact - 1.0).abs();
        println!(
            "{:36} λ {:.4} m {} expectation {:.4?} found {value:.4} [{low:.4}, {high:.4}] {:?}, {} gradients",
            case.name,
            case.coefficient,
            case.multiplicity,
            case.expectation,
            found.verdict,
            found.gradients
        );
        if let Some(exact) = case.expectation {
            known += 1;
            covered += usize::from((low..=high).contains(&exact));
            errors[0] = errors[0].max(relative(exact));
        } else if case.multiplicity == 1 {
            errors[1] = errors[1].max(relative(case.coefficient));
        }
    }
    println!("{covered} of {known} intervals cover; largest errors: {errors}");
    assert!(covered as f64 >= 0.9 * f64::from(known));
    assert!(errors[0] < 0.05 && errors[1] < 0.05);
}
