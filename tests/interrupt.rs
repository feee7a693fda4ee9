//! An interrupt ends every kind of long work within a second, and nothing that is unfinished is returned or written as finished.
//!
//! The request is global to the process, so the tests run one after another.

mod common;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Laplacian, Opaque, bits, numbers};
use loss_landscape::embedding::{Distances, Umap};
use loss_landscape::landscape::align::{hidden_units, match_activations, match_weights};
use loss_landscape::landscape::{Curve, Flatness};
use loss_landscape::ndarray::Array2;
use loss_landscape::operator::{Blocks, External};
use loss_landscape::prelude::*;
use loss_landscape::spectral::{BlockSettings, Diagonal};
use tempfile::tempdir;

/// How long work runs before it is interrupted.
const START: Duration = Duration::from_millis(300);

/// How long an interrupt may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Repetitions that no machine completes during this test.
const ENDLESS: usize = 1_000_000_000;

/// Held by the test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Interrupts work that is running, and asserts that it ends. Work that a fast machine completes before that is repeated.
#[track_caller]
fn ends<T>(what: &str, mut work: impl FnMut() -> Result<T, Error> + Send) {
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        scope.spawn(move || {
            let error = loop {
                if let Err(error) = work() {
                    break error;
                }
            };
            sender.send(error)
        });
        let early = receiver.recv_timeout(START);
        assert!(
            matches!(early, Err(RecvTimeoutError::Timeout)),
            "{what} failed: {early:?}"
        );
        let asked = Instant::now();
        progress::interrupt();
        let found = receiver.recv_timeout(30 * LIMIT).unwrap_or_else(|error| {
            // Work that does not end cannot be joined.
            eprintln!("{what} does not end: {error}");
            std::process::exit(1)
        });
        let took = asked.elapsed();
        progress::resume();
        assert!(matches!(found, Error::Interrupted), "{what}: {found:?}");
        assert_eq!(Error::Interrupted.to_string(), "interrupted");
        println!("{what}: {} ms", took.as_millis());
        assert!(took < LIMIT, "{what} took {took:?}");
    });
}

/// Images of random pixels.
fn images(n: usize, size: usize, dtype: DType) -> Dataset {
    let pixels = numbers(n * 3 * size * size, 1);
    let pixels = Tensor::from_vec(pixels, (n, 3, size, size), &Device::Cpu).unwrap();
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 10).collect();
    let labels = Tensor::from_vec(labels, n, &Device::Cpu).unwrap();
    Dataset::classification(&pixels.to_dtype(dtype).unwrap(), &labels).unwrap()
}

/// A perceptron on two moons, and its objective.
fn moons(hidden: usize, samples: usize) -> (Mlp, Objective) {
    let data = two_moons(samples, 0.1, 0, &Device::Cpu).unwrap();
    let model = Mlp::new(&[2, hidden, hidden, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    (model, objective)
}

#[test]
fn loops_of_a_user() {
    let _alone = alone();
    ends("a loop", progress::check);
    let never = Laplacian(10);
    ends("products of an operator", || {
        never.apply_block(&vec![vec![1.0; 10]; 10])
    });
    // A forward pass that looks too.
    let (model, _) = moons(4, 20);
    let data = two_moons(20, 0.1, 0, &Device::Cpu).unwrap();
    let network = model.clone();
    let slow = std::sync::atomic::AtomicBool::new(false);
    let slow = std::sync::Arc::new(slow);
    let is_slow = slow.clone();
    let forward = move |x: &Tensor| {
        while is_slow.load(std::sync::atomic::Ordering::Relaxed) {
            progress::check()?;
        }
        network.forward(x)
    };
    let objective = Objective::from_fn(
        model.parameters().clone(),
        &data,
        Loss::CrossEntropy,
        forward,
    )
    .unwrap();
    slow.store(true, std::sync::atomic::Ordering::Relaxed);
    ends("a forward pass", || objective.loss());
}

/// The process is killed, although it does not answer.
#[cfg(unix)]
#[test]
fn a_product_of_another_process() {
    let _alone = alone();
    let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/external/peer.py");
    let external = External::start(&format!("python3 '{}' hang", peer.display())).unwrap();
    let v = vec![1.0; external.dim()];
    ends("a product of another process", || external.apply(&v));
}

/// A loss, gradient or product that takes many seconds ends between tiles or batches.
#[test]
fn one_long_evaluation() {
    let _alone = alone();
    let data = images(3_000, 32, DType::F32);
    let design = Architecture::ResNet20.design();
    let model = design.build(&[3, 32, 32], 10, 0, &Device::Cpu).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    // Each operation of candle is finished: few images, so that none takes long.
    let by_graph = objective.clone().by_autograd().with_batch_size(32);
    let by_graph = by_graph.unwrap();
    let theta = model.parameters().to_flat().unwrap();
    let before = bits(model.parameters());
    let v = numbers(objective.dim(), 2);
    let (d1, d2) = (&v, numbers(objective.dim(), 3));
    for objective in [&objective, &by_graph] {
        let engine = match objective.is_hand_derived() {
            true => "by hand",
            false => "by candle's graph",
        };
        ends(&format!("a loss, {engine}"), || objective.loss());
        ends(&format!("a gradient, {engine}"), || objective.gradient());
        ends(&format!("a product, {engine}"), || objective.hvp(&v));
        let products = || objective.gauss_newton().apply_block(&vec![v.clone(); 8]);
        ends(&format!("several products, {engine}"), products);
        // The model moves to another θ and back.
        ends(&format!("a loss at θ, {engine}"), || {
            objective.gradient_at(&d2)
        });
        ends(&format!("a plane, {engine}"), || {
            Plane::spanned(objective, d1, &d2, 1.0, 3)
        });
        assert_eq!(bits(model.parameters()), before);
    }
    ends("a visit", || objective.visit_layers(|_| ()));
    // A step on all samples, by hand and by candle's graph. It is not taken.
    let trainer = Trainer::sgd(0.1).with_batch_size(data.len());
    ends("a training step", || trainer.fit(&model, &data, &data));
    assert_eq!(model.parameters().to_flat().unwrap(), theta);
    // Locks are released: the same evaluations work again.
    let some = objective.with_data(&data.first(4).unwrap()).unwrap();
    assert_eq!(some.hvp(&v).unwrap().len(), v.len());
    assert!(some.by_autograd().loss().unwrap() > 0.0);
}

/// A model of a user with this crate's convolutions: a single batch ends too.
#[test]
fn convolutions_of_a_user() {
    let _alone = alone();
    let data = images(512, 32, DType::F32);
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let config = Default::default();
    let layers: Vec<nn::Conv2d> = [3, 64, 64, 64, 64, 64, 64]
        .windows(2)
        .enumerate()
        .map(|(i, c)| nn::conv2d(c[0], c[1], 3, config, vb.pp(i)).unwrap())
        .collect();
    let last = candle_nn::linear(64, 10, vb.pp("last")).unwrap();
    let forward = move |x: &Tensor| {
        let mut h = x.clone();
        for layer in &layers {
            h = layer.forward(&h)?.tanh()?;
        }
        last.forward(&h.mean(3)?.mean(2)?)
    };
    let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, forward).unwrap();
    let v = numbers(objective.dim(), 2);
    ends("a batch's product", || objective.hvp(&v));
    let trainer = Trainer::sgd(0.1).with_batch_size(512);
    ends("a training step by candle's graph", || {
        trainer.fit_objective(&objective, &objective)
    });
}

#[test]
fn training() {
    let _alone = alone();
    let (model, objective) = moons(16, 200);
    let data = objective.data().clone();
    let trainer = Trainer::adam(0.001)
        .with_batch_size(20)
        .with_epochs(ENDLESS as u32);
    let start = model.parameters().to_flat().unwrap();
    ends("training", || trainer.fit(&model, &data, &data));
    // The model keeps its last step.
    let end = model.parameters().to_flat().unwrap();
    assert!(end != start && end.iter().all(|t| t.is_finite()));
    let opaque = Opaque(model.clone());
    ends("training by candle's graph", || {
        trainer.fit(&opaque, &data, &data)
    });
    assert_ne!(model.parameters().to_flat().unwrap(), end);
    let mut trajectory = Trajectory::every(1_000_000).unwrap();
    let sam = trainer.clone().with_sam(0.05);
    ends("SAM with a trajectory", || {
        sam.fit_recorded(&model, &data, &data, &mut trajectory)
    });
    // The model has the parameters of a training that was as long: one step per epoch.
    let [cut, whole] = [(); 2].map(|()| moons(16, 200).0);
    let trainer = Trainer::sgd(0.01).with_batch_size(200);
    let endless = trainer.clone().with_epochs(ENDLESS as u32);
    let mut trajectory = Trajectory::every(1).unwrap();
    ends("gradient descent", || {
        endless.fit_recorded(&cut, &data, &data, &mut trajectory)
    });
    let steps = *trajectory.steps().last().unwrap();
    let trainer = trainer.with_epochs(steps as u32);
    trainer.fit(&whole, &data, &data).unwrap();
    assert!(steps > 1 && bits(cut.parameters()) == bits(whole.parameters()));
}

#[test]
fn spectra() {
    let _alone = alone();
    let (_, objective) = moons(64, 20_000);
    let hessian = objective.hessian();
    let laplacian = Laplacian(100_000);
    let operators: [(&str, &(dyn LinearOperator + Sync)); 2] =
        [("Hessian", &hessian), ("Laplacian", &laplacian)];
    let lanczos = Lanczos::default()
        .with_tolerance(1e-15)
        .with_max_products(ENDLESS)
        .with_max_basis(60);
    let density = DensitySettings::default().with_probes(ENDLESS / 1_000);
    let power = PowerIteration::default()
        .with_tolerance(1e-300)
        .with_max_products(ENDLESS);
    for (name, operator) in operators {
        ends(&format!("Lanczos, {name}"), || lanczos.run(operator, 20));
        ends(&format!("density, {name}"), || density.run(operator));
        let halves = ["first", "second"].iter().enumerate().map(|(i, half)| {
            let size = operator.dim() / 2;
            let rows = i * size..(i + 1) * size;
            ((*half).to_owned(), vec![rows])
        });
        let blocks = Blocks::new(operator, halves.collect()).unwrap();
        let block_settings = BlockSettings::default().with_probes(ENDLESS / 1_000);
        ends(&format!("block spectra, {name}"), || {
            block_settings.run(&blocks)
        });
        for method in [TraceMethod::Hutchinson, TraceMethod::HutchPlusPlus] {
            let trace = Trace::default()
                .with_method(method)
                .with_relative_error(1e-12)
                .with_max_products(if method == TraceMethod::Hutchinson {
                    ENDLESS
                } else {
                    20_000
                });
            ends(&format!("trace by {method:?}, {name}"), || {
                trace.trace(operator)
            });
        }
        ends(&format!("diagonal of {name}"), || {
            Diagonal::estimate(operator, ENDLESS, 0)
        });
        ends(&format!("power iteration, {name}"), || power.run(operator));
        ends(&format!("alignment, {name}"), || {
            Alignment::estimate(operator, operator, ENDLESS / 1_000, 0)
        });
        let krylov = Trace::default()
            .with_relative_error(1e-15)
            .with_max_products(ENDLESS);
        ends(&format!("trace by Krylov, {name}"), || {
            krylov.frobenius_squared(operator)
        });
    }
    let (_, large) = moons(30, 3_000);
    ends("dense Hessian", || large.hessian().dense());
    ends("Jacobian", || large.jacobian());
}

#[test]
fn slices_and_paths() {
    let _alone = alone();
    let (model, objective) = moons(8, 200);
    let before = bits(model.parameters());
    let theta = model.parameters().to_flat().unwrap();
    let [d1, d2] = [1, 2].map(|seed| direction::gaussian(model.parameters(), seed));
    for objective in [&objective, &objective.clone().by_autograd()] {
        let by_hand = objective.is_hand_derived();
        let engine = if by_hand {
            "by hand"
        } else {
            "by candle's graph"
        };
        ends(&format!("line, {engine}"), || {
            Line::along(objective, &d1, 1.0, 1_000_000)
        });
        ends(&format!("plane, {engine}"), || {
            Plane::random(objective, 0, 1.0, 2_001)
        });
        let curve = Curve::linear(&theta, &d1).unwrap();
        ends(&format!("path, {engine}"), || {
            curve.profile(objective, 1_000_000)
        });
        assert_eq!(bits(model.parameters()), before);
    }
    let line = Line::along(&objective, &d1, 1.0, 20_001).unwrap();
    ends("gradients on a line", || {
        line.clone().with_gradient_norms(&objective, &d1)
    });
    let grid = Grid::square(1.0, 101).unwrap();
    let plane = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
    ends("eigenvalues on a plane", || {
        plane.clone().with_eigenvalues(&objective, &d1, &d2, &grid)
    });
    let trainer = PathTrainer::default().with_epochs(1_000_000);
    ends("training a path", || {
        trainer.connect(&objective, &theta, &d1)
    });
    let other = Mlp::new(&[2, 8, 8, 1], Activation::Tanh, 1, &Device::Cpu).unwrap();
    let other = other.to_dtype(DType::F64).unwrap();
    ends("connectivity", || {
        Connectivity::between(
            &objective,
            &model,
            &other,
            std::slice::from_ref(&trainer),
            11,
        )
    });
    assert_eq!(bits(model.parameters()), before);

    // Batch normalisation: its running statistics are estimated at each point of a path.
    let data = objective.data();
    let design = Architecture::Toy.design().normalization(Norm::Batch);
    let model = design.build(&[2], 1, 1, &Device::Cpu).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let objective = Objective::of(&model, data, Loss::CrossEntropy).unwrap();
    let theta = model.parameters().to_flat().unwrap();
    let state = || {
        let statistics = model.parameters().statistics();
        let statistics = statistics.map(|(_, var)| var.to_vec1::<f64>().unwrap());
        (bits(model.parameters()), statistics.collect::<Vec<_>>())
    };
    let before = state();
    let curve = Curve::linear(&theta, &numbers(theta.len(), 4)).unwrap();
    ends("path with running statistics", || {
        curve.profile(&objective, 1_000_000)
    });
    assert_eq!(state(), before);
    let batches = objective.with_batch_statistics(50).unwrap();
    ends("plane with batch statistics", || {
        Plane::random(&batches, 0, 1.0, 2_001)
    });
    assert_eq!(state(), before);
}

#[test]
fn sharpness_and_noise() {
    let _alone = alone();
    let (model, objective) = moons(8, 200);
    let before = bits(model.parameters());
    let many = Sharpness::new(0.05)
        .with_pairs(10_000_000)
        .with_starts(10_000_000);
    ends("random sharpness", || many.random(&objective));
    ends("average sharpness", || many.average(&objective));
    ends("Gaussian sharpness", || many.gaussian(&objective));
    ends("worst case", || many.worst_case(&objective));
    ends("Keskar's sharpness", || many.keskar(&objective));
    let flatness = Flatness::new(0.1).with_directions(10_000_000);
    ends("flatness", || flatness.run(&objective));
    // At a high temperature the mean loss of the chains is above that at θ.
    let coefficient = LearningCoefficient::default()
        .with_beta(1e-3)
        .with_relative_error(1e-12)
        .with_max_gradients(ENDLESS);
    ends("learning coefficient", || coefficient.run(&objective));
    let theta = model.parameters().to_flat().unwrap();
    let bound = PacBayes::default().with_draws(10_000_000);
    ends("PAC-Bayes", || {
        bound.run(&objective, &vec![0.0; theta.len()])
    });
    let noise = GradientNoise::default().with_probes(10_000_000);
    ends("gradient noise", || noise.run(&objective));
    let (_, wide) = moons(64, 20_000);
    let trace = Trace::default()
        .with_method(TraceMethod::Hutchinson)
        .with_relative_error(1e-12)
        .with_max_products(ENDLESS);
    let bias = ImplicitBias::new(0.1, 20).with_trace(trace.clone());
    ends("implicit bias", || bias.run(&wide));
    let lanczos = Lanczos::default()
        .with_tolerance(1e-15)
        .with_max_products(ENDLESS)
        .with_max_basis(60);
    let (network, data) = (moons(64, 400).0, wide.data().clone());
    let mut trajectory = Trajectory::every(1).unwrap();
    let trainer = Trainer::sgd(0.01).with_batch_size(400).with_epochs(5);
    trainer
        .fit_recorded(&network, &data, &data, &mut trajectory)
        .unwrap();
    let evolution = EvolutionSettings::default()
        .with_lanczos(lanczos)
        .with_trace(trace);
    let objective = Objective::of(&network, &data, Loss::CrossEntropy).unwrap();
    let after = bits(network.parameters());
    ends("evolution", || evolution.run(&objective, &trajectory));
    assert_eq!(bits(network.parameters()), after);
    let images = images(300, 32, DType::F32);
    let cnn = Architecture::Cnn.design();
    let cnn = cnn.build(&[3, 32, 32], 10, 0, &Device::Cpu).unwrap();
    let analyzer = Analyzer::new(&cnn, &images, &images, Loss::CrossEntropy).unwrap();
    ends("analyzer", || analyzer.full_analysis());
    assert_eq!(bits(model.parameters()), before);
}

/// What is finished stays on disk, and the work resumes to the same bits.
#[test]
fn resumable_work() {
    let _alone = alone();
    let dir = tempdir().unwrap();
    let (_, objective) = moons(8, 200);
    let [d1, d2] = [1, 2].map(|seed| direction::gaussian(objective.parameters(), seed));
    let file = dir.path().join("plane");
    let grid = Grid::square(1.0, 201).unwrap();
    let resumed = grid.clone().with_checkpoint(&file);
    ends("plane with a checkpoint", || {
        let _ = std::fs::remove_file(&file);
        Plane::on_grid(&objective, &d1, &d2, &resumed)
    });
    let whole = Plane::on_grid(&objective, &d1, &d2, &grid).unwrap();
    assert_eq!(
        Plane::on_grid(&objective, &d1, &d2, &resumed).unwrap(),
        whole
    );

    let data = objective.data().clone();
    let model =
        |_: u64| Mlp::new(&[2, 8, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64);
    let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(100);
    let sweep = Sweep::new([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
        .with_trainer(trainer)
        .with_top(3);
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let expected = sweep.run(&whole, model, &data, &data).unwrap();
    let endless = sweep.trainer.clone().with_epochs(ENDLESS as u32);
    for jobs in [1, 2] {
        let endless = sweep.clone().with_trainer(endless.clone()).with_jobs(jobs);
        let there = dir.path().join(format!("endless {jobs}"));
        ends(&format!("sweep of {jobs} jobs"), || {
            endless.run(&there, model, &data, &data)
        });
        assert_eq!(points(&there), 0);
    }
    let after = |delay: Duration| {
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(delay);
                progress::interrupt();
            });
            let found = sweep
                .clone()
                .with_resume(true)
                .run(&cut, model, &data, &data);
            progress::interrupt();
            found
        })
    };
    let mut interrupted = 0;
    loop {
        let found = after(Duration::from_millis(150));
        progress::resume();
        match found {
            Err(Error::Interrupted) => interrupted += 1,
            found => {
                let found = found.unwrap();
                assert_eq!(found.points, expected.points);
                break;
            }
        }
        assert!(interrupted < 100);
    }

    // A training with a checkpoint resumes after its last saved epoch.
    let file = dir.path().join("training");
    let trainer = Trainer::adam(0.001)
        .with_batch_size(20)
        .with_epochs(ENDLESS as u32)
        .with_checkpoint(&file);
    let network = model(0).unwrap();
    ends("training with a checkpoint", || {
        trainer.fit(&network, &data, &data)
    });
    assert!(file.exists());
    let products = dir.path().join("products");
    let recorded = objective.hessian().with_checkpoint(&products).unwrap();
    ends("recorded products", || {
        Diagonal::estimate(&recorded, ENDLESS, 0)
    });
    drop(recorded);
    let recorded = objective.hessian().with_checkpoint(&products).unwrap();
    Diagonal::estimate(&recorded, 8, 0).unwrap();
    assert_eq!(recorded.num_read(), 8);
}

/// Number of complete points of a sweep.
fn points(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("Model-"))
        .count()
}

/// The last ones leave threads that run to their end.
#[test]
fn matchings_and_embeddings() {
    let _alone = alone();
    let rows = |n: usize, d: usize| Array2::from_shape_vec((n, d), numbers(n * d, 5)).unwrap();
    let few = rows(200, 10);
    let umap = Umap::default().with_epochs(ENDLESS);
    ends("UMAP", || umap.run(&few));
    let autoencoder = Autoencoder::default().with_epochs(ENDLESS);
    ends("autoencoder", || autoencoder.run(&few));
    let long = rows(3_000, 4_000);
    ends("distances", || Distances::new(&long));
    ends("principal components", || Pca::fit(&rows(20_000, 300), 2));
    let (near, flat) = (Distances::new(&rows(3_000, 3)).unwrap(), rows(3_000, 2));
    ends("trustworthiness", || near.trustworthiness(&flat, 5));
    ends("principal components of many", || {
        Pca::fit(&rows(2_000, 2_001), 2)
    });

    let wide = |seed| {
        let model = Mlp::new(&[4, 1_200, 1_200, 2], Activation::Relu, seed, &Device::Cpu)?;
        model.to_dtype(DType::F64)
    };
    let [a, b] = [0, 1].map(|seed| wide(seed).unwrap());
    let [theta_a, theta_b] = [&a, &b].map(|model| model.parameters().to_flat().unwrap());
    let inputs = Tensor::from_vec(numbers(80_000, 6), (20_000, 4), &Device::Cpu).unwrap();
    let targets = inputs.narrow(1, 0, 2).unwrap();
    let data = Dataset::regression(&inputs, &targets).unwrap();
    let units = hidden_units(&a, &data).unwrap();
    ends("weight matching", || {
        match_weights(a.parameters(), &units, &theta_a, &theta_b, 0)
    });
    ends("activation matching", || match_activations(&a, &b, &data));
    ends("eigenvalues of a dense matrix", || {
        Laplacian(3_000).dense()?.eigen()
    });
}
