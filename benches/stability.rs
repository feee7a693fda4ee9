//! Prints what it costs to measure every 20 steps, in percent of the training's time, for each measure of `Stability` and a tanh
//! network 784-128-128-10 on 5,000 images of MNIST: `cargo bench --bench stability`. Arguments select measures:
//! `cargo bench --bench stability -- critical batch`.

use loss_landscape::landscape::StabilityMeasure::{Batch, Critical, Sharpness};
use loss_landscape::prelude::*;

/// Number of steps of a training: 25 measurements, at one of which λ_max is searched for in full.
const STEPS: usize = 500;

/// The cost relative to the training, and the number of seconds of a step.
fn cost(settings: &Stability, batch: usize, data: &Dataset) -> Result<[f64; 2], Error> {
    let per_epoch = data.len().div_ceil(batch);
    let epochs = STEPS.div_ceil(per_epoch);
    let model = Mlp::new(&[784, 128, 128, 10], Activation::Tanh, 0, &Device::Cpu)?;
    let objective = Objective::of(&model, data, Loss::CrossEntropy)?;
    let trainer = Trainer::sgd(0.3).with_batch_size(batch);
    let report = settings.train(&trainer.with_epochs(epochs as u32), &objective)?;
    let training = report.seconds - report.measuring_seconds;
    Ok([
        report.measuring_seconds / training,
        training / (epochs * per_epoch) as f64,
    ])
}

fn main() -> Result<(), Error> {
    loss_landscape::progress::listen(|_| {});
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let data = Mnist::load(&Device::Cpu)?.train.first(5_000)?;
    for (name, measure, samples) in [
        ("critical", Critical, None),
        ("batch", Batch, None),
        ("sharpness", Sharpness, None),
        ("sharpness of 1,000 samples", Sharpness, Some(1_000)),
    ] {
        if !chosen.is_empty() && !chosen.iter().any(|c| name.starts_with(c.as_str())) {
            continue;
        }
        let mut settings = Stability::default().with_measures([measure]);
        settings.samples = samples;
        for batch in [5_000, 1_000, 128, 32] {
            let [share, step] = cost(&settings, batch, &data)?;
            println!(
                "{name:26}  {batch:5} samples per step of {:6.2} ms: {:6.1} %",
                1e3 * step,
                100.0 * share
            );
        }
    }
    Ok(())
}
