//! Sharpness: closed forms on quadratics, and invariance to rescaling.

mod common;

use common::{assert_close, bits, dot, moons_network, numbers, quadratic, rescale};
use loss_landscape::landscape::{
    FisherRaoNorm, Flatness, LearningCoefficientVerdict, NormalizedSharpness,
    PreconditionedSharpness, RelativeFlatness, directional_sharpness,
};
use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;
use loss_landscape::spectral::Estimate;
use loss_landscape::train::Adam;

const VALUES: [f64; 6] = [4.0, 2.5, 1.0, 0.5, 0.25, 0.125];
const TRACE: f64 = 8.375;
const MINIMUM: [f64; 6] = [0.3, -1.0, 2.0, 0.7, -0.4, 1.5];

fn at_minimum() -> Objective {
    quadratic(&VALUES, &MINIMUM, &MINIMUM)
}

fn on_a_slope() -> Objective {
    quadratic(&VALUES, &MINIMUM, &[0.1, 0.2, -0.3, 0.4, -0.5, 0.6])
}

#[test]
fn mean_over_the_sphere_of_a_quadratic() {
    // Also away from the minimum, because pairs ±δ cancel the slope.
    for objective in [at_minimum(), on_a_slope()] {
        let sharpness = Sharpness::new(0.7).with_pairs(1_500);
        let found = sharpness.average(&objective).unwrap();
        let exact = 0.49 * TRACE / 12.0;
        assert!((found.quadratic.value - exact).abs() < 1e-12);
        let error = (found.mean.value - exact).abs();
        assert!(error < 4.0 * found.mean.standard_error, "{found}");
        assert!(found.mean.standard_error < 0.03 * exact);
        let mut ball = sharpness.clone();
        ball.seed = 9;
        // Over the ball, E‖δ‖² is n/(n + 2) of that over the sphere.
        let found = ball.random(&objective).unwrap();
        let error = (found.mean.value - 0.75 * exact).abs();
        assert!(error < 4.0 * found.mean.standard_error, "{found}");
    }
}

#[test]
fn mean_over_a_gaussian_of_a_quadratic() {
    let sharpness = Sharpness::new(0.6).with_pairs(1_500);
    let found = sharpness.gaussian(&at_minimum()).unwrap();
    let sigma2 = 0.36 / 6.0;
    let exact = sigma2 * TRACE / 2.0;
    assert!((found.quadratic.value - exact).abs() < 1e-12);
    assert!((found.mean.value - exact).abs() < 4.0 * found.mean.standard_error);
    // Var ½ σ² zᵀHz = ½ σ⁴ tr(H²).
    let squares: f64 = VALUES.iter().map(|v| v * v).sum();
    let exact = (0.5 * sigma2 * sigma2 * squares / 1_500.0).sqrt();
    assert_close(&[found.mean.standard_error], &[exact], 0.1);
}

#[test]
fn standard_errors_of_means_cover() {
    let objective = at_minimum();
    let exact = 0.36 * TRACE / 12.0;
    let covered = (0..200).filter(|seed| {
        let sharpness = Sharpness::new(0.6).with_pairs(30).with_seed(*seed);
        let found = sharpness.average(&objective).unwrap().mean;
        let [low, high] = found.interval(0.95).unwrap();
        low <= exact && exact <= high
    });
    let covered = covered.count();
    assert!((180..=198).contains(&covered), "{covered} of 200");
}

/// In f32, the error of a small mean rise is within the stated rounding.
#[test]
fn stated_rounding_bounds_the_error() {
    let (model, objective) = moons_network(&[2, 8, 2], Activation::Tanh);
    let single = model.to_dtype(DType::F32).unwrap();
    let data = objective.data().to_dtype(DType::F32).unwrap();
    let single = Objective::of(&single, &data, Loss::CrossEntropy).unwrap();
    for radius in [1e-3, 1e-2, 1e-1] {
        let sharpness = Sharpness::new(radius);
        let (a, b) = (
            sharpness.average(&single).unwrap(),
            sharpness.average(&objective).unwrap(),
        );
        assert!((a.rounding / a.center - f64::from(f32::EPSILON)).abs() < 1e-12);
        let difference = (a.mean.value - b.mean.value).abs();
        assert!(difference < 3.0 * a.rounding, "{a}\n{b}");
        assert!(b.rounding < 1e-8 * a.rounding);
    }
}

#[test]
fn random_search_has_its_stated_coverage() {
    let objective = quadratic(&[2.0, 1.0], &[0.0, 0.0], &[0.0, 0.0]);
    // The fraction of the disc on which the rise is at most m is known in closed form.
    let many = Sharpness::new(1.0).with_pairs(1_500).with_seed(77);
    let mut rises = Vec::new();
    for seed in 0..100 {
        let few = Sharpness::new(1.0).with_pairs(10).with_seed(seed);
        let found = few.random(&objective).unwrap();
        assert_eq!(found, few.random(&objective).unwrap());
        assert!((found.coverage - 0.05f64.powf(0.1)).abs() < 1e-15);
        rises.push(found);
    }
    // For L = x² + ½y² on the unit disc, P(rise ≤ m) is the area of the ellipse within it: √2·m for m ≤ ½.
    let share = |m: f64| match m {
        m if m <= 0.5 => 2f64.sqrt() * m,
        // The ellipse extends beyond the disc above and below: integrate numerically.
        m => {
            let steps = 20_000;
            let inside = (0..steps).map(|i| {
                let x = (i as f64 + 0.5) / steps as f64;
                let ellipse = (2.0 * (m - x * x)).max(0.0).sqrt();
                ellipse.min((1.0 - x * x).sqrt())
            });
            4.0 * inside.sum::<f64>() / steps as f64 / std::f64::consts::PI
        }
    };
    let covered = rises.iter().filter(|r| share(r.maximum) >= r.coverage);
    let covered = covered.count();
    assert!(covered >= 89, "{covered} of 100");
    let found = many.random(&objective).unwrap();
    assert!(found.maximum <= 1.0 && found.maximum > 0.95, "{found}");
}

#[test]
fn worst_case_at_a_minimum_is_the_top_eigenvalue() {
    let objective = at_minimum();
    let before = bits(objective.parameters());
    let found = Sharpness::new(0.3).worst_case(&objective).unwrap();
    let exact = 0.09 * 4.0 / 2.0;
    assert!(found.converged);
    assert_close(&[found.rise, found.quadratic], &[exact, exact], 1e-8);
    for rise in &found.by_start {
        assert_close(&[*rise], &[exact], 1e-6);
    }
    assert_close(&[found.perturbation[0].abs()], &[0.3], 1e-6);
    assert_eq!(bits(objective.parameters()), before);
}

/// On a slope, the maximum over the ball solves a trust-region problem: (μ − H)δ = g, ‖δ‖ = ρ, μ > λ₁.
#[test]
fn worst_case_on_a_slope_is_the_trust_region_maximum() {
    let objective = on_a_slope();
    let gradient = objective.gradient().unwrap();
    let rho = 0.5;
    let delta = |mu: f64| -> Vec<f64> {
        let pairs = gradient.iter().zip(VALUES);
        pairs.map(|(g, value)| g / (mu - value)).collect()
    };
    let (mut low, mut high) = (4.0 + 1e-12, 1e3);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        let d = delta(middle);
        if dot(&d, &d) > rho * rho {
            low = middle;
        } else {
            high = middle;
        }
    }
    let d = delta(low);
    let curvature: f64 = d.iter().zip(VALUES).map(|(d, v)| v * d * d).sum();
    let exact = dot(&gradient, &d) + 0.5 * curvature;
    let found = Sharpness::new(rho).worst_case(&objective).unwrap();
    assert_close(&[found.rise], &[exact], 1e-7);
    assert!(found.rise <= found.quadratic);
    let length = dot(&found.perturbation, &found.perturbation).sqrt();
    assert!((length - rho).abs() < 1e-12);
}

/// The worst case is at least the largest rise of a random search, and never negative.
#[test]
fn worst_case_is_never_below_random_search_or_zero() {
    let (_, objective) = moons_network(&[2, 6, 2], Activation::Tanh);
    for radius in [1e-6, 0.1, 10.0] {
        let found = Sharpness::new(radius).worst_case(&objective).unwrap();
        let random = Sharpness::new(radius).random(&objective).unwrap();
        assert!(found.rise >= random.maximum, "{found}\n{random}");
        assert!(found.rise >= 0.0);
        let moved: Vec<f64> = objective
            .parameters()
            .to_flat()
            .unwrap()
            .iter()
            .zip(&found.perturbation)
            .map(|(t, d)| t + d)
            .collect();
        let rise = objective.loss_at(&moved).unwrap() - objective.loss().unwrap();
        assert!((rise - found.rise).abs() < 1e-12 * (1.0 + rise));
    }
}

#[test]
fn sam_step_of_a_quadratic() {
    let objective = on_a_slope();
    let gradient = objective.gradient().unwrap();
    let (square, rho) = (dot(&gradient, &gradient), 0.2);
    let curvature: f64 = gradient.iter().zip(VALUES).map(|(g, v)| v * g * g).sum();
    let exact = rho * square.sqrt() + rho * rho * curvature / (2.0 * square);
    let found = Sharpness::new(rho).sam(&objective).unwrap();
    assert_close(&[found.rise, found.second_order], &[exact, exact], 1e-12);
    assert_close(&[found.first_order], &[rho * square.sqrt()], 1e-12);
    let expected: Vec<f64> = (0..6)
        .map(|i| gradient[i] * (1.0 + rho * VALUES[i] / square.sqrt()))
        .collect();
    assert_close(&found.gradient, &expected, 1e-12);

    let flat = Sharpness::new(rho).sam(&at_minimum()).unwrap();
    assert_eq!(
        (flat.rise, flat.first_order, flat.second_order),
        (0.0, 0.0, 0.0)
    );
    assert!(flat.perturbation.iter().all(|d| *d == 0.0));
}

/// Rescaling the layers without changing the function changes plain sharpness, but not adaptive sharpness.
#[test]
fn adaptive_sharpness_is_invariant_to_rescaling() {
    let (model, objective) = moons_network(&[2, 6, 2], Activation::Relu);
    let measure = |sharpness: Sharpness| {
        [
            sharpness.random(&objective).unwrap().maximum,
            sharpness.average(&objective).unwrap().mean.value,
            sharpness.gaussian(&objective).unwrap().mean.value,
            sharpness.worst_case(&objective).unwrap().rise,
            sharpness.sam(&objective).unwrap().rise,
        ]
    };
    let both = || {
        (
            measure(Sharpness::new(0.2)),
            measure(Sharpness::new(0.2).with_adaptive(true)),
            objective.loss().unwrap(),
        )
    };
    let (plain, adaptive, loss) = both();
    rescale(&model, 5.0);
    let (plain_after, adaptive_after, loss_after) = both();
    assert!((loss - loss_after).abs() < 1e-14);
    for i in 0..5 {
        let change = (adaptive_after[i] / adaptive[i] - 1.0).abs();
        assert!(
            change < 1e-7,
            "measure {i}: {adaptive:?} {adaptive_after:?}"
        );
        let change = (plain_after[i] / plain[i] - 1.0).abs();
        assert!(change > 0.05, "measure {i}: {plain:?} {plain_after:?}");
    }
}

#[test]
fn adaptive_means_of_a_quadratic() {
    // T = |θ|: tr(THT) = Σ λᵢ θᵢ².
    let objective = at_minimum();
    let trace: f64 = VALUES.iter().zip(MINIMUM).map(|(v, m)| v * m * m).sum();
    let sharpness = Sharpness::new(0.5).with_adaptive(true).with_pairs(1_500);
    let found = sharpness.average(&objective).unwrap();
    let exact = 0.25 * trace / 12.0;
    assert!((found.quadratic.value - exact).abs() < 1e-12);
    assert!((found.mean.value - exact).abs() < 4.0 * found.mean.standard_error);
    let top = VALUES.iter().zip(MINIMUM).map(|(v, m)| v * m * m);
    let exact = 0.125 * top.fold(0.0, f64::max);
    let found = sharpness.worst_case(&objective).unwrap();
    assert_close(&[found.rise], &[exact], 1e-7);
}

#[test]
fn flatness_of_a_quadratic() {
    // Equal curvatures: the distance is the same in all directions.
    let objective = quadratic(&[3.0; 5], &[1.0; 5], &[1.0; 5]);
    let found = Flatness::new(0.06).run(&objective).unwrap();
    assert_close(&[found.radius.value, found.quadratic], &[0.2, 0.2], 1e-5);
    assert!(found.radius.standard_error < 1e-6);
    assert_eq!(found.unbounded, 0);

    // Different curvatures: √(2t / uᵀHu) in the direction u, which is at least √(2t/λ₁).
    let found = Flatness::new(0.06).run(&at_minimum()).unwrap();
    assert!(found.radius.value > (0.12f64 / 4.0).sqrt());
    assert!(found.radius.value < (0.12f64 / 0.125).sqrt());
}

/// The loss never rises by the tolerance.
#[test]
fn flatness_of_a_flat_loss_is_an_error() {
    let objective = quadratic(&[1e-30, 1e-30], &[0.0, 0.0], &[0.0, 0.0]);
    let error = Flatness::new(1.0).run(&objective).unwrap_err().to_string();
    assert!(error.contains("never rises"), "{error}");
}

#[test]
fn curvature_along_a_direction() {
    let objective = on_a_slope();
    for i in 0..6 {
        let mut v = [0.0; 6];
        v[i] = -3.0;
        let found = directional_sharpness(&objective, &v).unwrap();
        assert!((found - VALUES[i]).abs() < 1e-13);
    }
    assert!(directional_sharpness(&objective, &[0.0; 6]).is_err());
    assert!(directional_sharpness(&objective, &[1.0; 5]).is_err());
}

/// The error of the second-order prediction is of third order: half the learning rate leaves an eighth.
#[test]
fn predicted_steps() {
    let (_, objective) = moons_network(&[2, 5, 2], Activation::Tanh);
    let gradient = objective.gradient().unwrap();
    let remainder = |rate: f64| {
        let step = StepChange::measure(&objective, &gradient, rate).unwrap();
        assert_close(
            &[step.first_order],
            &[-rate * dot(&gradient, &gradient)],
            1e-12,
        );
        (step.actual - step.second_order).abs()
    };
    let ratio = remainder(0.02) / remainder(0.01);
    assert!((ratio - 8.0).abs() < 0.3, "{ratio}");

    let exact = StepChange::measure(&on_a_slope(), &numbers(6, 3), 0.4).unwrap();
    assert!((exact.actual - exact.second_order).abs() < 1e-13);
}

#[test]
fn stable_learning_rates() {
    let found = StableRate::estimate(&on_a_slope()).unwrap();
    assert_close(
        &[found.limit.value, found.sharpest_step],
        &[0.5, 0.25],
        1e-12,
    );
    assert!(found.limit.low <= 0.5 && 0.5 <= found.limit.high);
    // Without curvature every learning rate is stable.
    let flat = quadratic(&[0.0, 0.0], &[0.0, 0.0], &[1.0, 1.0]);
    let found = StableRate::estimate(&flat).unwrap();
    assert_eq!(found.limit.value, f64::INFINITY);
}

#[test]
fn invalid_settings_are_errors() {
    let objective = at_minimum();
    for radius in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let sharpness = Sharpness::new(radius);
        assert!(sharpness.random(&objective).is_err());
        assert!(sharpness.average(&objective).is_err());
        assert!(sharpness.gaussian(&objective).is_err());
        assert!(sharpness.worst_case(&objective).is_err());
        let error = sharpness.sam(&objective).unwrap_err().to_string();
        assert!(error.contains("above 0"), "{error}");
        assert!(Flatness::new(radius).run(&objective).is_err());
    }
    let none = Sharpness::new(1.0).with_pairs(1).with_starts(0);
    assert!(none.random(&objective).is_err());
    assert!(none.worst_case(&objective).is_err());
    assert!(StepChange::measure(&objective, &[1.0; 6], f64::NAN).is_err());
    assert!(StepChange::measure(&objective, &[1.0; 5], 0.1).is_err());
}

/// Objective Σ over the samples of aᵢzᵢ + ½λᵢzᵢ² + c with zᵢ = xᵢ·w, at w = `start`.
fn terms(x: &[Vec<f64>], slopes: &[f64], curvatures: &[f64], c: f64, start: &[f64]) -> Objective {
    let (m, n) = (x.len(), start.len());
    let inputs = Tensor::from_vec(x.concat(), (m, n), &Device::Cpu).unwrap();
    let pairs = slopes.iter().zip(curvatures);
    let targets = pairs.flat_map(|(a, l)| [m as f64 * a, m as f64 * l]);
    let targets = Tensor::from_iter(targets, &Device::Cpu)
        .unwrap()
        .reshape((m, 2));
    let data = Dataset::regression(&inputs, &targets.unwrap()).unwrap();
    let w = Var::from_slice(start, (n, 1), &Device::Cpu).unwrap();
    let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
    let forward = move |x: &Tensor| x.matmul(w.as_tensor());
    let loss = move |z: &Tensor, targets: &Targets| {
        let Targets::Values(t) = targets else {
            candle::bail!("expected values, found labels")
        };
        let [a, l] = [t.narrow(1, 0, 1)?, t.narrow(1, 1, 1)?];
        let square = ((z.sqr()? * l)? * 0.5)?;
        ((a * z)? + square)?.squeeze(1)? + c
    };
    Objective::from_loss(&parameters, &data, forward, loss).unwrap()
}

fn unit_rows(n: usize) -> Vec<Vec<f64>> {
    let row = |i: usize| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    (0..n).map(row).collect()
}

/// With separable coordinates, each coordinate is at the best point of its interval |zᵢ| ≤ ε(|θᵢ| + 1).
#[test]
fn keskars_sharpness_of_separable_coordinates() {
    let slopes = [0.3, -0.02, 0.0, 0.5, 1e-9, -0.7, 0.0, 0.2];
    let curvatures = [1.0, 4.0, 2.0, -30.0, 0.0, 0.0, -1.0, -0.1];
    let start = [0.4, -1.0, 2.0, 0.0, 0.1, -0.3, 0.0, 3.0];
    for epsilon in [1e-3, 0.05, 1.0] {
        let objective = terms(&unit_rows(8), &slopes, &curvatures, 2.0, &start);
        let before = bits(objective.parameters());
        let found = Sharpness::new(epsilon).keskar(&objective).unwrap();
        let mut rise = 0.0;
        let mut bounds = Vec::new();
        for i in 0..8 {
            let (g, h) = (slopes[i] + curvatures[i] * start[i], curvatures[i]);
            let bound = epsilon * (start[i].abs() + 1.0);
            let at = |z: f64| g * z + 0.5 * h * z * z;
            let top = if h < 0.0 {
                (-g / h).clamp(-bound, bound)
            } else {
                0.0
            };
            rise += [at(bound), at(-bound), at(top)]
                .into_iter()
                .fold(0.0, f64::max);
            bounds.push(bound);
        }
        assert!(found.converged, "{found}");
        assert_close(&[found.rise], &[rise], 1e-9);
        let value = 100.0 * rise / (1.0 + objective.loss().unwrap());
        assert_close(&[found.value], &[value], 1e-9);
        for (z, bound) in found.perturbation.iter().zip(&bounds) {
            assert!(z.abs() <= *bound);
        }
        let theta = start.iter().zip(&found.perturbation);
        let moved: Vec<f64> = theta.map(|(t, z)| t + z).collect();
        assert_close(
            &[objective.loss_at(&moved).unwrap() - found.center],
            &[rise],
            1e-9,
        );
        assert_eq!(bits(objective.parameters()), before);
    }
}

/// A concave function of coupled coordinates with condition number 1,000 and its maximum inside the box. Steepest ascent
/// would take thousands of steps; the limit is 100.
#[test]
fn keskars_sharpness_finds_an_interior_maximum() {
    let n = 12;
    let values: Vec<f64> = (0..n).map(|i| 10f64.powf(3.0 * i as f64 / 11.0)).collect();
    let turned = common::with_eigenvalues(&values, 7);
    let spectrum = turned.eigen().unwrap();
    let vectors: Vec<Vec<f64>> = spectrum.pairs.iter().map(|p| p.vector.clone()).collect();
    // Along each eigenvector, the function is a parabola with its maximum at ⅓.
    let curvatures: Vec<f64> = spectrum.values().iter().map(|v| -v).collect();
    let slopes: Vec<f64> = spectrum.values().iter().map(|v| v / 3.0).collect();
    let objective = terms(&vectors, &slopes, &curvatures, 100.0, &vec![0.0; n]);
    let settings = Sharpness::new(3.0);
    let found = settings.keskar(&objective).unwrap();
    let exact: f64 = spectrum.values().iter().map(|v| v / 18.0).sum();
    assert!(found.converged, "{found}");
    for rise in &found.by_start {
        assert_close(&[*rise], &[exact], 1e-7);
    }
}

/// For a linear loss, every coordinate reaches its bound, and the rise is Σ |aᵢ| ε(|θᵢ| + 1).
#[test]
fn keskars_sharpness_of_a_linear_loss_and_at_a_minimum() {
    let slopes = [1e-6, -3.0, 0.4];
    let start = [5.0, 0.0, -1.0];
    let objective = terms(&unit_rows(3), &slopes, &[0.0; 3], 9.0, &start);
    let found = Sharpness::new(1e-3).keskar(&objective).unwrap();
    let rise = 1e-3 * (1e-6 * 6.0 + 3.0 + 0.4 * 2.0);
    assert_close(&[found.rise], &[rise], 1e-9);
    let loss = 9.0 * 1.0 + 5e-6 - 0.4;
    assert_close(&[found.value], &[100.0 * rise / (1.0 + loss)], 1e-9);

    // Without a slope, all starts but the first are random.
    let found = Sharpness::new(0.3).keskar(&at_minimum()).unwrap();
    let rises = VALUES
        .iter()
        .zip(MINIMUM)
        .map(|(value, m)| 0.5 * value * (0.3 * (m.abs() + 1.0)).powi(2));
    assert_close(&[found.rise], &[rises.sum()], 1e-9);
    assert_eq!(found.by_start[0], 0.0);
    assert_eq!(found, Sharpness::new(0.3).keskar(&at_minimum()).unwrap());

    let (model, exact) = moons_network(&[2, 8, 2], Activation::Tanh);
    let single = model.to_dtype(DType::F32).unwrap();
    let data = exact.data().to_dtype(DType::F32).unwrap();
    let single = Objective::of(&single, &data, Loss::CrossEntropy).unwrap();
    let [a, b] = [&single, &exact].map(|o| Sharpness::new(1e-2).keskar(o).unwrap().value);
    assert_close(&[a], &[b], 1e-3);
    let shown = Sharpness::new(1e-3).keskar(&exact).unwrap();
    assert!(
        shown.to_string().starts_with("Keskar's sharpness "),
        "{shown}"
    );

    let error = |settings: Sharpness, objective: &Objective| {
        settings.keskar(objective).unwrap_err().to_string()
    };
    assert!(error(Sharpness::new(0.1).with_adaptive(true), &exact).contains("with_adaptive(true)"));
    let none = Sharpness::new(0.1).with_starts(0);
    assert!(error(none, &exact).contains("at least 1 start"));
    let below = terms(&unit_rows(3), &slopes, &[0.0; 3], -2.0, &start);
    assert!(error(Sharpness::new(0.1), &below).contains("losses above −1"));
}

/// The quadratic prediction is valid if many eigenvalues share the trace; many parameters alone are not enough.
#[test]
fn flatness_says_where_the_quadratic_prediction_holds() {
    let n = 400;
    let many = |value: &dyn Fn(usize) -> f64| -> Objective {
        let values: Vec<f64> = (0..n).map(value).collect();
        quadratic(&values, &vec![0.0; n], &vec![0.0; n])
    };
    let exact_spread = |value: &dyn Fn(usize) -> f64| {
        let sum: f64 = (0..n).map(value).sum();
        let squares: f64 = (0..n).map(|i| value(i).powi(2)).sum();
        let n = n as f64;
        (2.0 * (n * squares / sum.powi(2) - 1.0) / (n + 2.0)).sqrt()
    };
    let settings = Flatness::new(0.01).with_directions(40);
    let spread_out = |i: usize| 1.0 + 0.5 * ((i % 7) as f64);
    let found = settings.run(&many(&spread_out)).unwrap();
    assert_close(&[found.spread], &[exact_spread(&spread_out)], 0.2);
    let expected = found.quadratic * (1.0 + 0.375 * found.spread.powi(2));
    let error = (found.radius.value - expected).abs();
    assert!(
        error < 4.0 * found.radius.standard_error + 0.03 * expected,
        "{found:?}"
    );
    assert!(
        found.to_string().contains("by the quadratic model"),
        "{found}"
    );

    // As many parameters but one dominant eigenvalue: the mean distance is more than twice as large.
    let dominated = |i: usize| if i == 0 { 400.0 } else { 0.01 };
    let found = settings.run(&many(&dominated)).unwrap();
    assert_close(&[found.spread], &[exact_spread(&dominated)], 0.1);
    assert!(found.spread > 1.3, "{found:?}");
    assert!(found.radius.value > 1.5 * found.quadratic, "{found:?}");
    assert!(found.to_string().contains("does not apply"), "{found}");
}

/// On a quadratic loss with the gradient λ(θ − c), Adam's matrix is diagonal with the entries λ/(|λ(θ − c)| + ε).
#[test]
fn preconditioned_sharpness_of_a_quadratic() {
    let eigenvalues: Vec<f64> = (1..=30).map(f64::from).collect();
    let start: Vec<f64> = eigenvalues.iter().map(|x| 1.0 / (2.0 + x.sin())).collect();
    let objective = quadratic(&eigenvalues, &[0.0; 30], &start);
    let adam = Adam::default().with_epsilon(0.5);
    let found = PreconditionedSharpness::measure(&objective, 30, &adam).unwrap();
    let scaled = eigenvalues
        .iter()
        .zip(&start)
        .map(|(x, c)| x / (x * c + 0.5));
    let scaled: Vec<f64> = scaled.collect();
    let relative = |values: &[f64]| {
        let largest = values.iter().fold(0.0, |m: f64, x| m.max(*x));
        (largest, 30.0 * largest / values.iter().sum::<f64>())
    };
    let ((sgd, sgd_relative), (adam, adam_relative)) = (relative(&eigenvalues), relative(&scaled));
    for (found, expected) in [
        (found.sgd.value, sgd),
        (found.adam.value, adam),
        (found.sgd_relative.value, sgd_relative),
        (found.adam_relative.value, adam_relative),
        (found.ratio.value, adam_relative / sgd_relative),
    ] {
        assert!(
            (found - expected).abs() < 1e-8 * expected,
            "{found} is not {expected}"
        );
    }
    assert!(found.ratio.value < 0.9 && found.ratio.standard_error < 1e-8);

    // With one sample per batch, v is the mean of the samples' squared gradients: 30 times as large.
    let single = PreconditionedSharpness::measure(&objective, 1, &Adam::default()).unwrap();
    let whole = PreconditionedSharpness::measure(&objective, 30, &Adam::default()).unwrap();
    let expected = whole.adam.value / 30f64.sqrt();
    assert!((single.adam.value - expected).abs() < 1e-6 * expected);
    assert!(PreconditionedSharpness::measure(&objective, 0, &Adam::default()).is_err());
}

/// [`quadratic`] with hand-derived rules, at another start.
fn linear_network(start: &[f64]) -> Objective {
    let objective = quadratic(&VALUES, &MINIMUM, start);
    let weight = Var::from_slice(start, (1, start.len()), &Device::Cpu).unwrap();
    let parameters = Parameters::new([("w.weight".to_owned(), weight)]).unwrap();
    let layers = vec![loss_landscape::layers::Linear::without_bias("w.weight").into()];
    Objective::of(
        &Layered::new(layers, parameters),
        objective.data(),
        Loss::Mse,
    )
    .unwrap()
}

#[test]
fn learning_coefficient_of_a_quadratic() {
    let objective = linear_network(&MINIMUM);
    assert!(objective.is_hand_derived());
    // n = 6 samples; γ = d/‖w*‖².
    let gamma = 6.0 / dot(&MINIMUM, &MINIMUM);
    let exact = |temperature: f64| -> f64 {
        let shares = VALUES
            .iter()
            .map(|h| 0.5 * temperature * h / (temperature * h + gamma));
        shares.sum()
    };
    let before = bits(objective.parameters());
    let found = LearningCoefficient::default().run(&objective).unwrap();
    assert_eq!(bits(objective.parameters()), before);
    assert!(
        (found.beta - 1.0 / 6f64.ln()).abs() < 1e-15 && (found.localization - gamma).abs() < 1e-12
    );
    let error = (found.coefficient.value - exact(6.0 / 6f64.ln())).abs();
    assert!(error < 4.0 * found.coefficient.standard_error, "{found}");
    let settings = LearningCoefficient::default().with_beta(1e4);
    let found = settings.run(&objective).unwrap();
    assert!(
        (found.coefficient.value - exact(6e4)).abs() < 1e-4,
        "{found}"
    );
    assert!(found.verdict.is_converged());
    let batches = settings.clone().with_chains(4).with_batch_size(3);
    let found = batches.with_max_gradients(10_000).run(&objective).unwrap();
    assert!(
        (found.coefficient.value / exact(6e4) - 1.0).abs() < 0.02,
        "{found}"
    );
    assert!(found.step_bias > 0.0 && found.batch_size == Some(3));

    let away = settings
        .run(&linear_network(&[0.1, 0.2, -0.3, 0.4, -0.5, 0.6]))
        .unwrap_err()
        .to_string();
    assert!(away.contains("not a local minimum"), "{away}");
    let near: Vec<f64> = MINIMUM.iter().map(|m| m + 2e-3).collect();
    let found = settings.run(&linear_network(&near)).unwrap();
    assert_eq!(found.verdict, LearningCoefficientVerdict::NotAMinimum);
    // nβ(L(w*) − min L)
    let descent = 6e4 * 0.5 * 4e-6 * TRACE;
    assert!((found.descent / descent - 1.0).abs() < 0.05, "{found}");
}

#[test]
fn learning_coefficients_that_are_refused() {
    let objective = at_minimum();
    let usual = LearningCoefficient::default;
    for (settings, words) in [
        (usual().with_beta(-1.0), "the inverse temperature β is -1"),
        (usual().with_localization(0.0), "the localisation γ is 0"),
        (
            usual().with_relative_error(f64::NAN),
            "the relative error is NaN",
        ),
        (usual().with_chains(1), "1 chain cannot be compared"),
        (usual().with_batch_size(0), "the batch size is 0"),
        (usual().with_batch_size(7), "a batch of 7 of 6 samples"),
        (
            usual().with_max_gradients(0),
            "the maximum number of gradients is 0",
        ),
    ] {
        let error = settings.run(&objective).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let one = quadratic(&[1.0], &[0.5], &[0.5]);
    let error = usual().run(&one).unwrap_err().to_string();
    assert!(error.contains("not defined for n = 1"), "{error}");
    let (model, objective) = moons_network(&[2, 4, 2], Activation::Tanh);
    let theta = model.parameters().to_flat().unwrap();
    let infinite: Vec<f64> = theta.iter().map(|t| 1.7e308 * t.signum()).collect();
    model.parameters().set_flat(&infinite).unwrap();
    let error = usual().run(&objective).unwrap_err().to_string();
    assert!(error.contains("finite"), "{error}");
}

/// L(a, b) = ‖a b‖² for one input, one hidden unit and three outputs without biases, whose λ is ½ at the origin; with
/// hand-derived rules and on any number of threads.
#[test]
fn learning_coefficient_of_a_deep_linear_network() {
    use loss_landscape::layers::Linear;

    let x = Tensor::ones((2, 1), DType::F64, &Device::Cpu).unwrap();
    let y = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
    let data = Dataset::regression(&x, &y).unwrap();
    let weight = |name: &str, shape: (usize, usize)| {
        let var = Var::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        (name.to_owned(), var)
    };
    let parameters = Parameters::new([weight("a.weight", (1, 1)), weight("b.weight", (3, 1))]);
    let layers = vec![
        Linear::without_bias("a.weight").into(),
        Linear::without_bias("b.weight").into(),
    ];
    let model = Layered::new(layers, parameters.unwrap());
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    assert!(objective.is_hand_derived());
    let settings = LearningCoefficient::default()
        .with_beta(500.0)
        .with_chains(4);
    let settings = settings.with_relative_error(0.05);
    let run = |settings: &LearningCoefficient, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| settings.run(&objective).unwrap())
    };
    let found = run(&settings, 1);
    assert!((found.coefficient.value - 0.5).abs() < 0.15, "{found}");
    assert_eq!(found, run(&settings, 3));
}

/// A ReLU network of this width, and the dense Gauss–Newton matrix and Hessian of its objective.
fn relu_network(width: usize) -> (Mlp, Objective, [Array2<f64>; 2]) {
    let (model, objective) = moons_network(&[2, width, 2], Activation::Relu);
    let matrices = [
        objective.gauss_newton().dense().unwrap(),
        objective.hessian().dense().unwrap(),
    ];
    let matrices = matrices.map(|matrix| matrix.matrix().to_owned());
    (model, objective, matrices)
}

fn is_near(found: &Estimate, exact: f64) -> bool {
    (found.value - exact).abs() <= 5.0 * found.standard_error + 1e-9 * exact.abs()
}

#[test]
fn measures_of_layers_equal_their_formulas() {
    check_measures_of_layers(6, 1.0 + 1e-6);
    // The diagonal of 120 weights is estimated.
    check_measures_of_layers(60, 1.1);
}

/// Compares the measures with their formulas. The normalised sharpness is at most `looseness` times the minimum.
fn check_measures_of_layers(width: usize, looseness: f64) {
    let (model, objective, [ggn, hessian]) = relu_network(width);
    let theta = model.parameters().to_flat().unwrap();
    let quadratic = |m: &Array2<f64>| {
        let rows = m.rows().into_iter().zip(&theta);
        let row = |r: &[f64]| r.iter().zip(&theta).map(|(a, b)| a * b).sum::<f64>();
        rows.map(|(r, t)| t * row(&r.to_vec())).sum::<f64>()
    };
    let norm = FisherRaoNorm::measure(&objective).unwrap();
    let exact = quadratic(&ggn);
    assert!((norm.gauss_newton.value - exact).abs() < 1e-12 * exact);

    let flatness = RelativeFlatness::measure(&objective).unwrap();
    let sharpness = NormalizedSharpness::measure(&objective, 0).unwrap();
    for (i, (name, units, inputs)) in [("layers.0.weight", width, 2), ("layers.1.weight", 2, width)]
        .into_iter()
        .enumerate()
    {
        let start = model.parameters().range(name).unwrap().start;
        let at = |unit: usize, input: usize| start + unit * inputs + input;
        let mut kappa = 0.0;
        for (s, t) in (0..units).flat_map(|s| (0..units).map(move |t| (s, t))) {
            let product: f64 = (0..inputs).map(|k| theta[at(s, k)] * theta[at(t, k)]).sum();
            let trace: f64 = (0..inputs).map(|k| hessian[[at(s, k), at(t, k)]]).sum();
            kappa += product * trace;
        }
        assert_eq!(flatness.layers[i].0, name);
        assert!(
            is_near(&flatness.layers[i].1, kappa),
            "{name}: {flatness:?}, {kappa}"
        );

        // No scales give less than the minimum, and those found are close to it.
        let found = sharpness.layers[i].1;
        let mut lowest = f64::INFINITY;
        let value = |logs: &[f64]| -> f64 {
            let all = (0..units).flat_map(|s| (0..inputs).map(move |k| (s, k)));
            all.map(|(s, k)| {
                let noise = (logs[s] + logs[units + k]).exp();
                ggn[[at(s, k), at(s, k)]] * noise + theta[at(s, k)].powi(2) / noise
            })
            .sum()
        };
        // The problem is convex in the logarithms: descent along the axes.
        let mut logs = vec![0.0; units + inputs];
        let mut step = 1.0;
        while step > 1e-7 {
            let before = lowest;
            for j in 0..logs.len() {
                for sign in [step, -step] {
                    logs[j] += sign;
                    match value(&logs) < lowest {
                        true => lowest = value(&logs),
                        false => logs[j] -= sign,
                    }
                }
            }
            if lowest == before {
                step *= 0.5;
            }
        }
        let error = 3.0 * found.standard_error + 1e-6 * lowest;
        assert!(
            found.value > lowest - error && found.value < looseness * lowest + error,
            "{found}, {lowest}"
        );
    }
}

#[test]
fn measures_of_layers_are_invariant_to_rescaling() {
    let (model, objective) = moons_network(&[2, 6, 2], Activation::Relu);
    let measure = || {
        let norm = FisherRaoNorm::measure(&objective).unwrap();
        let flatness = RelativeFlatness::measure(&objective).unwrap();
        let sharpness = NormalizedSharpness::measure(&objective, 0).unwrap();
        let layers = flatness.layers.iter().chain(&sharpness.layers);
        let mut all = vec![norm.empirical.value, norm.gauss_newton.value];
        all.extend(layers.map(|(_, estimate)| estimate.value));
        all
    };
    let (before, trace) = (measure(), objective.hessian().trace().unwrap().value);
    rescale(&model, 5.0);
    assert_close(&measure(), &before, 1e-6);
    let after = objective.hessian().trace().unwrap().value;
    assert!((after / trace - 1.0).abs() > 0.05);
}

/// θ·∇f = 2f for a network of two layers without biases.
#[test]
fn fisher_rao_norm_of_a_relu_network_without_biases() {
    let (model, objective) = moons_network(&[2, 6, 2], Activation::Relu);
    let mut theta = model.parameters().to_flat().unwrap();
    for (name, range) in model.parameters().blocks() {
        if name.ends_with("bias") {
            theta[range].fill(0.0);
        }
    }
    model.parameters().set_flat(&theta).unwrap();
    let outputs = model.forward(objective.data().inputs()).unwrap();
    let outputs = outputs.to_vec2::<f64>().unwrap();
    let Targets::Labels(labels) = objective.data().targets() else {
        panic!("the moons have labels");
    };
    let labels = labels.to_vec1::<u32>().unwrap();
    let squares = outputs.iter().zip(&labels).map(|(f, label)| {
        let sum: f64 = f.iter().map(|x| x.exp()).sum();
        let slopes = f.iter().enumerate().map(|(k, x)| {
            let is_label = f64::from(u8::from(k == *label as usize));
            x * (x.exp() / sum - is_label)
        });
        (2.0 * slopes.sum::<f64>()).powi(2)
    });
    let exact = squares.sum::<f64>() / labels.len() as f64;
    let found = FisherRaoNorm::measure(&objective).unwrap().empirical.value;
    assert!((found - exact).abs() < 1e-12 * exact, "{found}, {exact}");
}

#[test]
fn m_sharpness_grows_as_batches_shrink() {
    let (_, objective) = moons_network(&[2, 6, 2], Activation::Tanh);
    let sharpness = Sharpness::new(0.1);
    let n = objective.data().len();
    let rises = [n, n / 4, n / 20].map(|m| {
        let found = sharpness.m_sharpness(&objective, m, 100).unwrap();
        assert_eq!(found.rises.len(), n / m);
        found.mean.value
    });
    assert!(rises.is_sorted(), "{rises:?}");
    let worst = sharpness.worst_case(&objective).unwrap().rise;
    assert!(
        (rises[0] - worst).abs() < 1e-9 * worst,
        "{rises:?}, {worst}"
    );
    for (m, batches) in [(0, 5), (n + 1, 5), (n / 2, 1), (1, 0)] {
        assert!(sharpness.m_sharpness(&objective, m, batches).is_err());
    }
}
