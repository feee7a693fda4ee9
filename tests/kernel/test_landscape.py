"""Sharpness, planes, paths and embeddings in cells that use the variables of earlier cells."""

import pytest


@pytest.fixture(scope="module")
def networks(kernel):
    kernel.shown("let data = two_moons(80, 0.1, 0, &Device::Cpu)?;")
    for seed, name in enumerate("ab"):
        kernel.shown(f"let {name} = Mlp::new(&[2, 8, 2], Activation::Tanh, {seed}, &Device::Cpu)?.to_dtype(DType::F64)?;")
    kernel.shown("let trainer = Trainer::adam(0.02).with_epochs(40).with_batch_size(20);\nlet mut path = Trajectory::every(5)?;")
    kernel.shown("trainer.fit_recorded(&a, &data, &data, &mut path)?;\ntrainer.fit(&b, &data, &data)?;")
    kernel.shown("let objective = Objective::of(&a, &data, Loss::CrossEntropy)?;")


def test_a_trajectory_on_its_plane(kernel, networks):
    kernel.shown("let pca = Pca::fit(&path, 2)?;")
    kernel.shown("let projection = Projection::onto(&objective, &pca.components[0], &pca.components[1], &path)?;")
    kernel.shown("let grid = projection.grid(15)?;\nlet plane = Plane::on_grid(&objective, &pca.components[0], &pca.components[1], &grid)?;")
    shown = kernel.run("figure::trajectory(&plane, &projection)")
    assert len(shown["application/vnd.plotly.v1+json"]["data"]) == 6
    assert "explained variance" in kernel.run("pca")["text/html"]


def test_sharpness(kernel, networks):
    kernel.shown("let sharpness = Sharpness::new(0.1);")
    assert "worst rise" in kernel.shown("sharpness.worst_case(&objective)")
    assert "gradient descent is stable below" in kernel.shown("StableRate::estimate(&objective)?")
    assert "above 0" in kernel.run("Sharpness::new(0.0).sam(&objective)")["error"]


def test_two_models(kernel, networks):
    kernel.shown("let between = Connectivity::between(&objective, &a, &b, &[PathTrainer::default()], 21)?;")
    assert "trained Bézier" in kernel.run("between")["text/html"]
    shown = kernel.run("figure::paths(&between.paths)")
    assert len(shown["application/vnd.plotly.v1+json"]["data"]) == 4


def test_embeddings_side_by_side(kernel, networks):
    kernel.shown("let comparison = Comparison::new(&path, 0)?;")
    assert "trustworthiness" in kernel.run("comparison")["text/html"]
