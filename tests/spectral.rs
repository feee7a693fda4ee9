//! Lanczos and the dense eigenvalues against matrices whose spectrum is known.

use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;

struct Diagonal(Vec<f64>);

impl LinearOperator for Diagonal {
    fn dim(&self) -> usize {
        self.0.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        Ok(v.iter().zip(&self.0).map(|(v, d)| v * d).collect())
    }
}

/// 2 on the diagonal, −1 beside it: eigenvalues 2 − 2cos(kπ/(n+1)).
struct Laplacian(usize);

impl LinearOperator for Laplacian {
    fn dim(&self) -> usize {
        self.0
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let at = |i: isize| {
            if i < 0 {
                0.0
            } else {
                *v.get(i as usize).unwrap_or(&0.0)
            }
        };
        let entry = |i: isize| 2.0 * at(i) - at(i - 1) - at(i + 1);
        Ok((0..v.len() as isize).map(entry).collect())
    }
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance, "{found:?} is not {expected:?}");
    }
}

fn check_vectors(spectrum: &Spectrum, operator: &impl LinearOperator) {
    for (i, pair) in spectrum.pairs.iter().enumerate() {
        let image = operator.apply(&pair.vector).unwrap();
        let residual = image
            .iter()
            .zip(&pair.vector)
            .map(|(a, v)| (a - pair.value * v).powi(2));
        assert!(residual.sum::<f64>().sqrt() <= pair.residual + 1e-14);
        for (j, other) in spectrum.pairs.iter().enumerate() {
            let overlap: f64 = pair
                .vector
                .iter()
                .zip(&other.vector)
                .map(|(a, b)| a * b)
                .sum();
            assert!((overlap - f64::from(i == j)).abs() < 1e-8);
        }
    }
}

#[test]
fn laplacian() {
    let n = 200;
    let lanczos = Lanczos {
        tolerance: 1e-10,
        ..Lanczos::default()
    };
    let spectrum = lanczos.largest(&Laplacian(n), 6).unwrap();
    let value = |k: usize| 2.0 - 2.0 * (k as f64 * std::f64::consts::PI / (n as f64 + 1.0)).cos();
    let expected: Vec<f64> = (0..6).map(|i| value(n - i)).collect();
    assert_close(&spectrum.values(), &expected, 1e-9);
    assert!(spectrum.converged && spectrum.residuals().iter().all(|r| *r < 1e-8));
    check_vectors(&spectrum, &Laplacian(n));

    let dense = Laplacian(n).dense().unwrap().eigen().unwrap();
    let expected: Vec<f64> = (0..n).map(|i| value(n - i)).collect();
    assert_close(&dense.values(), &expected, 1e-12);
    check_vectors(&dense, &Laplacian(n));
}

#[test]
fn a_gap_is_found_in_few_products() {
    let mut diagonal: Vec<f64> = (0..5_000).map(|i| 0.05 * (i as f64 * 0.7).sin()).collect();
    let outliers = [0.9, 0.8, 0.7, -0.6, 0.5];
    diagonal[100..105].copy_from_slice(&outliers);
    let spectrum = Diagonal(diagonal).top(4).unwrap();
    assert_close(&spectrum.values(), &[0.9, 0.8, 0.7, 0.5], 1e-6);
    assert!(spectrum.products < 60, "{} products", spectrum.products);
}

#[test]
fn no_ghosts_and_none_missed() {
    let mut diagonal = vec![3.0, 3.0, 3.0, 2.0, 2.0, 1.0];
    diagonal.extend((0..20).map(|i| -(i as f64) / 10.0));
    let spectrum = Diagonal(diagonal).top(7).unwrap();
    assert_close(
        &spectrum.values(),
        &[3.0, 3.0, 3.0, 2.0, 2.0, 1.0, 0.0],
        1e-9,
    );
}

#[test]
fn degenerate_matrices() {
    assert_close(
        &Diagonal(vec![1.0; 50]).top(5).unwrap().values(),
        &[1.0; 5],
        1e-12,
    );
    assert_close(
        &Diagonal(vec![0.0; 50]).top(5).unwrap().values(),
        &[0.0; 5],
        1e-12,
    );
    assert_close(
        &Diagonal(vec![-2.0]).top(1).unwrap().values(),
        &[-2.0],
        1e-12,
    );
    assert_close(
        &Laplacian(3).top(3).unwrap().values(),
        &[3.414_213_562, 2.0, 0.585_786_438],
        1e-9,
    );
}

#[test]
fn questions_without_an_answer() {
    let message = |k: usize| Laplacian(3).top(k).unwrap_err().to_string();
    assert!(message(0).contains("ask for 1 to 3"));
    assert!(message(4).contains("ask for 1 to 3"));
    let nan = Diagonal(vec![1.0, f64::NAN, 2.0])
        .top(2)
        .unwrap_err()
        .to_string();
    assert!(nan.contains("not finite"), "{nan}");

    let scarce = Lanczos {
        max_products: 12,
        ..Lanczos::default()
    };
    let unfinished = scarce.largest(&Laplacian(500), 3).unwrap();
    assert!(!unfinished.converged);
    // The residual says how far off the value can be.
    let top = 2.0 + 2.0 * (std::f64::consts::PI / 501.0).cos();
    let pair = &unfinished.pairs[0];
    assert!((pair.value - top).abs() > 1e-6 && pair.residual > 1e-3);

    let large = Diagonal(vec![1.0; 5_000]).dense().unwrap_err().to_string();
    assert!(large.contains("top(k)"), "{large}");
}

#[test]
fn an_error_of_the_operator_arrives() {
    struct Broken;
    impl LinearOperator for Broken {
        fn dim(&self) -> usize {
            4
        }
        fn apply(&self, _: &[f64]) -> Result<Vec<f64>, Error> {
            Err(Error::Invalid("no more today".into()))
        }
    }
    assert_eq!(Broken.top(1).unwrap_err().to_string(), "no more today");
    assert_eq!(Broken.dense().unwrap_err().to_string(), "no more today");
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let run = || Laplacian(3_000).top(3).unwrap();
    assert_eq!(run(), run());
}

#[test]
fn dense_matrices_are_checked() {
    let matrix = |entries: [f64; 4]| Array2::from_shape_vec((2, 2), entries.to_vec()).unwrap();
    assert!(Dense::new(matrix([1.0, 2.0, 3.0, 4.0])).is_err());
    assert!(Dense::new(matrix([1.0, f64::NAN, f64::NAN, 4.0])).is_err());
    assert!(Dense::new(Array2::zeros((2, 3))).is_err());
    assert!(Dense::new(Array2::zeros((0, 0))).is_err());
    let dense = Dense::new(matrix([1.0, 1e-4, 0.0, 2.0])).unwrap();
    let spectrum = dense.eigen().unwrap();
    // Rounding in the symmetry widens every eigenvalue's error.
    assert!(spectrum.residuals().iter().all(|r| *r >= dense.asymmetry()));
}

#[test]
fn inertia_counts_signs_beyond_their_error() {
    let inertia = |diagonal: &[f64]| {
        let dense = Diagonal(diagonal.to_vec()).dense().unwrap();
        dense.eigen().unwrap().inertia().unwrap()
    };
    let saddle = inertia(&[1.0, -1.0, 0.0]);
    assert_eq!((saddle.negative, saddle.zero, saddle.positive), (1, 1, 1));
    assert!(saddle.to_string().starts_with("saddle point: 1 negative"));
    assert!(inertia(&[1.0, 2.0]).to_string().starts_with("minimum"));
    assert!(inertia(&[-1.0, -2.0]).to_string().starts_with("maximum"));
    assert!(Laplacian(20).top(3).unwrap().inertia().is_err());
}
