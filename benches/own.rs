//! Measures this crate for `benches/peers/compare.py`, in turn with a peer: each line of standard input names a quantity, and
//! each line of standard output is its measurement as JSON.
//!
//!     own rate                products of matrices, one per thread
//!     own candle              a convolutional candle model
//!     own MODEL WEIGHTS       mlp, cnn, resnet20 or resnet18, with weights from this file, which is written if it does not exist

mod models;
mod turns;

use std::path::Path;
use std::time::Instant;

use loss_landscape::operator::Hessian;
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{Value, json};
use turns::{milliseconds, serve, unknown};

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

/// GFLOP/s of products C = AB in single precision, one per thread at a time, with the function that the crate's layers call. A is
/// m × k and B k × n, row-major; `transposed` is the kind of a weight gradient, where A is stored as k × m.
fn rate([m, k, n]: [usize; 3], transposed: bool) -> f64 {
    let flops = 2 * m * k * n;
    let products = (1_000_000_000 / flops).max(3);
    let a_strides = match transposed {
        false => (1, k as isize),
        true => (m as isize, 1),
    };
    let started = Instant::now();
    rayon::broadcast(|_| {
        let (a, b, mut c) = (vec![1f32; m * k], vec![0.5f32; k * n], vec![0f32; m * n]);
        for _ in 0..products {
            // SAFETY: the matrices have m × k, k × n and m × n entries.
            #[allow(unsafe_code)]
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    c.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    a.as_ptr(),
                    a_strides.0,
                    a_strides.1,
                    b.as_ptr(),
                    1,
                    n as isize,
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
    let seconds = started.elapsed().as_secs_f64();
    1e-9 * (flops * products * rayon::current_num_threads()) as f64 / seconds
}

/// The rate for `m k n`, or `m k n t` if A is stored transposed.
fn named_rate(shape: &str) -> Result<Value, Error> {
    let words: Vec<&str> = shape.split_whitespace().collect();
    let sizes: Result<Vec<usize>, _> = words.iter().take(3).map(|word| word.parse()).collect();
    match sizes.as_deref() {
        Ok([m, k, n]) => Ok(json!({ "gflops": rate([*m, *k, *n], words.len() > 3) })),
        _ => Err(unknown(shape)),
    }
}

/// The objective of a model of the zoo, and its training data.
fn objective(name: &str, weights: &Path) -> Result<(Objective, Dataset), Error> {
    let large = name == "resnet18";
    let data = match large {
        true => colour_images(64)?,
        false => Mnist::load(&Device::Cpu)?.train,
    };
    if name == "mlp" {
        let model = Mlp::new(&[784, 128, 128, 10], Activation::Sigmoid, 0, &Device::Cpu)?;
        if weights.exists() {
            model.parameters().load(weights)?;
        } else {
            let trainer = Trainer::adam(1e-3).with_epochs(3);
            trainer.fit(&model, &data, &data.first(1)?)?;
            model.parameters().save(weights)?;
        }
        let objective = Objective::of(&model, &data.first(10_000)?, Loss::CrossEntropy)?;
        return Ok((objective, data));
    }
    let shape: &[usize] = if large { &[3, 32, 32] } else { &[1, 28, 28] };
    let model = Architecture::named(name)?.build(shape, 10, 0, &Device::Cpu)?;
    match weights.exists() {
        true => model.parameters().load(weights)?,
        false => model.parameters().save(weights)?,
    }
    let count = if large { 64 } else { 256 };
    let objective = Objective::of(&model, &data.first(count)?, Loss::CrossEntropy)?;
    Ok((objective, data))
}

/// Images of 3 × 32 × 32 values; the peer makes the same.
fn colour_images(count: usize) -> Result<Dataset, Error> {
    let pixel = |i: usize| (i as f32).sin();
    let inputs = (0..count * 3 * 32 * 32).map(pixel).collect();
    let inputs = Tensor::from_vec(inputs, (count, 3, 32, 32), &Device::Cpu)?;
    let labels = (0..count as u32).map(|i| i % 10).collect::<Vec<_>>();
    Dataset::classification(&inputs, &Tensor::from_vec(labels, count, &Device::Cpu)?)
}

/// Measures a quantity of a model once.
fn measure(quantity: &str, model: &Objective, data: &Dataset, run: usize) -> Result<Value, Error> {
    let hessian = model.hessian();
    let v: Vec<f64> = (0..model.dim()).map(|i| (i as f64 + 2.0).sin()).collect();
    let (name, argument) = quantity.split_once(' ').unwrap_or((quantity, ""));
    let number = |default| argument.parse().unwrap_or(default);
    let ms = match name {
        "loss" => return Ok(json!({ "loss": model.loss()? })),
        "gradient" => milliseconds(|| model.gradient())?,
        "hvp" => milliseconds(|| hessian.apply(&v))?,
        "fresh" => {
            let theta = model.parameters().to_flat()?;
            let mut moved = theta.clone();
            moved[0] += 1e-3 * (1.0 + run as f64);
            model.parameters().set_flat(&moved)?;
            let ms = milliseconds(|| hessian.apply(&v))?;
            model.parameters().set_flat(&theta)?;
            hessian.apply(&v)?;
            ms
        }
        "autograd_gradient" => {
            let by_graph = model.clone().by_autograd();
            milliseconds(|| by_graph.gradient())?
        }
        "autograd_hvp" => {
            let by_graph = model.clone().by_autograd();
            milliseconds(|| by_graph.hvp(&v))?
        }
        "top" => {
            let started = Instant::now();
            let top = hessian.top(number(30))?;
            let ms = 1e3 * started.elapsed().as_secs_f64();
            let values: Vec<f64> = top.pairs.iter().map(|pair| pair.value).collect();
            let residuals: Vec<f64> = top.pairs.iter().map(|pair| pair.residual).collect();
            return Ok(json!({
                "ms": ms, "eigenvalues": values, "residuals": residuals, "products": top.products,
            }));
        }
        "plane" => {
            let grid = number(51);
            milliseconds(|| Plane::random(model, 0, 1.0, grid))? / (grid * grid) as f64
        }
        "epoch" => {
            let (train, test) = (data.first(number(60_000))?, data.first(1)?);
            let theta = model.parameters().to_flat()?;
            let trainer = Trainer::adam(1e-3).with_epochs(1);
            let (train, test) = (model.with_data(&train)?, model.with_data(&test)?);
            let ms = milliseconds(|| trainer.fit_objective(&train, &test))?;
            model.parameters().set_flat(&theta)?;
            ms
        }
        "density" => milliseconds(|| DensitySettings::default().run(&hessian))?,
        "density_one_by_one" => {
            let hessian = OneByOne(hessian);
            milliseconds(|| DensitySettings::default().run(&hessian))?
        }
        _ => return Err(unknown(quantity)),
    };
    Ok(json!({ "ms": ms }))
}

fn main() -> Result<(), Error> {
    // SAFETY: no other thread runs yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("CANDLE_NUM_THREADS", "1");
    }
    loss_landscape::progress::listen(|_| {});
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words = arguments.iter().map(String::as_str);
    let words: Vec<&str> = words.filter(|word| *word != "--bench").collect();
    match words[..] {
        ["rate"] => serve(named_rate),
        ["candle"] => {
            let [nn, candle] = ["nn", "candle"].map(models::candle_cnn);
            let (nn, candle) = (nn?, candle?);
            let v: Vec<f64> = (0..nn.dim()).map(|i| (i as f64).sin()).collect();
            serve(|quantity| {
                let objective = match quantity {
                    "nn" => &nn,
                    "candle" => &candle,
                    _ => return Err(unknown(quantity)),
                };
                Ok(json!({ "ms": milliseconds(|| objective.hvp(&v))? }))
            })
        }
        [name, weights] => {
            let (objective, data) = objective(name, Path::new(weights))?;
            let mut run = 0;
            serve(|quantity| {
                run += 1;
                measure(quantity, &objective, &data, run)
            })
        }
        _ => Err(Error::Invalid(
            "run benches/peers/compare.py, which calls this program with a subject".into(),
        )),
    }
}
