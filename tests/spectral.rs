//! Lanczos and dense eigenvalues on matrices with known spectra.

mod common;

use common::{Broken, Laplacian, OnDiagonal, assert_close, numbers, with_eigenvalues};
use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;
use loss_landscape::serde_json;
use loss_landscape::spectral::{Diagonal, Spectrum};

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
fn the_laplacian_has_its_known_eigenvalues() {
    let n = 200;
    let lanczos = Lanczos::default().with_tolerance(1e-10);
    let spectrum = lanczos.run(&Laplacian(n), 6).unwrap();
    assert_close(&spectrum.values(), &Laplacian(n).eigenvalues()[..6], 1e-9);
    assert!(spectrum.converged && spectrum.residuals().iter().all(|r| *r < 1e-8));
    check_vectors(&spectrum, &Laplacian(n));

    let dense = Laplacian(n).dense().unwrap().eigen().unwrap();
    assert_close(&dense.values(), &Laplacian(n).eigenvalues(), 1e-12);
    check_vectors(&dense, &Laplacian(n));
}

#[test]
fn separated_eigenvalues_take_few_products() {
    let mut diagonal: Vec<f64> = (0..5_000).map(|i| 0.05 * (i as f64 * 0.7).sin()).collect();
    let outliers = [0.9, 0.8, 0.7, -0.6, 0.5];
    diagonal[100..105].copy_from_slice(&outliers);
    let spectrum = OnDiagonal(diagonal).top(4).unwrap();
    assert_close(&spectrum.values(), &[0.9, 0.8, 0.7, 0.5], 1e-6);
    assert!(spectrum.products < 60, "{} products", spectrum.products);
}

#[test]
fn no_spurious_and_no_missed_eigenvalues() {
    let mut diagonal = vec![3.0, 3.0, 3.0, 2.0, 2.0, 1.0];
    diagonal.extend((0..20).map(|i| -(i as f64) / 10.0));
    let spectrum = OnDiagonal(diagonal).top(7).unwrap();
    assert_close(
        &spectrum.values(),
        &[3.0, 3.0, 3.0, 2.0, 2.0, 1.0, 0.0],
        1e-9,
    );
}

#[test]
fn degenerate_matrices() {
    for which in [
        Which::Largest,
        Which::Smallest,
        Which::BothEnds,
        Which::LargestMagnitude,
    ] {
        for block in [1, 3] {
            let lanczos = Lanczos::default().with_which(which).with_block_size(block);
            let values = |entries: Vec<f64>, k: usize| {
                lanczos.run(&OnDiagonal(entries), k).unwrap().values()
            };
            assert_close(&values(vec![1.0; 50], 5), &[1.0; 5], 1e-12);
            assert!(values(vec![0.0; 50], 5).iter().all(|v| *v == 0.0));
            assert_close(&values(vec![-2.0], 1), &[-2.0], 1e-12);
            assert_close(&values(vec![3.0, -1.0, 2.0], 3), &[3.0, 2.0, -1.0], 1e-12);
        }
    }
}

#[test]
fn each_end_of_the_spectrum() {
    let n = 150;
    let mut expected: Vec<f64> = (0..n)
        .map(|i| (0.61 * i as f64).sin() * (1.0 + i as f64 / 40.0))
        .collect();
    let matrix = with_eigenvalues(&expected, 9);
    expected.sort_by(|a, b| b.total_cmp(a));
    let run = |which: Which| {
        let lanczos = Lanczos::default().with_which(which).with_tolerance(1e-11);
        let spectrum = lanczos.run(&matrix, 5).unwrap();
        assert!(spectrum.converged);
        check_vectors(&spectrum, &matrix);
        spectrum.values()
    };
    assert_close(&run(Which::Largest), &expected[..5], 1e-10);
    assert_close(&run(Which::Smallest), &expected[n - 5..], 1e-10);
    let ends = [&expected[..3], &expected[n - 2..]].concat();
    assert_close(&run(Which::BothEnds), &ends, 1e-10);
    let mut by_size = expected.clone();
    by_size.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
    by_size.truncate(5);
    by_size.sort_by(|a, b| b.total_cmp(a));
    assert_close(&run(Which::LargestMagnitude), &by_size, 1e-10);
}

#[test]
fn restarts_lose_no_eigenvalues() {
    let lanczos = |max_basis: Option<usize>, block: usize| {
        Lanczos::default()
            .with_tolerance(1e-9)
            .with_max_basis(max_basis)
            .with_block_size(block)
            .with_max_products(20_000)
    };
    // Some(1) is raised to the smallest basis that works.
    for (n, max_basis, block) in [
        (400, Some(20), 1),
        (60, Some(1), 1),
        (400, Some(40), 3),
        (400, None, 4),
    ] {
        let spectrum = lanczos(max_basis, block).run(&Laplacian(n), 5).unwrap();
        assert!(spectrum.converged, "{max_basis:?}, {block}");
        assert_close(&spectrum.values(), &Laplacian(n).eigenvalues()[..5], 1e-9);
        check_vectors(&spectrum, &Laplacian(n));
    }
}

#[test]
fn a_block_finds_planted_multiplicities() {
    let mut eigenvalues: Vec<f64> = numbers(400, 11);
    eigenvalues[..7].copy_from_slice(&[3.0, 3.0, 3.0, 2.0, 2.0, -4.0, -4.0]);
    let matrix = with_eigenvalues(&eigenvalues, 12);
    let lanczos = Lanczos::default()
        .with_which(Which::LargestMagnitude)
        .with_block_size(3)
        .with_tolerance(1e-8);
    let spectrum = lanczos.run(&matrix, 7).unwrap();
    assert_close(
        &spectrum.values(),
        &[3.0, 3.0, 3.0, 2.0, 2.0, -4.0, -4.0],
        1e-12,
    );
    check_vectors(&spectrum, &matrix);
}

#[test]
fn eigenvectors_of_a_similar_matrix_save_products() {
    let eigenvalues: Vec<f64> = (0..300).map(|i| 0.97f64.powi(i)).collect();
    let matrix = with_eigenvalues(&eigenvalues, 13);
    let cold = matrix.top(3).unwrap();
    let moved: Vec<f64> = eigenvalues.iter().map(|x| x * (1.0 + 0.01 * x)).collect();
    let moved = with_eigenvalues(&moved, 13);
    let lanczos = Lanczos::default()
        .with_start_vectors(cold.pairs.iter().map(|pair| pair.vector.clone()).collect());
    let warm = lanczos.run(&moved, 3).unwrap();
    assert!(
        warm.converged && warm.products < cold.products,
        "{} products",
        warm.products
    );
    assert_close(&warm.values(), &moved.top(3).unwrap().values(), 1e-6);
    let short = Lanczos::default().with_start_vectors(vec![vec![1.0; 3]]);
    assert!(
        short
            .run(&moved, 3)
            .unwrap_err()
            .to_string()
            .contains("start vector")
    );
}

/// `outliers` on the first axes, and a bulk of standard deviation 0.1.
fn outliers_and_bulk(outliers: &[f64], n: usize, seed: u64) -> Vec<f64> {
    let bulk = numbers(12 * n, 1000 + seed);
    let bulk = bulk
        .chunks_exact(12)
        .map(|u| 0.1 * u.iter().sum::<f64>() / 2.0);
    outliers.iter().copied().chain(bulk).take(n).collect()
}

#[test]
fn start_vectors_do_not_hide_orthogonal_eigenvectors() {
    let n = 2_000;
    let mut diagonal = outliers_and_bulk(&[10.0, 8.0, 6.0], n, 0);
    let cold = OnDiagonal(diagonal.clone()).top(3).unwrap();
    assert_close(&cold.values(), &[10.0, 8.0, 6.0], 1e-6);
    diagonal[n / 2] = 20.0;
    let smallest = diagonal.iter().copied().fold(f64::INFINITY, f64::min);
    let planted = OnDiagonal(diagonal);
    for block in [1, 3] {
        let warm = |which| {
            Lanczos::default()
                .with_which(which)
                .with_block_size(block)
                .with_start_vectors(cold.pairs.iter().map(|pair| pair.vector.clone()).collect())
        };
        let top = warm(Which::Largest).run(&planted, 3).unwrap();
        assert!(top.converged);
        assert_close(&top.values(), &[20.0, 10.0, 8.0], 1e-6);
        let bottom = warm(Which::Smallest).run(&planted, 1).unwrap();
        let found = bottom.pairs[0].bracket();
        assert!(bottom.converged && found.low <= smallest && smallest <= found.high);
        assert!(found.high - found.low < 0.05 * smallest.abs(), "{found}");
    }
}

/// Products in `f32` with the Hessian of a softmax's bias at equal probabilities: eigenvalue 0.1 nine times, and zeros.
#[test]
fn a_multiple_eigenvalue_is_found_with_its_multiplicity_in_f32() {
    let data = Dataset::classification(
        &Tensor::zeros((20, 50), DType::F32, &Device::Cpu).unwrap(),
        &Tensor::zeros(20, DType::U32, &Device::Cpu).unwrap(),
    )
    .unwrap();
    let model = Mlp::new(&[50, 10], Activation::Tanh, 0, &Device::Cpu).unwrap();
    let parameters = model.parameters();
    parameters.set_flat(&vec![0.0; parameters.len()]).unwrap();
    let hessian = Objective::of(&model, &data, Loss::CrossEntropy)
        .unwrap()
        .hessian();
    for (which, block) in [
        (Which::Largest, 1),
        (Which::LargestMagnitude, 1),
        (Which::Largest, 4),
    ] {
        for k in [3, 9, 12] {
            let lanczos = Lanczos::default().with_which(which).with_block_size(block);
            let found = lanczos.run(&hessian, k).unwrap();
            let expected: Vec<f64> = (0..k).map(|i| if i < 9 { 0.1 } else { 0.0 }).collect();
            assert!(
                found.converged,
                "{which:?} {block} {k}: {:?} {} {:?}",
                found.values(),
                found.products,
                found.residuals()
            );
            assert_close(&found.values(), &expected, 1e-5);
        }
    }
}

/// Copies of a hidden unit give a multiple eigenvalue, because all differences of two copies have the same curvature.
#[test]
fn equal_hidden_units_repeat_an_eigenvalue() {
    for dtype in [DType::F32, DType::F64] {
        let data = two_moons(100, 0.1, 0, &Device::Cpu).unwrap();
        let model = Mlp::new(&[2, 8, 2], Activation::Tanh, 0, &Device::Cpu).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        let parameters = model.parameters();
        let mut theta = parameters.to_flat().unwrap();
        // Weights are (out, in): rows of the first layer, columns of the second.
        for (name, unit, stride) in [("layers.0.weight", 2, 2), ("layers.0.bias", 1, 1)] {
            let start = parameters.range(name).unwrap().start;
            for i in 1..8 {
                for j in 0..unit {
                    theta[start + i * stride + j] = theta[start + j];
                }
            }
        }
        let start = parameters.range("layers.1.weight").unwrap().start;
        for row in 0..2 {
            for i in 1..8 {
                theta[start + 8 * row + i] = theta[start + 8 * row];
            }
        }
        parameters.set_flat(&theta).unwrap();
        let exact = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        let exact = common::hessian_values(&exact);
        let model = model.to_dtype(dtype).unwrap();
        let data = data.to_dtype(dtype).unwrap();
        let hessian = Objective::of(&model, &data, Loss::CrossEntropy)
            .unwrap()
            .hessian();
        for k in [3, 12, 20] {
            let found = hessian.top(k).unwrap();
            assert!(
                found.converged,
                "{dtype:?} {k}: {:?} {} {:?}",
                found.values(),
                found.products,
                found.residuals()
            );
            assert_close(&found.values(), &exact[..k], 1e-4);
        }
    }
}

#[test]
fn each_end_of_the_spectrum_has_its_own_scale() {
    let outliers: Vec<f64> = (0..10).map(|i| 300.0 * 0.7f64.powi(i)).collect();
    let outliers = [outliers, vec![-0.6]].concat();
    for which in [Which::BothEnds, Which::Smallest] {
        for seed in 0..20 {
            let lanczos = Lanczos::default()
                .with_which(which)
                .with_tolerance(1e-3)
                .with_seed(seed);
            let matrix = OnDiagonal(outliers_and_bulk(&outliers, 3_000, seed));
            let found = lanczos.run(&matrix, 2).unwrap();
            let smallest = found.pairs[1].bracket();
            assert!(found.converged);
            assert!(smallest.low <= -0.6 && -0.6 <= smallest.high, "{smallest}");
            assert!(smallest.high - smallest.low < 0.2 * 0.6, "{smallest}");
        }
    }
}

#[test]
fn seven_equal_negative_eigenvalues_are_counted_as_seven() {
    let diagonal: Vec<f64> = (0..500)
        .map(|i| {
            if i % 70 == 0 && i < 490 {
                -1.0
            } else {
                1.0 + i as f64 / 500.0
            }
        })
        .collect();
    let lanczos = Lanczos::default().with_which(Which::Smallest);
    let found = lanczos.run(&OnDiagonal(diagonal), 10).unwrap();
    assert!(found.converged);
    let negative = found.pairs.iter().filter(|pair| pair.bracket().high < 0.0);
    assert_eq!(negative.count(), 7);
}

#[test]
fn the_gap_of_a_double_eigenvalue_is_zero() {
    let mut diagonal = vec![5.0, 5.0, 1.0];
    diagonal.extend((0..300).map(|i| 1e-3 * f64::from(i)));
    let matrix = OnDiagonal(diagonal);
    let found = matrix.top(2).unwrap();
    let gap = found.gap(0).unwrap();
    assert!(
        gap.low == 0.0 && gap.value < 1e-3 && gap.high < 2e-3,
        "{gap}"
    );
    // Any vector of a double eigenspace is an eigenvector.
    let overlap = found.overlap(&vec![1.0; matrix.dim()], 1).unwrap();
    assert_eq!((overlap.low, overlap.high), (0.0, 1.0));
    let whole = matrix.top(3).unwrap();
    let mut vector = vec![0.0; matrix.dim()];
    vector[1] = 1.0;
    let overlap = whole.overlap(&vector, 2).unwrap();
    assert!(overlap.low > 0.99 && overlap.high >= 1.0, "{overlap}");
}

#[test]
fn a_gap_needs_neighbours() {
    let matrix = OnDiagonal((0..300).map(f64::from).collect());
    let run = |which| {
        let lanczos = Lanczos::default().with_which(which);
        lanczos.run(&matrix, 4).unwrap()
    };
    let ends = run(Which::BothEnds);
    assert!(ends.gap(0).is_ok() && ends.gap(2).is_ok());
    let message = ends.gap(1).unwrap_err().to_string();
    assert!(
        message.contains("eigenvalues 2 and 299 of the matrix"),
        "{message}"
    );
    let ranks = |found: &Spectrum| -> Vec<usize> {
        found
            .pairs
            .iter()
            .map(|pair| pair.rank.unwrap().index)
            .collect()
    };
    assert_eq!(ranks(&ends), [1, 2, 299, 300]);
    assert_eq!(ranks(&run(Which::Smallest)), [297, 298, 299, 300]);
    // The span of the largest of the four smallest is not that of the largest of all.
    let overlap = run(Which::Smallest).overlap(&vec![1.0; 300], 1).unwrap();
    assert_eq!((overlap.low, overlap.high), (0.0, 1.0));

    let scarce = Lanczos::default().with_max_products(12);
    let unfinished = scarce.run(&Laplacian(500), 3).unwrap();
    assert!(!unfinished.converged && unfinished.pairs[0].rank.is_none());
    let gap = unfinished.gap(0).unwrap();
    assert_eq!((gap.low, gap.high), (0.0, f64::INFINITY));
}

#[test]
fn power_iteration_converges_at_its_rate() {
    let matrix = OnDiagonal(vec![-2.0, 1.0, 0.5, 0.1]);
    let power = PowerIteration::default().run(&matrix).unwrap();
    assert!(power.converged && (power.pair.value + 2.0).abs() <= power.pair.residual);
    assert_eq!(power.values.len(), power.table().unwrap().height());
    // The residual decreases by |λ₂/λ₁| = ½ per step.
    let [.., before, last] = power.residuals[..] else {
        panic!()
    };
    assert!((last / before - 0.5).abs() < 0.05);

    assert!(
        PowerIteration::default()
            .run(&OnDiagonal(vec![0.0; 9]))
            .unwrap()
            .converged
    );
    assert_eq!(
        PowerIteration::default()
            .run(&OnDiagonal(vec![1.0; 9]))
            .unwrap()
            .values
            .len(),
        1
    );
    let both = PowerIteration::default()
        .run(&OnDiagonal(vec![1.0, -1.0]))
        .unwrap();
    assert!(!both.converged);
    let none = PowerIteration::default().with_max_products(0);
    assert!(none.run(&matrix).is_err());
    assert!(PowerIteration::default().run(&Broken).is_err());
}

#[test]
fn quantities_derived_from_a_spectrum() {
    let all = OnDiagonal(vec![4.0, -2.0, 1.0, 0.5])
        .dense()
        .unwrap()
        .eigen()
        .unwrap();
    let condition = all.condition_number().unwrap();
    assert!((condition.value - 8.0).abs() < 1e-12 && condition.low <= 8.0 && 8.0 <= condition.high);
    assert!((all.gap(0).unwrap().value - 3.0).abs() < 1e-12);
    assert!(all.gap(3).is_err() && all.gap(usize::MAX).is_err());
    let rank = all.effective_rank().unwrap();
    assert!(
        (rank.value - 56.25 / 21.25).abs() < 1e-12
            && rank.low <= rank.value
            && rank.value <= rank.high
    );
    let singular = OnDiagonal(vec![1.0, 0.0]).dense().unwrap().eigen().unwrap();
    assert_eq!(singular.condition_number().unwrap().high, f64::INFINITY);
    assert!(
        OnDiagonal(vec![0.0; 3])
            .dense()
            .unwrap()
            .eigen()
            .unwrap()
            .effective_rank()
            .is_err()
    );

    let some = OnDiagonal(vec![4.0, 3.0, 1.0, 0.5, 0.2, 0.1])
        .top(3)
        .unwrap();
    assert!(some.condition_number().is_err() && some.effective_rank().is_err());
    let overlap = some.overlap(&[3.0, 0.0, 4.0, 0.0, 0.0, 0.0], 2).unwrap();
    assert!((overlap.value - 9.0 / 25.0).abs() < 1e-6, "{overlap}");
    assert!(overlap.low <= 0.36 && 0.36 <= overlap.high && overlap.high - overlap.low < 0.01);
    let unbounded = some.overlap(&[1.0; 6], 3).unwrap();
    assert_eq!((unbounded.low, unbounded.high), (0.0, 1.0));
    for (vector, count) in [
        (vec![1.0; 6], 0),
        (vec![1.0; 6], 4),
        (vec![1.0; 5], 2),
        (vec![0.0; 6], 2),
    ] {
        assert!(some.overlap(&vector, count).is_err());
    }
}

#[test]
fn participation_of_eigenvectors_in_blocks() {
    // Two eigenvectors: (1, 1, 1, 1)/2 with eigenvalue 4, and e₅.
    let mut matrix = Array2::zeros((5, 5));
    matrix
        .slice_mut(loss_landscape::ndarray::s![..4, ..4])
        .fill(1.0);
    matrix[[4, 4]] = 2.0;
    let spectrum = Dense::new(matrix).unwrap().eigen().unwrap();
    let blocks = [("a".to_string(), 0..2), ("b".to_string(), 2..5)];
    let found = spectrum.participation(&blocks).unwrap();
    let row = |i: usize| (found[i].block.as_str(), found[i].share, found[i].entries);
    let close = |found: (&str, f64, f64), expected: (&str, f64, f64)| {
        assert_eq!(found.0, expected.0);
        assert!((found.1 - expected.1).abs() < 1e-12 && (found.2 - expected.2).abs() < 1e-12);
    };
    close(row(0), ("a", 0.5, 2.0));
    close(row(1), ("b", 0.5, 2.0));
    close(row(2), ("a", 0.0, 0.0));
    close(row(3), ("b", 1.0, 1.0));
    assert!(spectrum.participation(&[("c".to_string(), 3..9)]).is_err());
}

#[test]
fn invalid_requests_are_refused() {
    let message = |k: usize| Laplacian(3).top(k).unwrap_err().to_string();
    assert!(message(0).contains("ask for 1 to 3"));
    assert!(message(4).contains("ask for 1 to 3"));
    let nan = OnDiagonal(vec![1.0, f64::NAN, 2.0])
        .top(2)
        .unwrap_err()
        .to_string();
    assert!(nan.contains("not finite"), "{nan}");

    let scarce = Lanczos::default().with_max_products(12);
    let unfinished = scarce.run(&Laplacian(500), 3).unwrap();
    assert!(!unfinished.converged);
    // The residual bounds the error of the value.
    let top = 2.0 + 2.0 * (std::f64::consts::PI / 501.0).cos();
    let pair = &unfinished.pairs[0];
    assert!((pair.value - top).abs() > 1e-6 && pair.residual > 1e-3);

    let large = OnDiagonal(vec![1.0; 5_000])
        .dense()
        .unwrap_err()
        .to_string();
    assert!(large.contains("top(k)"), "{large}");
}

#[test]
fn errors_of_the_operator_are_returned() {
    assert_eq!(Broken.top(1).unwrap_err().to_string(), "the product failed");
    assert_eq!(
        Broken.dense().unwrap_err().to_string(),
        "the product failed"
    );
}

#[test]
fn products_of_a_wrong_size_are_refused() {
    struct Short;
    impl LinearOperator for Short {
        fn dim(&self) -> usize {
            9
        }
        fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
            Ok(v[1..].to_vec())
        }
    }
    let messages = [
        Short.top(2).unwrap_err(),
        Short.density().unwrap_err(),
        Spectral::trace(&Short).unwrap_err(),
        Diagonal::estimate(&Short, 2, 0).unwrap_err(),
        PowerIteration::default().run(&Short).unwrap_err(),
        Short.dense().unwrap_err(),
    ];
    for message in messages {
        assert!(
            message.to_string().contains("products of length 9, found"),
            "{message}"
        );
    }
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
    // Asymmetry by rounding increases the error of every eigenvalue.
    assert!(spectrum.residuals().iter().all(|r| *r >= dense.asymmetry()));
}

#[test]
fn inertia_counts_signs_beyond_their_error() {
    let inertia = |diagonal: &[f64]| {
        let dense = OnDiagonal(diagonal.to_vec()).dense().unwrap();
        dense.eigen().unwrap().inertia().unwrap()
    };
    let saddle = inertia(&[1.0, -1.0, 0.0]);
    assert_eq!((saddle.negative, saddle.zero, saddle.positive), (1, 1, 1));
    assert!(saddle.to_string().starts_with("saddle point: 1 negative"));
    assert!(inertia(&[1.0, 2.0]).to_string().starts_with("minimum"));
    assert!(inertia(&[-1.0, -2.0]).to_string().starts_with("maximum"));
    assert!(Laplacian(20).top(3).unwrap().inertia().is_err());
}

/// The Hessian of a linear classifier has no negative eigenvalues. In `f32` both entries of a symmetric pair are rounded alike,
/// so that the asymmetry does not show the rounding.
#[test]
fn dense_matrices_include_the_rounding_of_their_entries() {
    for seed in 0..8 {
        let data = two_moons(40, 0.3, seed, &Device::Cpu).unwrap();
        let single = data.to_dtype(DType::F32).unwrap();
        let model = |widths: &[usize]| Mlp::new(widths, Activation::Tanh, seed, &Device::Cpu);
        let linear = model(&[2, 3]).unwrap().to_dtype(DType::F32).unwrap();
        let convex = Objective::of(&linear, &single, Loss::CrossEntropy).unwrap();
        let matrix = convex.hessian().dense().unwrap();
        let found = matrix.eigen().unwrap();
        assert_eq!(found.inertia().unwrap().negative, 0, "{seed}");
        let json = serde_json::to_string(&matrix).unwrap();
        let read: Dense = serde_json::from_str(&json).unwrap();
        assert_eq!(read.dtype(), Some(DType::F32));

        let net = model(&[2, 4, 3]).unwrap().to_dtype(DType::F32).unwrap();
        let exact = net.to_dtype(DType::F64).unwrap();
        let kernels = [
            Objective::of(&net, &single, Loss::CrossEntropy).unwrap(),
            Objective::of(
                &exact,
                &data.to_dtype(DType::F64).unwrap(),
                Loss::CrossEntropy,
            )
            .unwrap(),
        ]
        .map(|objective| objective.tangent_kernel().unwrap().eigen().unwrap());
        for (a, b) in kernels[0].pairs.iter().zip(&kernels[1].pairs) {
            let bracket = a.bracket();
            assert!(bracket.low <= b.value && b.value <= bracket.high);
        }
    }
}

/// A single exact product must not hide the rounding of the others.
#[test]
fn zero_eigenvalues_of_small_matrices_are_zero_within_error() {
    for n in [2, 3, 5, 10, 30] {
        let values: Vec<f64> = (0..n)
            .map(|i| if i < n / 2 { 1.0 + i as f64 } else { 0.0 })
            .collect();
        for seed in 0..40 {
            let lanczos = Lanczos::default().with_seed(seed);
            let found = match seed % 2 {
                0 => lanczos.run(&OnDiagonal(values.clone()), n).unwrap(),
                _ => lanczos.run(&with_eigenvalues(&values, seed), n).unwrap(),
            };
            let inertia = found.inertia().unwrap();
            assert_eq!((inertia.negative, inertia.positive), (0, n / 2), "{n}");
        }
    }
}

/// A matrix that is not symmetric: the iteration cannot converge.
struct Skew(Vec<f64>);

impl LinearOperator for Skew {
    fn dim(&self) -> usize {
        self.0.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let at = |i: Option<usize>| i.and_then(|i| v.get(i)).copied().unwrap_or(0.0);
        let entry =
            |i: usize| self.0[i] * v[i] + 1e-3 * (at(i.checked_add(1)) - at(i.checked_sub(1)));
        Ok((0..v.len()).map(entry).collect())
    }
}

#[test]
fn an_unconverged_spectrum_has_no_inertia_rank_or_condition_number() {
    let found = Lanczos::default().run(&Skew(numbers(120, 5)), 120).unwrap();
    assert!(!found.converged);
    let answers = [
        found.inertia().map(|_| ()),
        found.effective_rank().map(|_| ()),
        found.condition_number().map(|_| ()),
    ];
    for answer in answers {
        let message = answer.unwrap_err().to_string();
        assert!(message.contains("needs a converged iteration"), "{message}");
    }
}

/// The squares of these entries overflow or underflow in `f64`.
#[test]
fn the_scale_of_a_matrix_does_not_matter() {
    for scale in [1e-250, 1e-165, 1e-100, 1e100, 1e150] {
        let values: Vec<f64> = (1..=200).map(|i| f64::from(i) * scale).collect();
        let found = OnDiagonal(values).top(3).unwrap();
        assert!(found.converged, "{scale:e}");
        for (i, value) in found.values().into_iter().enumerate() {
            let exact = (200.0 - i as f64) * scale;
            assert!(
                (value - exact).abs() <= 1e-4 * exact,
                "{value:e} for {exact:e}"
            );
        }
    }
}

/// Wanted vectors and a block that together exceed the dimension.
#[test]
fn a_block_may_exceed_the_rest_of_the_space() {
    let values = vec![
        0.1323679369490176,
        0.9771782516366045,
        0.8799240390766259,
        -0.25116803854013314,
    ];
    let unit = |at: usize| {
        (0..4)
            .map(|i| f64::from(u8::from(i == at)))
            .collect::<Vec<f64>>()
    };
    let lanczos = Lanczos::default()
        .with_start_vectors(vec![unit(3), unit(2)])
        .with_block_size(3)
        .with_which(Which::Smallest)
        .with_seed(6);
    let found = lanczos.run(&OnDiagonal(values), 2).unwrap();
    assert!((found.values()[1] + 0.25116803854013314).abs() < 1e-12);
}

/// A request for many pairs takes a product per row, and finds all eigenvalues.
#[test]
fn many_pairs_take_a_product_per_row() {
    let mut eigenvalues = numbers(100, 4);
    eigenvalues[..12].fill(1.5);
    let matrix = with_eigenvalues(&eigenvalues, 5);
    eigenvalues.sort_by(|a, b| b.total_cmp(a));
    for which in [
        Which::Largest,
        Which::Smallest,
        Which::BothEnds,
        Which::LargestMagnitude,
    ] {
        let found = Lanczos::default()
            .with_which(which)
            .run(&matrix, 30)
            .unwrap();
        assert!(found.converged && found.products == 100 && found.pairs.len() == 30);
        check_vectors(&found, &matrix);
        for pair in &found.pairs {
            let exact = eigenvalues[pair.rank.unwrap().index - 1];
            assert!((pair.value - exact).abs() <= pair.residual && pair.residual < 1e-12);
        }
    }
    // An explicit size of the basis or a smaller number of products is respected.
    let found = Lanczos::default()
        .with_max_products(60)
        .run(&matrix, 30)
        .unwrap();
    assert!(found.products <= 61);
    // For a spectrum without gaps, the basis grows to the whole space rather than restarts.
    for k in [1, 5, 20] {
        let found = Laplacian(400).top(k).unwrap();
        assert!(
            found.converged && found.products <= 401,
            "{k}: {}",
            found.products
        );
    }
}
