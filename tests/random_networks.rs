//! Small networks with random layers and shapes: hand-derived rules compared with candle's graph and central differences.

mod common;

use std::ops::Range;

use common::{assert_close, dot, numbers};
use loss_landscape::layers::{
    self, Embedding, GatedMlp, LayerNorm, Linear, PositionEmbedding, Residual, RmsNorm,
    SelfAttention,
};
use loss_landscape::model::LayerKind;
use loss_landscape::objective::CrossEntropy;
use loss_landscape::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CPU: Device = Device::Cpu;

/// Number of tokens, which are the classes too.
const CLASSES: usize = 5;

/// Creates the layers and variables of a network.
struct Builder {
    rng: ChaCha8Rng,
    /// Output shape of the last layer.
    shape: [usize; 3],
    vars: Vec<(String, Var)>,
    statistics: Vec<(String, Var)>,
    /// Whether candle's graph can differentiate the network twice. It cannot if a convolution does not cover the whole image.
    graph: bool,
}

impl Builder {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut size = |max| rng.random_range(1..=max);
        let shape = [size(4), size(7), size(7)];
        Self {
            rng,
            shape,
            vars: Vec::new(),
            statistics: Vec::new(),
            graph: true,
        }
    }

    fn one_of(&mut self, sizes: &[usize]) -> usize {
        sizes[self.rng.random_range(0..sizes.len())]
    }

    fn divisor(&mut self, n: usize) -> usize {
        let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        self.one_of(&divisors)
    }

    fn parameter(&mut self, shape: &[usize], mean: f64) -> String {
        let name = format!("p{}", self.vars.len());
        let fan_in = shape[1..].iter().product::<usize>() as f64;
        let seed = self.rng.random();
        let values = numbers(shape.iter().product(), seed);
        let values: Vec<f64> = values.iter().map(|v| mean + v / fan_in.sqrt()).collect();
        let var = Var::from_vec(values, shape, &CPU).unwrap();
        self.vars.push((name.clone(), var));
        name
    }

    fn conv(&mut self, kernel: [usize; 2], stride: usize, padding: usize) -> LayerKind {
        let groups = self.divisor(self.shape[0]);
        let channels = groups * self.one_of(&[1, 2, 3]);
        self.conv_to(channels, groups, kernel, stride, padding)
    }

    fn conv_to(
        &mut self,
        channels: usize,
        groups: usize,
        kernel: [usize; 2],
        stride: usize,
        padding: usize,
    ) -> LayerKind {
        let [inputs, height, width] = self.shape;
        let max_dilation = |size: usize, kernel: usize| match kernel {
            1 => 2,
            _ => (size + 2 * padding - 1) / (kernel - 1),
        };
        let dilation = self
            .one_of(&[1, 2])
            .min(max_dilation(height, kernel[0]))
            .min(max_dilation(width, kernel[1]));
        let travel = |size: usize, kernel: usize| size + 2 * padding - dilation * (kernel - 1) - 1;
        let [down, right] = [travel(height, kernel[0]), travel(width, kernel[1])];
        self.graph &= down.is_multiple_of(stride) && right.is_multiple_of(stride);
        self.shape = [channels, down / stride + 1, right / stride + 1];
        LayerKind::Conv2d(layers::Conv2d {
            weight: self.parameter(&[channels, inputs / groups, kernel[0], kernel[1]], 0.0),
            bias: match self.rng.random() {
                true => Some(self.parameter(&[channels], 0.0)),
                false => None,
            },
            stride,
            padding,
            dilation,
            groups,
        })
    }

    fn activation(&mut self) -> LayerKind {
        LayerKind::Activation(match self.rng.random_range(0..4) {
            0 => Activation::Tanh,
            1 => Activation::Sigmoid,
            2 => Activation::Gelu,
            _ => Activation::Softplus,
        })
    }

    fn norm(&mut self) -> LayerKind {
        let channels = self.shape[0];
        let weight = self.parameter(&[channels], 1.0);
        let bias = self.parameter(&[channels], 0.0);
        if self.rng.random() {
            return LayerKind::GroupNorm(layers::GroupNorm {
                weight,
                bias,
                groups: self.divisor(channels),
                epsilon: 0.1,
            });
        }
        LayerKind::BatchNorm(layers::BatchNorm {
            weight,
            bias,
            mean: self.statistic(-0.5..0.5),
            variance: self.statistic(0.1..2.0),
            epsilon: 0.1,
            momentum: 0.1,
        })
    }

    /// Adds a running statistic with one value per channel.
    fn statistic(&mut self, range: Range<f64>) -> String {
        let name = format!("s{}", self.statistics.len());
        let channels = (0..self.shape[0]).map(|_| self.rng.random_range(range.clone()));
        let var = Var::from_vec(channels.collect(), self.shape[0], &CPU).unwrap();
        self.statistics.push((name.clone(), var));
        name
    }

    /// A random layer or block that fits the current shape.
    fn layer(&mut self) -> LayerKind {
        let [channels, height, width] = self.shape;
        let shorter = height.min(width);
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let padding = self.one_of(&[0, 1, 2]);
                let kernel =
                    [height, width].map(|size| self.one_of(&[1, 2, 3]).min(size + 2 * padding));
                let stride = self.one_of(&[1, 1, 2, 4]);
                self.conv(kernel, stride, padding)
            }
            2 | 3 => self.activation(),
            4 => self.norm(),
            8 => LayerKind::Dropout(layers::Dropout { rate: 0.3 }),
            pool @ (5 | 6) => {
                let kernel = self.one_of(&[1, 2, 3]).min(shorter);
                let stride = self.one_of(&[1, 2, 3]);
                let travel = [height, width].map(|size| size - kernel);
                self.shape = [channels, travel[0] / stride + 1, travel[1] / stride + 1];
                if pool == 6 {
                    return LayerKind::MaxPool(layers::MaxPool::new(kernel, stride));
                }
                self.graph &= travel.iter().all(|n| n.is_multiple_of(stride));
                LayerKind::AveragePool(layers::AveragePool { kernel, stride })
            }
            7 => {
                let (before, stride) = (self.shape, self.one_of(&[1, 2]));
                let outputs = self.one_of(&[2, 4]);
                let projection = stride > 1 || outputs != channels || self.rng.random();
                let shortcut = match projection {
                    true => vec![self.conv_to(outputs, 1, [1, 1], stride, 0)],
                    false => Vec::new(),
                };
                let output = self.shape;
                self.shape = before;
                let mut body = vec![self.conv_to(outputs, 1, [1, 1], stride, 0)];
                assert_eq!(self.shape, output);
                body.extend([self.norm(), self.activation()]);
                LayerKind::Residual(layers::Residual { body, shortcut })
            }
            _ => {
                let mut body = vec![self.activation()];
                let added = self.one_of(&[1, 2]);
                body.push(self.conv_to(added, 1, [1, 1], 1, 0));
                if self.rng.random() {
                    body.push(self.norm());
                }
                self.shape[0] += channels;
                LayerKind::Concat(layers::Concat::dense(body))
            }
        }
    }

    fn linear(&mut self, inputs: usize, outputs: usize, has_bias: bool) -> Linear {
        Linear {
            weight: self.parameter(&[outputs, inputs], 0.0),
            bias: has_bias.then(|| self.parameter(&[outputs], 0.0)),
        }
    }

    /// A layer that keeps the width of a sequence.
    fn sequence_layer(&mut self, width: usize) -> LayerKind {
        let has_biases = self.rng.random();
        match self.rng.random_range(0..5) {
            0 => {
                let heads = self.divisor(width);
                let keys = heads * self.one_of(&[1, 2]);
                let mut attention = SelfAttention::new("", heads).with_causal(self.rng.random());
                attention.query = self.linear(width, keys, has_biases);
                attention.key = self.linear(width, keys, has_biases);
                attention.value = self.linear(width, width, has_biases);
                attention.output = self.linear(width, width, has_biases);
                attention.into()
            }
            1 => {
                let hidden = self.one_of(&[1, 2, 5]);
                let mut mlp = GatedMlp::new("");
                mlp.gate = self.linear(width, hidden, has_biases);
                mlp.up = self.linear(width, hidden, has_biases);
                mlp.down = self.linear(hidden, width, has_biases);
                mlp.into()
            }
            2 => {
                let weight = self.parameter(&[width], 1.0);
                LayerNorm::new(weight, self.parameter(&[width], 0.0)).into()
            }
            3 => RmsNorm::new(self.parameter(&[width], 1.0)).into(),
            _ => {
                let all = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];
                all[self.rng.random_range(0..all.len())].into()
            }
        }
    }

    fn finish(mut self, mut kinds: Vec<LayerKind>) -> (Layered, bool) {
        if self.rng.random() {
            kinds.push(LayerKind::GlobalAveragePool(layers::GlobalAveragePool));
            self.shape = [self.shape[0], 1, 1];
        }
        let inputs = self.shape.iter().product();
        kinds.push(LayerKind::Flatten(layers::Flatten));
        kinds.push(LayerKind::Linear(layers::Linear {
            weight: self.parameter(&[3, inputs], 0.0),
            bias: Some(self.parameter(&[3], 0.0)),
        }));
        let parameters = Parameters::new(self.vars).unwrap();
        let parameters = parameters.with_statistics(self.statistics).unwrap();
        (Layered::new(kinds, parameters), self.graph)
    }
}

fn data(samples: usize, shape: [usize; 3], seed: u64) -> Dataset {
    let count = samples * shape.iter().product::<usize>();
    let [channels, height, width] = shape;
    let dims = (samples, channels, height, width);
    let inputs = Tensor::from_vec(numbers(count, seed), dims, &CPU).unwrap();
    let labels: Vec<u32> = (0..samples as u32).map(|i| i * i % 3).collect();
    Dataset::classification(&inputs, &Tensor::from_vec(labels, samples, &CPU).unwrap()).unwrap()
}

/// Asserts that products are symmetric and match differences, and candle's graph if it can differentiate the network. Returns
/// whether it can.
fn check(what: &str, builder: Builder, layers: Vec<LayerKind>, data: &Dataset) -> bool {
    let (model, graph) = builder.finish(layers.clone());
    check_model(what, &model, data, Loss::CrossEntropy, graph);
    graph
}

fn check_model(what: &str, model: &Layered, data: &Dataset, loss: Loss, graph: bool) {
    let layers = model.layers().unwrap();
    let objective = Objective::of(model, data, loss)
        .unwrap_or_else(|error| panic!("{what}: {error}\n{layers:#?}"));
    assert!(objective.is_hand_derived(), "{what}: {layers:#?}");
    let theta = objective.parameters().to_flat().unwrap();
    let [u, v] = [5, 6].map(|seed| numbers(theta.len(), seed));
    let [hu, hv] = [&u, &v].map(|v| objective.hvp(v).unwrap());
    let sides = [dot(&u, &hv), dot(&v, &hu)];
    let size = 1.0 + sides[0].abs();
    assert!(
        (sides[0] - sides[1]).abs() < 1e-11 * size,
        "{what}: {sides:?}\n{layers:#?}"
    );

    // Richardson's extrapolation of central differences of the gradient.
    let central = |h: f64| -> Vec<f64> {
        let [ahead, behind] = [h, -h].map(|h| {
            let moved: Vec<f64> = theta.iter().zip(&v).map(|(t, v)| t + h * v).collect();
            objective.gradient_at(&moved).unwrap().1
        });
        ahead
            .iter()
            .zip(&behind)
            .map(|(a, b)| (a - b) / (2.0 * h))
            .collect()
    };
    let steps = central(2e-4).into_iter().zip(central(1e-4));
    let difference: Vec<f64> = steps.map(|(h, half)| (4.0 * half - h) / 3.0).collect();
    let size = 1.0 + dot(&hv, &hv).sqrt();
    for (hv, difference) in hv.iter().zip(&difference) {
        assert!(
            (hv - difference).abs() < 1e-7 * size,
            "{what}: {hv} is not {difference}\n{layers:#?}"
        );
    }

    if graph {
        let slow = objective.clone().by_autograd();
        assert_close(
            &objective.gradient().unwrap(),
            &slow.gradient().unwrap(),
            1e-10,
        );
        assert_close(&hv, &slow.hvp(&v).unwrap(), 1e-10);
        let [fast, slow] = [&objective, &slow].map(|o| o.gauss_newton().apply(&v).unwrap());
        assert_close(&fast, &slow, 1e-10);
    }
}

#[test]
fn networks_of_random_layers() {
    let mut by_graph = 0;
    for seed in 0..120 {
        let mut builder = Builder::new(seed);
        let samples = builder.one_of(&[1, 2, 5]);
        let data = data(samples, builder.shape, seed);
        let depth = builder.one_of(&[1, 2, 3, 5]);
        let layers = (0..depth).map(|_| builder.layer()).collect();
        by_graph += usize::from(check(&format!("network {seed}"), builder, layers, &data));
    }
    assert!(
        by_graph >= 60,
        "only {by_graph} networks were compared with candle's graph"
    );
}

/// Layers of transformers, with one or several tokens, heads and samples, and labels that do not count.
#[test]
fn sequence_networks_of_random_layers() {
    for seed in 0..120 {
        let mut builder = Builder::new(1_000 + seed);
        let [samples, positions, width] =
            [&[1, 2, 5][..], &[1, 2, 5], &[3, 4, 6]].map(|sizes| builder.one_of(sizes));
        let table = builder.parameter(&[CLASSES, width], 0.0);
        let mut layers: Vec<LayerKind> = vec![Embedding::new(table.clone()).into()];
        if builder.rng.random() {
            let positions = builder.parameter(&[positions, width], 0.0);
            layers.push(PositionEmbedding::new(positions).into());
        }
        for _ in 0..builder.one_of(&[1, 2, 4]) {
            let layer = builder.sequence_layer(width);
            layers.push(match builder.rng.random() {
                true => Residual::new(vec![layer]).into(),
                false => layer,
            });
        }
        layers.push(match builder.rng.random() {
            true => Linear::without_bias(table).into(),
            false => builder.linear(width, CLASSES, true).into(),
        });

        // All tokens are equal in some networks.
        let step = builder.one_of(&[0, 1, 2]) as u32;
        let count = (samples * positions) as u32;
        let shape = (samples, positions);
        let tokens = |step: u32, first: u32| {
            let tokens = (0..count).map(|i| (first + step * (i * i + i)) % CLASSES as u32);
            let tokens = Tensor::from_iter(tokens, &CPU).unwrap();
            tokens.reshape(shape).unwrap()
        };
        let data = Dataset::classification(&tokens(step, 1), &tokens(1, 0)).unwrap();
        let loss = match builder.rng.random() {
            true => Loss::CrossEntropy,
            // The first label is 0, so one label counts if there is only one.
            false => CrossEntropy::default()
                .with_ignored_label(2)
                .with_label_smoothing(0.1)
                .into(),
        };
        let model = Layered::new(layers, Parameters::new(builder.vars).unwrap());
        check_model(
            &format!("sequence network {seed}"),
            &model,
            &data,
            loss,
            true,
        );
    }
}

/// Edge cases: one pixel, one channel, one sample, strides larger than the kernel, as many groups as channels, more padding
/// than image.
#[test]
fn edge_cases_of_convolutions() {
    let shapes = [[1, 1, 1], [4, 1, 1], [1, 7, 5], [4, 5, 7], [3, 1, 6]];
    for (i, shape) in shapes.into_iter().enumerate() {
        for (kernel, stride, padding) in [
            ([1, 1], 1, 0),
            ([1, 1], 3, 0),
            ([3, 3], 1, 1),
            ([3, 1], 2, 2),
            ([1, 3], 5, 3),
            ([2, 2], 3, 1),
        ] {
            for samples in [1, 3] {
                let what = format!("{shape:?} by {kernel:?}, stride {stride}, padding {padding}");
                for groups in [1, shape[0]] {
                    let mut builder = Builder::new(i as u64);
                    builder.shape = shape;
                    let conv = builder.conv_to(2 * groups, groups, kernel, stride, padding);
                    let layers = vec![conv, builder.activation()];
                    check(&what, builder, layers, &data(samples, shape, 3));
                }
            }
        }
    }
}
