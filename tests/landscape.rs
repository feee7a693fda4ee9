//! Lines and planes: exact on quadratics, right way round, and without a trace in the model.

use loss_landscape::prelude::*;

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
        // Times √2, for the mean over two samples.
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

fn bits(parameters: &Parameters) -> Vec<u64> {
    parameters
        .to_flat()
        .unwrap()
        .iter()
        .map(|t| t.to_bits())
        .collect()
}

#[test]
fn a_plane_of_a_quadratic_is_exact_and_the_right_way_round() {
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
fn the_quadratic_model_of_a_quadratic_is_the_line() {
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
fn an_error_on_the_way_leaves_the_model_as_it_was() {
    let (objective, parameters) = quadratic(1.0);
    let before = bits(&parameters);
    let error = Line::along(&objective, &[1.0, 0.0], 3.0, 13)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a is too large"), "{error}");
    assert_eq!(bits(&parameters), before);
}

#[test]
fn an_f32_model_keeps_its_bits() {
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
fn a_filter_normalised_direction_has_the_filters_lengths() {
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

/// Scaling a ReLU layer up and the next one down changes θ and not the function.
#[test]
fn filter_normalised_planes_do_not_see_rescaling() {
    let data = two_moons(60, 0.1, 3, &CPU).unwrap();
    let model = Mlp::new(&[2, 6, 2], Activation::Relu, 4, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let parameters = model.parameters();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let plain = Plane::random(&objective, 9, 1.0, 5).unwrap();
    for (name, factor) in [
        ("layers.0.weight", 10.0),
        ("layers.0.bias", 10.0),
        ("layers.1.weight", 0.1),
    ] {
        let var = parameters.get(name).unwrap();
        var.set(&(var.as_tensor() * factor).unwrap()).unwrap();
    }
    // The two directions are then no longer orthogonal in the same way, so take them one by one.
    let rescaled = direction::filter_normalized(parameters, 9).unwrap();
    let line = Line::along(&objective, &rescaled, 1.0, 5).unwrap();
    for (i, loss) in line.losses.iter().enumerate() {
        assert!((loss - plain.losses[[2, i]]).abs() < 1e-12);
    }
}

#[test]
fn senseless_questions_are_refused() {
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

/// Where the first layer's products are made once, the losses are those of moving the model.
#[test]
fn the_fast_way_is_the_plain_way() {
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
