//! Gradient noise and its effect on a step, compared with sums over all samples and all batches, in f64.

mod common;

use common::{Broken, OnDiagonal, assert_close, dot, numbers, with_eigenvalues};
use loss_landscape::landscape::{ModifiedLoss, NoiseReport};
use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;
use loss_landscape::serde_json;
use loss_landscape::spectral::Estimate;

const CPU: Device = Device::Cpu;

/// Linear regression with squared error, at an arbitrary point.
fn regression(n: usize, d: usize) -> Objective {
    let x = Tensor::from_vec(numbers(n * d, 1), (n, d), &CPU).unwrap();
    let y = Tensor::from_vec(numbers(n, 2), (n, 1), &CPU).unwrap();
    let data = Dataset::regression(&x, &y).unwrap();
    let model = Mlp::new(&[d, 1], Activation::Tanh, 3, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    Objective::of(&model, &data, Loss::Mse).unwrap()
}

fn net() -> Objective {
    let data = two_moons(40, 0.2, 1, &CPU).unwrap();
    let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 2, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    Objective::of(&model, &data, Loss::CrossEntropy).unwrap()
}

/// Returns Σ, H and g of a [`regression`] by their formulas: gᵢ = 2rᵢ(1, xᵢ), H = (2/n) Σ (1, xᵢ)(1, xᵢ)ᵀ.
fn closed_form(objective: &Objective) -> (Array2<f64>, Array2<f64>, Vec<f64>) {
    let theta = objective.parameters().to_flat().unwrap();
    let rows = objective.data().inputs().to_vec2::<f64>().unwrap();
    let Targets::Values(values) = objective.data().targets() else {
        unreachable!()
    };
    let values = values.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (n, k) = (rows.len() as f64, theta.len());
    let (mut moment, mut hessian) = (Array2::zeros((k, k)), Array2::zeros((k, k)));
    let mut mean = vec![0.0; k];
    for (row, y) in rows.iter().zip(values) {
        let x = [vec![1.0], row.clone()].concat();
        let residual = dot(&theta, &x) - y;
        for i in 0..k {
            mean[i] += 2.0 * residual * x[i] / n;
            for j in 0..k {
                moment[[i, j]] += 4.0 * residual * residual * x[i] * x[j] / n;
                hessian[[i, j]] += 2.0 * x[i] * x[j] / n;
            }
        }
    }
    for i in 0..k {
        for j in 0..k {
            moment[[i, j]] -= mean[i] * mean[j];
        }
    }
    (moment, hessian, mean)
}

/// Returns all lists of `len` numbers below `n` that satisfy `keep`.
fn lists(n: usize, len: usize, keep: impl Fn(&[usize]) -> bool) -> Vec<Vec<usize>> {
    let list = |code: usize| -> Vec<usize> {
        (0..len)
            .map(|digit| code / n.pow(digit as u32) % n)
            .collect()
    };
    (0..n.pow(len as u32))
        .map(list)
        .filter(|l| keep(l))
        .collect()
}

fn subsets(n: usize, len: usize) -> Vec<Vec<usize>> {
    lists(n, len, |list| list.is_sorted_by(|a, b| a < b))
}

fn batch_gradient(objective: &Objective, batch: &[usize]) -> Vec<f64> {
    let batch = objective.data().select(batch).unwrap();
    objective.with_data(&batch).unwrap().gradient().unwrap()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn trace(matrix: &Array2<f64>) -> f64 {
    matrix.diag().sum()
}

#[track_caller]
fn assert_covered(estimate: &Estimate, truth: f64) {
    let [low, high] = estimate.interval(0.999).unwrap();
    assert!((low..=high).contains(&truth), "{estimate:?} is not {truth}");
}

#[test]
fn noise_of_a_linear_regression_matches_closed_forms() {
    let objective = regression(19, 4);
    let (sigma, hessian, g) = closed_form(&objective);
    let report = GradientNoise::default().with_top(3).with_probes(2000);
    let report = report.run(&objective).unwrap();
    let square = dot(&g, &g);
    let gv = Array2::from_shape_vec((5, 1), g).unwrap();
    let along = gv.t().dot(&hessian).dot(&gv)[[0, 0]];
    let (inner, variance) = (trace(&hessian.dot(&sigma)), trace(&sigma));
    let size = (trace(&hessian.dot(&hessian)) * trace(&sigma.dot(&sigma))).sqrt();

    assert!((report.gradient_norm.powi(2) - square).abs() < 1e-12 * square);
    assert!((report.gradient_curvature - along).abs() < 1e-12 * along);
    // Five products determine a 5 × 5 matrix.
    assert!((report.variance.value - variance).abs() < 1e-11 * variance);
    assert!(
        (report.simple_noise_scale.value - variance / square).abs() < 1e-11 * variance / square
    );
    assert_covered(&report.alignment.product, inner);
    assert_covered(&report.alignment.cosine, inner / size);
    assert_covered(&report.noise_scale, inner / along);
    assert!(report.alignment.cosine.standard_error < 0.02, "{report:?}");

    let eigen = |matrix: &Array2<f64>| Dense::new(matrix.clone()).unwrap().eigen().unwrap();
    let (sigma, hessian) = (eigen(&sigma), eigen(&hessian));
    assert_close(&report.covariance.values(), &sigma.values()[..3], 1e-9);
    assert_close(&report.hessian.values(), &hessian.values()[..3], 1e-9);
    let exact = sigma.subspace_overlap(&hessian, 3).unwrap();
    assert!((report.overlap.value - exact.value).abs() < 1e-9);
    assert!(exact.high - exact.low < 1e-10 && (0.0..=1.0).contains(&exact.value));
}

/// At a batch size of tr Σ/‖g‖², the mean squared distance of batch gradients from g equals ‖g‖².
#[test]
fn the_simple_noise_scale_is_that_of_all_batches() {
    for objective in [
        regression(5, 2),
        net().with_data(&net().data().first(5).unwrap()).unwrap(),
    ] {
        let g = objective.gradient().unwrap();
        let noise = lists(5, 3, |_| true);
        let noise = mean(noise.iter().map(|batch| {
            let found = batch_gradient(&objective, batch);
            found.iter().zip(&g).map(|(a, b)| (a - b).powi(2)).sum()
        }));
        let expected = 3.0 * noise / dot(&g, &g);
        let settings = GradientNoise::default().with_top(1);
        let report = settings.run(&objective).unwrap();
        let found = report.simple_noise_scale.value;
        assert!(
            (found / expected - 1.0).abs() < 1e-10,
            "{found} is not {expected}"
        );
    }
}

#[test]
fn the_modified_loss_is_the_mean_over_all_batches() {
    for objective in [
        regression(6, 2),
        net().with_data(&net().data().first(6).unwrap()).unwrap(),
    ] {
        // Batches of 4 and 5 are unequal. `tests/implicit_bias.rs` covers them.
        for size in [1, 2, 3, 6] {
            let modified = ImplicitBias::new(0.3, size).run(&objective).unwrap();
            let squares = subsets(6, size).into_iter().map(|batch| {
                let g = batch_gradient(&objective, &batch);
                dot(&g, &g)
            });
            let expected = objective.loss().unwrap() + 0.3 / 4.0 * mean(squares);
            let found = modified.total().value;
            assert!(
                (found / expected - 1.0).abs() < 1e-11,
                "{found} is not {expected}"
            );
            assert_eq!(modified.noise.value == 0.0, size == 6);
        }
    }
}

/// Integrates ∂θ/∂t = `flow` for `time` with a Runge–Kutta method. Returns the final θ.
fn integrate(objective: &Objective, time: f64, flow: impl Fn(&Objective) -> Vec<f64>) -> Vec<f64> {
    let parameters = objective.parameters();
    let start = parameters.to_flat().unwrap();
    let along = |from: &[f64], slope: &[f64], step: f64| -> Vec<f64> {
        from.iter().zip(slope).map(|(x, s)| x + step * s).collect()
    };
    let slope = |theta: &[f64]| {
        parameters.set_flat(theta).unwrap();
        flow(objective)
    };
    let (mut theta, steps) = (start.clone(), 20);
    let h = time / f64::from(steps);
    for _ in 0..steps {
        let a = slope(&theta);
        let b = slope(&along(&theta, &a, h / 2.0));
        let c = slope(&along(&theta, &b, h / 2.0));
        let d = slope(&along(&theta, &c, h));
        for (part, weight) in [(a, 1.0), (b, 2.0), (c, 2.0), (d, 1.0)] {
            theta = along(&theta, &part, weight * h / 6.0);
        }
    }
    parameters.set_flat(&start).unwrap();
    theta
}

/// The local error of the gradient flow is O(η²), and O(η³) for the gradient flow of the modified loss.
#[test]
fn gradient_descent_follows_the_modified_flow() {
    let objective = net();
    let (theta, g) = (
        objective.parameters().to_flat().unwrap(),
        objective.gradient().unwrap(),
    );
    let negative_gradient = |objective: &Objective| -> Vec<f64> {
        objective.gradient().unwrap().iter().map(|g| -g).collect()
    };
    let errors = [0.2, 0.1, 0.05, 0.025].map(|eta| {
        let modified = |objective: &Objective| {
            let n = objective.data().len();
            let drift = ImplicitBias::new(eta, n).run(objective).unwrap().drift;
            let flow = negative_gradient(objective).into_iter().zip(drift);
            flow.map(|(g, drift)| g + drift).collect()
        };
        let error = |flow: &dyn Fn(&Objective) -> Vec<f64>| {
            let end = integrate(&objective, eta, flow);
            let step = theta.iter().zip(&g).map(|(t, g)| t - eta * g);
            end.iter()
                .zip(step)
                .map(|(a, b)| (a - b).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        [error(&negative_gradient), error(&modified)]
    });
    for pair in errors.windows(2) {
        let [plain, modified] = [0, 1].map(|i| pair[0][i] / pair[1][i]);
        println!("errors {:?}, ratios {plain:.3} and {modified:.3}", pair[0]);
        assert!((plain - 4.0).abs() < 0.3, "{errors:?}");
        assert!((modified - 8.0).abs() < 0.5, "{errors:?}");
    }
}

/// For a quadratic loss, the expected change is the mean over all batches.
#[test]
fn the_expected_change_is_the_mean_over_all_batches() {
    let (d, eta) = (3, 0.1);
    let objective = regression(6, d);
    let theta = objective.parameters().to_flat().unwrap();
    let before = objective.loss().unwrap();
    let report = GradientNoise::default().with_top(1).with_probes(20_000);
    let report = report.run(&objective).unwrap();
    let (sigma, hessian, _) = closed_form(&objective);
    let trace_error = trace(&hessian.dot(&sigma)) - report.alignment.product.value;
    for size in 1..=6 {
        let after = subsets(6, size).into_iter().map(|batch| {
            let g = batch_gradient(&objective, &batch);
            let step: Vec<f64> = theta.iter().zip(&g).map(|(t, g)| t - eta * g).collect();
            objective.loss_at(&step).unwrap() - before
        });
        let (truth, found) = (mean(after), report.expected_change(eta, size).unwrap());
        // With the exact tr(HΣ), the result is exact. With the estimate, the interval covers the exact value.
        let share = (6.0 - size as f64) / (size as f64 * 5.0);
        let exact = found.value + 0.5 * eta * eta * share * trace_error;
        assert!(
            (exact - truth).abs() < 1e-13,
            "{size}: {exact} is not {truth}"
        );
        if size < 6 {
            assert_covered(&found, truth);
        }
    }
}

#[test]
fn multiples_of_a_matrix_have_cosine_one() {
    let eigenvalues = [3.0, 1.0, -0.5, 0.2, 0.1, 0.0];
    let a = with_eigenvalues(&eigenvalues, 1);
    for factor in [2.5, -1e-9] {
        let b = Dense::new(a.matrix() * factor).unwrap();
        let found = Alignment::estimate(&a, &b, 12, 3).unwrap().cosine;
        assert!((found.value - factor.signum()).abs() < 1e-14, "{found:?}");
        assert!(found.standard_error < 1e-13, "{found:?}");
    }
    let spectrum = a.eigen().unwrap();
    for k in [1, 2, 6] {
        let overlap = spectrum.subspace_overlap(&spectrum, k).unwrap();
        assert!((overlap.value - 1.0).abs() < 1e-13 && overlap.low > 1.0 - 1e-12);
    }
}

#[test]
fn matrices_on_different_axes_have_cosine_zero() {
    let (a, b) = (
        OnDiagonal(vec![2.0, 1.0, 0.0, 0.0]),
        OnDiagonal(vec![0.0, 0.0, 5.0, 3.0]),
    );
    let found = Alignment::estimate(&a, &b, 5, 0).unwrap();
    assert_eq!((found.product.value, found.cosine.value), (0.0, 0.0));
    let zero = Alignment::estimate(&a, &OnDiagonal(vec![0.0; 4]), 5, 0).unwrap();
    assert_eq!((zero.cosine.value, zero.cosine.standard_error), (0.0, 0.0));

    let eigen = |a: &OnDiagonal| a.dense().unwrap().eigen().unwrap();
    let (a, b) = (eigen(&a), eigen(&b));
    let none = a.subspace_overlap(&b, 2).unwrap();
    assert!(none.value < 1e-14 && none.high < 1e-12, "{none:?}");
    // The third and fourth eigenvalues of the first matrix are both 0, so its three leading vectors span no well-defined space.
    let third = a.subspace_overlap(&b, 3).unwrap();
    assert_eq!((third.low, third.high), (0.0, 1.0));
    assert!(a.subspace_overlap(&b, 0).is_err() && a.subspace_overlap(&b, 5).is_err());
}

/// The bounds of an overlap account for the errors of the eigenvectors.
#[test]
fn overlap_bounds_hold() {
    let eigenvalues: Vec<f64> = (0..60).map(|i| 1.1f64.powi(-i)).collect();
    let (a, b) = (
        with_eigenvalues(&eigenvalues, 4),
        with_eigenvalues(&eigenvalues, 5),
    );
    let exact = a
        .eigen()
        .unwrap()
        .subspace_overlap(&b.eigen().unwrap(), 4)
        .unwrap();
    let mut widths = Vec::new();
    for tolerance in [1e-2, 1e-3, 1e-4] {
        let rough = |matrix: &Dense| {
            let lanczos = Lanczos::default().with_tolerance(tolerance);
            lanczos.run(matrix, 5).unwrap()
        };
        let found = rough(&a).subspace_overlap(&rough(&b), 4).unwrap();
        assert!(
            found.low <= exact.value && exact.value <= found.high,
            "{found:?}, {exact:?}"
        );
        widths.push(found.high - found.low);
    }
    assert!(widths[2] < 0.05 && widths[2] < widths[0], "{widths:?}");
}

#[test]
fn standard_errors_of_alignment_cover() {
    let decay = |base: f64| (0..24).map(|i| base.powi(i)).collect::<Vec<_>>();
    // Two matrices with a common summand.
    let a = with_eigenvalues(&decay(0.8), 1);
    let b = with_eigenvalues(&decay(0.7), 2);
    let b = Dense::new(b.matrix() + a.matrix()).unwrap();
    let inner = trace(&a.matrix().dot(b.matrix()));
    let size = |m: &Dense| trace(&m.matrix().dot(m.matrix())).sqrt();
    let cosine = inner / (size(&a) * size(&b));
    let mut covered = [0, 0];
    for seed in 0..200 {
        let found = Alignment::estimate(&a, &b, 40, seed).unwrap();
        assert!(found.cosine.value.abs() <= 1.0);
        for ((covered, estimate), truth) in covered
            .iter_mut()
            .zip([found.product, found.cosine])
            .zip([inner, cosine])
        {
            let [low, high] = estimate.interval(0.95).unwrap();
            assert!(low < high && estimate.products == 80);
            *covered += usize::from((low..=high).contains(&truth));
        }
    }
    println!("cosine {cosine:.4}, covered {covered:?} of 200");
    for covered in covered {
        assert!((180..=198).contains(&covered), "{covered} of 200");
    }
}

/// Samples whose gradients cancel: no gradient, but noise.
fn balanced(samples: usize) -> Objective {
    let values: Vec<f64> = (0..samples)
        .map(|i| if i % 2 == 0 { 1.0 } else { -1.0 })
        .collect();
    let w = Var::zeros((1, 1), DType::F64, &CPU).unwrap();
    let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
    let x = Tensor::ones((samples, 1), DType::F64, &CPU).unwrap();
    let data = Dataset::regression(&x, &Tensor::from_vec(values, samples, &CPU).unwrap()).unwrap();
    Objective::from_fn(&parameters, &data, Loss::Mse, move |x| x.matmul(&w)).unwrap()
}

#[test]
fn without_a_gradient_the_noise_scales_are_infinite() {
    let settings = GradientNoise::default().with_top(1);
    let report = settings.run(&balanced(2)).unwrap();
    assert_eq!((report.gradient_norm, report.variance.value), (0.0, 4.0));
    for scale in [report.simple_noise_scale, report.noise_scale] {
        assert_eq!((scale.value, scale.standard_error), (f64::INFINITY, 0.0));
        assert_eq!(scale.interval(0.95).unwrap(), [f64::INFINITY; 2]);
    }
    // The whole change of the loss is noise: ½η² tr(HΣ)/B with H = 2, Σ = 4.
    let change = report.expected_change(0.1, 1).unwrap();
    assert!((change.value - 0.04).abs() < 1e-15, "{change:?}");
    assert_eq!(
        (report.overlap.low, report.alignment.cosine.value),
        (1.0, 1.0)
    );
}

#[test]
fn one_sample_has_no_noise() {
    let settings = GradientNoise::default().with_top(2);
    for objective in [
        regression(1, 3),
        net().with_data(&net().data().first(1).unwrap()).unwrap(),
    ] {
        for objective in [objective.clone(), objective.by_autograd()] {
            let report = settings.run(&objective).unwrap();
            assert!(report.gradient_norm > 0.0);
            for estimate in [
                report.variance,
                report.simple_noise_scale,
                report.noise_scale,
                report.alignment.product,
                report.alignment.cosine,
                ImplicitBias::new(0.1, 1).run(&objective).unwrap().noise,
            ] {
                assert_eq!((estimate.value, estimate.standard_error), (0.0, 0.0));
            }
            assert_eq!(report.covariance.values(), [0.0, 0.0]);
            assert_eq!((report.overlap.low, report.overlap.high), (0.0, 1.0));
        }
    }
    // Without gradient and noise, the scales are 0.
    let flat = balanced(2)
        .with_data(&balanced(4).data().select(&[0]).unwrap())
        .unwrap();
    flat.parameters().set_flat(&[1.0]).unwrap();
    let report = settings.with_top(1).run(&flat).unwrap();
    assert_eq!(
        (report.gradient_norm, report.simple_noise_scale.value),
        (0.0, 0.0)
    );
    assert_eq!(report.noise_scale.value, 0.0);
}

#[test]
fn an_l2_term_adds_no_noise() {
    let plain = regression(12, 3);
    let strong = plain.clone().with_l2(0.7).unwrap();
    let settings = GradientNoise::default().with_top(2);
    let (plain, strong) = (
        settings.run(&plain).unwrap(),
        settings.run(&strong).unwrap(),
    );
    assert_close(
        &plain.covariance.values(),
        &strong.covariance.values(),
        1e-12,
    );
    let shifted: Vec<f64> = plain.hessian.values().iter().map(|x| x + 1.4).collect();
    assert_close(&strong.hessian.values(), &shifted, 1e-9);
}

#[test]
fn reports_are_deterministic_and_serialisable() {
    let objective = net();
    let report = GradientNoise::default().run(&objective).unwrap();
    assert_eq!(report, GradientNoise::default().run(&objective).unwrap());
    let text = serde_json::to_string(&report).unwrap();
    let read: NoiseReport = serde_json::from_str(&text).unwrap();
    assert_close(&read.hessian.values(), &report.hessian.values(), 1e-15);
    let shown = report.bundle().unwrap();
    assert!(
        shown
            .get("text/html")
            .unwrap()
            .contains("overlap of eigenspaces")
    );

    let modified = ImplicitBias::new(0.1, 8).run(&objective).unwrap();
    let text = serde_json::to_string(&modified).unwrap();
    let read: ModifiedLoss = serde_json::from_str(&text).unwrap();
    assert_close(&read.drift, &modified.drift, 1e-15);
    assert!(
        modified
            .bundle()
            .unwrap()
            .get("text/html")
            .unwrap()
            .contains("full batch")
    );
    assert!(report.alignment.bundle().is_ok());
}

#[test]
fn invalid_settings_are_errors() {
    let objective = regression(6, 2);
    for top in [0, 4] {
        let settings = GradientNoise::default().with_top(top);
        let message = settings.run(&objective).unwrap_err().to_string();
        assert!(message.contains("use 1 to 3"), "{message}");
    }
    let few = GradientNoise::default().with_probes(1).with_top(1);
    assert!(
        few.run(&objective)
            .unwrap_err()
            .to_string()
            .contains("at least 2")
    );
    let report = few.with_probes(2).run(&objective).unwrap();
    for (rate, size) in [
        (0.0, 1),
        (-0.1, 1),
        (f64::NAN, 1),
        (f64::INFINITY, 1),
        (0.1, 0),
        (0.1, 7),
    ] {
        assert!(ImplicitBias::new(rate, size).run(&objective).is_err());
        assert!(report.expected_change(rate, size).is_err());
    }
    let a = OnDiagonal(vec![1.0; 40]);
    assert!(Alignment::estimate(&a, &OnDiagonal(vec![1.0; 3]), 5, 0).is_err());
    assert!(Alignment::estimate(&a, &Broken, 5, 0).is_err());
    let nan = Alignment::estimate(&a, &OnDiagonal(vec![f64::NAN; 40]), 5, 0).unwrap_err();
    assert!(nan.to_string().contains("not finite"), "{nan}");
}

/// Linear regression with 49 weights and a bias on 100 samples whose inputs differ by about `jitter`.
fn nearly_equal(jitter: f64, dtype: DType) -> Objective {
    let row = numbers(49, 9);
    let x = (0..100).flat_map(|i| {
        let noise = numbers(49, 1000 + i);
        let single = row.iter().zip(noise).map(|(r, z)| (r + jitter * z) as f32);
        single.map(f64::from).collect::<Vec<_>>()
    });
    let x = Tensor::from_vec(x.collect::<Vec<f64>>(), (100, 49), &CPU).unwrap();
    let y = Tensor::full(f64::from(3.7f32), (100, 1), &CPU).unwrap();
    let data = Dataset::regression(&x, &y).unwrap();
    let data = data.to_dtype(dtype).unwrap();
    let model = Mlp::new(&[49, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(dtype).unwrap();
    let theta: Vec<f64> = numbers(50, 4)
        .iter()
        .map(|x| f64::from(*x as f32))
        .collect();
    model.parameters().set_flat(&theta).unwrap();
    Objective::of(&model, &data, Loss::Mse).unwrap()
}

/// If the samples' gradients are nearly equal, Σ is the small difference of two large matrices.
#[test]
fn covariance_errors_include_the_rounding_of_cancellation() {
    for jitter in [0.0, 1e-6, 1e-4, 1e-3, 1e-2, 0.1] {
        let exact = nearly_equal(jitter, DType::F64);
        let exact = exact.gradient_covariance().unwrap().dense().unwrap();
        let truth: f64 = (0..50).map(|i| exact.matrix()[[i, i]]).sum();
        for dtype in [DType::F64, DType::F32] {
            let objective = nearly_equal(jitter, dtype);
            let found = GradientNoise::default().run(&objective).unwrap();
            let [low, high] = found.variance.interval(0.99).unwrap();
            let slack = 1e-9 * truth + 1e-11;
            assert!(
                low <= truth + slack && truth <= high + slack,
                "{jitter} {dtype:?}: {} for {truth:e}",
                found.variance
            );
            let matrix = objective.gradient_covariance().unwrap().dense().unwrap();
            assert_eq!(matrix.eigen().unwrap().inertia().unwrap().negative, 0);
        }
    }
}

/// At the minimum of least squares the gradient is only rounding.
#[test]
fn noise_scales_are_infinite_at_a_minimum() {
    let (x, y) = (numbers(30, 2), numbers(30, 3));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / 30.0;
    let (mx, my) = (mean(&x), mean(&y));
    let pairs = x.iter().zip(&y);
    let slope = pairs.map(|(x, y)| (x - mx) * (y - my)).sum::<f64>()
        / x.iter().map(|x| (x - mx).powi(2)).sum::<f64>();
    for dtype in [DType::F64, DType::F32] {
        let tensor = |v: &[f64]| Tensor::from_vec(v.to_vec(), (30, 1), &CPU).unwrap();
        let data = Dataset::regression(&tensor(&x), &tensor(&y)).unwrap();
        let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &CPU).unwrap();
        let model = model.to_dtype(dtype).unwrap();
        let theta = match model.parameters().blocks()[0].0.ends_with("bias") {
            true => [my - slope * mx, slope],
            false => [slope, my - slope * mx],
        };
        model.parameters().set_flat(&theta).unwrap();
        let data = data.to_dtype(dtype).unwrap();
        let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
        let settings = GradientNoise::default().with_top(1);
        let found = settings.run(&objective).unwrap();
        assert!(found.gradient_norm < 1e-5, "{}", found.gradient_norm);
        assert_eq!(found.simple_noise_scale.value, f64::INFINITY, "{dtype:?}");
        assert!(found.noise_scale.value.is_infinite(), "{dtype:?}");
    }
}
