//! The largest eigenvalues of the 784-128-128-10 sigmoid network on MNIST.

use loss_landscape::prelude::*;

/// Ten classes give nine outliers: a common shift of all logits does not change the loss.
#[test]
fn nine_eigenvalues_stand_out() {
    let device = Device::Cpu;
    let mnist = Mnist::load(&device).unwrap();
    let model = Mlp::new(&[784, 128, 128, 10], Activation::Sigmoid, 0, &device).unwrap();
    let trainer = Trainer::adam(1e-3).with_epochs(3).with_batch_size(128);
    let history = trainer.fit(&model, &mnist.train, &mnist.test).unwrap();
    assert!(history.epochs[2].test_accuracy.unwrap() > 0.93);

    let data = mnist.train.first(10_000).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let top = objective.hessian().top(10).unwrap();
    let values = top.values();
    println!("eigenvalues {values:.4?}, residuals {:?}", top.residuals());
    assert!(top.converged);
    assert!(top.residuals().iter().all(|r| *r <= 1e-3 * values[0]));
    // Nine from about 1 down to about 0.3, then a gap to the bulk below 0.1.
    assert!(values[0] > 0.6 && values[0] < 1.5);
    assert!(
        values[8] > 0.15 && values[8] > 3.0 * values[9],
        "{values:?}"
    );
}
