//! Hundreds of eigenpairs, which are computed in blocks.

mod common;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use common::{OnDiagonal, dot, numbers};
use loss_landscape::prelude::*;
use loss_landscape::spectral::Spectrum;

const N: usize = 700;
const K: usize = 210;

/// A diagonal matrix whose products are rounded like those of an `f32` model.
struct Rounded {
    values: Vec<f64>,
    noise: f64,
}

impl LinearOperator for Rounded {
    fn dim(&self) -> usize {
        self.values.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let mut hasher = DefaultHasher::new();
        v.iter().for_each(|v| v.to_bits().hash(&mut hasher));
        let size = self.noise * (3.0 / v.len() as f64).sqrt();
        let errors = numbers(v.len(), hasher.finish()).into_iter();
        let product = v.iter().zip(&self.values).map(|(v, d)| v * d);
        Ok(product.zip(errors).map(|(p, e)| p + size * e).collect())
    }
}

/// Names and eigenvalues, the largest first.
fn kinds() -> Vec<(&'static str, Vec<f64>)> {
    let power = |s: f64| (1..=N).map(move |i| (i as f64).powf(-s));
    let bulk = numbers(N, 3).into_iter().map(|x| 0.1 * x);
    let outliers: Vec<f64> = (0..10).map(|i| 300.0 * 0.7f64.powi(i)).collect();
    let multiple = [vec![3.0; 40], vec![2.0; 20], vec![-4.0; 19]].concat();
    let cluster = (0..30).map(|i| 1.0 + 1e-6 * f64::from(i));
    let mut kinds = vec![
        ("power law", power(0.7).collect()),
        (
            "outliers",
            outliers.into_iter().chain(bulk.clone()).collect(),
        ),
        ("multiple", multiple.into_iter().chain(power(1.0)).collect()),
        ("cluster", cluster.chain(bulk).collect()),
        (
            "rank 100",
            [vec![1.0; 60], vec![0.1; 40], vec![0.0; N]].concat(),
        ),
        ("negative", power(0.5).map(|x| -x).collect()),
        ("identity", vec![2.5; N]),
    ];
    for (_, values) in &mut kinds {
        values.truncate(N);
        values.sort_by(|a, b| b.total_cmp(a));
    }
    kinds
}

/// Asserts that residuals and errors of the eigenvalues are at most the stated ones, and that vectors are orthonormal.
#[track_caller]
fn check(name: &str, found: &Spectrum, exact: &[f64], noise: f64) {
    assert!(found.converged, "{name}: {} products", found.products);
    let size = exact.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let exact_products = OnDiagonal(exact.to_vec());
    for (i, pair) in found.pairs.iter().enumerate() {
        let rank = pair.rank.unwrap();
        let error = (pair.value - exact[rank.index - 1]).abs();
        let stated = pair.residual + rank.error + 1e-13 * size;
        assert!(error <= stated, "{name}, {i}: {error:e} > {stated:e}");
        let image = exact_products.apply(&pair.vector).unwrap();
        let residual = image.iter().zip(&pair.vector);
        let residual = residual.map(|(a, v)| (a - pair.value * v).powi(2));
        let (residual, stated) = (residual.sum::<f64>().sqrt(), pair.residual + 1e-14 * size);
        assert!(residual <= stated, "{name}, {i}: {residual:e} > {stated:e}");
        assert!(pair.residual <= (2e-4 + 60.0 * noise) * size, "{name}, {i}");
    }
    for (i, a) in found.pairs.iter().enumerate().step_by(7) {
        for (j, b) in found.pairs.iter().enumerate() {
            let overlap = dot(&a.vector, &b.vector) - f64::from(i == j);
            assert!(overlap.abs() < 1e-10, "{name}, {i}, {j}: {overlap:e}");
        }
    }
}

#[test]
fn residuals_and_eigenvalues_have_their_stated_errors() {
    for (name, values) in kinds() {
        let exact = OnDiagonal(values.clone());
        check(name, &exact.top(K).unwrap(), &values, 0.0);
        let size = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let rounded = Rounded {
            noise: 1e-7 * size,
            values: values.clone(),
        };
        check(name, &rounded.top(K).unwrap(), &values, 1e-7);
    }
}

#[test]
fn each_end_of_the_spectrum() {
    let (name, values) = kinds().swap_remove(1);
    for which in [Which::Smallest, Which::BothEnds] {
        let lanczos = Lanczos::default().with_which(which);
        let found = lanczos.run(&OnDiagonal(values.clone()), K).unwrap();
        check(name, &found, &values, 0.0);
    }
    let lanczos = Lanczos::default().with_which(Which::LargestMagnitude);
    let found = lanczos.run(&OnDiagonal(values.clone()), K).unwrap();
    let mut sizes: Vec<f64> = values.iter().map(|v| v.abs()).collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    assert!(found.converged);
    for (pair, exact) in found.by_magnitude().pairs.iter().zip(sizes) {
        let error = pair.residual + pair.rank.unwrap().error;
        assert!((pair.value.abs() - exact).abs() <= error + 1e-12);
    }
}

#[test]
fn restarts_and_small_tolerances_lose_no_eigenvalues() {
    let (name, values) = kinds().swap_remove(2);
    let lanczos = Lanczos::default()
        .with_tolerance(1e-7)
        .with_max_products(20_000);
    for max_basis in [None, Some(K + 90)] {
        let lanczos = lanczos.clone().with_max_basis(max_basis);
        let found = lanczos.run(&OnDiagonal(values.clone()), K).unwrap();
        check(name, &found, &values, 0.0);
        for (value, exact) in found.values().iter().zip(&values) {
            assert!(
                (value - exact).abs() < 1e-6,
                "{max_basis:?}: {value} {exact}"
            );
        }
    }
}

/// Start vectors that are orthogonal to the largest eigenvalues hide none of them.
#[test]
fn start_vectors_hide_nothing() {
    let (name, values) = kinds().swap_remove(0);
    let unit = |i: usize| (0..N).map(|j| f64::from(u8::from(i == j))).collect();
    let lanczos = Lanczos::default().with_start_vectors((400..500).map(unit).collect());
    let found = lanczos.run(&OnDiagonal(values.clone()), K).unwrap();
    check(name, &found, &values, 0.0);
}

#[test]
fn all_eigenvalues_of_a_matrix() {
    let values: Vec<f64> = numbers(230, 9);
    let found = OnDiagonal(values.clone()).top(230).unwrap();
    let mut sorted = values;
    sorted.sort_by(|a, b| b.total_cmp(a));
    assert!(found.converged && found.is_complete() && found.products <= 240);
    for (value, exact) in found.values().iter().zip(&sorted) {
        assert!((value - exact).abs() < 1e-13);
    }
}

#[test]
fn the_same_bits_on_any_number_of_threads_and_after_an_interruption() {
    let (_, values) = kinds().swap_remove(1);
    let operator = || OnDiagonal(values.clone());
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| operator().top(K).unwrap())
    };
    let one = run(1);
    assert_eq!(one, run(3));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("products");
    let saved = Lanczos::default().with_max_products(K + 1);
    saved
        .run(&operator().with_checkpoint(&file).unwrap(), K)
        .unwrap();
    let recorded = operator().with_checkpoint(&file).unwrap();
    assert_eq!(recorded.top(K).unwrap(), one);
    assert!(recorded.num_read() >= K);
}

#[test]
fn products_beyond_the_limit_are_not_made() {
    let (_, values) = kinds().swap_remove(0);
    let lanczos = Lanczos::default()
        .with_max_products(K)
        .with_tolerance(1e-12);
    let found = lanczos.run(&OnDiagonal(values), K).unwrap();
    assert!(!found.converged && found.products < K + 17);
    assert!(found.pairs.iter().all(|pair| pair.rank.is_none()));
}
