//! Trains a language model for 200 steps on the plays, and measures its curvature on 32 sequences of 64 characters. Prints
//! JSON for `benches/peers/compare.py`, and writes weights and sequences to a directory: `cargo bench --bench gpt -- DIR`.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use loss_landscape::candle;
use loss_landscape::data::Text;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;
use loss_landscape::train::{Adam, DecayGroup, Schedule};

const SEQUENCES: usize = 32;
const STEPS: usize = 200;
const RUNS: usize = 9;

fn main() -> Result<(), Error> {
    loss_landscape::progress::listen(|_| {});
    let directory = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let directory = directory.ok_or_else(|| {
        Error::Invalid("no directory is given: run cargo bench --bench gpt -- DIR".into())
    })?;
    let directory = Path::new(&directory);
    let text = Text::shakespeare()?;
    let model = Architecture::GPT.build(&[64], text.vocabulary().len(), 0, &Device::Cpu)?;
    let windows = text.windows(64, STEPS * SEQUENCES, 0, &Device::Cpu)?;
    let data = windows.first(SEQUENCES)?;

    let adam = Adam::default()
        .with_beta2(0.95)
        .with_weight_decay(0.1)
        .with_decay_group(DecayGroup::Matrices);
    let trainer = Trainer::new(adam, 1e-3)
        .with_batch_size(SEQUENCES)
        .with_warmup(20)
        .with_schedule(Schedule::CosineTo { floor: 0.1 })
        .with_clip_norm(1.0);
    let started = Instant::now();
    trainer.fit(&model, &windows, &data)?;
    let step_ms = 1e3 * started.elapsed().as_secs_f64() / STEPS as f64;

    model.parameters().save(directory.join("gpt.safetensors"))?;
    let Targets::Labels(labels) = data.targets() else {
        unreachable!("the labels of a text are characters")
    };
    let tensors = HashMap::from([
        ("inputs", data.inputs().clone()),
        ("labels", labels.clone()),
    ]);
    candle::safetensors::save(&tensors, directory.join("sequences.safetensors"))?;

    let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    let (hessian, gauss_newton) = (objective.hessian(), objective.gauss_newton());
    let vector: Vec<f64> = (0..objective.dim())
        .map(|i| (i as f64 + 2.0).sin())
        .collect();
    let hvp = || hessian.apply(&vector).map(drop);
    let hvp_ms = milliseconds(RUNS, hvp)?;
    let mut shares = Vec::new();
    for (name, range) in objective.parameters().blocks() {
        let block = objective.hessian().block(&[name.as_str()])?;
        let time = milliseconds(3, || block.apply(&vector[range.clone()]).map(drop))?;
        shares.push(time / hvp_ms);
    }
    let top = hessian.top(1)?;
    println!(
        "{}",
        json!({
            "gradient_ms": milliseconds(RUNS, || objective.gradient().map(drop))?,
            "hvp_ms": hvp_ms,
            "gauss_newton_ms": milliseconds(RUNS, || gauss_newton.apply(&vector).map(drop))?,
            "step_ms": step_ms,
            "block_share": shares.iter().sum::<f64>() / shares.len() as f64,
            "eigenvalue": top.pairs[0].value,
            "residual": top.pairs[0].residual,
            "loss": objective.loss()?,
        })
    );
    Ok(())
}

/// Median time of `runs` runs in milliseconds, after a warm-up run.
fn milliseconds(runs: usize, run: impl Fn() -> Result<(), Error>) -> Result<f64, Error> {
    run()?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let started = Instant::now();
        run()?;
        times.push(1e3 * started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[runs / 2])
}
