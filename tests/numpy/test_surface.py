"""Compares a surface with NumPy on the exported weights and directions."""

import csv
import gzip
import json
import subprocess
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).parents[2]
WIDTHS = [784, 32, 16, 10]
SAMPLES = 500


def landscape(*arguments):
    command = ["cargo", "run", "--quiet", "--locked", "--bin", "landscape", "--", *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True).stdout)


def safetensors(path):
    blob = Path(path).read_bytes()
    start = 8 + int.from_bytes(blob[:8], "little")
    types = {"F32": np.float32, "F64": np.float64}
    return {
        name: np.frombuffer(blob[start:][slice(*t["data_offsets"])], types[t["dtype"]]).reshape(t["shape"]).astype(float)
        for name, t in json.loads(blob[8:start]).items()
        if name != "__metadata__"
    }


def idx(name, offset):
    blob = gzip.decompress((PROJECT / f"data/mnist/{name}.gz").read_bytes())
    return np.frombuffer(blob, np.uint8, offset=offset)


def split(theta):
    """Weight and bias of each layer. θ is sorted by name: layers.0.bias, layers.0.weight, layers.1.bias, …"""
    layers, at = [], 0
    for inputs, outputs in zip(WIDTHS, WIDTHS[1:]):
        bias, weight = theta[at : at + outputs], theta[at + outputs : at + outputs * (inputs + 1)]
        layers.append((weight.reshape(outputs, inputs), bias))
        at += outputs * (inputs + 1)
    return layers


def loss(theta, x, y):
    for i, (weight, bias) in enumerate(split(theta)):
        x = x @ weight.T + bias
        if i + 2 < len(WIDTHS):
            x = np.tanh(x)
    x = x - x.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(x).sum(1)) - x[np.arange(len(y)), y]))


def test_filter_normalised_surface(tmp_path):
    weights = tmp_path / "w.safetensors"
    net = ["--layers", ",".join(map(str, WIDTHS)), "--activation", "tanh"]
    landscape("train", *net, "--epochs", 1, "--save", weights)
    at = [*net, "--weights", weights, "--samples", SAMPLES]
    report = landscape("surface", *at, "--plane", "filter", "--range", 1, "--grid", 7, "--seed", 3, "--out", tmp_path)

    x = idx("train-images-idx3-ubyte", 16).reshape(-1, 784)[:SAMPLES] / 255
    y = idx("train-labels-idx1-ubyte", 8)[:SAMPLES]
    exported = safetensors(tmp_path / "directions.safetensors")
    theta, d1, d2 = (exported[name] for name in ("theta", "d1", "d2"))
    for (weight, bias), name in zip(split(theta), range(3)):
        saved = safetensors(weights)
        assert np.array_equal(weight, saved[f"layers.{name}.weight"]) and np.array_equal(bias, saved[f"layers.{name}.bias"])

    # Each row of a weight has the norm of the model's row. Biases are zero. The directions are orthogonal row by row.
    for (weight, _), (first, bias), (second, bias2) in zip(split(theta), split(d1), split(d2)):
        length = np.linalg.norm(weight, axis=1)
        for direction in (first, second):
            assert np.allclose(np.linalg.norm(direction, axis=1), length, rtol=1e-10)
        assert (np.abs((first * second).sum(1)) < 1e-10 * length**2).all()
        assert not bias.any() and not bias2.any()

    rows = list(csv.DictReader((tmp_path / "surface.csv").open()))
    assert len(rows) == 49
    for row in rows:
        expected = loss(theta + float(row["alpha"]) * d1 + float(row["beta"]) * d2, x, y)
        assert abs(float(row["loss"]) - expected) < 1e-5 * expected, row
    center = next(row for row in rows if float(row["alpha"]) == float(row["beta"]) == 0)
    assert abs(report["loss_center"] - float(center["loss"])) < 1e-6
    assert report["loss_min"] == min(float(row["loss"]) for row in rows)
