"""The kernel's code analysis reads only some packages and still infers the types in cells."""

import json
import os
import subprocess
import sys

import pytest
from conftest import INSTALLED, PROJECT, Kernel

sys.path.insert(0, str(INSTALLED))
import cargo  # noqa: E402


def metadata(dependencies, analysed):
    """Output of `cargo metadata` for these packages. Only `crate` lists the packages to analyse."""
    notes = {"notebook": {"analysed": analysed}}
    return {
        "packages": [{"id": f"#{n}", "name": n, "metadata": notes if n == "crate" else None} for n in dependencies],
        "workspace_members": ["#ctx", "#locked"],
        "resolve": {"nodes": [
            {"id": f"#{n}", "dependencies": [f"#{d}" for d in ds], "deps": [{"pkg": f"#{d}"} for d in ds]}
            for n, ds in dependencies.items()
        ]},
    }


@pytest.mark.parametrize("cell, expected", [
    (["crate"], {"ctx", "crate", "tensors", "half"}),
    # A package that the cell itself depends on is read with all its dependencies.
    (["crate", "http"], {"ctx", "crate", "tensors", "half", "http", "sockets"}),
    (["http", "crate"], {"ctx", "crate", "tensors", "half", "http", "sockets"}),
    (["tensors"], {"ctx", "tensors", "half", "http", "sockets"}),
])
def test_analysed_packages(cell, expected):
    dependencies = {
        "ctx": cell, "locked": ["crate"], "crate": ["tensors", "sockets"], "tensors": ["half", "http"],
        "half": [], "http": ["sockets"], "sockets": [],
    }
    found = cargo.pruned(metadata(dependencies, ["tensors", "half"]))
    assert {package["name"] for package in found["packages"]} == expected
    assert {node["id"][1:] for node in found["resolve"]["nodes"]} == expected
    assert all(d["pkg"][1:] in expected for node in found["resolve"]["nodes"] for d in node["deps"])
    assert found["workspace_members"] == ["#ctx"]


def test_an_answer_is_cached_until_a_manifest_changes(tmp_path):
    for name, needs in (("cell", 'helper = { path = "../helper" }\n'), ("helper", "")):
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "src/lib.rs").write_text("")
        manifest = f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2024"\n\n[workspace]\n\n[dependencies]\n{needs}'
        (tmp_path / name / "Cargo.toml").write_text(manifest.replace("[workspace]\n\n", "") if name == "helper" else manifest)

    def versions():
        command = [INSTALLED / "analysis/cargo", "metadata", "--format-version", "1", "--offline"]
        environment = {**os.environ, "EVCXR_TMPDIR": str(tmp_path / "cell")}
        output = subprocess.check_output(command, cwd=tmp_path / "cell", env=environment, text=True)
        return {package["name"]: package["version"] for package in json.loads(output)["packages"]}

    # The first call writes a lock file, so the second call has another cache key.
    assert versions() == versions() == {"cell": "0.1.0", "helper": "0.1.0"}
    for cached in (tmp_path / "answers").glob("*.json"):
        cached.write_text(cached.read_text().replace("0.1.0", "0.1.1"))
    assert versions() == {"cell": "0.1.1", "helper": "0.1.1"}

    manifest = tmp_path / "helper/Cargo.toml"
    manifest.write_text(manifest.read_text().replace("0.1.0", "0.2.0"))
    assert versions() == {"cell": "0.1.0", "helper": "0.2.0"}
    with pytest.raises(subprocess.CalledProcessError):
        manifest.write_text("[package")
        versions()


TYPES = """
let tensor = Tensor::new(&[1.0f64, 2.0], &Device::Cpu)?.affine(2.0, 0.0)?;
let numbers = tensor.to_vec1::<f64>()?;
let shape = tensor.shape().clone();
let table = loss_landscape::polars::df!["a" => &numbers]?;
let column = table.column("a")?.clone();
let first = column.f64()?.get(0);
let array = loss_landscape::ndarray::Array2::<f64>::zeros((2, 3)).t().to_owned();
let layer = candle_nn::linear(2, 3, VarBuilder::zeros(DType::F64, &Device::Cpu))?;
let plot = loss_landscape::plotly::Plot::new();
let json = loss_landscape::serde_json::json!({"a": numbers})["a"][1].as_f64();
let counts = numbers.iter().map(|x| (*x as i64, 1)).collect::<std::collections::BTreeMap<_, _>>();
"""


def test_types_are_known(kernel):
    """No variable here has a type annotation. The kernel reports variables whose type the analysis cannot infer."""
    assert kernel.shown(TYPES) == ""
    shown = kernel.shown('(numbers.len(), shape.dims().len(), first, array.dim(), json, counts[&4])')
    assert shown == "(2, 1, Some(2.0), (3, 2), Some(4.0), 1)"


def test_a_local_package(kernel, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "own"\nversion = "0.1.0"\nedition = "2024"\n')
    (tmp_path / "src/lib.rs").write_text("pub struct Own(pub i32);\nimpl Own { pub fn new() -> Self { Self(7) } }")
    assert kernel.shown(f':dep own = {{ path = "{tmp_path}" }}\nlet own = own::Own::new();\nown.0') == "7"


LIBRARY = """let _ = two_moons(4, 0.1, 0, &Device::Cpu)?;
let maps = std::fs::read_to_string("/proc/self/maps")?;
println!("{}", maps.lines().find_map(|l| l.split(' ').last().filter(|l| l.contains("libloss_landscape"))).unwrap());"""


def test_a_second_kernel_reuses_the_compiled_crate(kernel):
    """Both run at the same time, each in its own directory."""
    second = Kernel(PROJECT / "notebooks")
    try:
        second.shown(':dep loss-landscape = { path = ".." }\nuse loss_landscape::prelude::*;')
        libraries = [k.run(LIBRARY)["stdout"].strip() for k in (kernel, second)]
        assert libraries[0] != libraries[1]
        assert os.path.samefile(*libraries), "compiled again"
    finally:
        second.stop()


def test_another_checkout_is_refused(tmp_path):
    """cargo refuses it, because the kernel's lock file contains the crate of its own checkout."""
    (tmp_path / "src").mkdir()
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "loss-landscape"\nversion = "0.1.0"\nedition = "2024"\n')
    (tmp_path / "src/lib.rs").write_text("")
    other = Kernel(tmp_path)
    try:
        outputs = other.run(f':dep loss-landscape = {{ path = "{tmp_path}" }}')
        assert "package collision" in outputs["error"] and str(tmp_path) in outputs["error"]
    finally:
        other.stop()
