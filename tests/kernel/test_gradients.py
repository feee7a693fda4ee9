"""Derivatives are correct if variables, losses and gradients are in different cells.

If every cell had its own copy of candle, tensors of different cells would share ids, and the first test would give 8 for both
derivatives.
"""

import pytest


def test_a_product_across_cells(kernel):
    kernel.shown("let a = Var::new(3f32, &Device::Cpu)?;")
    kernel.shown("let b = Var::new(5f32, &Device::Cpu)?;")
    kernel.shown("let f = (a.as_tensor() * b.as_tensor())?;")
    kernel.shown("let gradients = f.backward()?;")
    assert kernel.shown("gradients.get(&a).unwrap().to_scalar::<f32>()?") == "5.0"
    assert kernel.shown("gradients.get(&b).unwrap().to_scalar::<f32>()?") == "3.0"


def test_a_model_trained_in_one_cell_differentiates_in_the_next(kernel):
    kernel.shown("let data = two_moons(100, 0.2, 0, &Device::Cpu)?;")
    kernel.shown("let model = Mlp::new(&[2, 4, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;")
    kernel.shown("let history = Trainer::adam(0.05).with_epochs(5).with_batch_size(20).fit(&model, &data, &data)?;")
    kernel.shown("let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;")
    kernel.shown("let theta = model.parameters().to_flat()?;")
    kernel.shown("let v: Vec<f64> = (0..theta.len()).map(|i| (i as f64).sin()).collect();")
    for name, sign in (("ahead", "+"), ("behind", "-")):
        kernel.shown(f"let moved: Vec<f64> = theta.iter().zip(&v).map(|(t, v)| t {sign} 1e-5 * v).collect();")
        kernel.shown(f"let {name} = objective.loss_at(&moved)?;")
    slope = float(kernel.shown("(ahead - behind) / 2e-5"))
    predicted = float(kernel.shown("objective.gradient()?.iter().zip(&v).map(|(g, v)| g * v).sum::<f64>()"))
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(predicted, rel=1e-6)


def test_hessian_vector_products_equal_central_differences(kernel):
    kernel.shown("let hv = objective.hvp(&v)?;")
    for name, sign in (("ahead", "+"), ("behind", "-")):
        kernel.shown(f"let moved: Vec<f64> = theta.iter().zip(&v).map(|(t, v)| t {sign} 1e-5 * v).collect();")
        kernel.shown("model.parameters().set_flat(&moved)?;")
        kernel.shown(f"let gradient_{name} = objective.gradient()?;")
    kernel.shown("model.parameters().set_flat(&theta)?;")
    error = float(kernel.shown(
        "hv.iter().zip(gradient_ahead.iter().zip(&gradient_behind))"
        ".map(|(h, (a, b))| (h - (a - b) / 2e-5).abs()).fold(0.0, f64::max)"
    ))
    size = float(kernel.shown("hv.iter().fold(0.0, |m: f64, h| m.max(h.abs()))"))
    assert size > 1e-2
    assert error < 1e-6 * size


def test_a_custom_candle_model(kernel):
    kernel.shown("let map = VarMap::new();")
    kernel.shown("let builder = VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);")
    kernel.shown('let first = candle_nn::linear(2, 5, builder.pp("first"))?;')
    kernel.shown('let last = candle_nn::linear(5, 2, builder.pp("last"))?;')
    kernel.shown("let own = Objective::from_fn(&map, &data, Loss::CrossEntropy, "
                 "move |x| last.forward(&first.forward(x)?.tanh()?))?;")
    assert float(kernel.shown("own.derivative_check().hvp")) < 1e-5


def test_a_sequence_of_candle_layers(kernel):
    kernel.shown("let layers = VarMap::new();")
    kernel.shown("let layer = VarBuilder::from_varmap(&layers, DType::F64, &Device::Cpu);")
    kernel.shown("let net = nn::seq()"
                 '.add(candle_nn::linear(2, 5, layer.pp("first"))?)'
                 ".add_fn(|x| x.tanh())"
                 '.add(candle_nn::linear(5, 2, layer.pp("last"))?);')
    kernel.shown("let forward = net.clone();")
    kernel.shown("let analyzer = Analyzer::from_fn(&layers, &data, &data, Loss::CrossEntropy, "
                 "move |x| forward.forward(x))?;")
    assert float(kernel.shown("analyzer.objective().derivative_check().hvp")) < 1e-5
    assert kernel.shown("net.forward(data.inputs())?.dims().to_vec()") == "[100, 2]"
