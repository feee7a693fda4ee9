//! Planes and lines with points where the loss is not finite, and zero directions.

mod common;

use std::fs;
use std::path::Path;

use common::{Opaque, error_of, landscape};
use loss_landscape::landscape::direction::Normalization;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value};

const CPU: Device = Device::Cpu;

/// L(b, w) = b² + 4w² at its minimum. It overflows for w = 1e200.
fn parabola() -> (Mlp, Dataset) {
    let x = Tensor::new(&[[-2.0], [2.0]], &CPU).unwrap();
    let data = Dataset::regression(&x, &x.zeros_like().unwrap()).unwrap();
    let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    model.parameters().set_flat(&[0.0, 0.0]).unwrap();
    (model, data)
}

/// One objective with hand-derived derivatives, one through candle's graph.
fn objectives() -> [Objective; 2] {
    let (model, data) = parabola();
    let by_hand = Objective::of(&model, &data, Loss::Mse).unwrap();
    assert!(by_hand.is_hand_derived());
    let by_graph = Objective::of(&Opaque(model), &data, Loss::Mse).unwrap();
    [by_hand, by_graph]
}

fn bits<'a>(numbers: impl IntoIterator<Item = &'a f64>) -> Vec<u64> {
    numbers.into_iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_non_finite_point_does_not_affect_the_others() {
    let (d1, d2) = ([1.0, 0.0], [0.0, 1.0]);
    for objective in objectives() {
        let dir = tempfile::tempdir().unwrap();
        let grid = Grid::new(vec![0.0, 1.0], vec![0.0, 1.0, 1e200]).unwrap();
        let grid = grid.with_checkpoint(dir.path().join("unfinished"));
        let plane = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
        let plane = plane.with_eigenvalues(&objective, &d1, &d2, &grid).unwrap();
        let expected = [0.0, 1.0, 4.0, 5.0, f64::NAN, f64::NAN];
        assert_eq!(bits(&plane.losses), bits(&expected));
        let extremes = plane.eigenvalues.as_ref().unwrap();
        for (found, expected) in [(&extremes.smallest, 2.0), (&extremes.largest, 8.0)] {
            let whole = found.iter().take(4);
            assert!(
                whole.clone().all(|found| (found - expected).abs() < 1e-9),
                "{found}"
            );
        }
        // Reading from the checkpoint or from JSON gives the same plane.
        let again = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
        assert_eq!(bits(&again.losses), bits(&plane.losses));
        let json = serde_json::to_value(&plane).unwrap();
        assert_eq!(json["losses"]["data"][4], Value::Null);
        let read: Plane = serde_json::from_value(json).unwrap();
        assert_eq!(bits(&read.losses), bits(&plane.losses));
        // Figures have a gap at non-finite points.
        for figure in [
            figure::surface(&plane),
            figure::contour(&plane),
            figure::planes(&[("", &plane)]),
        ] {
            let json = figure.json();
            let z = &json["data"][0]["z"];
            assert!(z[2].as_array().unwrap().iter().all(Value::is_null));
            assert!(z[0][1].is_number() && z[1][0].is_number());
        }

        let line = Line::at_alphas(&objective, &d2, vec![0.0, 1.0, 1e200]).unwrap();
        let line = line.with_gradient_norms(&objective, &d2).unwrap();
        assert_eq!(bits(&line.losses), bits(&[0.0, 4.0, f64::NAN]));
        assert_eq!(line.gradient_norms.as_ref().unwrap()[..2], [0.0, 8.0]);
        let json = serde_json::to_string(&line).unwrap();
        let read: Line = serde_json::from_str(&json).unwrap();
        assert_eq!(bits(&read.losses), bits(&line.losses));
    }
}

#[test]
fn accuracies_are_nan_where_losses_are() {
    let data = two_moons(40, 0.1, 0, &CPU)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let model = Mlp::new(&[2, 3, 3, 2], Activation::Relu, 0, &CPU).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0).unwrap();
    let plane = Plane::spanned(&objective, &d1, &d2, 1e20, 3).unwrap();
    let accuracies = plane.accuracies.as_ref().unwrap();
    let missing = plane.losses.iter().filter(|loss| loss.is_nan()).count();
    assert!((1..9).contains(&missing), "{missing}");
    for (loss, accuracy) in plane.losses.iter().zip(accuracies) {
        assert_eq!(loss.is_nan(), accuracy.is_nan());
    }
    assert_eq!(accuracies[[1, 1]], objective.accuracy().unwrap());
}

/// The command line marks non-finite points in every file, warns about the first ones, and leaves no checkpoint behind.
#[test]
fn a_surface_with_non_finite_points_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let surface = |range: &str| {
        landscape(&[
            "surface",
            "--dataset",
            "synthetic",
            "--layers",
            "20,8,8,8,2",
            "--activation",
            "relu",
            "--samples",
            "100",
            "--grid",
            "5",
            "--range",
            range,
            "--out",
            out.to_str().unwrap(),
            "--json",
        ])
    };
    let output = surface("1e12");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let missing = report["not_finite"].as_array().unwrap();
    assert!(!missing.is_empty() && missing.len() < 25, "{report}");
    let first = &missing[0];
    let named = format!(
        "warning: the loss: not finite at {} of 25 points, which are stored as NaN: (α, β) = ({:?}, {:?})",
        missing.len(),
        first[0].as_f64().unwrap(),
        first[1].as_f64().unwrap()
    );
    assert!(error.contains(&named), "{named} in {error}");
    let csv = fs::read_to_string(out.join("surface.csv")).unwrap();
    assert_eq!(csv.matches(",NaN,NaN").count(), missing.len(), "{csv}");
    assert!(!out.join("unfinished").exists());
    let output = surface("1");
    assert!(output.status.success());
    let csv = fs::read_to_string(out.join("surface.csv")).unwrap();
    assert!(!csv.contains("NaN"));
}

/// A checkpoint without a complete point is overwritten: a run that failed before its first point does not block other work.
#[test]
fn an_empty_checkpoint_does_not_block_other_work() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unfinished");
    let [objective, _] = objectives();
    let (d1, d2) = ([1.0, 0.0], [0.0, 1.0]);
    let run = |radius: f64| {
        let grid = Grid::square(radius, 3).unwrap().with_checkpoint(&file);
        Plane::on_grid(&objective, &d1, &d2, &grid)
    };
    run(1.0).unwrap();
    let whole = fs::read(&file).unwrap();
    let record = 32;
    let header = whole.len() - 9 * record;
    for len in [0, 10, header - 1, header, header + record - 1] {
        fs::write(&file, &whole[..len]).unwrap();
        run(2.0).unwrap();
        assert!(run(1.0).unwrap_err().to_string().contains("other work"));
    }
    fs::write(&file, &whole[..header + record]).unwrap();
    assert!(run(2.0).is_err());
    run(1.0).unwrap();
}

/// A damaged bit in a checkpoint never changes a result; at most the damaged point is computed again.
#[test]
fn a_damaged_bit_costs_one_point() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unfinished");
    let [objective, _] = objectives();
    let (d1, d2) = ([1.0, 0.0], [0.0, 1.0]);
    let grid = Grid::square(3.0, 5).unwrap().with_checkpoint(&file);
    let run = || Plane::on_grid(&objective, &d1, &d2, &grid);
    let plane = run().unwrap();
    let whole = fs::read(&file).unwrap();
    let record = 32;
    let name = "loss-landscape parts 1\n".len();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&file, damaged).unwrap();
        if at < name {
            // The file is no longer recognised as a checkpoint.
            assert!(run().unwrap_err().to_string().contains("not a checkpoint"));
            continue;
        }
        assert_eq!(run().unwrap(), plane, "byte {at}");
        let grown = fs::read(&file).unwrap().len() - whole.len();
        assert!(grown <= record, "byte {at}: {grown} bytes more");
    }
    for len in (name..whole.len()).step_by(13) {
        fs::write(&file, &whole[..len]).unwrap();
        assert_eq!(run().unwrap(), plane, "{len} bytes");
    }
    for foreign in [
        "notes",
        "some text that is longer than the key of a checkpoint",
    ] {
        fs::write(&file, foreign).unwrap();
        assert!(run().unwrap_err().to_string().contains("not a checkpoint"));
        assert_eq!(fs::read_to_string(&file).unwrap(), foreign);
    }
}

#[test]
fn a_zero_direction_is_an_error() {
    let data = two_moons(40, 0.1, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 3, 2], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let n = model.parameters().len();
    let zero = vec![0.0; n];
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let d = direction::gaussian(model.parameters(), 0);
    for pair in [[&zero, &d], [&d, &zero]] {
        let error = Plane::spanned(&objective, pair[0], pair[1], 1.0, 3).unwrap_err();
        assert!(error.to_string().contains("direction is zero"), "{error}");
    }
    model.parameters().set_flat(&zero).unwrap();
    let error = Plane::random(&objective, 0, 1.0, 3)
        .unwrap_err()
        .to_string();
    assert!(error.contains("normalised direction is zero"), "{error}");
    for normalization in [
        Normalization::Filter,
        Normalization::Layer,
        Normalization::Model,
    ] {
        assert!(direction::normalized(model.parameters(), &d, normalization).is_err());
    }
    // Models with scalars or biases only have no filter-normalised direction.
    let scalar = Var::new(&[1.0], &CPU).unwrap();
    let scalar = Parameters::new([("scale".to_owned(), scalar)]).unwrap();
    assert!(direction::filter_normalized(&scalar, 0).is_err());
    // A single filter of zeros is allowed.
    let mut theta = vec![0.0; n];
    let range = model.parameters().range("layers.1.weight").unwrap();
    theta[range.start] = 1.0;
    model.parameters().set_flat(&theta).unwrap();
    Plane::random(&objective, 0, 1.0, 3).unwrap();
}

#[test]
fn a_surface_of_zero_weights_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("zero.safetensors");
    let model = Mlp::new(&[20, 2], Activation::Tanh, 0, &CPU).unwrap();
    model.parameters().set_flat(&[0.0; 42]).unwrap();
    model.parameters().save(&weights).unwrap();
    let net = [
        "--dataset",
        "synthetic",
        "--layers",
        "20,2",
        "--weights",
        weights.to_str().unwrap(),
    ];
    let error = error_of(&[&["surface", "--grid", "5"], &net[..]].concat());
    assert!(error.contains("normalised direction is zero"), "{error}");
    assert!(Path::new(&weights).exists());
}
