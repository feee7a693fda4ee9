//! Networks whose inputs are mostly zeros: their first layer skips them, and nothing else changes.

mod common;

use common::{Opaque, assert_close, assert_engines_agree, bits, numbers};
use loss_landscape::layers;
use loss_landscape::model::LayerKind;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// Images of which five pixels in six are zero; a few pixels are zero in all of them, and one image is zero everywhere.
fn images(samples: usize, pixels: usize) -> Dataset {
    let mut inputs = numbers(samples * pixels, 3);
    for (i, x) in inputs.iter_mut().enumerate() {
        if i % 6 > 0 || i % pixels < 3 || i / pixels == 1 {
            *x = 0.0;
        }
    }
    dataset(inputs, &[samples, pixels])
}

fn dataset(inputs: Vec<f64>, dims: &[usize]) -> Dataset {
    let labels: Vec<u32> = (0..dims[0] as u32).map(|i| i * i % 7 % 3).collect();
    let inputs = Tensor::from_vec(inputs, dims, &CPU).unwrap();
    Dataset::classification(&inputs, &Tensor::new(labels, &CPU).unwrap()).unwrap()
}

fn network(pixels: usize, width: usize) -> Mlp {
    let model = Mlp::new(&[pixels, width, 3], Activation::Tanh, 5, &CPU).unwrap();
    model.to_dtype(DType::F64).unwrap()
}

#[test]
fn derivatives_are_those_of_the_graph() {
    for (samples, pixels, width) in [(1, 64, 4), (70, 150, 20), (700, 70, 130)] {
        let model = network(pixels, width);
        let data = images(samples, pixels);
        let exact = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        assert_engines_agree(&exact, 1e-10);

        let single = model.to_dtype(DType::F32).unwrap();
        let data = data.to_dtype(DType::F32).unwrap();
        let single = Objective::of(&single, &data, Loss::CrossEntropy).unwrap();
        let v = numbers(exact.dim(), 8);
        assert_close(
            &single.gradient().unwrap(),
            &exact.gradient().unwrap(),
            1e-5,
        );
        assert_close(&single.hvp(&v).unwrap(), &exact.hvp(&v).unwrap(), 1e-5);
    }
}

/// A layer over the last axis of sequences of one-hot vectors.
#[test]
fn sequences_of_one_hot_vectors() {
    let (samples, length, words, width) = (40, 6, 80, 5);
    let mut inputs = vec![0.0; samples * length * words];
    for (i, row) in inputs.chunks_exact_mut(words).enumerate() {
        row[i * i % 71] = 1.0;
    }
    let data = dataset(inputs, &[samples, length, words]);
    let var = |dims: &[usize], seed: u64| {
        let values = numbers(dims.iter().product(), seed);
        Var::from_vec(values.iter().map(|v| 0.3 * v).collect(), dims, &CPU).unwrap()
    };
    let parameters = Parameters::new([
        ("a.weight".to_owned(), var(&[width, words], 1)),
        ("b.weight".to_owned(), var(&[3, length * width], 2)),
        ("b.bias".to_owned(), var(&[3], 3)),
    ]);
    let layers = vec![
        LayerKind::Linear(layers::Linear::without_bias("a.weight")),
        LayerKind::Activation(Activation::Tanh),
        LayerKind::Flatten(layers::Flatten),
        LayerKind::Linear(layers::Linear::new("b.weight", "b.bias")),
    ];
    let model = Layered::new(layers, parameters.unwrap());
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    assert_engines_agree(&objective, 1e-10);
}

/// Bits do not depend on threads, on what is cached, or on a plane of which θ is a point.
#[test]
fn bits_depend_on_neither_threads_nor_caches() {
    let (model, data) = (network(100, 20), images(700, 100));
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let v = numbers(objective.dim(), 9);
    let results = |objective: &Objective| {
        let plane = Plane::random(objective, 5, 0.5, 3).unwrap();
        let (hvp, gradient) = (objective.hvp(&v).unwrap(), objective.gradient().unwrap());
        (hvp, gradient, plane.losses, objective.loss().unwrap())
    };
    let expected = results(&objective);
    assert_eq!(expected.2[[1, 1]], expected.3);
    assert_eq!(results(&objective.clone().with_memory(0)), expected);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        assert_eq!(pool.unwrap().install(|| results(&objective)), expected);
    }
    // Other data, of which nothing is zero, with the same objective's rules.
    let other = dataset(numbers(100 * 30, 4), &[30, 100]);
    let other = objective.with_data(&other).unwrap();
    assert_engines_agree(&other, 1e-10);
}

#[test]
fn trainings_are_those_of_the_graph() {
    let data = images(60, 90);
    for trainer in [Trainer::sgd(0.1), Trainer::adam(0.003)] {
        let trainer = trainer.with_epochs(2).with_batch_size(25).with_seed(4);
        let [by_hand, on_one_thread, copy] = [(); 3].map(|()| network(90, 20));
        let by_graph = Opaque(copy);
        trainer.fit(&by_hand, &data, &data).unwrap();
        trainer.fit(&by_graph, &data, &data).unwrap();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        one.unwrap()
            .install(|| trainer.fit(&on_one_thread, &data, &data))
            .unwrap();
        let [a, b] = [by_hand.parameters(), by_graph.parameters()].map(|p| p.to_flat().unwrap());
        assert_close(&a, &b, 1e-8);
        assert_eq!(bits(by_hand.parameters()), bits(on_one_thread.parameters()));
    }
}
