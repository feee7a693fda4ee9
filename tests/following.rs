//! Eigenpairs that are followed from point to point.

use loss_landscape::landscape::ExtremeEigenvalues;
use loss_landscape::ndarray::{Array1, Array2};
use loss_landscape::prelude::*;
use loss_landscape::spectral::{Followed, Following};

/// A diagonal matrix whose axes i and i + n/2 turn towards each other by an angle.
#[derive(Clone)]
struct Turned {
    values: Vec<f64>,
    angle: f64,
}

impl Turned {
    fn new(values: &[f64], angle: f64) -> Self {
        let values = values.to_vec();
        Self { values, angle }
    }

    fn turn(&self, v: &[f64], angle: f64) -> Vec<f64> {
        let (half, (sin, cos)) = (v.len() / 2, angle.sin_cos());
        let mut turned = v.to_vec();
        for i in 0..half {
            turned[i] = cos * v[i] - sin * v[i + half];
            turned[i + half] = sin * v[i] + cos * v[i + half];
        }
        turned
    }

    /// The k wanted eigenvalues, largest first.
    fn exact(&self, which: Which, k: usize) -> Vec<f64> {
        let mut sorted = self.values.clone();
        let n = sorted.len();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut wanted = match which {
            Which::Smallest => sorted.split_off(n - k),
            Which::BothEnds => [&sorted[..k.div_ceil(2)], &sorted[n - k / 2..]].concat(),
            Which::LargestMagnitude => {
                sorted.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
                sorted[..k].to_vec()
            }
            _ => sorted[..k].to_vec(),
        };
        wanted.sort_by(|a, b| b.total_cmp(a));
        wanted
    }

    /// The largest distance of a value to the exact one, less its residual.
    fn excess(&self, found: &Followed, which: Which, k: usize) -> f64 {
        let pairs = &found.spectrum.pairs;
        assert_eq!(pairs.len(), k);
        let exact = self.exact(which, k);
        let excess = pairs
            .iter()
            .zip(exact)
            .map(|(p, exact)| (p.value - exact).abs() - p.residual);
        excess.fold(0.0, f64::max)
    }

    /// Asserts that the residuals are those of the vectors and at most `largest`.
    fn check_residuals(&self, found: &Followed, largest: f64) {
        for pair in &found.spectrum.pairs {
            let mut image = self.apply(&pair.vector).unwrap();
            for (y, v) in image.iter_mut().zip(&pair.vector) {
                *y -= pair.value * v;
            }
            let residual = image.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!(residual <= pair.residual * (1.0 + 1e-6) + 1e-13);
            assert!(pair.residual <= largest, "{} {largest}", pair.residual);
            let square: f64 = pair.vector.iter().map(|x| x * x).sum();
            assert!((square - 1.0).abs() < 1e-9, "{square}");
        }
    }
}

impl LinearOperator for Turned {
    fn dim(&self) -> usize {
        self.values.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let turned = self.turn(v, -self.angle);
        let scaled: Vec<f64> = turned
            .iter()
            .zip(&self.values)
            .map(|(v, a)| v * a)
            .collect();
        Ok(self.turn(&scaled, self.angle))
    }
}

/// Some values, and a bulk from −0.1 to 0.1.
fn values(n: usize, outliers: &[f64]) -> Vec<f64> {
    let bulk = (outliers.len()..n).map(|i| 0.1 * (1.7 * i as f64).sin());
    outliers.iter().copied().chain(bulk).collect()
}

const N: usize = 2_000;

const ALL: [Which; 4] = [
    Which::Largest,
    Which::Smallest,
    Which::BothEnds,
    Which::LargestMagnitude,
];

fn lanczos(which: Which) -> Lanczos {
    Lanczos::default().with_which(which).with_tolerance(1e-3)
}

#[test]
fn followed_eigenvalues_are_those_of_each_point_and_take_fewer_products() {
    for which in ALL {
        // A shift of all eigenvalues, as by L2.
        for (k, shift) in [(1, 0.0), (4, 0.0), (4, 6.0)] {
            let mut following = Following::new(lanczos(which), k);
            let (mut cold, mut followed) = (0, 0);
            for step in 0..12 {
                let t = f64::from(step);
                let mut values = values(
                    N,
                    &[
                        3.0 + 0.02 * t,
                        2.0,
                        1.5 - 0.02 * t,
                        1.0,
                        -0.6,
                        -0.8,
                        -1.2,
                        -2.5 + 0.01 * t,
                    ],
                );
                values.iter_mut().for_each(|v| *v += shift);
                let operator = Turned::new(&values, 0.01 * t);
                let found = following.next(&operator).unwrap();
                assert_eq!(found.points_since_check, step as usize, "{which:?} {k}");
                assert_eq!(found.spectrum.converged, step == 0);
                let excess = operator.excess(&found, which, k);
                assert!(excess <= 0.0, "{which:?} {k} {shift}: {excess}");
                operator.check_residuals(&found, 1e-3 * (3.3 + shift));
                if step > 0 {
                    followed += found.spectrum.products;
                    cold += lanczos(which).run(&operator, k).unwrap().products;
                }
            }
            println!("{which:?} {k}: {followed} products, {cold} by Lanczos");
            assert!(2 * followed < cold, "{which:?} {k}: {followed} of {cold}");
        }
    }
}

#[test]
fn equal_eigenvalues_are_followed_with_their_multiplicity() {
    for k in [2, 3, 4] {
        let mut following = Following::new(lanczos(Which::Largest), k);
        for step in 0..8 {
            let t = f64::from(step);
            let top = 2.0 + 0.01 * t;
            let operator = Turned::new(&values(N, &[top, top, top, 1.0, 1.0]), 0.02 * t);
            let found = following.next(&operator).unwrap();
            assert!(operator.excess(&found, Which::Largest, k) <= 0.0);
            assert_eq!(found.points_since_check, step as usize);
        }
    }
}

/// The first two eigenvalues cross, and the third overtakes both.
#[test]
fn crossing_eigenvalues_are_sorted() {
    for k in [1, 2, 3] {
        let mut following = Following::new(lanczos(Which::Largest), k);
        let mut wrong = Vec::new();
        for step in 0..25 {
            let t = f64::from(step);
            let values = values(N, &[2.0 - 0.02 * t, 1.8, 1.3 + 0.05 * t, 1.2 + 0.01 * t]);
            let operator = Turned::new(&values, 0.01 * t);
            let found = following.next(&operator).unwrap();
            if operator.excess(&found, Which::Largest, k) > 0.0 {
                assert!(found.points_since_check > 0);
                wrong.push(step);
            }
        }
        println!("{k}: wrong at {wrong:?}");
        // The three largest never change as a set.
        let most = if k == 3 { 0 } else { 8 };
        assert!(wrong.len() <= most, "{k}: wrong at {wrong:?}");
    }
}

/// A new eigenvalue whose vector nothing connects with the followed ones is found by the searches between two checks, and then
/// checked.
#[test]
fn a_new_large_eigenvalue_is_found_after_a_few_points() {
    for which in [Which::Largest, Which::LargestMagnitude, Which::Smallest] {
        for (k, axis) in [(1, 900), (3, 1_500)] {
            let mut following = Following::new(lanczos(which), k);
            let mut wrong = Vec::new();
            for step in 0..30 {
                let mut values = values(N, &[3.0, 2.0, 1.0, -0.9, -1.8, -2.8]);
                if step >= 2 {
                    values[axis] = if which == Which::Smallest { -3.5 } else { 3.5 };
                }
                let operator = Turned::new(&values, 0.0);
                let found = following.next(&operator).unwrap();
                operator.check_residuals(&found, 1e-3 * 3.6);
                let is_wrong = operator.excess(&found, which, k) > 0.0;
                // No point that was checked is wrong.
                assert!(!is_wrong || found.points_since_check > 0);
                if is_wrong {
                    wrong.push(step);
                } else if wrong.last() == Some(&(step - 1)) {
                    assert_eq!(found.points_since_check, 0, "{which:?} {k} {step}");
                }
            }
            println!("{which:?} {k}: wrong at {wrong:?}");
            assert!(wrong.len() <= 8, "{which:?} {k}: wrong at {wrong:?}");
        }
    }
}

#[test]
fn a_large_change_is_checked_at_once() {
    for which in ALL {
        let mut following = Following::new(lanczos(which), 3);
        let first = values(N, &[3.0, 2.0, 1.0, -0.9, -1.8, -2.8]);
        let second: Vec<f64> = first.iter().map(|v| 1.5 * v).collect();
        let third: Vec<f64> = second.iter().map(|v| -v).collect();
        let fourth = values(N, &[2.0, 2.0, 2.0, -1.9, -1.9]);
        for (values, angle) in [(first, 0.0), (second, 0.0), (third, 1.0), (fourth, 0.5)] {
            let operator = Turned::new(&values, angle);
            let found = following.next(&operator).unwrap();
            assert!(found.points_since_check == 0 && found.spectrum.converged);
            assert!(operator.excess(&found, which, 3) <= 1e-2);
        }
        let zero = Turned::new(&vec![0.0; N], 0.0);
        for _ in 0..3 {
            let found = following.next(&zero).unwrap();
            assert_eq!(found.spectrum.values(), [0.0; 3]);
        }
    }
}

#[test]
fn every_25th_point_is_checked() {
    let mut following = Following::new(lanczos(Which::Largest), 2);
    let operator = Turned::new(&values(N, &[3.0, 2.0, 1.0]), 0.0);
    for step in 0..60 {
        let found = following.next(&operator).unwrap();
        assert_eq!(found.points_since_check, step % 25);
        assert_eq!(found.spectrum.converged, step % 25 == 0);
        let has_ranks = found.spectrum.pairs.iter().all(|p| p.rank.is_some());
        assert_eq!(has_ranks, step % 25 == 0);
    }
}

/// A product that is not finite is an error, and the next point is checked.
#[test]
fn a_point_without_finite_products_is_an_error() {
    let mut following = Following::new(lanczos(Which::Largest), 2);
    let good = Turned::new(&values(N, &[3.0, 2.0, 1.0]), 0.0);
    let mut bad = good.clone();
    bad.values[0] = f64::NAN;
    for step in 0..3 {
        assert_eq!(following.next(&good).unwrap().points_since_check, step);
    }
    for _ in 0..2 {
        let error = following.next(&bad).unwrap_err();
        assert!(matches!(error, Error::NotFinite(_)), "{error}");
    }
    for step in 0..3 {
        let found = following.next(&good).unwrap();
        assert_eq!(found.points_since_check, step);
        assert!(good.excess(&found, Which::Largest, 2) <= 0.0);
    }
}

/// Matrices of few rows, with k up to n, and of changing sizes.
#[test]
fn small_matrices_are_computed_as_by_lanczos() {
    for which in ALL {
        for n in [1, 2, 5, 30, 60] {
            for k in [1, n / 2, n - 1, n] {
                if k == 0 {
                    continue;
                }
                let mut following = Following::new(lanczos(which), k);
                for step in 0..3 {
                    let diagonal: Vec<f64> =
                        (0..n).map(|i| i as f64 + 0.01 * f64::from(step)).collect();
                    let operator = Turned::new(&diagonal, 0.01 * f64::from(step));
                    let found = following.next(&operator).unwrap();
                    assert!(operator.excess(&found, which, k) <= 1e-12, "{n} {k}");
                    assert!(n >= 5 * k + 36 || found.spectrum.converged);
                }
            }
        }
    }
    let mut following = Following::new(lanczos(Which::Largest), 2);
    for n in [2, 5, 300, 300, 400, 4] {
        let operator = Turned::new(&values(n, &[3.0]), 0.0);
        let found = following.next(&operator).unwrap();
        assert!(operator.excess(&found, Which::Largest, 2) <= 1e-12);
    }
    let error = following.next(&Turned::new(&[1.0], 0.0)).unwrap_err();
    assert!(error.to_string().contains("2 eigenvalues"), "{error}");
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut following = Following::new(lanczos(Which::BothEnds), 4);
            let point = |step| {
                let operator = Turned::new(
                    &values(9_000, &[3.0, 2.0, 1.0, -2.0]),
                    0.02 * f64::from(step),
                );
                following.next(&operator).unwrap()
            };
            (0..5).map(point).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(1), run(3));
}

/// Checkpoints at each of 40 steps of a training, whose Hessians are known in full.
#[test]
fn checkpoints_of_a_training_take_few_products() {
    let data = two_moons(200, 0.1, 0, &Device::Cpu).unwrap();
    let model = Mlp::new(&[2, 14, 14, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let mut trajectory = Trajectory::at_steps((60..100).collect::<Vec<_>>());
    let trainer = Trainer::adam(1e-3).with_epochs(20).with_batch_size(32);
    trainer
        .fit_recorded(&model, &data, &data, &mut trajectory)
        .unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    for (k, most) in [(1, 4.5), (5, 17.0)] {
        let mut following = Following::new(lanczos(Which::Largest), k);
        let mut products = 0;
        for i in 0..trajectory.len() {
            let theta = trajectory.snapshot(i).unwrap();
            let hessian = objective.hessian().at(theta).unwrap();
            let found = following.next(&hessian).unwrap();
            products += found.spectrum.products;
            let exact = hessian.dense().unwrap().eigen().unwrap().values();
            for (pair, exact) in found.spectrum.pairs.iter().zip(&exact) {
                assert!((pair.value - exact).abs() <= pair.residual + 1e-3 * exact);
            }
        }
        let mean = products as f64 / trajectory.len() as f64;
        println!("{k} largest: {mean} products per point");
        assert!(mean <= most, "{k}: {mean}");
    }
}

/// A dense matrix gives the same as its operator.
#[test]
fn a_dense_matrix_is_followed() {
    let operator = Turned::new(&values(120, &[3.0, 2.0, 1.0]), 0.3);
    let mut dense = Array2::zeros((120, 120));
    for (i, mut column) in dense.columns_mut().into_iter().enumerate() {
        let mut e = vec![0.0; 120];
        e[i] = 1.0;
        column.assign(&Array1::from_vec(operator.apply(&e).unwrap()));
    }
    let dense = Dense::new(dense).unwrap();
    let exact = dense.eigen().unwrap().values();
    let mut following = Following::new(lanczos(Which::BothEnds), 3);
    for _ in 0..3 {
        let found = following.next(&dense).unwrap().spectrum;
        let wanted = [exact[0], exact[1], exact[119]];
        for (pair, exact) in found.pairs.iter().zip(wanted) {
            assert!((pair.value - exact).abs() <= pair.residual);
        }
    }
}

#[test]
fn planes_follow_the_extreme_eigenvalues_along_rows() {
    let data = two_moons(100, 0.1, 0, &Device::Cpu).unwrap();
    let model = Mlp::new(&[2, 8, 8, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0).unwrap();
    let alphas = (0..41).map(|i| f64::from(i - 20) / 20.0).collect();
    let grid = Grid::new(alphas, vec![-0.5, 0.0, 0.5]).unwrap();
    let found = ExtremeEigenvalues::on_grid(&objective, &d1, &d2, &grid).unwrap();
    let theta = model.parameters().to_flat().unwrap();
    for (i, beta) in grid.betas().iter().enumerate() {
        for (j, alpha) in grid.alphas().iter().enumerate() {
            let moved = (0..theta.len()).map(|k| theta[k] + alpha * d1[k] + beta * d2[k]);
            let hessian = objective.hessian().at(moved.collect()).unwrap();
            let exact = hessian.dense().unwrap().eigen().unwrap().values();
            let (largest, smallest) = (exact[0], exact[exact.len() - 1]);
            let size = largest.max(-smallest);
            let error = found.errors[[i, j]];
            // The error of a checked point includes that of its rank.
            let limit = if found.checked[[i, j]] { 3e-3 } else { 1.1e-3 };
            assert!(error <= limit * size, "({alpha}, {beta}): {error}");
            assert!(
                (found.largest[[i, j]] - largest).abs() <= error
                    && (found.smallest[[i, j]] - smallest).abs() <= error,
                "({alpha}, {beta})"
            );
        }
    }
    assert!(found.checked.column(0).iter().all(|checked| *checked));
    let checked = found.checked.iter().filter(|checked| **checked).count();
    assert!(
        checked < grid.alphas().len(),
        "{checked} checked points of 123"
    );
}
