//! Two 784-128-128-10 networks on MNIST: the barrier between them, and low-loss paths.

use loss_landscape::prelude::*;

#[test]
fn alignment_lowers_the_barrier_and_a_trained_curve_removes_it() {
    let device = Device::Cpu;
    let mnist = Mnist::load(&device).unwrap();
    let train = |seed: u64| {
        let model = Mlp::new(&[784, 128, 128, 10], Activation::Relu, seed, &device).unwrap();
        let trainer = Trainer::adam(1e-3)
            .with_epochs(3)
            .with_batch_size(128)
            .with_seed(seed);
        let history = trainer.fit(&model, &mnist.train, &mnist.test).unwrap();
        assert!(history.epochs[2].test_accuracy.unwrap() > 0.96);
        model
    };
    let (a, b) = (train(0), train(1));
    let data = mnist.train.first(10_000).unwrap();
    let objective = Objective::of(&a, &data, Loss::CrossEntropy).unwrap();
    let trainer = PathTrainer::default().with_learning_rate(3e-3);
    let found = Connectivity::between(&objective, &a, &b, &[trainer], 25).unwrap();
    println!("{}", found.table().unwrap());
    let [linear, weights, activations, bezier] = &found.paths[..] else {
        panic!("{} paths", found.paths.len());
    };
    let [linear, weights, activations, bezier] =
        [linear, weights, activations, bezier].map(|p| &p.1);

    // Measured 0.738, 0.0343, 0.0287 and 0; other seeds give 0.7 to 1.1, 0.025 to 0.05 twice, and 0.
    assert!((linear.barrier_height - 0.738).abs() < 0.25 * 0.738);
    for aligned in [weights, activations] {
        assert!(aligned.barrier_height > 0.01 && aligned.barrier_height < 0.06);
        assert!(aligned.accuracy_at_barrier.unwrap() > 0.96);
        assert!(bezier.barrier_height < aligned.barrier_height);
    }
    assert!(bezier.barrier_height < 0.005 && bezier.accuracy_at_barrier.unwrap() > 0.97);
    assert!(linear.accuracy_at_barrier.unwrap() < 0.9);
    // Measured 30.07, 21.54, 22.87: weight matching finds the nearest model, and the curve is longer than the line.
    assert!((linear.path_norm - 30.07).abs() < 1.0 && (weights.path_norm - 21.54).abs() < 1.0);
    assert!(weights.path_norm < activations.path_norm && linear.path_norm < bezier.path_norm);
}
