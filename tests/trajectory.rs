//! Snapshots of a training, and their projection on a plane.

mod common;

use common::{bits, quadratic};
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

fn network(dtype: DType) -> (Mlp, Dataset) {
    let data = two_moons(60, 0.1, 3, &CPU).unwrap();
    let model = Mlp::new(&[2, 4, 2], Activation::Tanh, 4, &CPU).unwrap();
    (
        model.to_dtype(dtype).unwrap(),
        data.to_dtype(dtype).unwrap(),
    )
}

fn recorded(mut trajectory: Trajectory, dtype: DType) -> (Trajectory, Vec<f64>) {
    let (model, data) = network(dtype);
    let trainer = Trainer::adam(0.01).with_epochs(3).with_batch_size(10);
    trainer
        .fit_recorded(&model, &data, &data, &mut trajectory)
        .unwrap();
    (trajectory, model.parameters().to_flat().unwrap())
}

#[test]
fn snapshots_are_taken_at_the_chosen_steps() {
    let start = network(DType::F32).0.parameters().to_flat().unwrap();
    let (every, end) = recorded(Trajectory::every(5).unwrap(), DType::F32);
    assert_eq!(every.steps(), [0, 5, 10, 15, 18]);
    assert_eq!(every.snapshot(0).unwrap(), start);
    assert_eq!(every.snapshot(4).unwrap(), end);
    let (chosen, _) = recorded(Trajectory::at_steps([1, 10]), DType::F32);
    assert_eq!(chosen.steps(), [1, 10, 18]);
    assert_eq!(chosen.snapshot(1).unwrap(), every.snapshot(2).unwrap());
    assert!(Trajectory::every(0).is_err());
    assert!(every.snapshot(5).is_err());
}

#[test]
fn recording_does_not_change_the_training() {
    let (model, data) = network(DType::F64);
    let trainer = Trainer::adam(0.01).with_epochs(3).with_batch_size(10);
    trainer.fit(&model, &data, &data).unwrap();
    let (_, end) = recorded(Trajectory::every(1).unwrap(), DType::F64);
    assert_eq!(model.parameters().to_flat().unwrap(), end);
}

#[test]
fn a_second_training_continues_the_trajectory() {
    let (model, data) = network(DType::F64);
    let mut trajectory = Trajectory::every(4).unwrap();
    for _ in 0..2 {
        let trainer = Trainer::sgd(0.1).with_batch_size(10);
        trainer
            .fit_recorded(&model, &data, &data, &mut trajectory)
            .unwrap();
    }
    assert_eq!(trajectory.steps(), [0, 4, 6, 10, 12]);
}

#[test]
fn snapshots_on_disk_equal_those_in_memory() {
    for dtype in [DType::F32, DType::F64] {
        let (memory, _) = recorded(Trajectory::every(2).unwrap(), dtype);
        let row = 22 * dtype.size_in_bytes();
        for limit in [0, row - 1, row, 3 * row + 1] {
            let (disk, _) = recorded(
                Trajectory::every(2).unwrap().with_memory_limit(limit),
                dtype,
            );
            assert_eq!(disk.steps(), memory.steps());
            for i in (0..memory.len()).rev() {
                assert_eq!(disk.snapshot(i).unwrap(), memory.snapshot(i).unwrap());
            }
        }
    }
}

/// Two clones with different later snapshots do not overwrite each other.
#[test]
fn copies_are_independent() {
    let (model, _) = network(DType::F64);
    let mut one = Trajectory::at_steps([]).with_memory_limit(0);
    let push = |trajectory: &mut Trajectory, step: usize, value: f64| {
        model.parameters().set_flat(&[value; 22]).unwrap();
        trajectory.push(step, model.parameters()).unwrap();
    };
    push(&mut one, 0, 1.0);
    let mut other = one.clone();
    push(&mut one, 1, 2.0);
    push(&mut other, 1, 3.0);
    push(&mut one, 2, 4.0);
    let first =
        |t: &Trajectory| -> Vec<f64> { (0..t.len()).map(|i| t.snapshot(i).unwrap()[0]).collect() };
    assert_eq!(first(&one), [1.0, 2.0, 4.0]);
    assert_eq!(first(&other), [1.0, 3.0]);
}

#[test]
fn trajectories_are_saved_and_loaded() {
    let folder = std::env::temp_dir().join(format!("landscape-trajectory-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("t.safetensors");
    for dtype in [DType::F32, DType::F64] {
        let (trajectory, _) = recorded(Trajectory::every(5).unwrap().with_memory_limit(300), dtype);
        trajectory.save(&file).unwrap();
        let loaded = Trajectory::load(&file).unwrap();
        assert_eq!(loaded.steps(), trajectory.steps());
        for i in 0..loaded.len() {
            assert_eq!(loaded.snapshot(i).unwrap(), trajectory.snapshot(i).unwrap());
        }
    }
    let before = std::fs::read(&file).unwrap();
    assert!(Trajectory::at_steps([]).save(&file).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), before);
    std::fs::write(&file, &before[..before.len() - 3]).unwrap();
    assert!(Trajectory::load(&file).is_err());
    assert!(Trajectory::load(folder.join("none")).is_err());
    assert!(Trajectory::load("Cargo.toml").is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_model_of_another_size_is_refused() {
    let (mut trajectory, _) = recorded(Trajectory::every(5).unwrap(), DType::F32);
    let other = Mlp::new(&[2, 3, 2], Activation::Tanh, 0, &CPU).unwrap();
    assert!(trajectory.push(99, other.parameters()).is_err());
    assert_eq!(trajectory.len(), 5);
}

/// A path outside the plane: its coordinates, its distance and both losses, in closed form.
#[test]
fn a_path_is_projected_on_a_plane() {
    let values = [2.0, 1.0, 0.5];
    let objective = quadratic(&values, &[0.0; 3], &[0.0; 3]);
    let parameters = objective.parameters();
    let loss = |x: [f64; 3]| -> f64 { x.iter().zip(values).map(|(x, v)| 0.5 * v * x * x).sum() };
    let mut trajectory = Trajectory::at_steps([]);
    let points = [[1.0, 2.0, 0.5], [0.5, -1.0, -0.25], [0.0, 0.0, 0.0]];
    for (step, point) in points.iter().enumerate() {
        parameters.set_flat(point).unwrap();
        trajectory.push(step, parameters).unwrap();
    }
    let before = bits(parameters);
    // Directions that are neither orthogonal nor of length 1.
    let (d1, d2) = ([2.0, 0.0, 0.0], [1.0, 1.0, 0.0]);
    let found = Projection::onto(&objective, &d1, &d2, &trajectory).unwrap();
    for (i, [x, y, z]) in points.into_iter().enumerate() {
        assert!((found.alphas[i] - (x - y) / 2.0).abs() < 1e-14);
        assert!((found.betas[i] - y).abs() < 1e-14);
        assert!((found.distances[i] - z.abs()).abs() < 1e-14);
        assert!((found.losses[i] - loss([x, y, z])).abs() < 1e-14);
        assert!((found.plane_losses[i] - loss([x, y, 0.0])).abs() < 1e-14);
    }
    assert_eq!(bits(parameters), before);
    assert_eq!(found.table().unwrap().shape(), (3, 6));

    let grid = found.grid(11).unwrap();
    let inside = |axis: &[f64], x: f64| axis[0] < x && x < axis[axis.len() - 1];
    for i in 0..3 {
        assert!(inside(grid.alphas(), found.alphas[i]) && inside(grid.betas(), found.betas[i]));
    }
    let plane = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
    let figure = figure::trajectory(&plane, &found).json();
    assert_eq!(figure["data"][3]["x"].as_array().unwrap().len(), 3);
    assert_eq!(
        figure["layout"]["title"]["text"],
        "Training trajectory on a plane"
    );

    assert!(found.grid(1).is_err());
    assert!(Projection::onto(&objective, &d1, &d1, &trajectory).is_err());
    let error = Projection::onto(&objective, &d1, &d2, &Trajectory::at_steps([])).unwrap_err();
    assert!(error.to_string().contains("no snapshots"), "{error}");
}

/// Snapshots from before a divergence are kept.
#[test]
fn a_failed_training_keeps_its_snapshots() {
    let inputs = Tensor::new(&[[2f64, 0.0], [0.0, 1.0]], &CPU).unwrap();
    let data = Dataset::regression(&inputs, &Tensor::new(&[1f64, -1.0], &CPU).unwrap()).unwrap();
    let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let mut trajectory = Trajectory::every(100).unwrap();
    let trainer = Trainer::sgd(5.0).with_batch_size(2).with_epochs(50_000);
    assert!(
        trainer
            .fit_recorded(&model, &data, &data, &mut trajectory)
            .is_err()
    );
    assert!(trajectory.len() > 1);
}

/// The plane of the two leading principal components of the path.
#[test]
fn principal_components_of_a_training_span_a_plane() {
    let (model, data) = network(DType::F64);
    let mut trajectory = Trajectory::every(2).unwrap().with_memory_limit(500);
    let trainer = Trainer::adam(0.02).with_epochs(10).with_batch_size(10);
    trainer
        .fit_recorded(&model, &data, &data, &mut trajectory)
        .unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let pca = Pca::fit(&trajectory, 2).unwrap();
    let [d1, d2] = &pca.components[..] else {
        panic!("{} components", pca.components.len())
    };
    let path = Projection::onto(&objective, d1, d2, &trajectory).unwrap();
    let plane = Plane::on_grid(&objective, d1, d2, &path.grid(11).unwrap()).unwrap();
    assert!(
        pca.explained_ratio.iter().sum::<f64>() > 0.9,
        "{:?}",
        pca.explained_ratio
    );
    // The plane contains the last snapshot; its coordinates differ from those of the PCA by a shift.
    let last = trajectory.len() - 1;
    assert!(path.distances[last] == 0.0 && path.losses[last] == plane.center);
    assert!((path.plane_losses[last] - plane.center).abs() < 1e-14);
    for i in 0..last {
        let shift = pca.coordinates[[i, 0]] - pca.coordinates[[last, 0]];
        assert!((path.alphas[i] - shift).abs() < 1e-12);
        assert!(path.distances[i] > 0.0);
    }
    assert!(Pca::fit(&Trajectory::at_steps([]), 2).is_err());
}
