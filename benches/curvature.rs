//! Times of what the crate is for, on a 784-128-128-10 network with sigmoids and 10,000 images, and of a product for
//! a convolutional candle model with 256: `cargo bench --bench curvature`.

use divan::Bencher;
use loss_landscape::candle_nn::{Conv2dConfig, linear};
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

/// The network of `Layered::cnn` as a candle model, with the crate's convolutions or candle's.
fn own_model(convolutions: &str) -> Result<Objective, Error> {
    const CHANNELS: [usize; 8] = [1, 16, 16, 16, 32, 32, 64, 64];
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let mut layers: Vec<Box<dyn Module + Send + Sync>> = Vec::new();
    for (i, pair) in CHANNELS.windows(2).enumerate() {
        let config = Conv2dConfig {
            padding: 1,
            stride: if i == 3 || i == 5 { 2 } else { 1 },
            ..Default::default()
        };
        let vb = vb.pp(format!("layers.{i}"));
        layers.push(match convolutions {
            "nn" => Box::new(nn::conv2d(pair[0], pair[1], 3, config, vb)?),
            _ => Box::new(candle_nn::conv2d(pair[0], pair[1], 3, config, vb)?),
        });
    }
    let last = linear(64, 10, vb.pp("layers.7"))?;
    let data = Mnist::load(&Device::Cpu)?.train.first(256)?;
    let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, move |x| {
        let mut h = x.reshape(((), 1, 28, 28))?;
        for layer in &layers {
            h = layer.forward(&h)?.tanh()?;
        }
        last.forward(&h.mean((2, 3))?)
    });
    objective?.with_batch_size(128)
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
    let hessian = own_model(convolutions).unwrap().hessian();
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
