//! The layers of transformers: attention, normalisation, positions, gates and tied weights in networks.

mod common;

use common::{assert_close, assert_engines_agree, dot, labelled, numbers, products};
use loss_landscape::layers::{
    Embedding, GatedMlp, LayerNorm, Linear, Patches, PositionEmbedding, PositionMean, Residual,
    RmsNorm, SelfAttention,
};
use loss_landscape::model::LayerKind;
use loss_landscape::objective::Engine;
use loss_landscape::prelude::*;
use loss_landscape::serde_json;

const CPU: Device = Device::Cpu;
const TOKENS: usize = 7;
const WIDTH: usize = 6;
const CONTEXT: usize = 5;

/// Names and shapes of parameters, with deterministic values.
#[derive(Default)]
struct Vars(Vec<(String, Vec<usize>)>);

impl Vars {
    fn add(&mut self, name: &str, shape: &[usize]) -> String {
        self.0.push((name.to_owned(), shape.to_vec()));
        name.to_owned()
    }

    fn linear(&mut self, layer: &Linear, [inputs, outputs]: [usize; 2]) {
        self.add(&layer.weight, &[outputs, inputs]);
        if let Some(bias) = &layer.bias {
            self.add(bias, &[outputs]);
        }
    }

    fn attention(&mut self, layer: SelfAttention, [keys, values]: [usize; 2]) -> LayerKind {
        self.linear(&layer.query, [WIDTH, keys]);
        self.linear(&layer.key, [WIDTH, keys]);
        self.linear(&layer.value, [WIDTH, values]);
        self.linear(&layer.output, [values, WIDTH]);
        layer.into()
    }

    fn gated(&mut self, layer: GatedMlp, hidden: usize) -> LayerKind {
        self.linear(&layer.gate, [WIDTH, hidden]);
        self.linear(&layer.up, [WIDTH, hidden]);
        self.linear(&layer.down, [hidden, WIDTH]);
        layer.into()
    }

    fn parameters(self, dtype: DType) -> Parameters {
        let vars = self.0.into_iter().enumerate().map(|(i, (name, shape))| {
            let values = numbers(shape.iter().product(), i as u64 + 1);
            let tensor = Tensor::from_vec(values, shape, &CPU).unwrap();
            (
                name,
                Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap(),
            )
        });
        Parameters::new(vars).unwrap()
    }
}

/// Which variants a network has.
#[derive(Clone, Copy, Debug)]
struct Kind {
    heads: usize,
    causal: bool,
    biases: bool,
    tied: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        heads: 1,
        causal: true,
        biases: true,
        tied: false,
    },
    Kind {
        heads: 3,
        causal: true,
        biases: false,
        tied: true,
    },
    Kind {
        heads: 2,
        causal: false,
        biases: true,
        tied: true,
    },
    Kind {
        heads: 6,
        causal: false,
        biases: false,
        tied: false,
    },
];

/// Tokens and positions, a block of attention and one of a gated perceptron, before them LayerNorm and RMSNorm.
fn language_model(kind: Kind, dtype: DType) -> Layered {
    let mut vars = Vars::default();
    let mut attention = SelfAttention::new("attention", kind.heads).with_causal(kind.causal);
    let mut mlp = GatedMlp::new("mlp");
    if !kind.biases {
        attention = attention.without_biases();
        mlp = mlp.without_biases();
    }
    let readout = match (kind.tied, kind.biases) {
        (true, _) => Linear::without_bias("tokens"),
        (false, true) => Linear::new("out.weight", "out.bias"),
        (false, false) => Linear::without_bias("out.weight"),
    };
    let layers = vec![
        Embedding::new(vars.add("tokens", &[TOKENS, WIDTH])).into(),
        PositionEmbedding::new(vars.add("positions", &[CONTEXT, WIDTH])).into(),
        Residual::new(vec![
            LayerNorm::new(
                vars.add("first.weight", &[WIDTH]),
                vars.add("first.bias", &[WIDTH]),
            )
            .into(),
            vars.attention(attention, [WIDTH, 2 * WIDTH]),
        ])
        .into(),
        Residual::new(vec![
            RmsNorm::new(vars.add("second.weight", &[WIDTH])).into(),
            vars.gated(mlp, 5),
        ])
        .into(),
        Activation::GeluTanh.into(),
        readout.clone().into(),
    ];
    if !kind.tied {
        vars.linear(&readout, [WIDTH, TOKENS]);
    }
    Layered::new(layers, vars.parameters(dtype))
}

fn tokens(n: usize, length: usize, step: u32) -> Tensor {
    let tokens = (0..(n * length) as u32).map(|i| (i * i + step * i + i / 3) % TOKENS as u32);
    let tokens = Tensor::from_iter(tokens, &CPU).unwrap();
    tokens.reshape((n, length)).unwrap()
}

fn objective(kind: Kind, inputs: &Tensor, dtype: DType) -> Objective {
    let (n, length) = inputs.dims2().unwrap();
    let data = Dataset::classification(inputs, &tokens(n, length, 2)).unwrap();
    let objective = Objective::of(&language_model(kind, dtype), &data, Loss::CrossEntropy);
    let objective = objective.unwrap();
    assert_eq!(objective.engine(), Engine::ByHand);
    objective
}

/// Inputs of one token, one sample, many samples, and samples whose tokens are all equal.
fn inputs() -> Vec<Tensor> {
    vec![
        tokens(1, 1, 1),
        tokens(4, 1, 1),
        tokens(1, CONTEXT, 1),
        tokens(37, CONTEXT, 1),
        tokens(6, 3, 1),
        Tensor::full(3u32, (4, CONTEXT), &CPU).unwrap(),
    ]
}

#[test]
fn both_engines_have_the_same_derivatives() {
    for kind in KINDS {
        for inputs in inputs() {
            let by_hand = objective(kind, &inputs, DType::F64);
            let by_graph = by_hand.clone().by_autograd();
            let [a, b] = [&by_hand, &by_graph].map(|o| o.loss().unwrap());
            assert_close(&[a], &[b], 1e-12);
            let [a, b] = [&by_hand, &by_graph].map(|o| o.gradient().unwrap());
            assert_close(&a, &b, 1e-11);
            let vectors: Vec<Vec<f64>> = (0..3).map(|i| numbers(a.len(), 20 + i)).collect();
            let found = products(&by_hand, &vectors);
            for (a, b) in found.iter().zip(products(&by_graph, &vectors)) {
                assert_close(a, &b, 1e-10);
            }
            // One vector takes other paths through the layers than several.
            let single = by_hand.hvp(&vectors[0]).unwrap();
            assert_close(&single, &found[0][..a.len()], 1e-12);
            let single = objective(kind, &inputs, DType::F32);
            assert_close(&single.gradient().unwrap(), &a, 1e-5);
            let hvp = single.hvp(&vectors[0]).unwrap();
            assert_close(&hvp, &found[0][..a.len()], 1e-4);
        }
    }
}

#[test]
fn hessians_are_symmetric_and_match_differences_of_the_gradient() {
    for kind in KINDS {
        let objective = objective(kind, &tokens(6, CONTEXT, 1), DType::F64);
        let theta = objective.parameters().to_flat().unwrap();
        let [u, v] = [2, 3].map(|seed| numbers(theta.len(), seed));
        let [hu, hv] = [&u, &v].map(|v| objective.hvp(v).unwrap());
        let scale = dot(&hu, &hu).sqrt() * dot(&v, &v).sqrt();
        assert!((dot(&u, &hv) - dot(&v, &hu)).abs() < 1e-14 * scale);
        let central = |step: f64| {
            let h = step / dot(&v, &v).sqrt();
            let [ahead, behind] = [h, -h].map(|h| {
                let moved: Vec<f64> = theta.iter().zip(&v).map(|(t, v)| t + h * v).collect();
                objective.gradient_at(&moved).unwrap().1
            });
            let pairs = ahead.into_iter().zip(behind);
            pairs.map(move |(a, b)| (a - b) / (2.0 * h))
        };
        let steps = central(2e-3).zip(central(1e-3));
        let difference: Vec<f64> = steps.map(|(h, half)| (4.0 * half - h) / 3.0).collect();
        assert_close(&hv, &difference, 1e-8);
    }
}

#[test]
fn products_with_blocks_are_blocks_of_products() {
    let objective = objective(KINDS[1], &tokens(6, CONTEXT, 1), DType::F64);
    let hessian = objective.hessian();
    for name in [
        "tokens",
        "attention.key.weight",
        "mlp.up.weight",
        "second.weight",
    ] {
        let range = objective.parameters().range(name).unwrap();
        let v = numbers(range.len(), 4);
        let mut embedded = vec![0.0; objective.dim()];
        embedded[range.clone()].copy_from_slice(&v);
        let expected = &hessian.apply(&embedded).unwrap()[range];
        let found = objective
            .hessian()
            .block(&[name])
            .unwrap()
            .apply(&v)
            .unwrap();
        assert_close(&found, expected, 1e-12);
    }
}

/// The derivative of tied weights is the sum of the derivatives of both uses.
#[test]
fn tied_weights_have_the_derivatives_of_both_uses() {
    let kind = KINDS[1];
    let tied = objective(kind, &tokens(5, CONTEXT, 1), DType::F64);
    let model = language_model(
        Kind {
            tied: false,
            ..kind
        },
        DType::F64,
    );
    // The same network with a copy of the table as its output weights.
    for (name, _) in tied.parameters().blocks() {
        let value = tied.parameters().get(&name).unwrap().as_tensor().clone();
        model.parameters().get(&name).unwrap().set(&value).unwrap();
    }
    let table = tied.parameters().get("tokens").unwrap().as_tensor().clone();
    model
        .parameters()
        .get("out.weight")
        .unwrap()
        .set(&table)
        .unwrap();
    let free = Objective::of(&model, tied.data(), Loss::CrossEntropy).unwrap();
    assert_close(&[tied.loss().unwrap()], &[free.loss().unwrap()], 1e-14);

    let part = |o: &Objective, name: &str| o.parameters().range(name).unwrap();
    // From the tied network's vectors to the other's, and the transpose.
    let spread = |v: &[f64]| {
        let mut spread = vec![0.0; free.dim()];
        for (name, range) in tied.parameters().blocks() {
            spread[part(&free, &name)].copy_from_slice(&v[range]);
        }
        spread[part(&free, "out.weight")].copy_from_slice(&v[part(&tied, "tokens")]);
        spread
    };
    let gather = |v: &[f64]| {
        let mut gathered = vec![0.0; tied.dim()];
        for (name, range) in tied.parameters().blocks() {
            gathered[range].copy_from_slice(&v[part(&free, &name)]);
        }
        let table = gathered[part(&tied, "tokens")].iter_mut();
        for (g, v) in table.zip(&v[part(&free, "out.weight")]) {
            *g += v;
        }
        gathered
    };
    let gradient = gather(&free.gradient().unwrap());
    assert_close(&tied.gradient().unwrap(), &gradient, 1e-13);
    let v = numbers(tied.dim(), 3);
    let product = gather(&free.hvp(&spread(&v)).unwrap());
    assert_close(&tied.hvp(&v).unwrap(), &product, 1e-13);
}

/// Under a causal mask, the outputs at a position do not depend on later tokens.
#[test]
fn a_causal_mask_hides_later_tokens() {
    let first = tokens(3, CONTEXT, 1);
    let start = first.narrow(1, 0, 3).unwrap();
    let end = Tensor::zeros((3, CONTEXT - 3), DType::U32, &CPU).unwrap();
    let other = Tensor::cat(&[&start, &end], 1).unwrap();
    for kind in KINDS {
        let outputs = |x: &Tensor| {
            let model = language_model(kind, DType::F64);
            let y = model.forward(x).unwrap().narrow(1, 0, 3).unwrap();
            y.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        let [a, b] = [&first, &other].map(outputs);
        let differ = a.iter().zip(&b).any(|(a, b)| (a - b).abs() > 1e-6);
        assert_eq!(differ, !kind.causal, "{kind:?}");
        if kind.causal {
            assert_close(&outputs(&start), &a, 1e-13);
        }
    }
}

/// Queries of 0 give every position the mean of the values.
#[test]
fn uniform_attention_is_a_mean() {
    let layer = SelfAttention::new("a", 2).without_biases();
    let mut vars = Vars::default();
    let layer = vars.attention(layer, [WIDTH, WIDTH]);
    let parameters = vars.parameters(DType::F64);
    let set = |name: &str, value: Tensor| parameters.get(name).unwrap().set(&value).unwrap();
    let identity = Tensor::eye(WIDTH, DType::F64, &CPU).unwrap();
    set("a.query.weight", identity.zeros_like().unwrap());
    set("a.value.weight", identity.clone());
    set("a.output.weight", identity);
    let values = numbers(2 * 4 * WIDTH, 7);
    let x = Tensor::from_vec(values, (2, 4, WIDTH), &CPU).unwrap();
    let mean = x.mean_keepdim(1).unwrap().broadcast_as(x.shape()).unwrap();
    let data = Dataset::regression(&x, &mean).unwrap();
    let model = Layered::new(vec![layer], parameters);
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    assert!(objective.loss().unwrap() < 1e-30);
}

#[test]
fn trainings_agree_between_engine_and_graph() {
    let data = Dataset::classification(&tokens(30, CONTEXT, 1), &tokens(30, CONTEXT, 2)).unwrap();
    let trainer = Trainer::adam(0.01).with_batch_size(7).with_epochs(2);
    let [by_hand, by_graph] = [(); 2].map(|()| language_model(KINDS[1], DType::F64));
    let history = trainer.fit(&by_hand, &data, &data).unwrap();
    let graph = Objective::of(&by_graph, &data, Loss::CrossEntropy).unwrap();
    let graph = graph.by_autograd();
    trainer.fit_objective(&graph, &graph).unwrap();
    let [a, b] = [&by_hand, &by_graph].map(|m| m.parameters().to_flat().unwrap());
    assert_close(&a, &b, 1e-9);
    assert!(history.epochs[1].train_loss < history.epochs[0].train_loss);
}

#[test]
fn losses_on_a_plane_are_those_of_moved_models() {
    let objective = objective(KINDS[1], &tokens(6, CONTEXT, 1), DType::F64);
    let theta = objective.parameters().to_flat().unwrap();
    let direction = numbers(theta.len(), 5);
    let moved = |step: f64| -> Vec<f64> {
        let pairs = theta.iter().zip(&direction);
        pairs.map(|(t, d)| t + step * d).collect()
    };
    let line = Line::between(&objective, &moved(1.0), 5).unwrap();
    for (alpha, loss) in line.alphas.iter().zip(&line.losses) {
        let expected = objective.loss_at(&moved(*alpha)).unwrap();
        assert_close(&[*loss], &[expected], 1e-13);
    }
}

#[test]
fn the_gpt_of_the_zoo_has_the_derivatives_of_candles_graph() {
    let gpt = Architecture::Gpt {
        layers: 2,
        heads: 2,
        width: 8,
        context: CONTEXT + 1,
    };
    let model = gpt.build(&[CONTEXT], TOKENS, 3, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let data = Dataset::classification(&tokens(9, CONTEXT, 1), &tokens(9, CONTEXT, 2)).unwrap();
    let by_hand = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    assert_eq!(by_hand.engine(), Engine::ByHand);
    let by_graph = by_hand.clone().by_autograd();
    // Larger weights than the initial ones, which make all products small.
    for at in [1.0, 10.0] {
        let theta = model.parameters().to_flat().unwrap();
        let theta: Vec<f64> = theta.iter().map(|t| at * t).collect();
        model.parameters().set_flat(&theta).unwrap();
        let [a, b] = [&by_hand, &by_graph].map(|o| o.gradient().unwrap());
        assert_close(&a, &b, 1e-11);
        let vectors: Vec<Vec<f64>> = (0..2).map(|i| numbers(a.len(), 20 + i)).collect();
        let pairs = products(&by_hand, &vectors).into_iter();
        for (a, b) in pairs.zip(products(&by_graph, &vectors)) {
            assert_close(&a, &b, 1e-10);
        }
    }
}

#[test]
fn the_default_gpt_predicts_all_tokens_alike_at_first() {
    let (tokens, width, length) = (65, 128, 64);
    let model = Architecture::GPT.build(&[length], tokens, 0, &CPU).unwrap();
    let parameters = model.parameters();
    let linear = |inputs: usize, outputs: usize| inputs * outputs + outputs;
    let block = 4 * linear(width, width) + linear(width, 4 * width) + linear(4 * width, width);
    let norms = 2 * width;
    let expected = (2 * tokens + length) * width + 4 * (block + 2 * norms) + norms;
    assert_eq!(parameters.len(), expected);
    let names: Vec<String> = parameters
        .blocks()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for name in [
        "tokens.weight",
        "positions.weight",
        "blocks.3.attention.value.bias",
        "out.weight",
    ] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
    let x: Vec<u32> = (0..3 * length as u32)
        .map(|i| i * i % tokens as u32)
        .collect();
    let x = Tensor::from_vec(x, (3, length), &CPU).unwrap();
    let data = Dataset::classification(&x, &x).unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    assert_eq!(objective.engine(), Engine::ByHand);
    assert!((objective.loss().unwrap() - (tokens as f64).ln()).abs() < 0.1);
}

#[test]
fn sizes_that_do_not_fit_a_gpt_are_refused() {
    let message = |design: loss_landscape::model::Design, inputs: &[usize]| {
        design
            .build(inputs, TOKENS, 0, &CPU)
            .unwrap_err()
            .to_string()
    };
    let gpt = |layers, heads, width, context| {
        let gpt = Architecture::Gpt {
            layers,
            heads,
            width,
            context,
        };
        gpt.design()
    };
    for [layers, heads, width, context] in [[0, 1, 2, 4], [1, 0, 2, 4], [1, 1, 0, 4], [1, 3, 4, 4]]
    {
        let found = message(gpt(layers, heads, width, context), &[4]);
        assert!(found.contains("heads that divide the width"), "{found}");
    }
    let found = message(gpt(1, 1, 2, 4), &[5]);
    assert!(found.contains("at most 4 tokens"), "{found}");
    let found = message(gpt(1, 1, 2, 4), &[2, 2]);
    assert!(found.contains("[2, 2]"), "{found}");
    let found = message(gpt(1, 1, 2, 4).normalization(Norm::Batch), &[4]);
    assert!(found.contains("LayerNorm"), "{found}");
}

fn vit(layers: usize, heads: usize, width: usize, patch: usize) -> Architecture {
    Architecture::Vit {
        layers,
        heads,
        width,
        patch,
    }
}

#[test]
fn the_vit_of_the_zoo_has_the_derivatives_of_candles_graph() {
    for (architecture, shape, samples) in [
        (vit(2, 2, 8, 2), [1, 6, 4], 9),
        (vit(1, 1, 5, 3), [2, 3, 6], 4),
        (vit(1, 3, 6, 2), [3, 4, 4], 1),
        // A single patch, and patches of one pixel.
        (vit(1, 1, 2, 4), [1, 4, 4], 1),
        (vit(2, 2, 4, 1), [1, 2, 3], 5),
    ] {
        let model = architecture.build(&shape, 3, 3, &CPU).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        let labels: Vec<u32> = (0..samples).map(|i| i % 3).collect();
        let data = labelled(&shape, &labels, &CPU).unwrap();
        let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        // Larger weights than the initial ones, which make all products small.
        for _ in 0..2 {
            let found = assert_engines_agree(&objective, 1e-10);
            let [u, v] = [20, 21].map(|seed| numbers(objective.dim(), seed));
            let [hu, hv] = [&u, &v].map(|v| objective.hvp(v).unwrap());
            assert_close(&hv, &found[0][hu.len()..2 * hu.len()], 1e-12);
            let scale = dot(&hu, &hu).sqrt() * dot(&v, &v).sqrt();
            assert!((dot(&u, &hv) - dot(&v, &hu)).abs() < 1e-14 * scale);

            let single = model.to_dtype(DType::F32).unwrap();
            let data = data.to_dtype(DType::F32).unwrap();
            let single = Objective::of(&single, &data, Loss::CrossEntropy).unwrap();
            assert_close(
                &single.gradient().unwrap(),
                &objective.gradient().unwrap(),
                1e-4,
            );
            assert_close(&single.hvp(&v).unwrap(), &hv, 1e-3);

            let range = objective.parameters().range("patches.weight").unwrap();
            let mut embedded = vec![0.0; v.len()];
            embedded[range.clone()].copy_from_slice(&v[range.clone()]);
            let block = objective.hessian().block(&["patches.weight"]).unwrap();
            assert_close(
                &block.apply(&v[range.clone()]).unwrap(),
                &objective.hvp(&embedded).unwrap()[range],
                1e-12,
            );

            let theta = model.parameters().to_flat().unwrap();
            let theta: Vec<f64> = theta.iter().map(|t| 10.0 * t).collect();
            model.parameters().set_flat(&theta).unwrap();
        }
    }
}

/// A patch's linear function is a convolution whose stride is its kernel.
#[test]
fn patches_and_a_linear_layer_are_a_convolution() {
    let (n, channels, size, outputs) = (2, 3, 2, 5);
    let mut vars = Vars::default();
    let embedding = Linear::new("w", "b");
    vars.linear(&embedding, [channels * size * size, outputs]);
    let parameters = vars.parameters(DType::F64);
    let x = numbers(n * channels * 4 * 6, 3);
    let x = Tensor::from_vec(x, (n, channels, 4, 6), &CPU).unwrap();
    let kernel = parameters.get("w").unwrap();
    let kernel = kernel.reshape((outputs, channels, size, size)).unwrap();
    let bias = parameters.get("b").unwrap().reshape((1, (), 1, 1)).unwrap();
    let expected = x.conv2d(&kernel, 0, size, 1, 1).unwrap();
    let expected = expected.broadcast_add(&bias).unwrap();
    let expected = expected.flatten_from(2).unwrap().transpose(1, 2).unwrap();
    let model = Layered::new(
        vec![Patches::new(size).into(), embedding.into()],
        parameters,
    );
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_close(&flat(&model.forward(&x).unwrap()), &flat(&expected), 1e-14);
    let data = Dataset::regression(&x, &expected).unwrap();
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    assert_eq!(objective.engine(), Engine::ByHand);
    assert!(objective.loss().unwrap() < 1e-28);
}

#[test]
fn the_default_vit_predicts_all_classes_alike_at_first() {
    for shape in [[1, 28, 28], [3, 32, 32]] {
        let model = Architecture::VIT.build(&shape, 10, 0, &CPU).unwrap();
        let [channels, height, _] = shape;
        let (width, patches) = (64, height * height / 16);
        let linear = |inputs: usize, outputs: usize| inputs * outputs + outputs;
        let block = 4 * linear(width, width) + linear(width, 4 * width) + linear(4 * width, width);
        let norms = 2 * width;
        let expected = linear(16 * channels, width)
            + patches * width
            + 4 * (block + 2 * norms)
            + norms
            + linear(width, 10);
        assert_eq!(model.parameters().len(), expected);
        let data = labelled(&shape, &[1, 7, 4, 0], &CPU).unwrap();
        let data = data.to_dtype(DType::F32).unwrap();
        let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
        assert_eq!(objective.engine(), Engine::ByHand);
        assert!((objective.loss().unwrap() - 10f64.ln()).abs() < 0.1);
    }
}

#[test]
fn a_vit_learns_digits() {
    let mnist = Mnist::load(&CPU).unwrap();
    let (train, test) = (
        mnist.train.first(3_000).unwrap(),
        mnist.test.first(500).unwrap(),
    );
    let model = vit(1, 2, 32, 7).build(&[1, 28, 28], 10, 0, &CPU).unwrap();
    let trainer = Trainer::adam(0.005).with_batch_size(50).with_epochs(4);
    let history = trainer.fit(&model, &train, &test).unwrap();
    let accuracy = history.epochs[3].test_accuracy.unwrap();
    assert!(accuracy > 0.6, "{accuracy}");
}

#[test]
fn sizes_that_do_not_fit_a_vit_are_refused() {
    let message = |architecture: Architecture, inputs: &[usize]| {
        let error = architecture.build(inputs, 10, 0, &CPU).unwrap_err();
        error.to_string()
    };
    for [layers, heads, width, patch] in [[0, 1, 2, 4], [1, 0, 2, 4], [1, 1, 0, 4], [1, 1, 2, 0]] {
        let found = message(vit(layers, heads, width, patch), &[1, 8, 8]);
        assert!(found.contains("width and patch above 0"), "{found}");
    }
    let found = message(vit(1, 3, 4, 4), &[1, 8, 8]);
    assert!(found.contains("heads that divide the width"), "{found}");
    for shape in [[1, 28, 10], [1, 10, 28]] {
        let found = message(Architecture::VIT, &shape);
        assert!(found.contains("patches of 4 × 4: give a side"), "{found}");
    }
    let found = message(Architecture::VIT, &[784]);
    assert!(found.contains("channels × height × width"), "{found}");
    let normalized = Architecture::VIT.design().normalization(Norm::Group(8));
    let found = normalized.build(&[1, 8, 8], 10, 0, &CPU).unwrap_err();
    assert!(found.to_string().contains("LayerNorm"), "{found}");
}

#[test]
fn layers_survive_json() {
    let layers = language_model(KINDS[1], DType::F64).layers().unwrap();
    let json = serde_json::to_string(&layers).unwrap();
    let read: Vec<LayerKind> = serde_json::from_str(&json).unwrap();
    assert_eq!(read, layers);
}

/// Candle's graph computes what the hand-derived rules leave out.
#[test]
fn queries_with_a_bias_beside_keys_without_one_are_left_to_the_graph() {
    let mut attention = SelfAttention::new("a", 2);
    attention.key.bias = None;
    let mut vars = Vars::default();
    let layer = vars.attention(attention, [WIDTH, WIDTH]);
    let model = Layered::new(vec![layer], vars.parameters(DType::F64));
    let x = Tensor::from_vec(numbers(2 * 4 * WIDTH, 7), (2, 4, WIDTH), &CPU).unwrap();
    let data = Dataset::regression(&x, &x).unwrap();
    let objective = Objective::of(&model, &data, Loss::Mse).unwrap();
    let Engine::ByGraph(reason) = objective.engine() else {
        panic!("by hand");
    };
    let reason = reason.to_string();
    assert!(
        reason.contains("`a.key.weight`") && reason.contains("a bias if"),
        "{reason}"
    );
}

#[test]
fn errors_name_the_layer_and_what_it_needs() {
    let message = |layer: LayerKind, shape: &[usize]| {
        let mut vars = Vars::default();
        vars.attention(SelfAttention::new("a", 1), [WIDTH, WIDTH]);
        vars.gated(GatedMlp::new("m"), 4);
        vars.add("positions", &[CONTEXT, WIDTH]);
        vars.add("short", &[4]);
        let dims = [&[2], shape].concat();
        let x = Tensor::zeros(dims, DType::F64, &CPU).unwrap();
        let data = Dataset::regression(&x, &x).unwrap();
        let model = Layered::new(vec![layer], vars.parameters(DType::F64));
        Objective::of(&model, &data, Loss::Mse)
            .unwrap_err()
            .to_string()
    };
    let attention = |heads| SelfAttention::new("a", heads);
    let found = message(attention(4).into(), &[3, WIDTH]);
    assert!(
        found.contains("divided among 4 heads, not 6 and 6"),
        "{found}"
    );
    let found = message(attention(0).into(), &[3, WIDTH]);
    assert!(found.contains("divided among 0 heads"), "{found}");
    let found = message(attention(1).into(), &[WIDTH]);
    assert!(found.contains("shape (positions, features)"), "{found}");
    let mut uneven = attention(2);
    uneven.key = Linear::new("m.gate.weight", "m.gate.bias");
    let found = message(uneven.into(), &[3, WIDTH]);
    assert!(
        found.contains("as many outputs of `a.query.weight`"),
        "{found}"
    );
    let mut uneven = GatedMlp::new("m");
    uneven.up = attention(1).query;
    let found = message(uneven.into(), &[3, WIDTH]);
    assert!(
        found.contains("as many outputs of `m.gate.weight`"),
        "{found}"
    );
    let positions = || PositionEmbedding::new("positions").into();
    let found = message(positions(), &[CONTEXT + 1, WIDTH]);
    assert!(found.contains("at most 5 positions"), "{found}");
    let found = message(positions(), &[3, WIDTH + 1]);
    assert!(found.contains("shape (positions, 6)"), "{found}");
    let patches = |size| Patches::new(size).into();
    for (size, shape) in [(2, &[1, 4, 3][..]), (2, &[1, 3, 4]), (0, &[1, 4, 4])] {
        let found = message(patches(size), shape);
        let words = format!("a height and a width that are multiples of {size}");
        assert!(found.contains(&words), "{found}");
    }
    let found = message(patches(2), &[4, 4]);
    assert!(
        found.contains("put an Unflatten layer before it"),
        "{found}"
    );
    let found = message(PositionMean.into(), &[WIDTH]);
    assert!(found.contains("PositionMean cannot take"), "{found}");
    let found = message(RmsNorm::new("short").into(), &[3, WIDTH]);
    assert!(found.contains("`short` of shape (6,)"), "{found}");
}
