//! Times gradients, products, spectra and planes of a 784-128-128-10 sigmoid network on 10,000 images, and a product of a
//! convolutional candle model on 256 images: `cargo bench --bench curvature`.

mod models;

use divan::Bencher;
use loss_landscape::prelude::*;

fn main() {
    loss_landscape::progress::listen(|_| {});
    divan::main();
}

fn objective() -> Result<Objective, Error> {
    let mnist = Mnist::load(&Device::Cpu)?;
    let model = Mlp::new(&[784, 128, 128, 10], Activation::Sigmoid, 0, &Device::Cpu)?;
    Trainer::adam(1e-3).fit(&model, &mnist.train, &mnist.test)?;
    Objective::of(&model, &mnist.train.first(10_000)?, Loss::CrossEntropy)
}

fn vectors(n: usize, count: usize) -> Vec<Vec<f64>> {
    let entry = |i: usize, j: usize| ((j + 1) as f64 * (i + 2) as f64).sin();
    (0..count)
        .map(|i| (0..n).map(|j| entry(i, j)).collect())
        .collect()
}

#[divan::bench]
fn gradient(bencher: Bencher) {
    let objective = objective().unwrap();
    bencher.bench_local(|| objective.gradient());
}

#[divan::bench(args = [1, 8, 30])]
fn products(bencher: Bencher, together: usize) {
    let hessian = objective().unwrap().hessian();
    let vectors = vectors(hessian.dim(), together);
    bencher.bench_local(|| hessian.apply_block(&vectors));
}

#[divan::bench(args = ["nn", "candle"], sample_count = 5)]
fn product_of_a_candle_model(bencher: Bencher, convolutions: &str) {
    let hessian = models::candle_cnn(convolutions).unwrap().hessian();
    let vector = vectors(hessian.dim(), 1).remove(0);
    bencher.bench_local(|| hessian.apply(&vector));
}

#[divan::bench(sample_count = 5)]
fn top_30(bencher: Bencher) {
    let hessian = objective().unwrap().hessian();
    bencher.bench_local(|| hessian.top(30));
}

#[divan::bench(sample_count = 5)]
fn density(bencher: Bencher) {
    let hessian = objective().unwrap().hessian();
    bencher.bench_local(|| hessian.density());
}

#[divan::bench(sample_count = 5)]
fn plane_11_by_11(bencher: Bencher) {
    let objective = objective().unwrap();
    bencher.bench_local(|| Plane::random(&objective, 0, 1.0, 11));
}
