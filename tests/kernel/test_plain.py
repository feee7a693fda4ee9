"""LOSS_LANDSCAPE_PLAIN=1: the kernel without the shims gives the same results, more slowly.

It is the fallback if a new evcxr or cargo breaks a shim. Cells with variables that cannot be stored are not tested: the stock
kernel then runs `cargo check` on every dependency, which takes minutes.
"""

import json
import os

import pytest
from conftest import DEP, INSTALLED, Kernel


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("plain"), LOSS_LANDSCAPE_PLAIN="1")
    kernel.shown("let before = vec![1.5, 2.5];")
    kernel.run(f":dep {DEP}\nuse loss_landscape::prelude::*;")
    yield kernel
    kernel.stop()


def test_the_shims_are_off(plain, kernel):
    for each, on in ((plain, False), (kernel, True)):
        path = each.run('println!("{}", std::env::var("PATH")?);')["stdout"]
        assert (str(INSTALLED / "bin") in path.strip().split(os.pathsep)) == on


def test_gradients_across_cells(plain):
    plain.shown("let a = Var::new(3f32, &Device::Cpu)?;")
    plain.shown("let b = Var::new(5f32, &Device::Cpu)?;")
    plain.shown("let gradients = (a.as_tensor() * b.as_tensor())?.backward()?;")
    found = "(gradients.get(&a).unwrap().to_scalar::<f32>()?, gradients.get(&b).unwrap().to_scalar::<f32>()?)"
    assert plain.shown(found) == "(5.0, 3.0)"


def test_a_model_and_its_figure(plain):
    plain.shown("let data = two_moons(50, 0.2, 0, &Device::Cpu)?;")
    plain.shown("let model = Mlp::new(&[2, 4, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;")
    plain.shown("let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;")
    assert float(plain.shown("objective.derivative_check().gradient")) < 1e-5
    assert plain.shown("before.iter().sum::<f64>()") == "4.0"
    shown = plain.run("figure::spectrum(&objective.hessian().dense()?.eigen()?)")
    assert shown["application/vnd.plotly.v1+json"]["data"]


def test_the_same_results(plain, kernel):
    cell = """let data = two_moons(80, 0.1, 3, &Device::Cpu)?;
let model = Mlp::new(&[2, 5, 2], Activation::Tanh, 2, &Device::Cpu)?.to_dtype(DType::F64)?;
let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
println!("{}", loss_landscape::serde_json::to_string(&(objective.loss()?, objective.gradient()?))?);"""
    found = [json.loads(each.run(cell)["stdout"]) for each in (plain, kernel)]
    assert found[0] == found[1]
