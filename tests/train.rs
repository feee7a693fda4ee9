//! Models and training: seeds, and what goes wrong.

use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

#[test]
fn the_same_seed_gives_the_same_bits() {
    let theta = |seed: u64| {
        let model = Mlp::new(&[4, 7, 3], Activation::Tanh, seed, &CPU).unwrap();
        model.parameters().to_flat().unwrap()
    };
    assert_eq!(theta(1), theta(1));
    assert_ne!(theta(1), theta(2));
    assert!(theta(1)[..7].iter().all(|b| b.abs() <= 0.5));

    let trained = |seed: u64| {
        let data = two_moons(100, 0.1, 3, &CPU)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        let model = Mlp::new(&[2, 16, 2], Activation::Relu, 1, &CPU).unwrap();
        let trainer = Trainer::adam(0.01).epochs(3).batch_size(16).seed(seed);
        trainer.fit(&model, &data, &data).unwrap();
        model.parameters().to_flat().unwrap()
    };
    assert_eq!(trained(5), trained(5));
    assert_ne!(trained(5), trained(6));
}

#[test]
fn training_learns() {
    let data = two_moons(200, 0.05, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 16, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let history = Trainer::adam(0.02)
        .epochs(150)
        .batch_size(20)
        .fit(&model, &data, &data);
    let history = history.unwrap();
    let last = history.epochs.last().unwrap();
    assert!(last.test_accuracy.unwrap() > 0.99, "{last:?}");
    assert_eq!(history.table().unwrap().shape(), (150, 5));
}

/// Gradient descent on a quadratic converges below η = 2/λ₁ and diverges above.
#[test]
fn the_step_size_that_diverges() {
    let inputs = Tensor::new(&[[2f64, 0.0], [0.0, 1.0]], &CPU).unwrap();
    let data = Dataset::regression(&inputs, &Tensor::new(&[1f64, -1.0], &CPU).unwrap()).unwrap();
    let model = Mlp::new(&[2, 1], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    let limit = 2.0
        / objective
            .hessian()
            .dense()
            .unwrap()
            .eigen()
            .unwrap()
            .values()[0];
    let start = model.parameters().to_flat().unwrap();

    let below = Trainer::sgd(0.95 * limit).batch_size(2).epochs(500);
    below.fit(&model, &data, &data).unwrap();
    assert!(objective.loss().unwrap() < 1e-6);

    model.parameters().set_flat(&start).unwrap();
    let above = Trainer::sgd(1.05 * limit).batch_size(2).epochs(50_000);
    let error = above.fit(&model, &data, &data).unwrap_err().to_string();
    assert!(
        error.contains("diverged") && error.contains("step"),
        "{error}"
    );
}

#[test]
fn senseless_settings_are_refused() {
    let data = two_moons(10, 0.1, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 2], Activation::Tanh, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    for trainer in [
        Trainer::sgd(0.0),
        Trainer::sgd(-1.0),
        Trainer::adam(f64::NAN),
        Trainer::sgd(0.1).batch_size(0),
    ] {
        assert!(trainer.fit(&model, &data, &data).is_err());
    }
    for widths in [&[][..], &[3], &[3, 0, 2]] {
        assert!(Mlp::new(widths, Activation::Tanh, 0, &CPU).is_err());
    }
    assert!(model.to_dtype(DType::U32).is_err());
    let error = model
        .parameters()
        .get("layers.7.weight")
        .unwrap_err()
        .to_string();
    assert!(error.contains("layers.0.bias, layers.0.weight"), "{error}");
}
