//! Trains a language model for 200 steps on the plays, writes weights and sequences to a directory, and measures its curvature on
//! 32 sequences of 64 characters for `benches/peers/compare.py`: `cargo bench --bench gpt -- DIR`. Each line of standard input
//! names a quantity, and each line of standard output is its measurement as JSON.

mod turns;

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use loss_landscape::candle;
use loss_landscape::data::Text;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;
use loss_landscape::train::{Adam, DecayGroup, Schedule};
use turns::{milliseconds, serve, unknown};

const SEQUENCES: usize = 32;
const STEPS: usize = 200;

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
    serve(|quantity| {
        let ms = match quantity {
            "loss" => return Ok(json!({ "loss": objective.loss()? })),
            "gradient" => milliseconds(|| objective.gradient())?,
            "hvp" => milliseconds(|| hessian.apply(&vector))?,
            "gauss_newton" => milliseconds(|| gauss_newton.apply(&vector))?,
            "step" => step_ms,
            "blocks" => {
                let blocks = objective.parameters().blocks();
                let mut total = 0.0;
                for (name, range) in &blocks {
                    let block = hessian.clone().block(&[name.as_str()])?;
                    block.apply(&vector[range.clone()])?;
                    total += milliseconds(|| block.apply(&vector[range.clone()]))?;
                }
                total / blocks.len() as f64
            }
            "top" => {
                let top = hessian.top(1)?;
                let (value, residual) = (top.pairs[0].value, top.pairs[0].residual);
                return Ok(json!({ "eigenvalue": value, "residual": residual }));
            }
            _ => return Err(unknown(quantity)),
        };
        Ok(json!({ "ms": ms }))
    })
}
