//! Stochastic Lanczos quadrature: moments, known densities, and the coverage of its errors.

mod common;

use common::{Broken, Laplacian, OnDiagonal, with_eigenvalues};
use loss_landscape::prelude::*;

fn settings(probes: usize, steps: usize) -> DensitySettings {
    DensitySettings::default()
        .with_probes(probes)
        .with_steps(steps)
        .with_seed(0)
}

/// On a diagonal matrix the measure of a sign vector is the spectral density itself.
#[test]
fn gauss_quadrature_is_exact_up_to_its_degree() {
    let entries: Vec<f64> = (0..40).map(|i| (0.37 * i as f64).sin()).collect();
    let moment = |k: u32| entries.iter().map(|x| x.powi(k as i32)).sum::<f64>() / 40.0;
    let m = 6;
    let density = settings(2, m).run(&OnDiagonal(entries.clone())).unwrap();
    for k in 0..2 * m as u32 {
        let found = density.moment(k);
        assert!((found.value - moment(k)).abs() < 1e-13, "moment {k}");
        assert!(found.standard_error < 1e-13);
    }
    let beyond = density.moment(2 * m as u32);
    assert!((beyond.value - moment(2 * m as u32)).abs() > 1e-6);
    assert_eq!(density.products, 2 * m);
}

fn trapezoid(x: &[f64], y: &[f64]) -> f64 {
    let areas = x.windows(2).zip(y.windows(2));
    areas
        .map(|(x, y)| (x[1] - x[0]) * (y[0] + y[1]) / 2.0)
        .sum()
}

#[test]
fn a_density_integrates_to_one() {
    let density = settings(6, 30).run(&Laplacian(300)).unwrap();
    let curve = density.smoothed(0.05, 2_000).unwrap();
    assert!((trapezoid(&curve.eigenvalues, &curve.values) - 1.0).abs() < 1e-4);
    let weighted: Vec<f64> = curve
        .eigenvalues
        .iter()
        .zip(&curve.values)
        .map(|(x, y)| x * y)
        .collect();
    let mean = density.moment(1).value;
    assert!((trapezoid(&curve.eigenvalues, &weighted) - mean).abs() < 1e-3);
    let cumulative = density.cumulative(0.05, 2_000).unwrap();
    assert!(cumulative.values[0] < 1e-4 && cumulative.values[1_999] > 1.0 - 1e-4);
    assert!(
        cumulative
            .values
            .windows(2)
            .all(|pair| pair[0] <= pair[1] + 1e-15)
    );
}

/// The eigenvalues of the one-dimensional Laplacian follow the arcsine law.
#[test]
fn arcsine_law() {
    let density = settings(10, 80).run(&Laplacian(2_000)).unwrap();
    let trace = density.trace();
    assert!(
        (trace.value - 4_000.0).abs() < 4.0 * trace.standard_error.max(1e-9),
        "{trace}"
    );
    let curve = density.cumulative(0.02, 101).unwrap();
    for ((x, y), error) in curve
        .eigenvalues
        .iter()
        .zip(&curve.values)
        .zip(&curve.standard_errors)
    {
        if (0.2..3.8).contains(x) {
            let law = 0.5 + ((x - 2.0) / 2.0).asin() / std::f64::consts::PI;
            assert!(
                (y - law).abs() < 4.0 * error + 0.01,
                "at {x}: {y} is not {law}"
            );
        }
    }
}

/// Wigner's semicircle law, for a symmetric matrix with independent Gaussian entries.
#[test]
fn semicircle() {
    let n = 400;
    let gaussian = {
        let uniform = common::numbers(12 * n * n, 5);
        let sum = |i: usize| uniform[12 * i..12 * (i + 1)].iter().sum::<f64>() / 2.0;
        (0..n * n).map(sum).collect::<Vec<f64>>()
    };
    let entry = |(i, j): (usize, usize)| {
        (gaussian[i * n + j] + gaussian[j * n + i]) / (2.0 * n as f64).sqrt()
    };
    let matrix = loss_landscape::ndarray::Array2::from_shape_fn((n, n), entry);
    let density = settings(10, 60).run(&Dense::new(matrix).unwrap()).unwrap();
    let below = |x: f64| {
        0.5 + x * (4.0 - x * x).sqrt() / (4.0 * std::f64::consts::PI)
            + (x / 2.0).asin() / std::f64::consts::PI
    };
    for x in [-1.5, -0.7, 0.0, 0.4, 1.2] {
        let count = density.count_below(x);
        let expected = n as f64 * below(x);
        let error = 4.0 * count.estimate.standard_error + 0.02 * n as f64;
        assert!(
            (count.estimate.value - expected).abs() < error,
            "below {x}: {count}, expected {expected}"
        );
    }
}

/// The Marchenko–Pastur law: XXᵀ/p for n × p independent entries of variance 1, here with n/p = ¼.
#[test]
fn marchenko_pastur() {
    let (n, p) = (300, 1_200);
    let entries: Vec<f64> = common::numbers(n * p, 3)
        .iter()
        .map(|x| x * 3f64.sqrt())
        .collect();
    let x = loss_landscape::ndarray::Array2::from_shape_vec((n, p), entries).unwrap();
    let density = settings(10, 60)
        .run(&Dense::new(x.dot(&x.t()) / p as f64).unwrap())
        .unwrap();
    let [low, high] = density.range();
    assert!(
        (low - 0.25).abs() < 0.05 && (high - 2.25).abs() < 0.1,
        "{low} to {high}"
    );
    let law = |x: f64| ((2.25 - x) * (x - 0.25)).max(0.0).sqrt() / (0.5 * std::f64::consts::PI * x);
    for bound in [0.5, 0.8, 1.2, 1.8] {
        let steps = 20_000;
        let width = (bound - 0.25) / f64::from(steps);
        let below: f64 = (0..steps)
            .map(|i| law(0.25 + width * (f64::from(i) + 0.5)) * width)
            .sum();
        let count = density.count_below(bound);
        let error = 4.0 * count.estimate.standard_error + 0.02 * n as f64;
        assert!(
            (count.estimate.value - n as f64 * below).abs() < error,
            "below {bound}: {count}, {below}"
        );
    }
}

#[test]
fn counts_are_bracketed() {
    let eigenvalues: Vec<f64> = (0..120).map(|i| (i as f64 - 29.5) / 40.0).collect();
    // On a diagonal matrix the bounds are certain.
    let density = settings(4, 25)
        .run(&OnDiagonal(eigenvalues.clone()))
        .unwrap();
    let negative = density.negative();
    assert!(
        negative.resolution.low <= 30.0 && 30.0 <= negative.resolution.high,
        "{negative}"
    );
    assert!((negative.estimate.value - 30.0).abs() < 6.0, "{negative}");
    // On other matrices up to the standard error.
    let density = settings(10, 60)
        .run(&with_eigenvalues(&eigenvalues, 7))
        .unwrap();
    let negative = density.negative();
    let error = 4.0 * negative.estimate.standard_error;
    assert!(negative.resolution.low - error <= 30.0 && 30.0 <= negative.resolution.high + error);
    assert!(negative.estimate.standard_error > 0.0 && negative.estimate.standard_error < 10.0);
}

#[test]
fn stated_errors_have_their_coverage() {
    let eigenvalues: Vec<f64> = (0..100).map(|i| (-(i as f64) / 20.0).exp() - 0.1).collect();
    let matrix = with_eigenvalues(&eigenvalues, 8);
    let sum: f64 = eigenvalues.iter().sum();
    let covered = (0..200).filter(|seed| {
        let run = DensitySettings::default()
            .with_probes(8)
            .with_steps(10)
            .with_seed(*seed);
        let [low, high] = run.run(&matrix).unwrap().trace().interval(0.95).unwrap();
        (low..=high).contains(&sum)
    });
    let covered = covered.count();
    assert!((180..=198).contains(&covered), "{covered} of 200");
}

#[test]
fn degenerate_matrices() {
    for (entries, value) in [
        (vec![0.0; 30], 0.0),
        (vec![1.0; 30], 1.0),
        (vec![-3.0], -3.0),
    ] {
        let n = entries.len();
        let density = settings(3, 60).run(&OnDiagonal(entries)).unwrap();
        assert!(density.is_exact() && density.products == n);
        let probe = &density.probes[0];
        assert!(probe.nodes.len() == n && probe.nodes.iter().all(|x| (x - value).abs() < 1e-13));
        assert_eq!(density.count_below(value + 0.5).estimate.value, n as f64);
        assert_eq!(density.count_below(value - 0.5).estimate.value, 0.0);
        assert!(density.smoothed(0.1, 50).is_ok());
    }
    // Exhausted Krylov spaces end early.
    for value in [0.0, 1.0, -3.0] {
        let density = settings(3, 60).run(&OnDiagonal(vec![value; 200])).unwrap();
        assert_eq!(density.products, 3);
        for probe in &density.probes {
            assert!(probe.nodes.len() == 1 && (probe.nodes[0] - value).abs() < 1e-14);
            assert!((probe.weights[0] - 1.0).abs() < 1e-14);
        }
        let band = settings(3, 60).with_width(0.1);
        let band = band.run(&OnDiagonal(vec![value; 200])).unwrap();
        assert!(band.products <= 6 && (band.trace().value - 200.0 * value).abs() < 1e-9);
    }
    assert!(settings(1, 10).run(&Laplacian(5)).is_err());
    assert!(settings(2, 0).run(&Laplacian(5)).is_err());
    let density = settings(2, 99).run(&Laplacian(5)).unwrap();
    assert!(density.smoothed(0.0, 50).is_err() && density.smoothed(0.1, 1).is_err());
    assert!(density.cumulative(f64::NAN, 50).is_err());
    assert_eq!(
        settings(2, 3).run(&Broken).unwrap_err().to_string(),
        "the product failed"
    );
    let nan = settings(2, 3)
        .run(&OnDiagonal(vec![f64::NAN; 3]))
        .unwrap_err();
    assert!(nan.to_string().contains("not finite"), "{nan}");
}

/// The weights of simple eigenvalues are exact for any probes; those of multiple eigenvalues are not.
#[test]
fn simple_eigenvalues_are_exact() {
    let n = 200;
    for multiplicity in [1, 2, 3, 9] {
        let mut eigenvalues: Vec<f64> = (0..n).map(|i| 0.01 * (i as f64).sin()).collect();
        for (i, value) in eigenvalues.iter_mut().enumerate().take(5) {
            *value = 1.0 + 0.5 * i as f64;
        }
        eigenvalues[5..5 + multiplicity].fill(-2.0);
        let matrix = with_eigenvalues(&eigenvalues, 9);
        for seed in 0..10 {
            let density = DensitySettings::default()
                .with_probes(4)
                .with_steps(25)
                .with_seed(seed);
            let density = density.run(&matrix).unwrap();
            let above = n as f64 - density.count_below(0.5).estimate.value;
            let below = density.count_below(-0.5).estimate;
            let exact = |found: f64, count: f64| (found - count).abs() < 1e-6;
            assert!(exact(above, 5.0), "{above}");
            let weights = density
                .probes
                .iter()
                .map(|probe| probe.weights.iter().sum::<f64>());
            assert!(weights.into_iter().all(|sum| exact(sum, 1.0)));
            assert_eq!(
                exact(below.value, multiplicity as f64),
                multiplicity == 1,
                "{below:?}"
            );
            assert_eq!(below.standard_error < 1e-6, multiplicity == 1, "{below:?}");
        }
    }
}

/// The number of eigenvalues below x lies in its interval, in a gap or not.
#[test]
fn counts_lie_in_their_intervals() {
    let eigenvalues: Vec<f64> = (0..120).map(|i| 1.0 / (1.0 + i as f64) - 0.02).collect();
    let matrix = with_eigenvalues(&eigenvalues, 7);
    let mut covered = 0;
    for seed in 0..100 {
        let density = DensitySettings::default()
            .with_probes(4)
            .with_steps(25)
            .with_seed(seed);
        let density = density.run(&matrix).unwrap();
        for x in [-0.01, 0.0, 0.01, 0.1] {
            let truth = eigenvalues.iter().filter(|value| **value < x).count() as f64;
            let [low, high] = density.count_below(x).interval(0.95).unwrap();
            covered += usize::from((low..=high).contains(&truth));
        }
    }
    assert!(covered >= 380, "{covered} of 400");
}

/// With a product per row or more, the density consists of the eigenvalues, and all its numbers are exact within their errors.
#[test]
fn small_matrices_are_exact() {
    let mut eigenvalues: Vec<f64> = (0..90).map(|i| (0.37 * i as f64).sin()).collect();
    eigenvalues[..20].fill(0.0);
    let matrix = with_eigenvalues(&eigenvalues, 3);
    assert!(!settings(10, 8).run(&matrix).unwrap().is_exact());
    let density = settings(10, 9).run(&matrix).unwrap();
    assert!(density.is_exact() && density.products == 90);
    let mut sorted = eigenvalues.clone();
    sorted.sort_by(f64::total_cmp);
    common::assert_close(&density.probes[0].nodes, &sorted, 1e-13);
    let sum = |f: fn(f64) -> f64| eigenvalues.iter().map(|x| f(*x)).sum::<f64>();
    let rank = sum(f64::abs).powi(2) / sum(|x| x * x);
    for (found, exact) in [
        (density.trace(), sum(|x| x)),
        (density.frobenius_squared(), sum(|x| x * x)),
        (density.mean_magnitude(), sum(f64::abs) / 90.0),
        (density.effective_rank().unwrap(), rank),
    ] {
        assert!(
            (found.value - exact).abs() <= found.standard_error,
            "{found}, {exact}"
        );
        assert!(
            found.standard_error <= 1e-11 * exact.abs().max(1.0),
            "{found}"
        );
        assert_eq!((found.samples, found.products), (0, 90));
        assert!(
            found
                .to_string()
                .contains("exact up to rounding, 90 products")
        );
    }
    // The zeros may have either sign.
    let (least, zeros) = (sum(|x| f64::from(u8::from(x < -1e-9))), 20.0);
    let negative = density.negative();
    assert_eq!(
        (negative.resolution.low, negative.resolution.high),
        (least, least + zeros)
    );
    assert_eq!(negative.interval(0.95).unwrap(), [least, least + zeros]);
    let below = density.count_below(0.5);
    assert_eq!(below.resolution.low, below.resolution.high);
    assert!(below.to_string().ends_with(", exact"), "{below}");
}

/// The rounding of products in `f32` is part of the errors of an exact density.
#[test]
fn exact_densities_include_rounding() {
    for seed in 0..8 {
        let data = two_moons(60, 0.2, seed, &Device::Cpu).unwrap();
        let single = Mlp::new(&[2, 8, 2], Activation::Tanh, seed, &Device::Cpu).unwrap();
        let double = single.to_dtype(DType::F64).unwrap();
        let exact = data.to_dtype(DType::F64).unwrap();
        let data = data.to_dtype(DType::F32).unwrap();
        let single = Objective::of(&single, &data, Loss::CrossEntropy).unwrap();
        let double = Objective::of(&double, &exact, Loss::CrossEntropy).unwrap();
        let [rounded, exact] = [single, double].map(|o| o.hessian().density().unwrap());
        assert!(rounded.is_exact() && exact.is_exact());
        for (a, b) in [
            (rounded.trace(), exact.trace()),
            (rounded.frobenius_squared(), exact.frobenius_squared()),
            (rounded.mean_magnitude(), exact.mean_magnitude()),
        ] {
            assert!(
                (a.value - b.value).abs() <= a.standard_error,
                "{a}, in f64 {b}"
            );
            assert!(a.standard_error < 1e-4 * a.value.abs(), "{a}");
        }
        let (a, b) = (
            rounded.negative().resolution,
            exact.negative().estimate.value,
        );
        assert!(a.low <= b && b <= a.high, "{a}, in f64 {b}");
    }
}

/// Nine outliers and a bulk: a quarter of the products gives the curve with the same error.
#[test]
fn a_band_takes_few_products() {
    let n = 700;
    let bulk = common::numbers(12 * n, 4);
    let mut eigenvalues: Vec<f64> = (bulk.chunks(12))
        .map(|u| 0.01 * u.iter().sum::<f64>() / 2.0)
        .collect();
    for (i, value) in eigenvalues.iter_mut().enumerate().take(9) {
        *value = 0.87f64.powi(i as i32);
    }
    let matrix = with_eigenvalues(&eigenvalues, 5);
    let width = 0.01;
    let (mut ratios, mut outside) = (Vec::new(), 0);
    for seed in 0..8 {
        let all = DensitySettings::default().with_seed(seed);
        let band = all.clone().with_width(width).run(&matrix).unwrap();
        assert!(band.products <= 150, "{} products", band.products);
        let [band, all] =
            [band, all.run(&matrix).unwrap()].map(|density| density.smoothed(width, 400).unwrap());
        let largest = |errors: &[f64]| errors.iter().fold(0.0, |m: f64, e| m.max(*e));
        ratios.push(largest(&band.standard_errors) / largest(&all.standard_errors));
        for ((x, y), error) in band
            .eigenvalues
            .iter()
            .zip(&band.values)
            .zip(&band.standard_errors)
        {
            let bell = |v: f64| (-0.5 * ((x - v) / width).powi(2)).exp();
            let height = 1.0 / (width * std::f64::consts::TAU.sqrt());
            let truth = eigenvalues.iter().map(|v| bell(*v)).sum::<f64>() * height / n as f64;
            outside += usize::from((y - truth).abs() > 2.26 * error + 1e-4);
        }
    }
    let mean = ratios.iter().sum::<f64>() / 8.0;
    assert!(mean < 1.15, "{ratios:?}");
    assert!(
        outside < 8 * 400 / 8,
        "{outside} of 3200 points are outside"
    );
}
