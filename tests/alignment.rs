//! Alignment of the zoo's networks: a permuted copy computes the same function and is found again; trained networks get closer.

mod common;

use common::{assert_close, numbers};
use loss_landscape::landscape::{HiddenUnits, RunningStatistics, UnitAxis, align};
use loss_landscape::layers::{
    self, Conv2d, Embedding, LayerKind, LayerNorm, Linear, Residual, SelfAttention,
};
use loss_landscape::model::Design;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// A network's inputs, its number of classes, and a random dataset.
fn dataset(architecture: Architecture) -> (Vec<usize>, usize, Dataset) {
    let classes = 5;
    let shape = match architecture {
        Architecture::Gpt { .. } => vec![9],
        Architecture::Toy
        | Architecture::Shallow
        | Architecture::Deep
        | Architecture::Residual
        | Architecture::Dense => vec![8],
        _ => vec![1, 8, 8],
    };
    // With more samples, fewer units are 0 on all of them.
    let n = if shape == [8] { 300 } else { 24 };
    let dims = [&[n], &shape[..]].concat();
    let values = numbers(dims.iter().product(), 3);
    let label = |x: &f64| ((x + 1.0) * 2.5) as u32;
    let data = match architecture {
        Architecture::Gpt { .. } => {
            let tokens: Vec<u32> = values.iter().map(label).collect();
            let next = tokens.iter().map(|t| (t * 3 + 1) % 5).collect();
            let [x, y] = [tokens, next].map(|v: Vec<u32>| Tensor::from_vec(v, &dims[..], &CPU));
            Dataset::classification(&x.unwrap(), &y.unwrap())
        }
        _ => {
            let labels: Vec<u32> = numbers(n, 4).iter().map(label).collect();
            let x = Tensor::from_vec(values, &dims[..], &CPU).unwrap();
            Dataset::classification(&x, &Tensor::new(labels, &CPU).unwrap())
        }
    };
    (shape, classes, data.unwrap())
}

/// The network with noise on all parameters.
fn network(design: &Design, shape: &[usize], classes: usize) -> Layered {
    let model = design.build(shape, classes, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let theta = model.parameters().to_flat().unwrap();
    let moved = theta.iter().zip(numbers(theta.len(), 8));
    let moved: Vec<f64> = moved.map(|(t, x)| t + 0.05 * x).collect();
    model.parameters().set_flat(&moved).unwrap();
    model
}

/// The designs of an architecture: with and without shortcuts, with each normalisation.
fn designs(architecture: Architecture) -> Vec<Design> {
    let usual = architecture.design();
    let norms = match architecture {
        Architecture::Gpt { .. } | Architecture::Vit { .. } => vec![Norm::None],
        Architecture::Toy => vec![Norm::None, Norm::Batch, Norm::Group(1)],
        Architecture::DenseNet => vec![Norm::None, Norm::Batch, Norm::Group(4)],
        _ => vec![Norm::None, Norm::Batch, Norm::Group(8)],
    };
    let with = norms.into_iter().map(|norm| usual.normalization(norm));
    with.flat_map(|design| [design, design.without_shortcuts()])
        .collect()
}

/// A permutation of 0..n, different for each seed.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let keys = numbers(n, seed);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
    order
}

fn size_of(parameters: &Parameters, axis: &UnitAxis) -> usize {
    let dims = var(parameters, &axis.parameter).dims();
    let len = axis.range.as_ref().map_or(dims[axis.axis], |r| r.len());
    len / axis.block
}

fn var<'a>(parameters: &'a Parameters, name: &str) -> &'a Var {
    let mut all = parameters.iter().chain(parameters.statistics());
    &all.find(|(n, _)| n == name).unwrap().1
}

/// Permutes the units of a model at random, as the description of its groups allows. Returns the number of units that move.
fn permute(parameters: &Parameters, groups: &[HiddenUnits], seed: u64) -> usize {
    let mut seed = 1000 * seed + 1;
    let mut next = |n: usize| {
        seed += 1;
        shuffled(n, seed)
    };
    let mut count = 0;
    for HiddenUnits {
        kinds, clusters, ..
    } in groups
    {
        let order = next(*clusters);
        for axes in kinds {
            let each = size_of(parameters, &axes[0]) / clusters;
            let mut permutation = Vec::new();
            for cluster in &order {
                permutation.extend(next(each).into_iter().map(|unit| cluster * each + unit));
            }
            count += (permutation.iter().enumerate())
                .filter(|(i, p)| i != *p)
                .count();
            for axis in axes {
                let var = var(parameters, &axis.parameter);
                let len = var.dims()[axis.axis];
                let range = axis.range.clone().unwrap_or(0..len);
                let mut indices: Vec<usize> = (0..len).collect();
                let moved = permutation.iter();
                let moved = moved
                    .flat_map(|unit| (0..axis.block).map(move |k| unit * axis.block + k))
                    .map(|entry| range.start + entry);
                indices.splice(range.clone(), moved);
                let indices: Vec<u32> = indices.iter().map(|i| *i as u32).collect();
                let indices = Tensor::new(indices, &CPU).unwrap();
                let moved = var.as_tensor().index_select(&indices, axis.axis).unwrap();
                var.set(&moved.detach()).unwrap();
            }
        }
    }
    count
}

fn outputs(model: &Layered, data: &Dataset) -> Vec<f64> {
    let y = model.forward(data.inputs()).unwrap();
    y.flatten_all().unwrap().to_vec1().unwrap()
}

fn statistics(parameters: &Parameters) -> Vec<Vec<f64>> {
    let all = parameters.statistics();
    all.map(|(_, var)| var.to_vec1().unwrap()).collect()
}

/// A permuted copy computes the same function, and matching by weights undoes the permutation. Returns the objective, the network and
/// its copy.
fn is_found_by_weights(design: &Design) -> (Objective, [Layered; 2]) {
    let (shape, classes, data) = dataset(design.architecture);
    let a = network(design, &shape, classes);
    let objective = Objective::of(&a, &data, Loss::CrossEntropy)
        .unwrap_or_else(|error| panic!("{design:?}: {error}"));
    if a.parameters().statistics().len() > 0 {
        let statistics = RunningStatistics::from_objective(&objective).unwrap();
        statistics.estimate().unwrap();
    }
    let b = a.to_dtype(DType::F64).unwrap();
    let groups = align::hidden_units(&a, &data).unwrap();
    let moved = permute(b.parameters(), &groups, 5);
    assert!(moved > 0, "{design:?}");
    let before = outputs(&a, &data);
    assert_close(&outputs(&b, &data), &before, 1e-11);

    let [theta_a, theta_b] = [&a, &b].map(|m| m.parameters().to_flat().unwrap());
    let found = align::match_weights(a.parameters(), &groups, &theta_a, &theta_b, 0).unwrap();
    assert!(
        found.apply(&theta_b).unwrap() == theta_a,
        "{design:?}: similarity {} of {moved} moved units",
        found.similarity_after
    );
    let restored = b.to_dtype(DType::F64).unwrap();
    found.apply_to(restored.parameters()).unwrap();
    assert!(restored.parameters().to_flat().unwrap() == theta_a);
    assert_eq!(
        statistics(restored.parameters()),
        statistics(a.parameters())
    );
    (objective, [a, b])
}

/// A permuted copy has no barrier after matching by weights, nor after matching by activations.
fn is_found_again(design: &Design) {
    let (objective, [a, b]) = is_found_by_weights(design);
    let compared = Connectivity::between(&objective, &a, &b, &[], 3).unwrap();
    assert_eq!(compared.unmatched, [""; 0], "{design:?}");
    let [_, (_, by_weights), (_, by_activations)] = &compared.paths[..] else {
        panic!("{design:?} has {} paths", compared.paths.len());
    };
    assert_eq!(by_weights.path_norm, 0.0, "{design:?}");
    assert!(by_weights.barrier_height < 1e-12, "{design:?}");
    // Activations do not tell units apart that are 0 on all samples, but group normalisation reads them.
    let has_dead_units = design.activation == Activation::Relu;
    let limit = match design.normalization {
        Norm::Group(_) if has_dead_units => 0.01,
        _ => 1e-9,
    };
    let height = by_activations.barrier_height;
    assert!(height < limit, "{design:?}: {height}, limit {limit}");
}

fn are_found_again(architectures: &[Architecture]) {
    for design in architectures.iter().flat_map(|a| designs(*a)) {
        is_found_again(&design);
    }
}

#[test]
fn permuted_perceptrons_are_found_again() {
    are_found_again(&[
        Architecture::Toy,
        Architecture::Shallow,
        Architecture::Deep,
        Architecture::Residual,
        Architecture::Dense,
    ]);
    for architecture in [Architecture::Deep, Architecture::Residual] {
        let design = architecture.design().normalization(Norm::Group(8));
        is_found_again(&design.activation(Activation::Tanh));
    }
}

#[test]
fn permuted_convolutional_networks_are_found_again() {
    are_found_again(&[Architecture::Cnn, Architecture::DenseNet]);
}

#[test]
fn permuted_resnets_are_found_again() {
    are_found_again(&[Architecture::ResNet20]);
    is_found_by_weights(&Architecture::ResNet18.design());
}

#[test]
fn permuted_transformers_are_found_again() {
    are_found_again(&[Architecture::GPT, Architecture::VIT]);
}

/// Parameters of these shapes, with random entries.
fn parameters(shapes: &[(&str, &[usize])]) -> Parameters {
    let vars = shapes.iter().enumerate().map(|(i, (name, dims))| {
        let values = numbers(dims.iter().product(), i as u64 + 1);
        let var = Var::from_vec(values, *dims, &CPU).unwrap();
        ((*name).to_owned(), var)
    });
    Parameters::new(vars).unwrap()
}

/// Samples of a shape with random values.
fn samples(shape: &[usize]) -> Dataset {
    let dims = [&[20], shape].concat();
    let x = Tensor::from_vec(numbers(dims.iter().product(), 9), &dims[..], &CPU).unwrap();
    Dataset::classification(&x, &Tensor::new(vec![1u32; 20], &CPU).unwrap()).unwrap()
}

/// The groups of a model, after a permuted copy has computed the same function.
fn groups_of(model: &Layered, data: &Dataset) -> Vec<HiddenUnits> {
    let groups = align::hidden_units(model, data).unwrap();
    let before = outputs(model, data);
    let moved = model.to_dtype(DType::F64).unwrap();
    permute(moved.parameters(), &groups, 3);
    assert_close(&outputs(&moved, data), &before, 1e-12);
    groups
}

/// What `connect` says of units that it cannot match.
fn unmatched(model: &Layered, data: &Dataset) -> (usize, String) {
    let objective = Objective::of(model, data, Loss::CrossEntropy).unwrap();
    let found = Connectivity::between(&objective, model, model, &[], 3).unwrap();
    (found.paths.len(), found.notes().join("\n"))
}

#[test]
fn depthwise_convolutions_carry_units_on() {
    let parameters = parameters(&[
        ("a", &[6, 1, 3, 3]),
        ("depth", &[12, 1, 3, 3]),
        ("depth.bias", &[12]),
        ("point", &[4, 12, 1, 1]),
        ("out", &[3, 4 * 16]),
    ]);
    let layers = vec![
        Conv2d::new("a").with_padding(1).into(),
        Activation::Tanh.into(),
        Conv2d::new("depth")
            .with_bias("depth.bias")
            .with_padding(1)
            .with_groups(6)
            .into(),
        Conv2d::new("point").into(),
        Activation::Tanh.into(),
        layers::Flatten.into(),
        Linear::without_bias("out").into(),
    ];
    let groups = groups_of(&Layered::new(layers, parameters), &samples(&[1, 4, 4]));
    let [channels, points] = &groups[..] else {
        panic!("{groups:?}")
    };
    let expected = [
        UnitAxis::new("a", 0),
        UnitAxis::new("depth", 0).block(2),
        UnitAxis::new("depth.bias", 0).block(2),
        UnitAxis::new("point", 1).block(2),
    ];
    assert_eq!(channels.kinds, [expected]);
    let expected = [UnitAxis::new("point", 0), UnitAxis::new("out", 1).block(16)];
    assert_eq!(points.kinds, [expected]);
}

#[test]
fn attention_has_clusters_of_two_kinds_and_tied_weights_one_axis() {
    let linear = |name: &'static str| -> (&'static str, &'static [usize]) { (name, &[8, 8]) };
    let parameters = parameters(&[
        ("tokens", &[5, 8]),
        ("norm.weight", &[8]),
        ("norm.bias", &[8]),
        linear("attention.query.weight"),
        linear("attention.key.weight"),
        linear("attention.value.weight"),
        linear("attention.output.weight"),
    ]);
    let attention = SelfAttention::new("attention", 2).without_biases();
    let norm = LayerNorm::new("norm.weight", "norm.bias");
    let body = vec![norm.into(), attention.into()];
    let layers = vec![
        Embedding::new("tokens").into(),
        Residual::new(body).into(),
        Linear::without_bias("tokens").into(),
    ];
    let tokens: Vec<u32> = (0..60).map(|i| i * 7 % 5).collect();
    let x = Tensor::from_vec(tokens, (20, 3), &CPU).unwrap();
    let data = Dataset::classification(&x, &x).unwrap();
    let groups = groups_of(&Layered::new(layers, parameters), &data);
    let [stream, heads] = &groups[..] else {
        panic!("{groups:?}")
    };
    let axis = |name: &str, axis| UnitAxis::new(name, axis);
    assert_eq!(stream.clusters, 1);
    assert_eq!(stream.kinds[0][0], axis("tokens", 1));
    let tied = stream.kinds[0].iter().filter(|a| a.parameter == "tokens");
    assert_eq!(tied.count(), 1);
    let keys = vec![
        axis("attention.query.weight", 0),
        axis("attention.key.weight", 0),
    ];
    let values = vec![
        axis("attention.value.weight", 0),
        axis("attention.output.weight", 1),
    ];
    let expected = HiddenUnits::new(keys).with_kind(values).with_clusters(2);
    assert_eq!(*heads, expected);
}

#[test]
fn positions_that_are_flattened_are_ranges() {
    let parameters = parameters(&[("a", &[4, 2]), ("out", &[3, 12])]);
    let layers = vec![
        Linear::without_bias("a").into(),
        Activation::Tanh.into(),
        layers::Flatten.into(),
        Linear::without_bias("out").into(),
    ];
    let groups = groups_of(&Layered::new(layers, parameters), &samples(&[3, 2]));
    let out = |start| UnitAxis::new("out", 1).range(start..start + 4);
    let expected = HiddenUnits::new(vec![UnitAxis::new("a", 0), out(0), out(4), out(8)]);
    assert_eq!(groups, [expected]);
}

#[test]
fn units_that_cannot_be_matched_have_a_reason() {
    // One layer reads and writes the stream: a quadratic assignment.
    let weights = parameters(&[("a", &[4, 3]), ("b", &[4, 4]), ("c", &[2, 4])]);
    let layers: Vec<LayerKind> = vec![
        Linear::without_bias("a").into(),
        Residual::new(vec![Linear::without_bias("b").into()]).into(),
        Linear::without_bias("c").into(),
    ];
    let model = Layered::new(layers, weights);
    let data = samples(&[3]);
    assert!(groups_of(&model, &data).is_empty());
    let (paths, notes) = unmatched(&model, &data);
    assert_eq!(paths, 1);
    let expected = "hidden units are not matched: `b` reads and writes the same units, which no linear assignment can match";
    assert_eq!(notes, expected);

    // Groups of channels end the units before them; those after them are matched.
    let weights = parameters(&[
        ("a", &[4, 1, 1, 1]),
        ("b", &[4, 2, 1, 1]),
        ("c", &[4, 4, 1, 1]),
        ("d", &[2, 16]),
    ]);
    let layers = vec![
        Conv2d::new("a").into(),
        Conv2d::new("b").with_groups(2).into(),
        Conv2d::new("c").into(),
        layers::Flatten.into(),
        Linear::without_bias("d").into(),
    ];
    let model = Layered::new(layers, weights);
    let data = samples(&[1, 2, 2]);
    assert_eq!(groups_of(&model, &data).len(), 1);
    let (paths, notes) = unmatched(&model, &data);
    assert_eq!(paths, 3);
    let expected = "some hidden units are not matched: Conv2d (`b`): it reads groups of channels";
    assert_eq!(notes, expected);
}

/// A model that does not list its layers.
#[derive(Clone)]
struct Closed(Mlp);

impl Module for Closed {
    fn forward(&self, x: &Tensor) -> candle::Result<Tensor> {
        self.0.forward(x)
    }
}

impl Model for Closed {
    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }
}

#[test]
fn a_model_without_layers_has_the_straight_line_and_a_trained_path() {
    let data = two_moons(60, 0.1, 0, &CPU).unwrap();
    let [a, b] = [0, 1].map(|seed| {
        let model = Mlp::new(&[2, 4, 2], Activation::Tanh, seed, &CPU).unwrap();
        Closed(model.to_dtype(DType::F64).unwrap())
    });
    let objective = Objective::of(&a, &data, Loss::CrossEntropy).unwrap();
    let trainer = PathTrainer::default().with_epochs(1);
    let found = Connectivity::between(&objective, &a, &b, &[trainer], 3).unwrap();
    let names: Vec<&str> = found.paths.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["linear", "trained Bézier"]);
    assert_eq!(
        found.notes(),
        ["hidden units are not matched: the model does not list its layers"]
    );
    let error = align::hidden_units(&a, &data).unwrap_err().to_string();
    assert!(error.contains("HiddenUnits"), "{error}");
    let other = Mlp::new(&[2, 5, 2], Activation::Tanh, 0, &CPU).unwrap();
    let other = Closed(other.to_dtype(DType::F64).unwrap());
    assert!(Connectivity::between(&objective, &a, &other, &[], 3).is_err());
}

/// Between trained networks, matching lowers the barrier, or does not raise it, and shortens the line.
#[test]
fn trained_networks_are_closer_after_matching() {
    let data = two_moons(200, 0.1, 0, &CPU).unwrap();
    let residual = |norm| Architecture::Residual.design().normalization(norm);
    let designs = [
        residual(Norm::None),
        residual(Norm::Batch),
        residual(Norm::Group(8)),
        Architecture::Dense.design(),
    ];
    for design in designs {
        let [a, b] = [1, 2].map(|seed| {
            let model = design.build(&[2], 2, seed, &CPU).unwrap();
            let model = model.to_dtype(DType::F64).unwrap();
            let trainer = Trainer::adam(0.003).with_epochs(15).with_batch_size(20);
            trainer.fit(&model, &data, &data).unwrap();
            model
        });
        let objective = Objective::of(&a, &data, Loss::CrossEntropy).unwrap();
        let found = Connectivity::between(&objective, &a, &b, &[], 15).unwrap();
        let [plain, by_weights, by_activations] =
            [0, 1, 2].map(|i| (found.paths[i].1.barrier_height, found.paths[i].1.path_norm));
        println!("{design:?}: {plain:?} {by_weights:?} {by_activations:?}");
        assert!(by_weights.0 <= plain.0 && by_activations.0 <= plain.0);
        assert!(by_weights.1 < 0.99 * plain.1);
    }
}
