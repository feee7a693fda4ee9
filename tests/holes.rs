//! Planes and lines on which the loss is not finite everywhere, and directions along which nothing changes.

mod common;

use std::fs;
use std::path::Path;

use common::{Opaque, error_of, landscape};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{self, Value};

const CPU: Device = Device::Cpu;

/// L(b, w) = b² + 4w², which overflows in w = 1e200, seen from its minimum.
fn line() -> (Mlp, Dataset) {
    let x = Tensor::new(&[[-2.0], [2.0]], &CPU).unwrap();
    let data = Dataset::regression(&x, &x.zeros_like().unwrap()).unwrap();
    let model = Mlp::new(&[1, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    model.parameters().set_flat(&[0.0, 0.0]).unwrap();
    (model, data)
}

/// By hand-derived rules and by candle's graph.
fn objectives() -> [Objective; 2] {
    let (model, data) = line();
    let by_hand = Objective::of(&model, &data, Loss::Mse).unwrap();
    assert!(by_hand.is_hand_derived());
    let by_graph = Objective::of(&Opaque(model), &data, Loss::Mse).unwrap();
    [by_hand, by_graph]
}

fn bits<'a>(numbers: impl IntoIterator<Item = &'a f64>) -> Vec<u64> {
    numbers.into_iter().map(|x| x.to_bits()).collect()
}

#[test]
fn one_point_without_a_loss_does_not_cost_the_others() {
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
        // Read from its file and through JSON it is the same.
        let again = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
        assert_eq!(bits(&again.losses), bits(&plane.losses));
        let json = serde_json::to_value(&plane).unwrap();
        assert_eq!(json["losses"]["data"][4], Value::Null);
        let read: Plane = serde_json::from_value(json).unwrap();
        assert_eq!(bits(&read.losses), bits(&plane.losses));
        // A gap in the figures, at the same place in each.
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
fn accuracies_have_the_holes_of_the_losses() {
    let data = two_moons(40, 0.1, 0, &CPU)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap();
    let model = Mlp::new(&[2, 3, 3, 2], Activation::Relu, 0, &CPU).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let [d1, d2] = direction::filter_normalized_pair(model.parameters(), 0).unwrap();
    let plane = Plane::spanned(&objective, &d1, &d2, 1e20, 3).unwrap();
    let accuracies = plane.accuracies.as_ref().unwrap();
    let holes = plane.losses.iter().filter(|loss| loss.is_nan()).count();
    assert!((1..9).contains(&holes), "{holes}");
    for (loss, accuracy) in plane.losses.iter().zip(accuracies) {
        assert_eq!(loss.is_nan(), accuracy.is_nan());
    }
    assert_eq!(accuracies[[1, 1]], objective.accuracy().unwrap());
}

/// The command line marks holes in every file, names the first, and leaves a directory that can be used again.
#[test]
fn a_surface_with_holes_is_written() {
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
    let holes = report["not_finite"].as_array().unwrap();
    assert!(!holes.is_empty() && holes.len() < 25, "{report}");
    let first = &holes[0];
    let named = format!(
        "warning: the loss: not finite at {} of 25 points, which are left out as NaN: (α, β) = ({:?}, {:?})",
        holes.len(),
        first[0].as_f64().unwrap(),
        first[1].as_f64().unwrap()
    );
    assert!(error.contains(&named), "{named} in {error}");
    let csv = fs::read_to_string(out.join("surface.csv")).unwrap();
    assert_eq!(csv.matches(",NaN,NaN").count(), holes.len(), "{csv}");
    assert!(!out.join("unfinished").exists());
    let output = surface("1");
    assert!(output.status.success());
    let csv = fs::read_to_string(out.join("surface.csv")).unwrap();
    assert!(!csv.contains("NaN"));
}

/// A file without a whole point is nobody's: what has failed before the first one blocks no other work.
#[test]
fn a_directory_that_a_failed_run_has_left_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unfinished");
    let [objective, _] = objectives();
    let (d1, d2) = ([1.0, 0.0], [0.0, 1.0]);
    let over = |radius: f64| {
        let grid = Grid::square(radius, 3).unwrap().with_checkpoint(&file);
        Plane::on_grid(&objective, &d1, &d2, &grid)
    };
    over(1.0).unwrap();
    let whole = fs::read(&file).unwrap();
    let record = 32;
    let header = whole.len() - 9 * record;
    for len in [0, 10, header - 1, header, header + record - 1] {
        fs::write(&file, &whole[..len]).unwrap();
        over(2.0).unwrap();
        assert!(over(1.0).unwrap_err().to_string().contains("other work"));
    }
    fs::write(&file, &whole[..header + record]).unwrap();
    assert!(over(2.0).is_err());
    over(1.0).unwrap();
}

/// Whatever bit is damaged in a file of unfinished work, the numbers stay, and only the damaged one is computed again.
#[test]
fn damage_costs_one_point() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unfinished");
    let [objective, _] = objectives();
    let (d1, d2) = ([1.0, 0.0], [0.0, 1.0]);
    let grid = Grid::square(3.0, 5).unwrap().with_checkpoint(&file);
    let over = || Plane::on_grid(&objective, &d1, &d2, &grid);
    let plane = over().unwrap();
    let whole = fs::read(&file).unwrap();
    let record = 32;
    let name = "loss-landscape parts 1\n".len();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&file, damaged).unwrap();
        if at < name {
            // Then it is no file of ours.
            assert!(over().unwrap_err().to_string().contains("something else"));
            continue;
        }
        assert_eq!(over().unwrap(), plane, "byte {at}");
        let grown = fs::read(&file).unwrap().len() - whole.len();
        assert!(grown <= record, "byte {at}: {grown} bytes more");
    }
    for len in (name..whole.len()).step_by(13) {
        fs::write(&file, &whole[..len]).unwrap();
        assert_eq!(over().unwrap(), plane, "{len} bytes");
    }
    for foreign in [
        "notes",
        "the notes of a year, and more than the bytes of a key",
    ] {
        fs::write(&file, foreign).unwrap();
        assert!(over().unwrap_err().to_string().contains("something else"));
        assert_eq!(fs::read_to_string(&file).unwrap(), foreign);
    }
}

#[test]
fn a_direction_that_is_zero_is_refused() {
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
    // Biases alone, or scalars, get no direction either.
    let scalar = Var::new(&[1.0], &CPU).unwrap();
    let scalar = Parameters::new([("scale".to_owned(), scalar)]).unwrap();
    assert!(direction::filter_normalized(&scalar, 0).is_err());
    // One filter of zeros is no reason.
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
