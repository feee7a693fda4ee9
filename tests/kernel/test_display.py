"""Outputs of cells: one bundle for all viewers, tables as HTML, errors as text."""

import base64
import struct

import pytest
from conftest import DEP, Kernel


@pytest.fixture(scope="module")
def plane(kernel):
    kernel.shown("let data = two_moons(50, 0.2, 0, &Device::Cpu)?;")
    kernel.shown("let model = Mlp::new(&[2, 4, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;")
    kernel.shown("let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;")
    kernel.shown("let plane = Plane::random(&objective, 0, 1.0, 11)?;")


@pytest.mark.parametrize("figure, trace", [("contour", "contour"), ("surface", "surface")])
def test_a_figure_is_one_bundle(kernel, plane, figure, trace):
    shown = kernel.run(f"figure::{figure}(&plane)")
    assert "stderr" not in shown
    assert shown["application/vnd.plotly.v1+json"]["data"][0]["type"] == trace
    assert shown.keys() == {"application/vnd.plotly.v1+json", "image/png", "text/plain"}
    image = base64.b64decode(shown["image/png"])
    assert image.startswith(b"\x89PNG") and len(image) > 5_000
    layout = shown["application/vnd.plotly.v1+json"]["layout"]
    assert struct.unpack(">II", image[16:24]) == (2 * layout["width"], 2 * layout["height"])


def test_images_are_optional(tmp_path):
    kernel = Kernel(tmp_path, LOSS_LANDSCAPE_IMAGES="0")
    try:
        kernel.shown(f":dep {DEP}\nuse loss_landscape::prelude::*;")
        shown = kernel.run('figure::Chart::new("A line", "x", "y").line("y", [(0.0, 1.0), (1.0, 2.0)])')
        assert shown.keys() == {"application/vnd.plotly.v1+json", "text/plain"}
    finally:
        kernel.stop()


def test_tables(kernel, plane):
    shown = kernel.run("objective.hessian().top(3)?")
    assert shown["text/html"].count("<tr>") == 4 and "residual" in shown["text/html"]
    assert "eigenvalue" in shown["text/plain"]


def test_plain_values(kernel):
    assert kernel.run("for i in 0..3 { let _ = i; }") == {}
    assert kernel.shown('(1, "a")') == '(1, "a")'
    assert kernel.shown("[0.5, 2.0]") == "[0.5, 2.0]"
    assert kernel.shown("Some(vec![1u8])") == "Some([1])"
    assert kernel.shown("Tensor::new(&[2f64], &Device::Cpu)?") == "Tensor of shape [1] (F64, CPU)\n[2.0]"


def test_floats_have_no_meaningless_digits(kernel):
    kernel.shown("let sum = 0.1 + 0.2;")
    assert kernel.shown("sum") == "0.3"
    assert kernel.shown("(sum, 1.0f64, 0.1f32, -0.0f64, 1e-30)") == "(0.3, 1.0, 0.1, -0.0, 1e-30)"
    assert kernel.shown("vec![1e-3; 118_282]") == (
        "[0.001, 0.001, 0.001, …, 0.001, 0.001, 0.001] (118282 values, norm 0.343922)"
    )


def test_vectors_arrays_and_tensors_show_their_ends(kernel, plane):
    assert "(17 values, norm " in kernel.shown("objective.gradient()?")
    array = kernel.shown("loss_landscape::ndarray::Array2::<f64>::zeros((300, 400))")
    assert array.startswith("Array of shape [300, 400] (f64)\n[[0.0, 0.0, 0.0, …, 0.0, 0.0, 0.0],")
    assert len(array.splitlines()) == 8


def test_settings_are_tables(kernel):
    shown = kernel.run("Trainer::adam(0.01)")
    assert '<td style="text-align: left">learning_rate</td><td style="text-align: left">0.01</td>' in shown["text/html"]
    assert shown["text/plain"].startswith("Trainer")


def test_a_type_without_show_is_shown_by_debug(kernel):
    kernel.shown("#[derive(Debug)] struct Own(f64);")
    assert kernel.shown("Some(Own(0.5))") == "Some(Own(0.5))"


def test_a_figure_in_an_expression_that_moves_a_variable(kernel):
    kernel.shown('let chart = figure::Chart::new("A line", "x", "y");')
    assert "to see it: let figure" in kernel.run('chart.line("y", [(0.0, 1.0), (1.0, 2.0)]).figure()')["text/plain"]


def test_errors_have_no_backtrace(kernel, plane):
    error = kernel.run("objective.hvp(&[1.0])?;")["error"]
    assert error == "the vector has 1 entry but the model has 17 parameters"
    error = kernel.run("Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?.matmul(&Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?)?;")["error"]
    assert "shape mismatch in matmul" in error and "stack backtrace" not in error
    shown = kernel.run("objective.hessian().top(0)")
    assert "ask for 1 to 17" in shown["error"] and "text/plain" not in shown


def test_variables_survive_an_error_and_a_panic(kernel, plane):
    kernel.run('panic!("out of cheese");')
    assert kernel.shown("objective.dim()") == "17"
