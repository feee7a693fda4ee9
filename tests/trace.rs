//! Traces, norms and diagonals: exact cases, and the coverage of stated errors.

mod common;

use common::{Broken, OnDiagonal, assert_close, with_eigenvalues};
use loss_landscape::prelude::*;
use loss_landscape::spectral::Diagonal;

const METHODS: [TraceMethod; 3] = [
    TraceMethod::Hutchinson,
    TraceMethod::HutchPlusPlus,
    TraceMethod::Krylov,
];

/// Settings that use all products.
fn exhaustive(method: TraceMethod, max_products: usize, seed: u64) -> Trace {
    Trace::default()
        .with_method(method)
        .with_relative_error(1e-15)
        .with_max_products(max_products)
        .with_seed(seed)
}

/// A few large eigenvalues of both signs and a decaying rest.
fn eigenvalues(n: usize) -> Vec<f64> {
    let rest = (0..n - 4).map(|i| (-(i as f64) / 15.0).exp() * if i % 3 == 0 { -0.5 } else { 1.0 });
    [5.0, 4.0, -3.0, 2.0].into_iter().chain(rest).collect()
}

#[test]
fn stated_errors_have_their_coverage() {
    let eigenvalues = eigenvalues(60);
    let matrix = with_eigenvalues(&eigenvalues, 1);
    let trace: f64 = eigenvalues.iter().sum();
    let squares: f64 = eigenvalues.iter().map(|x| x * x).sum();
    for method in METHODS {
        let mut covered = [0, 0];
        for seed in 0..200 {
            let settings = exhaustive(method, 48, seed);
            let estimates = [settings.trace(&matrix), settings.frobenius_squared(&matrix)];
            for ((covered, estimate), truth) in
                covered.iter_mut().zip(estimates).zip([trace, squares])
            {
                let estimate = estimate.unwrap();
                let [low, high] = estimate.interval(0.95).unwrap();
                assert!(low < high && estimate.products <= 48, "{estimate:?}");
                *covered += usize::from((low..=high).contains(&truth));
            }
        }
        for covered in covered {
            assert!(
                (180..=198).contains(&covered),
                "{method:?}: {covered} of 200"
            );
        }
    }
}

#[test]
fn hutchinsons_variance_matches_the_formula() {
    let matrix = with_eigenvalues(&eigenvalues(40), 2);
    let diagonal: f64 = matrix.matrix().diag().iter().map(|a| a * a).sum();
    let all: f64 = matrix.matrix().iter().map(|a| a * a).sum();
    // Not more products than rows.
    let values = (0..4_000).map(|seed| {
        let settings = exhaustive(TraceMethod::Hutchinson, 12, seed);
        settings.trace(&matrix).unwrap().value
    });
    let values: Vec<f64> = values.collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    let variance = 12.0 * squares.sum::<f64>() / (values.len() - 1) as f64;
    let expected = 2.0 * (all - diagonal);
    assert!(
        (variance / expected - 1.0).abs() < 0.1,
        "{variance} is not {expected}"
    );
}

#[test]
fn signs_are_exact_on_a_diagonal_matrix() {
    let entries = eigenvalues(30);
    let matrix = OnDiagonal(entries.clone());
    let sum: f64 = entries.iter().sum();
    let estimate = Trace::default().with_method(TraceMethod::Hutchinson);
    let estimate = estimate.trace(&matrix).unwrap();
    assert!((estimate.value - sum).abs() < 1e-12 && estimate.standard_error < 1e-12);
    assert!(estimate.converged);

    let diagonal = Diagonal::estimate(&matrix, 2, 0).unwrap();
    assert_close(&diagonal.values, &entries, 1e-14);
    assert!(diagonal.standard_errors.iter().all(|e| *e < 1e-14));
}

#[test]
fn low_ranks_are_exact() {
    let mut eigenvalues = vec![0.0; 80];
    eigenvalues[..5].copy_from_slice(&[3.0, 2.0, 1.0, -1.5, 0.5]);
    let matrix = with_eigenvalues(&eigenvalues, 3);
    for method in [TraceMethod::HutchPlusPlus, TraceMethod::Krylov] {
        let settings = Trace::default().with_method(method);
        let (trace, squares) = (
            settings.trace(&matrix).unwrap(),
            settings.frobenius_squared(&matrix).unwrap(),
        );
        assert!((trace.value - 5.0).abs() < 1e-11, "{method:?}: {trace:?}");
        assert!(
            (squares.value - 16.5).abs() < 1e-11,
            "{method:?}: {squares:?}"
        );
        assert!(
            trace.converged && trace.standard_error < 1e-10,
            "{method:?}: {trace:?}"
        );
    }
}

#[test]
fn small_matrices_are_exact() {
    let eigenvalues = eigenvalues(20);
    let matrix = with_eigenvalues(&eigenvalues, 4);
    let sum: f64 = eigenvalues.iter().sum();
    let estimate = exhaustive(TraceMethod::Krylov, 300, 0)
        .trace(&matrix)
        .unwrap();
    assert!(
        (estimate.value - sum).abs() < 1e-11 && estimate.products <= 48,
        "{estimate:?}"
    );
}

#[test]
fn sampling_stops_at_the_requested_accuracy() {
    let eigenvalues: Vec<f64> = (0..300).map(|i| 1.0 / (1.0 + i as f64)).collect();
    let matrix = with_eigenvalues(&eigenvalues, 5);
    let sum: f64 = eigenvalues.iter().sum();
    for method in METHODS {
        let run = |relative_error: f64| {
            let settings = Trace::default()
                .with_method(method)
                .with_relative_error(relative_error);
            settings.trace(&matrix).unwrap()
        };
        let (rough, fine) = (run(0.05), run(0.01));
        assert!(
            rough.converged && rough.products <= fine.products,
            "{rough:?}"
        );
        assert!((rough.value / sum - 1.0).abs() < 0.25, "{rough:?}");
        if fine.converged {
            assert!(fine.standard_error <= 0.01 * fine.value);
        }
    }
}

#[test]
fn degenerate_matrices() {
    for method in METHODS {
        let settings = Trace::default().with_method(method);
        for (entries, sum, squares) in [
            (vec![0.0; 50], 0.0, 0.0),
            (vec![1.0; 50], 50.0, 50.0),
            (vec![-2.0], -2.0, 4.0),
            (vec![1.0, 3.0], 4.0, 10.0),
        ] {
            let matrix = OnDiagonal(entries);
            let trace = settings.trace(&matrix).unwrap();
            let norm = settings.frobenius_squared(&matrix).unwrap();
            assert!(
                (trace.value - sum).abs() < 1e-10 && trace.converged,
                "{method:?}: {trace:?}"
            );
            assert!((norm.value - squares).abs() < 1e-10, "{method:?}: {norm:?}");
        }
        assert!(
            settings
                .trace(&Broken)
                .unwrap_err()
                .to_string()
                .contains("the product failed")
        );
        let nan = settings
            .trace(&OnDiagonal(vec![1.0, f64::NAN]))
            .unwrap_err();
        assert!(nan.to_string().contains("not finite"), "{nan}");
    }
    let few = exhaustive(TraceMethod::Krylov, 11, 0).trace(&OnDiagonal(vec![1.0; 4]));
    assert!(few.unwrap_err().to_string().contains("at least 12"));
    let none = Trace::default().with_relative_error(0.0);
    assert!(none.trace(&OnDiagonal(vec![1.0; 4])).is_err());
    assert!(Diagonal::estimate(&OnDiagonal(vec![1.0; 4]), 1, 0).is_err());
    assert!(Diagonal::estimate(&Broken, 4, 0).is_err());
    assert!(
        none.clone().seed == 0
            && OnDiagonal(vec![1.0])
                .trace()
                .unwrap()
                .interval(1.0)
                .is_err()
    );
}

#[test]
fn diagonals_have_their_coverage() {
    let matrix = with_eigenvalues(&eigenvalues(100), 6);
    let truth = matrix.matrix().diag().to_vec();
    let found = Diagonal::estimate(&matrix, 100, 1).unwrap();
    let within = found
        .values
        .iter()
        .zip(&found.standard_errors)
        .zip(&truth)
        .filter(|((value, error), truth)| (**value - **truth).abs() <= 2.0 * **error);
    let share = within.count();
    assert!((88..=100).contains(&share), "{share} of 100");
    for (i, error) in found.standard_errors.iter().enumerate() {
        let row = matrix.matrix().row(i);
        let others: f64 = row.iter().map(|a| a * a).sum::<f64>() - truth[i].powi(2);
        let expected = (others / 100.0).sqrt();
        assert!(
            (error / expected - 1.0).abs() < 0.5,
            "{error} is not {expected}"
        );
    }
}

/// Products in `f32` are rounded: if sampling has no error, the stated error is that of rounding.
#[test]
fn errors_include_rounding() {
    let cpu = Device::Cpu;
    for (widths, samples, activation) in [
        (&[2, 6, 2][..], 300, Activation::Tanh),
        (&[3, 5, 3], 2, Activation::Sigmoid),
        (&[6, 5], 300, Activation::Tanh),
        (&[30, 10], 2, Activation::Tanh),
        (&[4, 3, 2, 3], 300, Activation::Relu),
        (&[200, 10], 2, Activation::Tanh),
        (&[40, 30, 3], 2, Activation::Relu),
    ] {
        let (inputs, classes) = (widths[0], widths[widths.len() - 1]);
        for seed in 0..20 {
            let x = common::numbers(samples * inputs, seed + 1);
            let x = Tensor::from_vec(x, (samples, inputs), &cpu).unwrap();
            let labels: Vec<u32> = (0..samples).map(|i| (i % classes) as u32).collect();
            let labels = Tensor::new(labels, &cpu).unwrap();
            let data = Dataset::classification(&x.to_dtype(DType::F32).unwrap(), &labels).unwrap();
            let single = Mlp::new(widths, activation, seed, &cpu).unwrap();
            let double = single.to_dtype(DType::F64).unwrap();
            let precise = data.to_dtype(DType::F64).unwrap();
            let single = Objective::of(&single, &data, Loss::CrossEntropy).unwrap();
            let double = Objective::of(&double, &precise, Loss::CrossEntropy).unwrap();
            let (single, double) = (single.hessian(), double.hessian());
            let settings = Trace::default().with_seed(seed);
            for (rounded, exact) in [
                (settings.trace(&single), settings.trace(&double)),
                (
                    settings.frobenius_squared(&single),
                    settings.frobenius_squared(&double),
                ),
            ] {
                let (rounded, exact) = (rounded.unwrap(), exact.unwrap());
                let error = (rounded.value - exact.value).abs();
                assert!(
                    error < 2.0 * rounded.standard_error,
                    "{widths:?}, seed {seed}: {rounded}, in f64 {exact}"
                );
            }
        }
    }
}

/// If a few eigenvalues make up nearly all of ‖A‖²_F, they are deflated first, and the accuracy exceeds the requested one.
#[test]
fn few_large_eigenvalues_are_deflated_first() {
    let mut eigenvalues: Vec<f64> = (0..300).map(|i| 0.01 * (i as f64).sin()).collect();
    for (i, value) in eigenvalues.iter_mut().enumerate().take(10) {
        *value = 0.7f64.powi(i as i32);
    }
    let matrix = with_eigenvalues(&eigenvalues, 5);
    let squares: f64 = eigenvalues.iter().map(|x| x * x).sum();
    for seed in 0..20 {
        let settings = Trace::default()
            .with_relative_error(0.05)
            .with_max_products(100)
            .with_seed(seed);
        let found = settings.frobenius_squared(&matrix).unwrap();
        assert!(found.converged && found.products <= 56, "{found}");
        let error = (found.value - squares).abs();
        assert!(
            error < 0.01 * squares && error < 5.0 * found.standard_error,
            "{found}"
        );
    }
}

/// An eigenvalue whose multiplicity exceeds the block size is found by additional random vectors.
#[test]
fn a_multiplicity_may_exceed_the_block_size() {
    let mut eigenvalues = vec![1e-3; 200];
    eigenvalues[..20].fill(1.0);
    let matrix = with_eigenvalues(&eigenvalues, 6);
    let (sum, squares) = (20.0 + 0.18, 20.0 + 180.0 * 1e-6);
    for seed in 0..10 {
        let settings = Trace::default().with_seed(seed);
        let trace = settings.trace(&matrix).unwrap();
        let norm = settings.frobenius_squared(&matrix).unwrap();
        assert!(
            (trace.value - sum).abs() < 1e-9 && trace.products < 120,
            "{trace}"
        );
        assert!(
            (norm.value - squares).abs() < 1e-9 && norm.products < 120,
            "{norm}"
        );
    }
}

#[test]
fn no_more_products_than_allowed() {
    let matrix = with_eigenvalues(&eigenvalues(90), 7);
    for method in METHODS {
        for max_products in [12, 13, 17, 24, 39, 40, 41, 55, 89, 90, 91, 120] {
            let settings = exhaustive(method, max_products, 0);
            for found in [settings.trace(&matrix), settings.frobenius_squared(&matrix)] {
                let found = found.unwrap();
                assert!(found.products <= max_products, "{method:?}: {found:?}");
                assert!(found.standard_error.is_finite() && found.standard_error > 0.0);
            }
        }
    }
}

/// Before the samples take more products than the matrix has rows, the rest of the space is multiplied: the number is exact.
#[test]
fn never_more_products_than_rows() {
    for method in METHODS {
        for n in [13, 30, 41, 56, 57, 100, 180] {
            let eigenvalues = eigenvalues(n);
            let matrix = with_eigenvalues(&eigenvalues, n as u64);
            let sum: f64 = eigenvalues.iter().sum();
            let squares: f64 = eigenvalues.iter().map(|x| x * x).sum();
            for seed in 0..4 {
                let settings = exhaustive(method, 200, seed).with_relative_error(1e-9);
                for (found, exact) in [
                    (settings.trace(&matrix), sum),
                    (settings.frobenius_squared(&matrix), squares),
                ] {
                    let found = found.unwrap();
                    let what = format!("{method:?}, {n}: {found}, {exact}");
                    assert!(found.samples == 0 && found.converged, "{what}");
                    assert!(found.products <= n, "{what}");
                    assert!(
                        (found.value - exact).abs() <= found.standard_error,
                        "{what}"
                    );
                }
            }
            // No exact value from fewer products.
            let few = exhaustive(method, n - 1, 0).trace(&matrix).unwrap();
            assert!(
                few.samples > 0 && few.products < n,
                "{method:?}, {n}: {few}"
            );
        }
    }
}
