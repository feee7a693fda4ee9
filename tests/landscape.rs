//! Lines and planes: exact on quadratics, oriented correctly, and without changing the model.

mod common;

use common::{bits, moons_network};
use loss_landscape::embedding::Umap;
use loss_landscape::landscape::direction::Normalization;
use loss_landscape::landscape::{Curve, Flatness, PathShape};
use loss_landscape::prelude::*;
use loss_landscape::{serde, serde_json};

const CPU: Device = Device::Cpu;

/// (a − 1)² + (b + 2)², with an error for a > `limit`.
fn quadratic(limit: f64) -> (Objective, Parameters) {
    let a = Var::new(&[0.5f64], &CPU).unwrap();
    let b = Var::new(&[0.25f64], &CPU).unwrap();
    let named = [("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())];
    let parameters = Parameters::new(named).unwrap();
    let data = Dataset::regression(
        &Tensor::new(&[[1f64, 0.0], [0.0, 1.0]], &CPU).unwrap(),
        &Tensor::new(&[[1f64], [-2.0]], &CPU).unwrap(),
    );
    let forward = move |x: &Tensor| {
        if a.to_vec1::<f64>()?[0] > limit {
            candle::bail!("a is too large");
        }
        let theta = Tensor::cat(&[a.as_tensor(), b.as_tensor()], 0)?;
        // The factor √2 cancels the mean over two samples.
        x.matmul(&theta.unsqueeze(1)?)? * 2f64.sqrt()
    };
    let data = data.unwrap();
    let scaled = match data.targets() {
        Targets::Values(values) => (values * 2f64.sqrt()).unwrap(),
        Targets::Labels(_) => unreachable!(),
    };
    let data = Dataset::regression(data.inputs(), &scaled).unwrap();
    let objective = Objective::from_fn(&parameters, &data, Loss::Mse, forward).unwrap();
    (objective, parameters)
}

#[test]
fn a_plane_of_a_quadratic_is_exact_and_oriented() {
    let (objective, parameters) = quadratic(f64::INFINITY);
    let before = bits(&parameters);
    let (d1, d2) = ([1.0, 0.0], [0.0, 2.0]);
    let plane = Plane::spanned(&objective, &d1, &d2, 1.5, 7).unwrap();
    for (row, beta) in plane.betas.iter().enumerate() {
        for (column, alpha) in plane.alphas.iter().enumerate() {
            let (a, b) = (0.5 + alpha, 0.25 + 2.0 * beta);
            let expected = (a - 1.0).powi(2) + (b + 2.0).powi(2);
            assert!((plane.losses[[row, column]] - expected).abs() < 1e-13);
        }
    }
    assert_eq!(
        (plane.alphas[0], plane.alphas[3], plane.alphas[6]),
        (-1.5, 0.0, 1.5)
    );
    assert_eq!(
        plane.losses[[3, 3]].to_bits(),
        objective.loss().unwrap().to_bits()
    );
    assert_eq!(plane.center.to_bits(), objective.loss().unwrap().to_bits());
    assert_eq!(bits(&parameters), before);
}

#[test]
fn the_taylor_expansion_of_a_quadratic_is_exact() {
    let (objective, parameters) = quadratic(f64::INFINITY);
    let before = bits(&parameters);
    let line = Line::along(&objective, &[0.3, -0.7], 4.0, 21).unwrap();
    for (loss, model) in line.losses.iter().zip(line.quadratic()) {
        assert!((loss - model).abs() < 1e-12);
    }
    assert_eq!(line.alphas[10], 0.0);
    assert_eq!(line.losses[10], line.center);
    assert_eq!(bits(&parameters), before);
}

#[test]
fn an_error_leaves_the_model_unchanged() {
    let (objective, parameters) = quadratic(1.0);
    let before = bits(&parameters);
    let error = Line::along(&objective, &[1.0, 0.0], 3.0, 13)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a is too large"), "{error}");
    assert_eq!(bits(&parameters), before);
}

#[test]
fn an_f32_model_is_unchanged_bit_for_bit() {
    let data = two_moons(50, 0.1, 0, &CPU)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let model = Mlp::new(&[2, 5, 2], Activation::Relu, 1, &CPU).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let before = bits(model.parameters());
    let plane = Plane::random(&objective, 4, 1.0, 5).unwrap();
    assert_eq!(bits(model.parameters()), before);
    assert_eq!(plane.losses[[2, 2]], objective.loss().unwrap());
    assert_eq!(plane, Plane::random(&objective, 4, 1.0, 5).unwrap());
    assert_ne!(
        plane.losses,
        Plane::random(&objective, 5, 1.0, 5).unwrap().losses
    );
}

#[test]
fn filter_normalised_directions_match_the_filters_norms() {
    let model = Mlp::new(&[6, 4, 3], Activation::Tanh, 2, &CPU).unwrap();
    let parameters = model.parameters();
    let direction = direction::filter_normalized(parameters, 7).unwrap();
    let theta = parameters.to_flat().unwrap();
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    // θ is layers.0.bias (4), layers.0.weight (4 × 6), layers.1.bias (3), layers.1.weight (3 × 4).
    assert!(
        direction[..4]
            .iter()
            .chain(&direction[28..31])
            .all(|d| *d == 0.0)
    );
    for (start, length) in (0..4)
        .map(|i| (4 + 6 * i, 6))
        .chain((0..3).map(|i| (31 + 4 * i, 4)))
    {
        let range = start..start + length;
        let (d, w) = (norm(&direction[range.clone()]), norm(&theta[range]));
        assert!((d - w).abs() < 1e-12);
    }
    let other = direction::filter_normalized(parameters, 8).unwrap();
    let orthogonal = direction::orthogonalized(&other, &direction).unwrap();
    let dot: f64 = orthogonal.iter().zip(&direction).map(|(a, b)| a * b).sum();
    assert!(dot.abs() < 1e-10 && (norm(&orthogonal) - norm(&other)).abs() < 1e-12);
}

/// Scaling one ReLU layer up and the next one down changes θ, but neither the function nor the filter-normalised surface.
#[test]
fn filter_normalised_surfaces_are_invariant_to_rescaling() {
    let (model, objective) = common::moons_network(&[2, 6, 2], Activation::Relu);
    let before = Plane::random(&objective, 9, 1.0, 7).unwrap();
    let theta = model.parameters().to_flat().unwrap();
    common::rescale(&model, 10.0);
    let after = Plane::random(&objective, 9, 1.0, 7).unwrap();
    for (a, b) in after.losses.iter().zip(&before.losses) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }
    assert!(
        before
            .losses
            .iter()
            .any(|l| (l - before.center).abs() > 0.01)
    );
    // Directions normalised as a whole are not invariant.
    model.parameters().set_flat(&theta).unwrap();
    let d = direction::gaussian(model.parameters(), 9);
    let line = || {
        let d = direction::normalized(model.parameters(), &d, Normalization::Model).unwrap();
        Line::along(&objective, &d, 0.3, 3).unwrap().losses[0]
    };
    let before = line();
    common::rescale(&model, 10.0);
    assert!((line() / before - 1.0).abs() > 0.05);
}

#[test]
fn pairs_of_directions_are_orthogonal_in_every_filter() {
    let model = Mlp::new(&[6, 4, 3], Activation::Tanh, 2, &CPU).unwrap();
    let theta = model.parameters().to_flat().unwrap();
    let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 5).unwrap();
    for filter in (0..4)
        .map(|i| 4 + 6 * i..10 + 6 * i)
        .chain((0..3).map(|i| 31 + 4 * i..35 + 4 * i))
    {
        let [a, b, w] = [&d1, &d2, &theta].map(|v| &v[filter.clone()]);
        assert!(common::dot(a, b).abs() < 1e-14);
        assert!((common::dot(b, b) - common::dot(w, w)).abs() < 1e-14);
    }
}

#[test]
fn invalid_arguments_are_errors() {
    let (objective, _) = quadratic(f64::INFINITY);
    let d = [1.0, 0.0];
    for (radius, points) in [
        (0.0, 5),
        (-1.0, 5),
        (f64::NAN, 5),
        (f64::INFINITY, 5),
        (1.0, 1),
    ] {
        assert!(Line::along(&objective, &d, radius, points).is_err());
        assert!(Plane::spanned(&objective, &d, &[0.0, 1.0], radius, points).is_err());
    }
    assert!(Line::along(&objective, &[1.0], 1.0, 5).is_err());
    assert!(Line::along(&objective, &[f64::NAN, 0.0], 1.0, 5).is_err());
    assert!(direction::orthogonalized(&d, &[2.0, 0.0]).is_err());
    assert!(direction::orthogonalized(&d, &[0.0, 0.0]).is_err());
    assert!(direction::orthogonalized(&d, &[1.0]).is_err());
}

/// With hand-derived derivatives, where first-layer products are shared among points, losses equal those of the moved model.
#[test]
fn both_engines_compute_the_same_losses() {
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
        for activation in Activation::ALL {
            for widths in [&[2, 5, 3, 1][..], &[2, 1]] {
                let data = two_moons(700, 0.2, 0, &CPU)
                    .unwrap()
                    .to_dtype(dtype)
                    .unwrap();
                let model = Mlp::new(widths, activation, 1, &CPU)
                    .unwrap()
                    .to_dtype(dtype)
                    .unwrap();
                let fast = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
                let fast = fast.with_l2(0.02).unwrap();
                let before = bits(fast.parameters());
                let plain = fast.clone().by_autograd();
                let plane = |objective: &Objective| Plane::random(objective, 3, 1.5, 9).unwrap();
                let (a, b) = (plane(&fast), plane(&plain));
                for (a, b) in a.losses.iter().zip(&b.losses) {
                    assert!(
                        (a - b).abs() <= tolerance * b,
                        "{dtype:?}, {activation:?}: {a} is not {b}"
                    );
                }
                assert!((a.losses[[4, 4]] - a.center).abs() <= tolerance * a.center);
                let d = direction::gaussian(fast.parameters(), 4);
                let line = |objective: &Objective| Line::along(objective, &d, 0.7, 21).unwrap();
                for (a, b) in line(&fast).losses.iter().zip(line(&plain).losses) {
                    assert!((a - b).abs() <= tolerance * b, "{a} is not {b}");
                }
                assert_eq!(bits(fast.parameters()), before);
            }
        }
    }
}

#[test]
fn normalised_directions_match_layer_and_model_norms() {
    let model = Mlp::new(&[6, 4, 3], Activation::Tanh, 2, &CPU).unwrap();
    let parameters = model.parameters();
    let theta = parameters.to_flat().unwrap();
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let d = direction::gaussian(parameters, 1);
    let layer = direction::normalized(parameters, &d, Normalization::Layer).unwrap();
    let model_wide = direction::normalized(parameters, &d, Normalization::Model).unwrap();
    // θ is layers.0.bias (4), layers.0.weight (4 × 6), layers.1.bias (3), layers.1.weight (3 × 4).
    for range in [4..28, 31..43] {
        let (a, b) = (norm(&layer[range.clone()]), norm(&theta[range]));
        assert!((a - b).abs() < 1e-12);
    }
    assert!(layer[..4].iter().chain(&layer[28..31]).all(|d| *d == 0.0));
    assert!((norm(&model_wide) - norm(&theta)).abs() < 1e-12);
    assert!((model_wide[0] / model_wide[9] - d[0] / d[9]).abs() < 1e-12);
    let zero = direction::normalized(parameters, &[0.0; 43], Normalization::Filter).unwrap();
    assert!(zero.iter().all(|d| *d == 0.0));
    assert!(direction::normalized(parameters, &d[1..], Normalization::Layer).is_err());
}

/// A convolution's filter holds all weights of one output.
#[test]
fn convolutional_filters_are_normalised_as_a_whole() {
    let kernel = Var::from_vec(common::numbers(24, 5), (2, 3, 2, 2), &CPU).unwrap();
    let scale = Var::from_vec(common::numbers(2, 6), 2, &CPU).unwrap();
    let named = [
        ("conv.weight".to_owned(), kernel),
        ("norm.weight".to_owned(), scale),
    ];
    let parameters = Parameters::new(named).unwrap();
    let theta = parameters.to_flat().unwrap();
    let d = direction::filter_normalized(&parameters, 3).unwrap();
    for filter in [0..12, 12..24] {
        let (a, b) = (&d[filter.clone()], &theta[filter]);
        assert!((common::dot(a, a) - common::dot(b, b)).abs() < 1e-12);
    }
    assert_eq!(d[24..], [0.0, 0.0]);
}

#[test]
fn the_difference_of_two_models_connects_them() {
    let data = two_moons(60, 0.1, 3, &CPU).unwrap();
    let network = |seed: u64, widths: &[usize]| {
        let model = Mlp::new(widths, Activation::Tanh, seed, &CPU).unwrap();
        model.to_dtype(DType::F64).unwrap()
    };
    let (a, b) = (network(1, &[2, 4, 2]), network(2, &[2, 4, 2]));
    let difference = direction::difference(a.parameters(), b.parameters()).unwrap();
    let objective = Objective::of(&a, &data, Loss::CrossEntropy).unwrap();
    let end = Objective::of(&b, &data, Loss::CrossEntropy).unwrap();
    let line = Line::between(&objective, &b.parameters().to_flat().unwrap(), 5).unwrap();
    assert_eq!(line.alphas, [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert!((line.losses[0] - objective.loss().unwrap()).abs() < 1e-14);
    assert!((line.losses[4] - end.loss().unwrap()).abs() < 1e-14);
    assert_eq!(
        line.accuracies.as_ref().unwrap()[4],
        end.accuracy().unwrap()
    );
    let along = Line::at_alphas(&objective, &difference, line.alphas.clone()).unwrap();
    assert_eq!(along, line);
    let with = line.with_gradient_norms(&objective, &difference).unwrap();
    let norms = with.gradient_norms.as_ref().unwrap();
    assert!((norms[0] - objective.gradient_norm().unwrap()).abs() < 1e-14);
    assert!((norms[4] - end.gradient_norm().unwrap()).abs() < 1e-13);
    assert_eq!(with.table().unwrap().shape(), (5, 5));

    let same = direction::difference(a.parameters(), a.parameters()).unwrap();
    assert!(same.iter().all(|d| *d == 0.0));
    let other = network(1, &[2, 5, 2]);
    let error = direction::difference(a.parameters(), other.parameters());
    assert!(error.unwrap_err().to_string().contains("layers.0.bias"));
    assert!(Line::between(&objective, &[0.0], 5).is_err());
}

#[test]
fn accuracies_on_a_plane_match_the_moved_model() {
    let (model, objective) = common::moons_network(&[2, 6, 2], Activation::Relu);
    let plane = Plane::random(&objective, 1, 1.5, 5).unwrap();
    let plain = Plane::random(&objective.clone().by_autograd(), 1, 1.5, 5).unwrap();
    assert_eq!(plane.accuracies, plain.accuracies);
    let [d1, d2] = direction::filter_normalized_pair(objective.parameters(), 1).unwrap();
    let theta = model.parameters().to_flat().unwrap();
    let moved: Vec<f64> = (0..theta.len())
        .map(|i| theta[i] + plane.alphas[4] * d1[i] + plane.betas[0] * d2[i])
        .collect();
    model.parameters().set_flat(&moved).unwrap();
    let found = plane.accuracies.as_ref().unwrap()[[0, 4]];
    assert_eq!(found, objective.accuracy().unwrap());
    assert!((plane.losses[[0, 4]] - objective.loss().unwrap()).abs() < 1e-13);
    assert_eq!(plane.table().unwrap().shape(), (25, 4));
}

#[test]
fn a_grid_can_be_uneven() {
    let (objective, _) = quadratic(f64::INFINITY);
    let grid = Grid::new(vec![-3.0, 0.5, 1.0], vec![0.25, 4.0]).unwrap();
    let plane = Plane::on_grid(&objective, &[1.0, 0.0], &[0.0, 1.0], &grid).unwrap();
    assert_eq!(plane.losses.dim(), (2, 3));
    for (row, beta) in plane.betas.iter().enumerate() {
        for (column, alpha) in plane.alphas.iter().enumerate() {
            let expected = (0.5 + alpha - 1.0).powi(2) + (0.25 + beta + 2.0).powi(2);
            assert!((plane.losses[[row, column]] - expected).abs() < 1e-12);
        }
    }
    assert_eq!(plane.accuracies, None);
    for bad in [
        vec![],
        vec![1.0],
        vec![1.0, 1.0],
        vec![0.0, f64::NAN],
        vec![2.0, 1.0],
    ] {
        assert!(Grid::new(bad.clone(), vec![0.0, 1.0]).is_err());
        assert!(Grid::new(vec![0.0, 1.0], bad.clone()).is_err());
        assert!(Line::at_alphas(&objective, &[1.0, 0.0], bad).is_err());
    }
}

#[test]
fn eigenvalues_on_a_plane() {
    let values = [3.0, -1.0, 0.5, 0.25];
    // A quadratic has the same Hessian everywhere.
    let objective = common::quadratic(&[3.0, 1.0, 0.5, 0.25], &[0.0; 4], &[0.2; 4]);
    let (d1, d2) = ([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]);
    let grid = Grid::square(1.0, 3).unwrap();
    let plane = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
    let found = plane.with_eigenvalues(&objective, &d1, &d2, &grid).unwrap();
    let found = found.eigenvalues.unwrap();
    for (low, high) in found.smallest.iter().zip(&found.largest) {
        assert!((low - 0.25).abs() < 1e-10 && (high - values[0]).abs() < 1e-10);
    }
    assert!(found.errors.iter().all(|r| *r < 3e-3));

    // For a network, they are those of the moved model.
    let (model, objective) = common::moons_network(&[2, 4, 2], Activation::Tanh);
    let before = bits(model.parameters());
    let [d1, d2] = direction::filter_normalized_pair(objective.parameters(), 1).unwrap();
    let plane = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
    let plane = plane.with_eigenvalues(&objective, &d1, &d2, &grid).unwrap();
    assert_eq!(bits(model.parameters()), before);
    let found = plane.eigenvalues.as_ref().unwrap();
    let theta = model.parameters().to_flat().unwrap();
    let moved: Vec<f64> = (0..theta.len()).map(|i| theta[i] - d1[i] + d2[i]).collect();
    model.parameters().set_flat(&moved).unwrap();
    let exact = common::hessian_values(&objective);
    let tolerance = found.errors[[2, 0]] + 1e-12;
    assert!((found.largest[[2, 0]] - exact[0]).abs() <= tolerance);
    assert!((found.smallest[[2, 0]] - exact[exact.len() - 1]).abs() <= tolerance);
    let other = Grid::square(2.0, 3).unwrap();
    assert!(
        plane
            .with_eigenvalues(&objective, &d1, &d2, &other)
            .is_err()
    );
}

/// A computation that failed half-way resumes from its checkpoint, to the same bits.
#[test]
fn a_plane_resumes() {
    let folder = std::env::temp_dir().join(format!("landscape-resume-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("plane");
    let grid = Grid::square(3.0, 9).unwrap();
    let (d1, d2) = ([1.0, 0.0], [0.0, 1.0]);
    let (working, _) = quadratic(f64::INFINITY);
    let whole = Plane::on_grid(&working, &d1, &d2, &grid).unwrap();

    let grid = grid.with_checkpoint(&file);
    let (failing, parameters) = quadratic(1.0);
    let before = bits(&parameters);
    assert!(Plane::on_grid(&failing, &d1, &d2, &grid).is_err());
    assert_eq!(bits(&parameters), before);
    let done = (std::fs::metadata(&file).unwrap().len() - 55) / 32;
    assert_eq!(done, 5, "α = 0.75 is beyond the limit, the fifth of 9");

    let resumed = Plane::on_grid(&working, &d1, &d2, &grid).unwrap();
    assert_eq!(resumed, whole);
    // All points are in the file: even an objective that always fails is not evaluated again.
    let again = Plane::on_grid(&failing, &d1, &d2, &grid).unwrap();
    assert_eq!(again.losses, whole.losses);

    // A checkpoint of other work is refused and stays unchanged.
    let other = Grid::square(2.0, 9).unwrap().with_checkpoint(&file);
    let error = Plane::on_grid(&working, &d1, &d2, &other)
        .unwrap_err()
        .to_string();
    assert!(error.contains("other work"), "{error}");
    std::fs::write(&file, b"half a").unwrap();
    assert!(Plane::on_grid(&working, &d1, &d2, &grid).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_objective_can_use_other_data() {
    let (model, objective) = common::moons_network(&[2, 4, 2], Activation::Tanh);
    let test = two_moons(50, 0.1, 9, &CPU).unwrap();
    let on_test = objective.with_data(&test).unwrap();
    let fresh = Objective::of(&model, &test, Loss::CrossEntropy).unwrap();
    assert_eq!(on_test.loss().unwrap(), fresh.loss().unwrap());
    assert!(on_test.is_hand_derived());
    assert!(
        objective
            .with_data(&test.to_dtype(DType::F32).unwrap())
            .is_err()
    );
    let values = test.one_hot(2).unwrap();
    assert!(objective.with_data(&values).is_err());
}

/// Gradient norms and eigenvalues can only be added at the point and along the directions of the result.
#[test]
fn results_reject_another_point_or_direction() {
    let (_, objective) = moons_network(&[2, 3, 2], Activation::Tanh);
    let parameters = objective.parameters();
    let theta = parameters.to_flat().unwrap();
    let [d1, d2] = direction::filter_normalized_pair(parameters, 0).unwrap();
    let grid = Grid::square(0.1, 3).unwrap();
    let line = Line::along(&objective, &d1, 0.1, 3).unwrap();
    let plane = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
    assert!(line.clone().with_gradient_norms(&objective, &d1).is_ok());
    assert!(
        plane
            .clone()
            .with_eigenvalues(&objective, &d1, &d2, &grid)
            .is_ok()
    );

    let refused = |line: Result<Line, Error>, plane: Result<Plane, Error>| {
        for message in [
            line.unwrap_err().to_string(),
            plane.unwrap_err().to_string(),
        ] {
            assert!(message.contains("the model has moved"), "{message}");
        }
    };
    refused(
        line.clone().with_gradient_norms(&objective, &d2),
        plane.clone().with_eigenvalues(&objective, &d2, &d1, &grid),
    );
    // Flipping the sign of all hidden units on both sides leaves the loss unchanged.
    let mut turned = theta.clone();
    for name in ["layers.0.weight", "layers.0.bias", "layers.1.weight"] {
        for i in parameters.range(name).unwrap() {
            turned[i] = -turned[i];
        }
    }
    parameters.set_flat(&turned).unwrap();
    assert!((objective.loss().unwrap() - plane.center).abs() < 1e-12);
    refused(
        line.clone().with_gradient_norms(&objective, &d1),
        plane.clone().with_eigenvalues(&objective, &d1, &d2, &grid),
    );
    parameters.set_flat(&theta).unwrap();
    assert!(line.with_gradient_norms(&objective, &d1).is_ok());
    assert!(plane.with_eigenvalues(&objective, &d1, &d2, &grid).is_ok());
}

/// Checks that `value` can be read from its JSON with the key `new` replaced by `old`.
fn reads_old_key<T>(value: &T, new: &str, old: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let text = serde_json::to_string(value).unwrap();
    let renamed = text.replace(&format!("\"{new}\":"), &format!("\"{old}\":"));
    assert_ne!(renamed, text, "{new} is not a key of {text}");
    let read = |text: &str| {
        let value: T = serde_json::from_str(text).unwrap();
        serde_json::to_string(&value).unwrap()
    };
    assert_eq!(read(&renamed), read(&text));
}

/// Files written with the field names of version 0.1.0 are still readable.
#[test]
fn renamed_fields_are_read_by_their_old_names() {
    let (model, objective) = moons_network(&[2, 3, 2], Activation::Tanh);
    let data = objective.data();
    let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0).unwrap();
    let grid = Grid::square(0.1, 3).unwrap();
    let plane = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
    let plane = plane.with_eigenvalues(&objective, &d1, &d2, &grid).unwrap();
    reads_old_key(&plane, "errors", "residuals");
    reads_old_key(&grid.with_checkpoint("plane"), "checkpoint", "resume");

    let mut trajectory = Trajectory::every(1).unwrap();
    trajectory.push(0, model.parameters()).unwrap();
    let projection = Projection::onto(&objective, &d1, &d2, &trajectory).unwrap();
    reads_old_key(&projection, "plane_losses", "on_plane");
    let settings = EvolutionSettings::default()
        .with_trace(None)
        .with_sharpness(None);
    let evolution = settings.run(&objective, &trajectory).unwrap();
    reads_old_key(&evolution, "snapshots", "moments");

    let theta = model.parameters().to_flat().unwrap();
    let path = Curve::linear(&theta, &vec![0.0; theta.len()]).unwrap();
    let profile = path.profile(&objective, 3).unwrap();
    reads_old_key(&profile, "barrier_time", "barrier_at");
    reads_old_key(&profile, "barrier_interval", "barrier_between");

    let sharpness = Sharpness::new(0.1).with_pairs(2);
    reads_old_key(&sharpness, "pairs", "samples");
    let worst = sharpness.worst_case(&objective).unwrap();
    reads_old_key(&worst, "gradient_evaluations", "gradients");
    let keskar = sharpness.keskar(&objective).unwrap();
    reads_old_key(&keskar, "gradient_evaluations", "gradients");
    reads_old_key(&keskar, "loss_evaluations", "losses");
    let noise = GradientNoise::default().with_top(1).with_probes(2);
    let noise = noise.run(&objective).unwrap();
    reads_old_key(&noise, "simple_noise_scale", "simple_scale");
    reads_old_key(&noise, "noise_scale", "curvature_scale");

    let points = data.inputs().to_vec2::<f64>().unwrap();
    let encoded = Autoencoder::default().with_epochs(2).run(&points).unwrap();
    reads_old_key(&encoded, "rms_error", "error");
}

/// Every settings struct survives serialisation.
#[test]
fn settings_are_serialisable() {
    fn check<T>(settings: T)
    where
        T: serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let text = serde_json::to_string(&settings).unwrap();
        let read: T = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{settings:?}"));
    }
    check(PathTrainer::default().with_shape(PathShape::Chain(3)));
    check(Sharpness::new(0.1).with_adaptive(true).with_steps(7));
    check(Flatness::new(0.2).with_directions(5).with_seed(3));
    check(EvolutionSettings::default().with_sharpness(None));
    check(PacBayes::default().with_delta(0.1));
    check(GradientNoise::default().with_relative_error(0.02));
    check(ImplicitBias::new(0.1, 32).with_momentum(0.9));
    check(Grid::square(1.0, 3).unwrap().with_checkpoint("plane"));
    check(Umap::default().with_neighbors(7));
    check(Autoencoder::default().with_hidden(8));
}
