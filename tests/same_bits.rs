//! Losses, derivatives, trainings and estimates have the bits recorded in `tests/recorded/bits.json`.
//!
//! Bits depend on the processor and the C library: on the width of vector registers, on the cache sizes that set the
//! blocks of matrix products, on `exp` and `tanh`. The record contains a hash of such arithmetic, the probe. If the
//! probe's hash equals the recorded one, all hashes must be equal. Otherwise the test compares the norm of each vector and
//! its component along a fixed direction.
//!
//! After a change that must change bits, write the record again and state in the changelog which results changed and why:
//!
//!     cargo test --test same_bits -- --ignored
//!
//! The record was written on a processor with AVX-512.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use common::{dot, numbers};
use loss_landscape::landscape::PathShape;
use loss_landscape::layers;
use loss_landscape::model::LayerKind;
use loss_landscape::prelude::*;
use loss_landscape::serde_json;
use loss_landscape::spectral::Diagonal;
use loss_landscape::train::{Schedule, Sgd};

const CPU: Device = Device::Cpu;

/// Hash, norm and component along a fixed direction of each vector, by its name.
type Record = BTreeMap<String, (String, f64, f64)>;

/// Suffix of the names of vectors that change by more than rounding on other processors.
const BITS_ONLY: &str = ", bits only";

const PROBE: &str = "probe of the arithmetic, bits only";

#[test]
fn bits_equal_the_record() {
    let text = fs::read_to_string(path()).unwrap();
    let recorded: Record = serde_json::from_str(&text).unwrap();
    let found = measure().unwrap();
    let names = |record: &Record| record.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&recorded));

    let exactly = found[PROBE].0 == recorded[PROBE].0;
    let mut problems = String::new();
    for (name, found) in found {
        let expected = &recorded[&name];
        let tolerance = if name.contains("f32") { 1e-4 } else { 1e-10 };
        let differ = |a: f64, b: f64| (a - b).abs() > tolerance * expected.1;
        let wrong = match exactly {
            true => found.0 != expected.0,
            false if name.ends_with(BITS_ONLY) => false,
            false => differ(found.1, expected.1) || differ(found.2, expected.2),
        };
        if wrong {
            writeln!(problems, "{name}: {found:?} instead of {expected:?}").unwrap();
        }
    }
    let how = if exactly { "bits" } else { "summaries" };
    assert!(problems.is_empty(), "different {how}:\n{problems}");
}

#[test]
#[ignore = "writes the record"]
fn write_the_record() {
    let in_ci = std::env::var_os("CI").is_some();
    assert!(!in_ci, "a record written in CI would always match");
    let lines = measure().unwrap().into_iter().map(|(name, value)| {
        let value = serde_json::to_string(&value).unwrap();
        format!("{}: {value}", serde_json::to_string(&name).unwrap())
    });
    let lines = lines.collect::<Vec<_>>().join(",\n");
    fs::write(path(), format!("{{\n{lines}\n}}\n")).unwrap();
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/bits.json")
}

fn measure() -> Result<Record, Error> {
    let mut results = Results::default();
    results.add(PROBE, &probe()?);
    networks(&mut results)?;
    perceptrons(&mut results)?;
    other_layers(&mut results)?;
    trainings(&mut results)?;
    estimates(&mut results)?;
    sweep(&mut results)?;
    Ok(results.0)
}

#[derive(Default)]
struct Results(Record);

impl Results {
    fn add(&mut self, name: impl Into<String>, values: &[f64]) {
        let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
        let direction = numbers(values.len(), 77);
        let component = dot(values, &direction) / dot(&direction, &direction).sqrt();
        let value = (
            format!("{:016x}", fnv(bytes)),
            dot(values, values).sqrt(),
            component,
        );
        let name = name.into();
        assert!(!self.0.contains_key(&name), "{name} is added twice");
        self.0.insert(name, value);
    }
}

/// The 64-bit FNV-1a hash.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Matrix products of odd shapes, one of them with long sums, and elementary functions.
fn probe() -> Result<Vec<f64>, Error> {
    let mut found = Vec::new();
    for dtype in [DType::F32, DType::F64] {
        let tensor = |shape: (usize, usize), seed| {
            Tensor::from_vec(numbers(shape.0 * shape.1, seed), shape, &CPU)?.to_dtype(dtype)
        };
        let mut add = |t: &Tensor| -> Result<(), Error> {
            found.extend(t.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
            Ok(())
        };
        for (i, (m, k, n)) in [(7, 4611, 5), (67, 131, 259), (1, 17, 33)]
            .into_iter()
            .enumerate()
        {
            let (a, b) = (tensor((m, k), i as u64)?, tensor((k, n), 9 + i as u64)?);
            add(&a.matmul(&b)?)?;
            add(&b.t()?.matmul(&a.t()?)?)?;
        }
        let x = (tensor((3, 1001), 5)? * 4.0)?;
        for y in [x.exp()?, x.tanh()?, x.erf()?, x.abs()?.log()?, x.sum(1)?] {
            add(&y)?;
        }
    }
    Ok(found)
}

/// `n` samples of this shape, in 3 classes.
fn samples(n: usize, shape: &[usize], dtype: DType) -> Result<Dataset, Error> {
    let dims = [&[n][..], shape].concat();
    let inputs = Tensor::from_vec(numbers(dims.iter().product(), 3), dims, &CPU)?;
    let labels: Vec<u32> = (0..n as u32).map(|i| i * i % 7 % 3).collect();
    Dataset::classification(&inputs.to_dtype(dtype)?, &Tensor::new(labels, &CPU)?)
}

/// Adds loss, gradient and products of an objective.
fn derivatives(results: &mut Results, name: &str, objective: &Objective) -> Result<(), Error> {
    let score = objective.score()?;
    let mut scores = vec![score.loss];
    scores.extend(score.accuracy);
    results.add(format!("{name}: scores"), &scores);
    results.add(format!("{name}: gradient"), &objective.gradient()?);
    let vectors = [1, 2].map(|seed| numbers(objective.dim(), seed));
    let hessian = objective.hessian();
    results.add(format!("{name}: Hessian"), &hessian.apply(&vectors[0])?);
    let block = hessian.apply_block(&vectors)?.concat();
    results.add(format!("{name}: Hessian, block"), &block);
    let product = objective.gauss_newton().apply(&vectors[0])?;
    results.add(format!("{name}: Gauss-Newton"), &product);
    Ok(())
}

/// Adds products that need per-sample gradients, and the loss on a plane.
fn sample_products_and_plane(
    results: &mut Results,
    name: &str,
    objective: &Objective,
) -> Result<(), Error> {
    let v = numbers(objective.dim(), 4);
    let fisher = objective.fisher().apply(&v)?;
    results.add(format!("{name}: Fisher"), &fisher);
    let empirical = objective.empirical_fisher().apply(&v)?;
    results.add(format!("{name}: empirical Fisher"), &empirical);
    let covariance = objective.gradient_covariance()?.apply(&v)?;
    results.add(format!("{name}: gradient covariance"), &covariance);
    let plane = Plane::random(objective, 5, 0.5, 3)?;
    let scores = plane.losses.iter().chain(plane.accuracies.iter().flatten());
    let scores: Vec<f64> = scores.copied().collect();
    results.add(format!("{name}: plane"), &scores);
    Ok(())
}

fn with_momentum(rate: f64, momentum: f64) -> Trainer {
    Trainer::new(Sgd::default().with_momentum(momentum), rate)
}

/// Adds θ, running statistics and losses after a training, and restores θ.
fn training<M>(
    results: &mut Results,
    name: &str,
    trainer: &Trainer,
    model: &M,
    data: &Dataset,
) -> Result<(), Error>
where
    M: Model + Clone + Send + Sync + 'static,
{
    let start = model.parameters().to_flat()?;
    let trainer = trainer
        .clone()
        .with_batch_size(10)
        .with_epochs(2)
        .with_seed(6);
    let history = trainer.fit(model, data, data)?;
    let mut values = model.parameters().to_flat()?;
    for (_, var) in model.parameters().statistics() {
        values.extend(var.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
    }
    values.extend(history.epochs.iter().map(|epoch| epoch.train_loss));
    results.add(name, &values);
    model.parameters().set_flat(&start)
}

/// Adds all results for a model and its data.
fn all_results<M>(results: &mut Results, name: &str, model: &M, data: &Dataset) -> Result<(), Error>
where
    M: Model + Clone + Send + Sync + 'static,
{
    let objective = Objective::of(model, data, Loss::CrossEntropy)?.with_l2(0.01)?;
    assert!(objective.is_hand_derived(), "{name}");
    derivatives(results, name, &objective)?;
    sample_products_and_plane(results, name, &objective)?;
    let sgd = with_momentum(0.05, 0.9).with_l2(0.01);
    training(results, &format!("{name}: SGD"), &sgd, model, data)?;
    let adam = Trainer::adam(0.01);
    training(results, &format!("{name}: Adam"), &adam, model, data)
}

/// The zoo, with each normalisation, some with candle's graph as well.
fn networks(results: &mut Results) -> Result<(), Error> {
    let transformers = [Architecture::GPT, Architecture::VIT];
    let others = |architecture: &Architecture| !transformers.contains(architecture);
    for architecture in Architecture::ALL.into_iter().filter(others) {
        let name = architecture.name();
        let image = common::small_shape(architecture).len() == 3;
        let shape: &[usize] = if image { &[1, 8, 8] } else { &[7] };
        let n = match architecture {
            Architecture::ResNet18 => 3,
            Architecture::ResNet20 | Architecture::DenseNet => 12,
            _ => 70,
        };
        let model = architecture.build(shape, 3, 1, &CPU)?;
        let data = samples(n, shape, DType::F32)?;
        let single = format!("{name} f32");
        if architecture == Architecture::ResNet18 {
            // Its eleven million parameters take too long to train here.
            let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
            derivatives(results, &single, &objective)?;
            continue;
        }
        all_results(results, &single, &model, &data)?;
        let double = model.to_dtype(DType::F64)?;
        let objective = Objective::of(&double, &data.to_dtype(DType::F64)?, Loss::CrossEntropy)?;
        derivatives(results, &format!("{name} f64"), &objective)?;
        if !matches!(architecture, Architecture::Residual | Architecture::Cnn) {
            continue;
        }
        let graph = Objective::of(&model, &data.first(20)?, Loss::CrossEntropy)?.by_autograd();
        derivatives(results, &format!("{name} f32 by graph"), &graph)?;
    }

    for architecture in [
        Architecture::Shallow,
        Architecture::Dense,
        Architecture::Cnn,
        Architecture::ResNet20,
    ] {
        let name = format!("{} f32 with batch normalisation", architecture.name());
        let shape: &[usize] = match architecture {
            Architecture::Cnn | Architecture::ResNet20 => &[2, 8, 8],
            _ => &[7],
        };
        let design = architecture.design().normalization(Norm::Batch);
        let model = design.build(shape, 3, 1, &CPU)?;
        let data = samples(24, shape, DType::F32)?;
        let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
        derivatives(results, &name, &objective)?;
        sample_products_and_plane(results, &name, &objective)?;
        // A small learning rate, because rounding errors grow during such a training.
        let sgd = with_momentum(1e-3, 0.9);
        training(results, &format!("{name}: SGD"), &sgd, &model, &data)?;
        derivatives(results, &format!("{name}, trained"), &objective)?;
        let batches = objective.with_batch_statistics(12)?;
        derivatives(results, &format!("{name}, batch statistics"), &batches)?;
        // Adam takes steps of the same length along gradients that consist of rounding errors.
        let adam = Trainer::adam(0.01);
        let name = format!("{name}: Adam{BITS_ONLY}");
        training(results, &name, &adam, &model, &data)?;
    }

    let design = Architecture::Deep.design().normalization(Norm::Group(8));
    let data = samples(24, &[7], DType::F32)?;
    let model = design.build(&[7], 3, 1, &CPU)?;
    all_results(results, "deep f32 in groups", &model, &data)?;
    let plain = Architecture::Dense.design().without_shortcuts();
    let model = plain.build(&[7], 3, 1, &CPU)?;
    all_results(results, "dense f32 without shortcuts", &model, &data)
}

/// Each activation, both losses, one output, and enough samples for sixteen groups.
fn perceptrons(results: &mut Results) -> Result<(), Error> {
    let data = samples(600, &[5], DType::F64)?;
    for activation in Activation::ALL {
        let model = Mlp::new(&[5, 9, 8, 3], activation, 2, &CPU)?;
        let single = data.to_dtype(DType::F32)?.first(50)?;
        all_results(results, &format!("{activation:?} f32"), &model, &single)?;
        let model = model.to_dtype(DType::F64)?;
        all_results(results, &format!("{activation:?} f64"), &model, &data)?;
        let objective = Objective::of(&model, &data.first(40)?, Loss::CrossEntropy)?;
        let name = format!("{activation:?} f64 by graph");
        derivatives(results, &name, &objective.by_autograd())?;
        let values = data.one_hot(3)?;
        let objective = Objective::of(&model, &values, Loss::Mse)?;
        derivatives(results, &format!("{activation:?} f64, squares"), &objective)?;
        let name = format!("{activation:?} f64, squares: Adam");
        training(results, &name, &Trainer::adam(0.01), &model, &values)?;
    }
    let data = two_moons(45, 0.1, 3, &CPU)?;
    let model = Mlp::new(&[2, 6, 1], Activation::Tanh, 2, &CPU)?.to_dtype(DType::F64)?;
    all_results(results, "one output f64", &model, &data)
}

/// Pools, dropout, and convolutions with strides, dilation and groups.
fn other_layers(results: &mut Results) -> Result<(), Error> {
    let shapes: [(&str, &[usize]); 6] = [
        ("a.weight", &[6, 2, 3, 3]),
        ("a.bias", &[6]),
        ("b.weight", &[6, 3, 3, 2]),
        ("c.weight", &[6, 6, 1, 1]),
        ("d.weight", &[3, 36]),
        ("d.bias", &[3]),
    ];
    let vars = shapes.iter().zip(1..).map(|((name, shape), seed)| {
        let var = Var::from_vec(numbers(shape.iter().product(), seed), *shape, &CPU)?;
        Ok(((*name).to_owned(), var))
    });
    let parameters = Parameters::new(vars.collect::<Result<Vec<_>, Error>>()?)?;
    let conv = |name: &str, bias: bool, stride, padding, dilation, groups| {
        LayerKind::Conv2d(layers::Conv2d {
            weight: format!("{name}.weight"),
            bias: bias.then(|| format!("{name}.bias")),
            stride,
            padding,
            dilation,
            groups,
        })
    };
    let (kernel, stride) = (2, 2);
    let layers = vec![
        LayerKind::Unflatten(layers::Unflatten(vec![2, 11, 11])),
        conv("a", true, 1, 2, 2, 1),
        LayerKind::Activation(Activation::Gelu),
        LayerKind::MaxPool(layers::MaxPool::new(kernel, stride)),
        LayerKind::Residual(layers::Residual {
            body: vec![LayerKind::Activation(Activation::Tanh)],
            shortcut: vec![conv("c", false, 1, 0, 1, 1)],
        }),
        conv("b", false, 1, 1, 1, 2),
        LayerKind::Activation(Activation::Softplus),
        LayerKind::Dropout(layers::Dropout { rate: 0.25 }),
        LayerKind::AveragePool(layers::AveragePool { kernel, stride }),
        LayerKind::Flatten(layers::Flatten),
        layers::Linear::new("d.weight", "d.bias").into(),
    ];
    let model = Layered::new(layers, parameters);
    let data = samples(40, &[242], DType::F64)?;
    all_results(results, "other layers f64", &model, &data)?;
    let objective = Objective::of(&model, &data.first(8)?, Loss::CrossEntropy)?;
    derivatives(
        results,
        "other layers f64 by graph",
        &objective.by_autograd(),
    )
}

/// All kinds of optimizer steps, and trained paths and embeddings.
fn trainings(results: &mut Results) -> Result<(), Error> {
    let data = samples(45, &[7], DType::F32)?;
    let model = Architecture::Residual.build(&[7], 3, 1, &CPU)?;
    for (name, trainer) in [
        (
            "Nesterov",
            Trainer::new(Sgd::default().with_momentum(0.8).with_nesterov(true), 0.05),
        ),
        ("SAM", with_momentum(0.05, 0.5).with_sam(0.05)),
        ("adaptive SAM", Trainer::sgd(0.05).with_asam(0.5)),
        (
            "AdamW",
            Trainer::adamw(0.01, 0.1).with_schedule(Schedule::Cosine),
        ),
        ("warmup", Trainer::sgd(0.05).with_warmup(4).with_l2(0.02)),
    ] {
        training(
            results,
            &format!("residual f32: {name}"),
            &trainer,
            &model,
            &data,
        )?;
    }
    let other = common::Opaque(model.clone());
    let sgd = with_momentum(0.05, 0.9).with_l2(0.01);
    training(results, "residual f32 by graph: SGD", &sgd, &other, &data)?;
    let adam = Trainer::adam(0.01);
    training(results, "residual f32 by graph: Adam", &adam, &other, &data)?;

    let data = samples(30, &[4], DType::F64)?;
    let model = Mlp::new(&[4, 5, 3], Activation::Tanh, 2, &CPU)?.to_dtype(DType::F64)?;
    let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    let [a, b] = [1, 2].map(|seed| numbers(objective.dim(), seed));
    for (name, shape) in [("curve", PathShape::Bezier), ("chain", PathShape::Chain(2))] {
        let trainer = PathTrainer::default()
            .with_shape(shape)
            .with_epochs(3)
            .with_batch_size(8);
        let curve = trainer.connect(&objective, &a, &b)?;
        results.add(format!("path f64, {name}"), &curve.points().concat());
    }

    let points: Vec<_> = (0..12).map(|seed| numbers(5, seed)).collect();
    let autoencoder = Autoencoder::default().with_hidden(6).with_epochs(20);
    let encoded = autoencoder.run(&points)?;
    let coordinates: Vec<f64> = encoded.coordinates.iter().copied().collect();
    results.add("autoencoder f64", &coordinates);
    Ok(())
}

/// Random directions, stochastic estimates, and eigenvalues by iteration.
fn estimates(results: &mut Results) -> Result<(), Error> {
    let data = samples(40, &[4], DType::F64)?;
    let model = Mlp::new(&[4, 9, 3], Activation::Tanh, 2, &CPU)?.to_dtype(DType::F64)?;
    let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    let [d1, d2] = direction::filter_normalized_pair(objective.parameters(), 3)?;
    results.add("directions f64", &[d1, d2].concat());
    let (hessian, fisher) = (objective.hessian(), objective.fisher());
    for method in [
        TraceMethod::Hutchinson,
        TraceMethod::HutchPlusPlus,
        TraceMethod::Krylov,
    ] {
        let settings = Trace::default().with_method(method).with_max_products(60);
        let (trace, square) = (
            settings.trace(&hessian)?,
            settings.frobenius_squared(&hessian)?,
        );
        let values = [
            trace.value,
            trace.standard_error,
            square.value,
            square.standard_error,
        ];
        results.add(format!("{method:?} f64"), &values);
    }
    let diagonal = Diagonal::estimate(&hessian, 12, 0)?;
    results.add(
        "diagonal f64",
        &[diagonal.values, diagonal.standard_errors].concat(),
    );
    let alignment = Alignment::estimate(&hessian, &fisher, 12, 0)?;
    let (product, cosine) = (alignment.product, alignment.cosine);
    let values = [
        product.value,
        product.standard_error,
        cosine.value,
        cosine.standard_error,
    ];
    results.add("alignment f64", &values);
    let settings = DensitySettings::default()
        .with_probes(4)
        .with_steps(15)
        .with_seed(0);
    let density = settings.run(&hessian)?;
    let values = density
        .probes
        .into_iter()
        .map(|p| [p.nodes, p.weights].concat());
    results.add("density f64", &values.collect::<Vec<_>>().concat());
    let lanczos = Lanczos::default().with_which(Which::BothEnds);
    let spectrum = lanczos.run(&hessian, 6)?;
    results.add("eigenvalues f64", &spectrum.values());
    let top = PowerIteration::default().run(&hessian)?;
    results.add("power iteration f64", &[top.pair.value]);
    Ok(())
}

/// The points of a sweep.
fn sweep(results: &mut Results) -> Result<(), Error> {
    let dir = tempfile::tempdir().unwrap();
    let data = samples(40, &[4], DType::F64)?;
    let sweep = Sweep::new([0.0, 0.01, 0.1])
        .with_trainer(
            Trainer::adam(0.01)
                .with_batch_size(16)
                .with_epochs(4)
                .with_patience(2),
        )
        .with_top(3);
    let model = |seed| Mlp::new(&[4, 6, 3], Activation::Tanh, seed, &CPU)?.to_dtype(DType::F64);
    let report = sweep.run(dir.path().join("sweep"), model, &data, &data)?;
    for point in report.points {
        let mut values = vec![
            point.train_loss,
            point.penalty,
            point.test_loss,
            point.gradient_norm,
            point.products as f64,
        ];
        values.extend(point.eigenvalues);
        results.add(format!("sweep f64, point {}", point.id), &values);
    }
    Ok(())
}
