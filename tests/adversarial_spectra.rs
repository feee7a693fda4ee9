//! Lanczos with default settings on adversarial spectra: no wrong eigenvalue is reported as converged.

mod common;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::numbers;
use loss_landscape::prelude::*;
use loss_landscape::spectral::{Eigenpair, Spectrum};

/// A diagonal matrix whose products are exact, or rounded like those of an `f32` model.
struct Diag {
    values: Vec<f64>,
    /// Norm of the error of a product with a unit vector.
    noise: f64,
}

impl LinearOperator for Diag {
    fn dim(&self) -> usize {
        self.values.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let product = v.iter().zip(&self.values).map(|(v, d)| v * d);
        if self.noise == 0.0 {
            return Ok(product.collect());
        }
        let mut hasher = DefaultHasher::new();
        v.iter().for_each(|v| v.to_bits().hash(&mut hasher));
        let size = self.noise * (3.0 / v.len() as f64).sqrt();
        let errors = numbers(v.len(), hasher.finish());
        Ok(product
            .zip(errors)
            .map(|(p, e)| f64::from((p + size * e) as f32))
            .collect())
    }
}

/// `n` normally distributed numbers with this standard deviation.
fn normal(n: usize, deviation: f64, seed: u64) -> Vec<f64> {
    let uniform = numbers(12 * n, seed);
    let sums = uniform
        .chunks_exact(12)
        .map(|u| u.iter().sum::<f64>() / 2.0);
    sums.map(|x| deviation * x).collect()
}

fn with_bulk(outliers: &[f64], bulk: Vec<f64>) -> Vec<f64> {
    [outliers, &bulk].concat()
}

fn decaying(first: f64, count: i32) -> Vec<f64> {
    (0..count).map(|i| first * 0.7f64.powi(i)).collect()
}

/// Names and eigenvalues, in any order, of the kinds of spectra.
fn kinds(seed: u64) -> Vec<(&'static str, Vec<f64>)> {
    let bulk = |n, deviation| normal(n, deviation, 31 * seed + 7);
    let repeated = |groups: &[(f64, usize)]| -> Vec<f64> {
        let groups = groups.iter();
        groups
            .flat_map(|(value, count)| vec![*value; *count])
            .collect()
    };
    let multiple = repeated(&[(3.0, 9), (2.0, 7), (1.0, 2), (-4.0, 2)]);
    let clustered: Vec<f64> = (0..6).map(|i| 1.0 + 1e-6 * f64::from(i)).collect();
    let dead = repeated(&[(0.0, 200), (0.8, 7), (0.3, 2), (0.1, 9)]);
    let semicircle = (0..500).map(|i| (std::f64::consts::PI * (f64::from(i) + 0.5) / 500.0).cos());
    let negative: Vec<f64> = decaying(-2.0, 8);
    vec![
        (
            "planted",
            with_bulk(&[20.0, 10.0, 8.0, 6.0], bulk(800, 0.1)),
        ),
        ("multiple", with_bulk(&multiple, bulk(280, 0.1))),
        ("clustered", with_bulk(&clustered, bulk(300, 0.1))),
        (
            "near-zero bulk",
            with_bulk(&decaying(1.0, 10), bulk(400, 1e-9)),
        ),
        (
            "huge outliers",
            with_bulk(
                &[decaying(300.0, 10), vec![-0.6]].concat(),
                bulk(1_000, 0.1),
            ),
        ),
        ("negative outliers", with_bulk(&negative, bulk(400, 0.05))),
        ("dead units", with_bulk(&dead, bulk(100, 0.02))),
        ("rank one", with_bulk(&[1.0], vec![0.0; 300])),
        ("power law", (1..=400).map(|i| 1.0 / f64::from(i)).collect()),
        ("identity", vec![2.5; 60]),
        ("semicircle", semicircle.collect()),
        ("one", vec![-0.7]),
        ("two", vec![1.0, -1.0]),
        ("three", vec![2.0, 2.0, -1.0]),
        (
            "all negative",
            bulk(300, 1.0).iter().map(|x| -1.0 - x.abs()).collect(),
        ),
        ("zero", vec![0.0; 50]),
    ]
}

/// The `k` wanted eigenvalues, largest first.
fn wanted(values: &[f64], which: Which, k: usize) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let n = sorted.len();
    let mut found = match which {
        Which::Largest => sorted[..k].to_vec(),
        Which::Smallest => sorted[n - k..].to_vec(),
        Which::BothEnds => [&sorted[..k.div_ceil(2)], &sorted[n - k / 2..]].concat(),
        Which::LargestMagnitude => {
            sorted.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
            sorted[..k].to_vec()
        }
        other => panic!("no reference for {other:?}"),
    };
    found.sort_by(|a, b| b.total_cmp(a));
    found
}

/// Misleading start vectors: unwanted eigenvectors, most of the wanted ones, or noise.
fn misleading(values: &[f64], which: Which, k: usize, seed: u64) -> Vec<Vec<f64>> {
    let n = values.len();
    let unit = |i: usize| -> Vec<f64> { (0..n).map(|j| f64::from(u8::from(i == j))).collect() };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    if matches!(which, Which::Smallest) != seed.is_multiple_of(3) {
        order.reverse();
    }
    match seed % 3 {
        0 => order.iter().take(k).map(|i| unit(*i)).collect(),
        1 => {
            let some = order.iter().skip(1).take(k);
            some.map(|i| {
                let noise = numbers(n, seed + *i as u64);
                let size = 1e-3 / (n as f64).sqrt();
                unit(*i)
                    .iter()
                    .zip(noise)
                    .map(|(u, e)| u + size * e)
                    .collect()
            })
            .collect()
        }
        _ => (0..k as u64).map(|i| numbers(n, 17 * seed + i)).collect(),
    }
}

#[derive(Clone, Copy, Default)]
struct Tally {
    runs: usize,
    converged: usize,
    wrong: usize,
    products: usize,
}

/// Largest stated difference between an eigenvalue and the one with its rank.
fn error(pair: &Eigenpair) -> f64 {
    pair.residual + pair.rank.unwrap().error
}

/// Whether a value of a converged run differs from the eigenvalue with its rank by more than its stated error.
fn is_wrong(found: &Spectrum, values: &[f64], which: Which, noise: f64) -> bool {
    let size = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let k = found.pairs.len();
    let mut exact = wanted(values, which, k);
    let mut pairs: Vec<(f64, f64)> = found.pairs.iter().map(|p| (p.value, error(p))).collect();
    if which == Which::LargestMagnitude {
        // λ and −λ are equally large.
        exact.iter_mut().for_each(|v| *v = v.abs());
        exact.sort_by(|a, b| b.total_cmp(a));
        pairs.iter_mut().for_each(|p| p.0 = p.0.abs());
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    let tolerance = 2.0 * noise + 1e-13 * size;
    pairs
        .iter()
        .zip(&exact)
        .any(|((value, error), exact)| (value - exact).abs() > error + tolerance)
}

/// Runs one kind of spectrum with several block sizes, start vectors and roundings, and counts wrong results.
fn runs(kind: usize, which: Which) -> (&'static str, Tally) {
    let mut tally = Tally::default();
    let mut name = "";
    for (seed, k) in [1, 3, 9, 4, 12].into_iter().enumerate() {
        let seed = seed as u64;
        let (label, values) = kinds(seed).swap_remove(kind);
        name = label;
        let k = k.min(values.len());
        let size = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        for noise in [0.0, 1e-6 * size] {
            let operator = Diag {
                values: values.clone(),
                noise,
            };
            for (block, is_warm) in [(1, false), (1, true), (4, false), (4, true)] {
                let lanczos = Lanczos::default()
                    .with_which(which)
                    .with_block_size(block)
                    .with_seed(seed)
                    .with_start_vectors(match is_warm {
                        true => misleading(&values, which, k, seed),
                        false => Vec::new(),
                    });
                let found = lanczos.run(&operator, k).unwrap();
                tally.runs += 1;
                tally.products += found.products;
                if !found.converged {
                    continue;
                }
                tally.converged += 1;
                // Very large errors would never be wrong.
                let largest = found.pairs.iter().map(error).fold(0.0, f64::max);
                assert!(
                    largest <= (2e-4 + 1e-4) * size,
                    "{name}: an error of {largest}"
                );
                if is_wrong(&found, &values, which, noise) {
                    tally.wrong += 1;
                    println!(
                        "{name}, {which:?}, block {block}, warm {is_warm}, noise {noise:.0e}, seed {seed}: {:?}",
                        found.values()
                    );
                }
            }
        }
    }
    (name, tally)
}

#[test]
fn no_wrong_eigenvalue_is_reported_as_converged() {
    let all = [
        Which::Largest,
        Which::Smallest,
        Which::BothEnds,
        Which::LargestMagnitude,
    ];
    let work: Vec<(usize, Which)> = (0..kinds(0).len())
        .flat_map(|kind| all.map(|which| (kind, which)))
        .collect();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut total = Tally::default();
        while let Some((kind, which)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (name, tally) = runs(*kind, *which);
            println!(
                "{name}, {which:?}: {} of {} converged, {} wrong, {} products each",
                tally.converged,
                tally.runs,
                tally.wrong,
                tally.products / tally.runs
            );
            total.runs += tally.runs;
            total.converged += tally.converged;
            total.wrong += tally.wrong;
        }
        total
    };
    let totals = std::thread::scope(|scope| {
        let workers = [0; 2].map(|_| scope.spawn(worker));
        workers.map(|worker| worker.join().unwrap())
    });
    let sum = |f: fn(&Tally) -> usize| totals.iter().map(f).sum::<usize>();
    assert_eq!(sum(|t| t.wrong), 0);
    assert!(sum(|t| t.runs) >= 2_000 && sum(|t| t.converged) * 100 >= 97 * sum(|t| t.runs));
}
