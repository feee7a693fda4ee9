//! Matrices with known spectra, deterministic numbers, comparisons of derivatives, models without layers, directories, and runs of the command line.
#![allow(dead_code)] // each test binary uses some of these

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use loss_landscape::ndarray::Array2;
use loss_landscape::objective::Engine;
use loss_landscape::prelude::*;

/// Runs `landscape` with these arguments.
pub fn landscape<A: AsRef<OsStr>>(arguments: &[A]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landscape"));
    command.args(arguments).output().unwrap()
}

/// Runs a command that must fail with exit code 1. Returns its stderr.
#[track_caller]
pub fn error_of<A: AsRef<OsStr> + std::fmt::Debug>(arguments: &[A]) -> String {
    let output = landscape(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    error
}

/// Deterministic pseudo-random numbers in [-1, 1).
pub fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Asserts that each entry differs by at most `tolerance` times the largest expected entry.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * size,
            "entry {i}: {f} is not {e} (largest {size})"
        );
    }
}

/// Products of several vectors with each matrix of an objective; the first two are the Hessian and the Gauss–Newton matrix.
pub fn products(objective: &Objective, vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let all = [
        objective.hessian().apply_block(vectors),
        objective.gauss_newton().apply_block(vectors),
        objective.fisher().apply_block(vectors),
        objective.empirical_fisher().apply_block(vectors),
        objective
            .gradient_covariance()
            .unwrap()
            .apply_block(vectors),
    ];
    all.map(|products| products.unwrap().concat()).into()
}

/// Asserts that derivatives by hand are those of candle's graph. Returns the products by hand with three vectors.
#[track_caller]
pub fn assert_engines_agree(objective: &Objective, tolerance: f64) -> Vec<Vec<f64>> {
    assert_eq!(objective.engine(), Engine::ByHand);
    let graph = objective.clone().by_autograd();
    let (by_hand, by_graph) = (objective.score().unwrap(), graph.score().unwrap());
    assert_close(&[by_hand.loss], &[by_graph.loss], tolerance);
    assert_eq!(by_hand.accuracy, by_graph.accuracy);
    let [a, b] = [objective, &graph].map(|o| o.gradient().unwrap());
    assert_close(&a, &b, tolerance);
    let vectors: Vec<Vec<f64>> = (0..3).map(|i| numbers(objective.dim(), 20 + i)).collect();
    let found = products(objective, &vectors);
    for (a, b) in found.iter().zip(products(&graph, &vectors)) {
        assert_close(a, &b, tolerance);
    }
    found
}

/// A diagonal matrix.
pub struct OnDiagonal(pub Vec<f64>);

impl LinearOperator for OnDiagonal {
    fn dim(&self) -> usize {
        self.0.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        Ok(v.iter().zip(&self.0).map(|(v, d)| v * d).collect())
    }
}

/// The tridiagonal matrix with 2 on the diagonal and −1 next to it. Its eigenvalues are 2 − 2cos(kπ/(n+1)).
pub struct Laplacian(pub usize);

impl Laplacian {
    /// Returns the eigenvalues, largest first.
    pub fn eigenvalues(&self) -> Vec<f64> {
        let angle = |k: usize| k as f64 * std::f64::consts::PI / (self.0 as f64 + 1.0);
        (1..=self.0)
            .rev()
            .map(|k| 2.0 - 2.0 * angle(k).cos())
            .collect()
    }
}

impl LinearOperator for Laplacian {
    fn dim(&self) -> usize {
        self.0
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let at = |i: isize| {
            if i < 0 {
                0.0
            } else {
                *v.get(i as usize).unwrap_or(&0.0)
            }
        };
        let entry = |i: isize| 2.0 * at(i) - at(i - 1) - at(i + 1);
        Ok((0..v.len() as isize).map(entry).collect())
    }
}

/// All eigenvalues of an objective's Hessian at its model's parameters, largest first.
pub fn hessian_values(objective: &Objective) -> Vec<f64> {
    let matrix = objective.hessian().dense().unwrap();
    matrix.eigen().unwrap().values()
}

/// A dense matrix with these eigenvalues and random eigenvectors.
pub fn with_eigenvalues(eigenvalues: &[f64], seed: u64) -> Dense {
    let n = eigenvalues.len();
    let mut matrix = Array2::from_diag(&loss_landscape::ndarray::arr1(eigenvalues));
    // Apply reflections I − 2uuᵀ from both sides.
    for round in 0..6 {
        let mut u = loss_landscape::ndarray::Array1::from(numbers(n, 100 * seed + round + 1));
        u /= u.dot(&u).sqrt();
        let outer = |a: &loss_landscape::ndarray::Array1<f64>,
                     b: &loss_landscape::ndarray::Array1<f64>| {
            Array2::from_shape_fn((n, n), |(i, j)| a[i] * b[j])
        };
        let left = u.dot(&matrix);
        matrix = &matrix - &(outer(&u, &left) * 2.0);
        let right = matrix.dot(&u);
        matrix = &matrix - &(outer(&right, &u) * 2.0);
    }
    Dense::new(matrix).unwrap()
}

/// An operator whose products fail.
pub struct Broken;

impl LinearOperator for Broken {
    fn dim(&self) -> usize {
        40
    }

    fn apply(&self, _: &[f64]) -> Result<Vec<f64>, Error> {
        Err(Error::Invalid("the product failed".into()))
    }
}

/// L(θ) = ½ Σ λᵢ (θᵢ − cᵢ)² with θ at `start`: the squared error of a linear model `w` with one sample per parameter.
pub fn quadratic(eigenvalues: &[f64], minimum: &[f64], start: &[f64]) -> Objective {
    let n = eigenvalues.len();
    let mut inputs = vec![0.0; n * n];
    let mut targets = Vec::with_capacity(n);
    for (i, (value, c)) in eigenvalues.iter().zip(minimum).enumerate() {
        inputs[i * n + i] = (n as f64 * value / 2.0).sqrt();
        targets.push(inputs[i * n + i] * c);
    }
    let tensor = |v: Vec<f64>, m: usize| Tensor::from_vec(v, (n, m), &Device::Cpu).unwrap();
    let data = Dataset::regression(&tensor(inputs, n), &tensor(targets, 1)).unwrap();
    let w = Var::from_slice(start, (n, 1), &Device::Cpu).unwrap();
    let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
    let forward = move |x: &Tensor| x.matmul(w.as_tensor());
    Objective::from_fn(&parameters, &data, Loss::Mse, forward).unwrap()
}

/// A perceptron on two moons after 20 epochs of training.
pub fn moons_network(widths: &[usize], activation: Activation) -> (Mlp, Objective) {
    let data = two_moons(80, 0.1, 3, &Device::Cpu).unwrap();
    let model = Mlp::new(widths, activation, 4, &Device::Cpu).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let trainer = Trainer::adam(0.01).with_epochs(20).with_batch_size(20);
    trainer.fit(&model, &data, &data).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    (model, objective)
}

/// Replaces W₁ by cW₁, b₁ by cb₁ and W₂ by W₂/c, which does not change the function of a two-layer ReLU network.
pub fn rescale(model: &Mlp, c: f64) {
    for (name, factor) in [
        ("layers.0.weight", c),
        ("layers.0.bias", c),
        ("layers.1.weight", 1.0 / c),
    ] {
        let var = model.parameters().get(name).unwrap();
        var.set(&(var.as_tensor() * factor).unwrap()).unwrap();
    }
}

/// The bits of θ.
pub fn bits(parameters: &Parameters) -> Vec<u64> {
    let theta = parameters.to_flat().unwrap();
    theta.iter().map(|t| t.to_bits()).collect()
}

/// Contents of all files in a directory, recursively. Names of directories end in `/`.
pub fn bytes(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.insert(name.clone() + "/", Vec::new());
            let inner = bytes(&path).into_iter();
            found.extend(inner.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// A model that does not describe its layers, so that derivatives come from candle's graph.
#[derive(Clone)]
pub struct Opaque<M>(pub M);

impl<M: Model> Module for Opaque<M> {
    fn forward(&self, x: &Tensor) -> candle::Result<Tensor> {
        self.0.forward(x)
    }
}

impl<M: Model> Model for Opaque<M> {
    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> candle::Result<Tensor> {
        self.0.forward_training(x, seed)
    }
}

/// A small sample shape that a network of the zoo accepts.
pub fn small_shape(architecture: Architecture) -> &'static [usize] {
    match architecture {
        Architecture::Toy => &[2],
        Architecture::Shallow
        | Architecture::Deep
        | Architecture::Residual
        | Architecture::Dense
        | Architecture::Gpt { .. } => &[7],
        _ => &[1, 8, 8],
    }
}

/// Samples of this shape with these labels.
pub fn labelled(shape: &[usize], labels: &[u32], device: &Device) -> Result<Dataset, Error> {
    let dims = [&[labels.len()][..], shape].concat();
    let inputs = Tensor::from_vec(numbers(dims.iter().product(), 1), dims, device)?;
    Dataset::classification(&inputs, &Tensor::new(labels, device)?)
}

/// The `n` samples of `x` that the model classifies with the largest margins, with its predictions as labels.
pub fn clearest<M: Model>(model: &M, x: &Tensor, n: usize) -> Result<Dataset, Error> {
    let z = model.forward(x)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let margin = |z: &Vec<f64>| {
        let mut sorted = z.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted[0] - sorted[1]
    };
    let mut order: Vec<u32> = (0..z.len() as u32).collect();
    order.sort_by(|i, j| margin(&z[*j as usize]).total_cmp(&margin(&z[*i as usize])));
    order.truncate(n);
    let x = x.index_select(&Tensor::new(&order[..], x.device())?, 0)?;
    Dataset::classification(&x, &model.forward(&x)?.argmax(1)?)
}
