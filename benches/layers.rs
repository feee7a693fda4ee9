//! Times each kind of a transformer's layers, as a Markdown table: `cargo bench --bench layers`.
//!
//! A network has four layers of one kind on 32 sequences of 64 positions with 128 features, f32, and the mean squared error.
//! Before them a layer adds learned positions, so that every layer computes the derivative with respect to its inputs.

use std::time::Instant;

use loss_landscape::layers::{
    GatedMlp, LayerKind, LayerNorm, Linear, PositionEmbedding, RmsNorm, SelfAttention,
};
use loss_landscape::prelude::*;

const SEQUENCES: usize = 32;
const POSITIONS: usize = 64;
const WIDTH: usize = 128;
const HIDDEN: usize = 512;
const HEADS: usize = 4;
const LAYERS: usize = 4;
const RUNS: usize = 9;

/// Gradient, Hessian-vector product at a cached point, and Gauss–Newton product.
const QUANTITIES: usize = 3;

/// Number of products of this size for each product y = xW of the forward pass, where x and W depend on θ.
const PRODUCTS: [usize; QUANTITIES] = [3, 6, 4];

/// Number of products of the size of QKᵀ or PV in attention.
const SCORE_PRODUCTS: [usize; QUANTITIES] = [6, 15, 8];

struct Kind {
    name: &'static str,
    /// Adds one layer, with parameters that start with a prefix.
    add: fn(&mut Network, &str),
    /// Floating-point operations per position: of the forward pass's products with weights, and of one product QKᵀ.
    flops: [usize; 2],
}

#[derive(Default)]
struct Network {
    layers: Vec<LayerKind>,
    vars: Vec<(String, Var)>,
}

impl Network {
    fn var(&mut self, name: &str, shape: &[usize], mean: f64, deviation: f64) -> String {
        let values = Tensor::randn(mean as f32, deviation as f32, shape, &Device::Cpu);
        self.vars
            .push((name.to_owned(), Var::from_tensor(&values.unwrap()).unwrap()));
        name.to_owned()
    }

    fn linear(&mut self, layer: &Linear, [inputs, outputs]: [usize; 2]) {
        self.var(&layer.weight, &[outputs, inputs], 0.0, 0.05);
        if let Some(bias) = &layer.bias {
            self.var(bias, &[outputs], 0.0, 0.05);
        }
    }
}

fn kinds() -> Vec<Kind> {
    vec![
        Kind {
            name: "linear, 128 to 512 and back",
            add: |network, prefix| {
                for (part, sizes) in [("up", [WIDTH, HIDDEN]), ("down", [HIDDEN, WIDTH])] {
                    let name = |kind| format!("{prefix}.{part}.{kind}");
                    let layer = Linear::new(name("weight"), name("bias"));
                    network.linear(&layer, sizes);
                    network.layers.push(layer.into());
                }
            },
            flops: [4 * WIDTH * HIDDEN, 0],
        },
        Kind {
            name: "gated perceptron, 128 to 512 and back",
            add: |network, prefix| {
                let layer = GatedMlp::new(prefix);
                network.linear(&layer.gate, [WIDTH, HIDDEN]);
                network.linear(&layer.up, [WIDTH, HIDDEN]);
                network.linear(&layer.down, [HIDDEN, WIDTH]);
                network.layers.push(layer.into());
            },
            flops: [6 * WIDTH * HIDDEN, 0],
        },
        Kind {
            name: "attention, 4 heads",
            add: |network, prefix| {
                let layer = SelfAttention::new(prefix, HEADS).with_causal(true);
                for part in [&layer.query, &layer.key, &layer.value, &layer.output] {
                    network.linear(part, [WIDTH, WIDTH]);
                }
                network.layers.push(layer.into());
            },
            flops: [8 * WIDTH * WIDTH, 2 * POSITIONS * WIDTH],
        },
        Kind {
            name: "LayerNorm",
            add: |network, prefix| {
                let weight = network.var(&format!("{prefix}.weight"), &[WIDTH], 1.0, 0.1);
                let bias = network.var(&format!("{prefix}.bias"), &[WIDTH], 0.0, 0.1);
                network.layers.push(LayerNorm::new(weight, bias).into());
            },
            flops: [0, 0],
        },
        Kind {
            name: "RMSNorm",
            add: |network, prefix| {
                let weight = network.var(&format!("{prefix}.weight"), &[WIDTH], 1.0, 0.1);
                network.layers.push(RmsNorm::new(weight).into());
            },
            flops: [0, 0],
        },
        Kind {
            name: "GELU",
            add: |network, _| network.layers.push(Activation::Gelu.into()),
            flops: [0, 0],
        },
        Kind {
            name: "SiLU",
            add: |network, _| network.layers.push(Activation::Silu.into()),
            flops: [0, 0],
        },
    ]
}

fn objective(kind: &Kind) -> Result<Objective, Error> {
    let mut network = Network::default();
    let positions = network.var("positions", &[POSITIONS, WIDTH], 0.0, 0.5);
    network
        .layers
        .push(PositionEmbedding::new(positions).into());
    for layer in 0..LAYERS {
        (kind.add)(&mut network, &format!("layers.{layer}"));
    }
    let model = Layered::new(network.layers, Parameters::new(network.vars)?);
    let shape = (SEQUENCES, POSITIONS, WIDTH);
    let inputs = Tensor::randn(0f32, 1.0, shape, &Device::Cpu)?;
    let targets = Tensor::randn(0f32, 1.0, shape, &Device::Cpu)?;
    Objective::of(&model, &Dataset::regression(&inputs, &targets)?, Loss::Mse)
}

/// Median time of [`RUNS`] runs, in milliseconds.
fn milliseconds(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            run();
            1e3 * started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn main() -> Result<(), Error> {
    println!("| layer | gradient | HVP | Gauss–Newton |\n| --- | --- | --- | --- |");
    for kind in kinds() {
        let objective = objective(&kind)?;
        let vector = vec![1.0; objective.dim()];
        let (hessian, gauss_newton) = (objective.hessian(), objective.gauss_newton());
        hessian.apply(&vector)?;
        let times = [
            milliseconds(|| drop(objective.gradient().unwrap())),
            milliseconds(|| drop(hessian.apply(&vector).unwrap())),
            milliseconds(|| drop(gauss_newton.apply(&vector).unwrap())),
        ];
        let cell = |i: usize| {
            let positions = LAYERS * SEQUENCES * POSITIONS;
            let [weights, scores] = kind.flops;
            let flops = positions * (PRODUCTS[i] * weights + SCORE_PRODUCTS[i] * scores);
            let gflop = flops as f64 / 1e9;
            match flops {
                0 => format!(
                    "{:.1} ms, {:.1} ns per value",
                    times[i],
                    1e6 * times[i] / (positions * WIDTH) as f64
                ),
                _ => format!(
                    "{:.1} ms, {gflop:.1} GFLOP, {:.0} GFLOP/s",
                    times[i],
                    1e3 * gflop / times[i]
                ),
            }
        };
        println!(
            "| {} | {} | {} | {} |",
            kind.name,
            cell(0),
            cell(1),
            cell(2)
        );
    }
    Ok(())
}
