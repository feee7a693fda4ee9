//! The check of derivatives on networks that fit their data: it accepts correct rules without a warning, at any loss.

mod common;

use std::sync::Mutex;

use common::{Opaque, clearest, labelled, numbers, small_shape};
use loss_landscape::candle::{CpuStorage, CustomOp1, Layout, Shape};
use loss_landscape::layers;
use loss_landscape::model::LayerKind;
use loss_landscape::prelude::*;
use loss_landscape::progress::{Event, listen};

const CPU: Device = Device::Cpu;

/// All warnings of this process. No test here may emit one.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn record_warnings() {
    listen(|event| {
        if let Event::Warning(message) = event {
            WARNINGS.lock().unwrap().push(message.to_owned());
        }
    });
}

#[track_caller]
fn assert_no_warnings() {
    assert_eq!(*WARNINGS.lock().unwrap(), Vec::<String>::new());
}

/// Asserts that hand-derived rules and candle's graph pass the check without a warning and give finite derivatives.
#[track_caller]
fn assert_accepted<M: Model + Clone + Send + Sync + 'static>(
    model: &M,
    data: &Dataset,
    loss: Loss,
) {
    record_warnings();
    let by_hand = Objective::of(model, data, loss.clone()).unwrap();
    let by_graph = Objective::of(&Opaque(model.clone()), data, loss).unwrap();
    assert!(by_hand.is_hand_derived() && !by_graph.is_hand_derived());
    for objective in [by_hand, by_graph] {
        let check = objective.derivative_check();
        assert!(check.gradient.is_finite() && check.hvp.is_finite());
        let product = objective.hvp(&numbers(objective.dim(), 1)).unwrap();
        assert!(product.iter().all(|p| p.is_finite()));
    }
    assert_no_warnings();
}

/// Every network of the zoo in `f32`, trained until it fits the data, and then with its outputs scaled by 4.
#[test]
fn every_network_of_the_zoo() {
    let floats = |architecture: &Architecture| *architecture != Architecture::GPT;
    for architecture in Architecture::ALL.into_iter().filter(floats) {
        let shape = small_shape(architecture);
        let model = architecture.build(shape, 3, 1, &CPU).unwrap();
        let inputs = labelled(shape, &[0; 12], &CPU).unwrap();
        let inputs = inputs.inputs().to_dtype(DType::F32).unwrap();
        // Labels that the network can learn.
        let z = model.forward(&inputs).unwrap();
        let z = z.broadcast_sub(&z.mean_keepdim(0).unwrap()).unwrap();
        let data = Dataset::classification(&inputs, &z.argmax(1).unwrap()).unwrap();
        let trainer = Trainer::adam(0.003).with_batch_size(12).with_epochs(10);
        let mut epochs = 0;
        let fit = || trainer.fit(&model, &data, &data).unwrap().epochs[9].test_loss;
        while fit() > 0.01 {
            epochs += 10;
            assert!(epochs < 3_000, "{architecture:?} does not fit the data");
        }
        assert_accepted(&model, &data, Loss::CrossEntropy);
        let layers = model.layers().unwrap();
        let Some(LayerKind::Linear(layers::Linear {
            weight,
            bias: Some(bias),
        })) = layers.last()
        else {
            panic!("the last layer of {architecture:?} is not dense or has no bias");
        };
        for name in [weight, bias] {
            let var = model.parameters().get(name).unwrap();
            var.set(&(var.as_tensor() * 4.0).unwrap()).unwrap();
        }
        assert_accepted(&model, &data, Loss::CrossEntropy);
    }
}

/// A classifier that depends only on its bias, saturated until the probability underflows in `f32`.
#[test]
fn saturated_softmax() {
    for margin in [10.0, 20.0, 50.0, 90.0, 100.0, 200.0, 1_000.0] {
        for inputs in [0f32, 1.0] {
            let model = Mlp::new(&[3, 10], Activation::Tanh, 0, &CPU).unwrap();
            let mut theta = vec![0.0; 40];
            theta[0] = margin;
            model.parameters().set_flat(&theta).unwrap();
            let x = Tensor::full(inputs, (20, 3), &CPU).unwrap();
            for (label, samples) in [(0u32, 20), (1, 20), (0, 1)] {
                let labels = Tensor::full(label, samples, &CPU).unwrap();
                let x = x.narrow(0, 0, samples).unwrap();
                let data = Dataset::classification(&x, &labels).unwrap();
                assert_accepted(&model, &data, Loss::CrossEntropy);
            }
        }
    }
}

/// For a zero Hessian, all results are zero and none is NaN.
#[test]
fn a_zero_hessian() {
    let model = Mlp::new(&[3, 10], Activation::Tanh, 0, &CPU).unwrap();
    let mut theta = vec![0.0; 40];
    theta[0] = 200.0;
    model.parameters().set_flat(&theta).unwrap();
    let x = Tensor::zeros((20, 3), DType::F32, &CPU).unwrap();
    let labels = Tensor::zeros(20, DType::U32, &CPU).unwrap();
    let data = Dataset::classification(&x, &labels).unwrap();
    for objective in [
        Objective::of(&model, &data, Loss::CrossEntropy).unwrap(),
        Objective::of(&Opaque(model), &data, Loss::CrossEntropy).unwrap(),
    ] {
        assert!(objective.loss().unwrap() < 1e-80);
        assert!(objective.gradient().unwrap().iter().all(|g| *g == 0.0));
        let hessian = objective.hessian();
        let spectrum = hessian.top(3).unwrap();
        assert_eq!(spectrum.values(), [0.0; 3]);
        assert!(spectrum.pairs.iter().all(|pair| pair.residual == 0.0));
        let trace = hessian.trace().unwrap();
        assert_eq!((trace.value, trace.standard_error), (0.0, 0.0));
        let worst = Sharpness::new(0.1).worst_case(&objective).unwrap();
        let small = [worst.rise, worst.quadratic, worst.rounding];
        assert!(small.iter().all(|x| (0.0..1e-80).contains(x)), "{small:?}");
    }
}

/// The squares of gradients of 10⁻²⁰⁰ underflow.
#[test]
fn tiny_gradients() {
    record_warnings();
    let data = two_moons(40, 0.1, 0, &CPU).unwrap();
    let model = Mlp::new(&[2, 4, 1], Activation::Sigmoid, 0, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    let bias = model.parameters().get("layers.0.bias").unwrap();
    bias.set(&(bias.ones_like().unwrap() * -460.0).unwrap())
        .unwrap();
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let gradient = objective.gradient().unwrap();
    let first = model.parameters().range("layers.0.weight").unwrap();
    let sizes: Vec<f64> = gradient[first].iter().map(|g| g.abs()).collect();
    assert!(sizes.iter().all(|size| *size < 1e-162) && sizes.iter().any(|size| *size > 0.0));
    objective.hvp(&gradient).unwrap();
    assert_no_warnings();
}

/// Networks whose gradient is exactly zero: all weights are zero, or the fit is perfect.
#[test]
fn zero_gradients() {
    let x = Tensor::from_vec(numbers(60, 3), (20, 3), &CPU).unwrap();
    let x = x.to_dtype(DType::F32).unwrap();
    for activation in Activation::ALL {
        let model = Mlp::new(&[3, 6, 2], activation, 1, &CPU).unwrap();
        let fitted = model.forward(&x).unwrap().detach();
        assert_accepted(
            &model,
            &Dataset::regression(&x, &fitted).unwrap(),
            Loss::Mse,
        );
        let theta = vec![0.0; model.parameters().len()];
        model.parameters().set_flat(&theta).unwrap();
        let flat = Dataset::regression(&x, &model.forward(&x).unwrap()).unwrap();
        assert_accepted(&model, &flat, Loss::Mse);
        assert_accepted(&model, &flat.first(1).unwrap(), Loss::Mse);
    }
}

/// The identity, with a derivative that is wrong by a factor.
struct Scaled(f64);

impl CustomOp1 for Scaled {
    fn name(&self) -> &'static str {
        "scaled"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle::Result<(CpuStorage, Shape)> {
        assert!(layout.is_contiguous() && layout.start_offset() == 0);
        Ok((storage.clone(), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle::Result<Option<Tensor>> {
        Ok(Some((grad * self.0)?))
    }
}

/// A network on the samples that it classifies with the largest margins, untrained or trained until its loss is tiny. Derivatives
/// before and after the last layer are wrong by these factors.
fn with_factors(
    [before, after]: [f64; 2],
    activation: Activation,
    dtype: DType,
    trained: bool,
) -> Result<Objective, Error> {
    let model = Mlp::new(&[3, 8, 8, 3], activation, 2, &CPU)?.to_dtype(dtype)?;
    let x = Tensor::from_vec(numbers(900, 3), (300, 3), &CPU)?.to_dtype(dtype)?;
    let parameters = model.parameters();
    let last = parameters.get("layers.2.bias")?;
    last.set(&(last.as_tensor() - model.forward(&x)?.mean(0)?)?)?;
    let data = clearest(&model, &x, 12)?;
    while trained && Objective::of(&model, &data, Loss::CrossEntropy)?.loss()? > 1e-6 {
        Trainer::adam(0.02)
            .with_batch_size(12)
            .with_epochs(100)
            .fit(&model, &data, &data)?;
    }
    let var = |name: String| parameters.get(&name).map(|var| var.as_tensor().clone());
    let layer = |i| {
        Ok([
            var(format!("layers.{i}.weight"))?,
            var(format!("layers.{i}.bias"))?,
        ])
    };
    let layers: Vec<[Tensor; 2]> = (0..3).map(layer).collect::<Result<_, Error>>()?;
    Objective::from_fn(parameters.clone(), &data, Loss::CrossEntropy, move |x| {
        let linear = |h: &Tensor, i: usize| {
            let [weight, bias] = &layers[i];
            h.matmul(&weight.t()?)?.broadcast_add(bias)
        };
        let h = activation.apply(&linear(x, 0)?)?;
        let h = activation.apply(&linear(&h, 1)?)?;
        let h = h.contiguous()?.apply_op1(Scaled(before))?;
        linear(&h, 2)?.apply_op1(Scaled(after))
    })
}

/// In `f64`, also if only a part of the gradient is wrong.
#[test]
fn a_derivative_that_is_wrong_by_a_thousandth_is_detected() {
    record_warnings();
    for activation in Activation::ALL {
        for (dtype, wrong) in [
            (DType::F64, [1.001, 1.0]),
            (DType::F64, [1.0, 1.001]),
            (DType::F32, [1.0, 1.001]),
        ] {
            for trained in [false, true] {
                let what = format!("{activation:?} {dtype:?} {wrong:?}, trained: {trained}");
                let right = with_factors([1.0, 1.0], activation, dtype, trained);
                let loss = right.unwrap().loss().unwrap();
                assert!((loss < 1e-6) == trained, "{what}: {loss}");
                let wrong = with_factors(wrong, activation, dtype, trained);
                let error = wrong.err().map(|e| e.to_string()).unwrap_or_default();
                assert!(error.contains("the gradient is wrong"), "{what}: {error}");
            }
        }
    }
    assert_no_warnings();
}
