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

    // The curve of 10 probes needs a quarter of their 600 products.
    let width = 0.01 * values[0];
    let band = DensitySettings::default().with_width(width);
    let band = band.run(&objective.hessian()).unwrap();
    println!("density: {} products", band.products);
    assert!(band.products <= 150);
    let curve = band.smoothed(width, 400).unwrap();
    let peak = curve.values.iter().copied().fold(0.0, f64::max);
    assert!(
        curve
            .standard_errors
            .iter()
            .all(|error| *error < 2e-4 * peak)
    );

    // Eigenvectors of the step before save products.
    let step = Trainer::adam(1e-3).with_epochs(1).with_batch_size(128);
    let lanczos = Lanczos::default().with_tolerance(1e-3);
    let mut vectors: Vec<Vec<f64>> = top.pairs.into_iter().map(|pair| pair.vector).collect();
    let (mut cold, mut warm) = (0, 0);
    for i in 0..5 {
        let batch = mnist
            .train
            .select(&(128 * i..128 * (i + 1)).collect::<Vec<_>>())
            .unwrap();
        step.fit(&model, &batch, &batch).unwrap();
        let hessian = objective.hessian();
        cold += lanczos.run(&hessian, 10).unwrap().products;
        let followed = lanczos
            .clone()
            .with_start_vectors(vectors)
            .run(&hessian, 10)
            .unwrap();
        assert!(followed.converged);
        warm += followed.products;
        vectors = followed.pairs.into_iter().map(|pair| pair.vector).collect();
    }
    println!(
        "top 10: {} products each, {} from old vectors",
        cold / 5,
        warm / 5
    );
    assert!(warm < cold);
}
