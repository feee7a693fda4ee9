//! Prints the average number of products per point that `Following` takes for the largest eigenvalue and for the ten largest, to
//! a residual of 10⁻³ of the largest, on 100 checkpoints of a 784-128-128-10 sigmoid network during its training on MNIST, with
//! the checks of every 25th point. Lanczos, which starts again at each point, is measured at every tenth checkpoint:
//! `cargo bench --bench following`. The smallest and the largest eigenvalue are followed along a row through the middle of a
//! filter-normalised plane of radius 1 around the last checkpoint, with 51 and with 21 points.

use loss_landscape::prelude::*;
use loss_landscape::spectral::{Following, Which};

const POINTS: usize = 100;

/// Checkpoints every `spacing` steps after 500 steps of Adam, on batches of 128 of 20,000 images.
fn checkpoints(model: &Mlp, spacing: usize) -> Result<Trajectory, Error> {
    let mnist = Mnist::load(&Device::Cpu)?;
    let train = mnist.train.first(20_000)?;
    let steps = (0..POINTS).map(|i| 500 + spacing * i);
    let mut trajectory = Trajectory::at_steps(steps.collect::<Vec<_>>());
    let trainer = Trainer::adam(1e-3).with_epochs(6).with_batch_size(128);
    trainer.fit_recorded(model, &train, &mnist.test.first(1)?, &mut trajectory)?;
    Ok(trajectory)
}

/// Follows both ends of the spectrum along a row of a plane.
fn row(objective: &Objective, points: usize) -> Result<(), Error> {
    let theta = objective.parameters().to_flat()?;
    let d = direction::filter_normalized(objective.parameters(), 0)?;
    let lanczos = Lanczos::default()
        .with_which(Which::BothEnds)
        .with_tolerance(1e-3);
    let mut following = Following::new(lanczos.clone(), 2);
    let (mut followed, mut cold, mut checks, mut difference) = (0, 0, 0, 0.0f64);
    for i in 0..points {
        let alpha = 2.0 * i as f64 / (points - 1) as f64 - 1.0;
        let moved = theta.iter().zip(&d).map(|(theta, d)| theta + alpha * d);
        let hessian = objective.hessian().at(moved.collect())?;
        let found = following.next(&hessian)?;
        followed += found.spectrum.products;
        checks += usize::from(found.points_since_check == 0);
        let again = lanczos.run(&hessian, 2)?;
        cold += again.products;
        for (a, b) in found.spectrum.values().into_iter().zip(again.values()) {
            difference = difference.max((a - b).abs() / again.values()[0]);
        }
    }
    println!(
        "both ends on a row of {points} points: {:.1} products per point with {checks} checks, Lanczos {:.1}; largest \
         difference {difference:.1e} of the largest eigenvalue",
        followed as f64 / points as f64,
        cold as f64 / points as f64
    );
    Ok(())
}

fn main() -> Result<(), Error> {
    loss_landscape::progress::listen(|_| {});
    let data = Mnist::load(&Device::Cpu)?.train.first(2_000)?;
    for spacing in [1, 4] {
        let model = Mlp::new(&[784, 128, 128, 10], Activation::Sigmoid, 0, &Device::Cpu)?;
        let trajectory = checkpoints(&model, spacing)?;
        let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
        for k in [1, 10] {
            let lanczos = Lanczos::default().with_tolerance(1e-3);
            let mut following = Following::new(lanczos.clone(), k);
            let (mut followed, mut cold, mut checks) = (0, Vec::new(), 0);
            for i in 0..POINTS {
                model.parameters().set_flat(&trajectory.snapshot(i)?)?;
                let found = following.next(&objective.hessian())?;
                followed += found.spectrum.products;
                checks += usize::from(found.points_since_check == 0);
                if i % 10 == 9 {
                    cold.push(lanczos.run(&objective.hessian(), k)?.products);
                }
            }
            println!(
                "{k:2} largest, checkpoints every {spacing} steps: {:.2} products per point with {checks} checks; Lanczos \
                 {cold:?}",
                followed as f64 / POINTS as f64
            );
        }
        if spacing == 4 {
            row(&objective, 51)?;
            row(&objective, 21)?;
        }
    }
    Ok(())
}
