//! An interrupted training resumes from its checkpoint with the bits of an uninterrupted one. This is a separate test
//! binary, because the progress listener that interrupts the training is global.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::Opaque;
use loss_landscape::prelude::*;
use loss_landscape::progress::{Event, listen};
use loss_landscape::train::{Adam, DecayGroup, Epoch, History, Schedule, Sgd};

const CPU: Device = Device::Cpu;

fn mlp() -> Mlp {
    let model = Mlp::new(&[2, 64, 64, 1], Activation::Tanh, 0, &CPU).unwrap();
    model.to_dtype(DType::F64).unwrap()
}

/// The history without seconds.
fn numbers(history: &History) -> (Option<u32>, Vec<Epoch>) {
    let epochs = history.epochs.iter();
    let epochs = epochs.map(|epoch| Epoch {
        seconds: 0.0,
        ..epoch.clone()
    });
    (history.best, epochs.collect())
}

fn resumes<M: Model + Clone + Send + Sync + 'static>(
    trainer: &Trainer,
    new: fn() -> M,
    file: &Path,
) {
    let data = two_moons(400, 0.3, 0, &CPU).unwrap();
    let whole = new();
    let history = trainer.fit(&whole, &data, &data).unwrap();
    let resuming = trainer.clone().with_checkpoint(file);

    listen(|event| {
        if let Event::Working {
            fraction: Some(fraction),
            ..
        } = event
            && fraction > 0.05
        {
            panic!("interrupted");
        }
    });
    let broken = AssertUnwindSafe(|| resuming.fit(&new(), &data, &data));
    assert!(
        catch_unwind(broken).is_err(),
        "the training ended before the interruption"
    );
    listen(|_| ());
    assert!(file.exists(), "{trainer:?}");

    for other in [
        resuming.clone().with_seed(9),
        resuming.clone().with_clip_norm(9.0),
    ] {
        let other = other.fit(&new(), &data, &data);
        assert!(other.unwrap_err().to_string().contains("other work"));
    }

    let rest = new();
    let resumed = resuming.fit(&rest, &data, &data).unwrap();
    assert_eq!(numbers(&resumed), numbers(&history));
    let theta = |model: &M| model.parameters().to_flat().unwrap();
    assert_eq!(theta(&rest), theta(&whole));

    let again = resuming.fit(&new(), &data, &data).unwrap();
    assert_eq!(again, resumed);
}

#[test]
fn an_interrupted_training_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let decaying = Adam::default()
        .with_weight_decay(0.1)
        .with_decay_group(DecayGroup::Matrices);
    let trainers = [
        Trainer::adam(1e-3),
        Trainer::adamw(1e-3, 0.1).with_schedule(Schedule::Cosine),
        Trainer::new(Sgd::default().with_momentum(0.9), 0.05).with_sam(0.01),
        Trainer::adam(1e-2).with_patience(200),
        Trainer::new(decaying, 1e-3)
            .with_schedule(Schedule::CosineTo { floor: 0.1 })
            .with_warmup(100)
            .with_clip_norm(0.1),
    ];
    for (i, trainer) in trainers.into_iter().enumerate() {
        let trainer = trainer.with_batch_size(20);
        resumes(
            &trainer.clone().with_epochs(400),
            mlp,
            &dir.path().join(format!("by hand {i}")),
        );
        resumes(
            &trainer.with_epochs(60),
            || Opaque(mlp()),
            &dir.path().join(format!("by graph {i}")),
        );
    }
    let steps = Trainer::adam(1e-3).with_batch_size(20).with_steps(7_995);
    resumes(&steps, mlp, &dir.path().join("steps"));
}
