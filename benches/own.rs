//! Prints measurements for `benches/peers/compare.py` that the command line does not have, as JSON: the rate of matrix
//! products on all cores, a spectral density with all probes at once and one by one, a product of ResNet-18 without cached
//! forward pass, and products of a convolutional candle model.

mod models;

use std::time::Instant;

use loss_landscape::operator::Hessian;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::json;

/// An operator that multiplies vectors one by one.
struct OneByOne(Hessian);

impl LinearOperator for OneByOne {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        self.0.apply(v)
    }
}

/// GFLOP/s of single-precision products C = AB, one per core.
fn gemm_gflops() -> f64 {
    const N: usize = 768;
    const PRODUCTS: usize = 20;
    let threads = rayon::current_num_threads();
    let seconds = || {
        let started = Instant::now();
        rayon::broadcast(|_| {
            let (a, b, mut c) = (vec![1f32; N * N], vec![0.5f32; N * N], vec![0f32; N * N]);
            for _ in 0..PRODUCTS {
                let n = N as isize;
                // SAFETY: each of the three matrices has N × N entries.
                #[allow(unsafe_code)]
                unsafe {
                    gemm::gemm(
                        N,
                        N,
                        N,
                        c.as_mut_ptr(),
                        1,
                        n,
                        false,
                        a.as_ptr(),
                        1,
                        n,
                        b.as_ptr(),
                        1,
                        n,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
                std::hint::black_box(&c);
            }
        });
        started.elapsed().as_secs_f64()
    };
    let best = (0..5).map(|_| seconds()).fold(f64::INFINITY, f64::min);
    2e-9 * (N * N * N * PRODUCTS * threads) as f64 / best
}

/// Seconds per image of a Hessian-vector product of ResNet-18 on images of 3 × 32 × 32. The forward pass is not cached, as
/// with thousands of images.
fn resnet18_seconds() -> Result<f64, Error> {
    const IMAGES: usize = 64;
    let pixel = |i: usize| (i as f32).sin();
    let inputs = (0..IMAGES * 3 * 32 * 32).map(pixel).collect();
    let inputs = Tensor::from_vec(inputs, (IMAGES, 3, 32, 32), &Device::Cpu)?;
    let labels = (0..IMAGES as u32).map(|i| i % 10).collect::<Vec<_>>();
    let labels = Tensor::from_vec(labels, IMAGES, &Device::Cpu)?;
    let data = Dataset::classification(&inputs, &labels)?;
    let model = Architecture::ResNet18.build(&[3, 32, 32], 10, 0, &Device::Cpu)?;
    let objective = Objective::of(&model, &data, Loss::CrossEntropy)?.with_memory(0);
    let v: Vec<f64> = (0..objective.dim()).map(|i| (i as f64).sin()).collect();
    objective.hvp(&v)?;
    let started = Instant::now();
    objective.hvp(&v)?;
    Ok(started.elapsed().as_secs_f64() / IMAGES as f64)
}

/// Milliseconds of a Hessian-vector product of a candle model, median of five.
fn candle_cnn_ms(convolutions: &str) -> Result<f64, Error> {
    let objective = models::candle_cnn(convolutions)?;
    let v: Vec<f64> = (0..objective.dim()).map(|i| (i as f64).sin()).collect();
    objective.hvp(&v)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        objective.hvp(&v)?;
        times.push(1e3 * started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[2])
}

fn main() -> Result<(), Error> {
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("CANDLE_NUM_THREADS", "1");
    }
    loss_landscape::progress::listen(|_| {});
    let data = Mnist::load(&Device::Cpu)?.train.first(10_000)?;
    let model = Mlp::new(&[784, 128, 128, 10], Activation::Sigmoid, 0, &Device::Cpu)?;
    let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?.hessian();
    let settings = DensitySettings::default();
    settings.run(&hessian)?;
    let started = Instant::now();
    settings.run(&hessian)?;
    let together = started.elapsed().as_secs_f64();
    let started = Instant::now();
    settings.run(&OneByOne(hessian))?;
    let one_by_one = started.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "gemm_gflops": gemm_gflops(),
            "density_seconds": together,
            "density_one_by_one_seconds": one_by_one,
            "nn_hvp_ms": candle_cnn_ms("nn")?,
            "candle_hvp_ms": candle_cnn_ms("candle")?,
            "resnet18_hvp_seconds_per_image": resnet18_seconds()?,
        })
    );
    Ok(())
}
