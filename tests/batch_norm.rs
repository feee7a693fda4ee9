//! Batch normalisation by the batch's own statistics in training, by the running ones in analysis; dropout.

mod common;

use common::{assert_close, bits, dot, numbers};
use loss_landscape::candle;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

/// A network in the making: variables with numbers of about 1/√inputs.
#[derive(Default)]
struct Making {
    vars: Vec<(String, Var)>,
    statistics: Vec<(String, Var)>,
}

impl Making {
    fn var(&mut self, name: String, shape: &[usize]) -> String {
        let fan = shape[1..].iter().product::<usize>() as f64;
        let values = numbers(shape.iter().product(), self.vars.len() as u64 + 1);
        let values: Vec<f64> = values.iter().map(|v| v / fan.sqrt()).collect();
        let var = Var::from_vec(values, shape, &CPU).unwrap();
        self.vars.push((name.clone(), var));
        name
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> LayerKind {
        LayerKind::Linear {
            weight: self.var(format!("{name}.weight"), &[outputs, inputs]),
            bias: self.var(format!("{name}.bias"), &[outputs]),
        }
    }

    fn conv(&mut self, name: &str, inputs: usize, outputs: usize, stride: usize) -> LayerKind {
        LayerKind::Conv2d {
            weight: self.var(format!("{name}.weight"), &[outputs, inputs, 3, 3]),
            bias: None,
            stride,
            padding: 1,
            dilation: 1,
            groups: 1,
        }
    }

    fn norm(&mut self, name: &str, channels: usize) -> LayerKind {
        let mut statistic = |part: &str, values: Vec<f64>| {
            let var = Var::from_vec(values, channels, &CPU).unwrap();
            self.statistics.push((format!("{name}.{part}"), var));
            format!("{name}.{part}")
        };
        let positive = numbers(channels, 31).iter().map(|v| 1.2 + v).collect();
        let mean = statistic("running_mean", numbers(channels, 30));
        let variance = statistic("running_var", positive);
        LayerKind::BatchNorm {
            weight: self.var(format!("{name}.weight"), &[channels]),
            bias: self.var(format!("{name}.bias"), &[channels]),
            mean,
            variance,
            epsilon: 1e-3,
            momentum: 0.3,
        }
    }

    fn finish(self, layers: Vec<LayerKind>) -> Layered {
        let parameters = Parameters::new(self.vars).unwrap();
        Layered::new(layers, parameters.with_statistics(self.statistics).unwrap())
    }
}

fn act() -> LayerKind {
    LayerKind::Activation(Activation::Tanh)
}

/// Networks for images of 2 × 4 × 4 and three classes.
fn networks() -> Vec<(&'static str, Layered)> {
    let mut all = Vec::new();
    let mut add = |name, build: &dyn Fn(&mut Making) -> Vec<LayerKind>| {
        let mut making = Making::default();
        let layers = build(&mut making);
        all.push((name, making.finish(layers)));
    };
    add("after a convolution", &|m| {
        vec![
            m.conv("a", 2, 3, 1),
            m.norm("a.norm", 3),
            act(),
            LayerKind::GlobalAveragePool,
            m.linear("out", 3, 3),
        ]
    });
    add("after a dense layer, and before the loss", &|m| {
        vec![
            m.linear("a", 32, 7),
            m.norm("a.norm", 7),
            act(),
            m.linear("out", 7, 3),
            m.norm("out.norm", 3),
        ]
    });
    add("of the inputs, and twice in a row", &|m| {
        vec![
            m.norm("in.norm", 2),
            m.conv("a", 2, 3, 2),
            m.norm("a.norm", 3),
            m.norm("b.norm", 3),
            act(),
            m.linear("out", 12, 3),
        ]
    });
    add("in residual blocks", &|m| {
        vec![
            m.conv("stem", 2, 3, 1),
            m.norm("stem.norm", 3),
            LayerKind::Residual {
                body: vec![
                    act(),
                    m.conv("a", 3, 4, 2),
                    m.norm("a.norm", 4),
                    act(),
                    m.conv("b", 4, 4, 1),
                    m.norm("b.norm", 4),
                ],
                shortcut: vec![m.conv("c", 3, 4, 2), m.norm("c.norm", 4)],
            },
            LayerKind::Residual {
                body: vec![m.norm("d.norm", 4), act()],
                shortcut: vec![],
            },
            m.linear("out", 16, 3),
        ]
    });
    add("in dense blocks, and of one boundary twice", &|m| {
        vec![
            LayerKind::Concat {
                body: vec![m.norm("a.norm", 2), act(), m.conv("a", 2, 3, 1)],
            },
            LayerKind::Residual {
                body: vec![m.norm("b.norm", 5), act()],
                shortcut: vec![m.norm("c.norm", 5)],
            },
            LayerKind::Concat {
                body: vec![m.norm("d.norm", 5), act(), m.conv("d", 5, 2, 1)],
            },
            LayerKind::GlobalAveragePool,
            m.linear("out", 7, 3),
        ]
    });
    all
}

fn data(n: usize) -> Dataset {
    let inputs = Tensor::from_vec(numbers(n * 32, 99), (n, 2, 4, 4), &CPU).unwrap();
    let labels: Vec<u32> = (0..n as u32).map(|i| i * i % 3).collect();
    Dataset::classification(&inputs, &Tensor::from_vec(labels, n, &CPU).unwrap()).unwrap()
}

/// The same model without a word about its layers.
#[derive(Clone)]
struct Graph(Layered);

impl Module for Graph {
    fn forward(&self, x: &Tensor) -> candle::Result<Tensor> {
        self.0.forward(x)
    }
}

impl Model for Graph {
    fn parameters(&self) -> &Parameters {
        self.0.parameters()
    }

    fn forward_training(&self, x: &Tensor, seed: u64) -> candle::Result<Tensor> {
        self.0.forward_training(x, seed)
    }
}

fn copy(model: &Layered) -> Layered {
    model.to_dtype(DType::F64).unwrap()
}

fn statistics(parameters: &Parameters) -> Vec<f64> {
    let all = parameters.statistics();
    all.flat_map(|(_, var)| var.to_vec1::<f64>().unwrap())
        .collect()
}

/// Loss and gradient of a step of training on all the data, and the running statistics after it.
fn step<M: Model + Clone + Send + Sync + 'static>(
    model: &M,
    data: &Dataset,
) -> (f64, Vec<f64>, Vec<f64>) {
    let before = model.parameters().to_flat().unwrap();
    let trainer = Trainer::sgd(1.0).batch_size(data.len());
    let history = trainer.fit(model, data, &data.first(1).unwrap()).unwrap();
    let after = model.parameters().to_flat().unwrap();
    let gradient = before.iter().zip(&after).map(|(b, a)| b - a).collect();
    (
        history.epochs[0].train_loss,
        gradient,
        statistics(model.parameters()),
    )
}

#[test]
fn both_ways_take_the_same_step() {
    for (name, model) in networks() {
        // One tile, ragged tiles, and more of them than parts of a batch.
        for samples in [
            2,
            5,
            130,
            if name == "after a dense layer" {
                10_300
            } else {
                3
            },
        ] {
            let data = data(samples);
            let by_hand = step(&copy(&model), &data);
            let by_graph = step(&Graph(copy(&model)), &data);
            println!("{name}, {samples} samples");
            assert_close(&[by_hand.0], &[by_graph.0], 1e-12);
            assert_close(&by_hand.1, &by_graph.1, 1e-10);
            assert_close(&by_hand.2, &by_graph.2, 1e-12);
        }
    }
}
