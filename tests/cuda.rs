//! Compares the GPU with the CPU's hand-derived rules, for every network of the zoo and every operator:
//! `cargo test --features cuda --test cuda`. Without a device, the tests print that and pass.
#![cfg(feature = "cuda")]

mod common;

use common::{assert_close, labelled, numbers, small_shape};
use loss_landscape::model::{Design, cuda_device};
use loss_landscape::prelude::*;

fn objective(design: Design, shape: &[usize], device: &Device) -> Result<Objective, Error> {
    let model = design.build(shape, 3, 4, device)?.to_dtype(DType::F64)?;
    let data = labelled(shape, &[2, 0, 1, 1, 0, 2], device)?;
    Objective::of(&model, &data, Loss::CrossEntropy)?.with_l2(0.01)
}

fn operators(of: &Objective) -> Result<[Box<dyn LinearOperator>; 5], Error> {
    Ok([
        Box::new(of.hessian()),
        Box::new(of.gauss_newton()),
        Box::new(of.fisher()),
        Box::new(of.empirical_fisher()),
        Box::new(of.gradient_covariance()?),
    ])
}

fn compare(design: Design, shape: &[usize], gpu: &Device) -> Result<(), Error> {
    let cpu = objective(design, shape, &Device::Cpu)?;
    // Batches of 4 and 2.
    let gpu = objective(design, shape, gpu)?.with_batch_size(4)?;
    assert!(cpu.is_hand_derived() && !gpu.is_hand_derived());
    let (score, other) = (cpu.score()?, gpu.score()?);
    assert_close(&[other.loss], &[score.loss], 1e-10);
    assert_eq!(other.accuracy, score.accuracy);
    assert_close(&gpu.gradient()?, &cpu.gradient()?, 1e-9);
    let vectors: Vec<_> = (0..3).map(|i| numbers(cpu.dim(), 40 + i)).collect();
    for (found, expected) in operators(&gpu)?.iter().zip(&operators(&cpu)?) {
        let products = found.apply_block(&vectors)?.into_iter();
        for (product, expected) in products.zip(expected.apply_block(&vectors)?) {
            assert_close(&product, &expected, 1e-8);
        }
    }
    Ok(())
}

#[test]
fn the_zoo_and_every_operator_match_the_cpu() {
    let gpu = match cuda_device() {
        Ok(gpu) => gpu,
        Err(problem) => return println!("nothing is compared: {problem}"),
    };
    for architecture in Architecture::ALL {
        let shape = small_shape(architecture);
        let default = architecture.design().activation(Activation::Tanh);
        let designs = match architecture {
            Architecture::Gpt { .. } => continue, // its samples are tokens
            Architecture::Vit { .. } => vec![default],
            _ => vec![default, default.normalization(Norm::Batch)],
        };
        for design in designs {
            compare(design, shape, &gpu).unwrap_or_else(|error| panic!("{design:?}: {error}"));
        }
    }
}

#[test]
fn training_eigenvalues_and_a_plane() -> Result<(), Error> {
    let gpu = match cuda_device() {
        Ok(gpu) => gpu,
        Err(problem) => {
            println!("nothing is trained: {problem}");
            return Ok(());
        }
    };
    let mnist = Mnist::load(&gpu)?;
    let model = Architecture::Cnn.build(&[1, 28, 28], 10, 0, &gpu)?;
    let (train, test) = (mnist.train.first(2_000)?, mnist.test.first(1_000)?);
    let history = Trainer::adam(1e-3)
        .with_epochs(2)
        .fit(&model, &train, &test)?;
    assert!(history.epochs[1].train_loss < history.epochs[0].train_loss);
    let objective = Objective::of(&model, &train, Loss::CrossEntropy)?;
    let top = objective.hessian().top(2)?;
    assert!(top.pairs[0].residual <= 0.01 * top.pairs[0].value);
    let plane = Plane::random(&objective, 0, 1.0, 3)?;
    assert!((plane.losses[[1, 1]] - objective.loss()?).abs() < 1e-4);
    Ok(())
}
