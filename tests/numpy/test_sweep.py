"""Compares the files of an L2 study with NumPy on the exported weights."""

import csv
import json

import numpy as np
from test_surface import idx, landscape, safetensors

WIDTHS = [784, 12, 10]
SAMPLES = 400


def split(theta):
    """W₀, b₀, W₁, b₁ of θ, which is sorted by name: layers.0.bias, layers.0.weight, layers.1.bias, …"""
    inner, outer = WIDTHS[1] * (WIDTHS[0] + 1), WIDTHS[1]
    rest = theta[inner:]
    return (
        theta[outer:inner].reshape(WIDTHS[1], WIDTHS[0]),
        theta[:outer],
        rest[WIDTHS[2] :].reshape(WIDTHS[2], WIDTHS[1]),
        rest[: WIDTHS[2]],
    )


def loss_and_gradient(theta, x, y, l2):
    w0, b0, w1, b1 = split(theta)
    h = 1 / (1 + np.exp(-(x @ w0.T + b0)))
    z = h @ w1.T + b1
    z -= z.max(1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    loss = -np.mean(np.log(p[np.arange(len(y)), y])) + l2 * theta @ theta
    dz = p.copy()
    dz[np.arange(len(y)), y] -= 1
    dz /= len(y)
    da = dz @ w1 * h * (1 - h)
    gradient = np.concatenate([da.sum(0), (da.T @ x).ravel(), dz.sum(0), (dz.T @ h).ravel()])
    return loss, gradient + 2 * l2 * theta


def test_files_of_a_sweep(tmp_path):
    out = tmp_path / "study"
    net = ["--layers", ",".join(map(str, WIDTHS)), "--samples", SAMPLES, "--lr", 0.01]
    report = landscape("sweep", *net, "--l2", "0,0.003", "--epochs", 3, "--top", 3, "--out", out)
    assert json.loads((out / "manifest.json").read_text())["strengths"] == [0, 0.003]

    x = idx("train-images-idx3-ubyte", 16).reshape(-1, 784)[:SAMPLES] / 255
    y = idx("train-labels-idx1-ubyte", 8)[:SAMPLES]
    for point, name in zip(report["points"], ["0-0", "1-0.003"], strict=True):
        tensors = safetensors(out / f"model_weights-{name}.safetensors")
        theta = np.concatenate([tensors[key].ravel() for key in sorted(tensors)])
        [row] = csv.DictReader((out / f"Model-{name[0]}.csv").open())
        l2 = float(row["l2"])
        loss, gradient = loss_and_gradient(theta, x, y, l2)
        assert abs(float(row["train_loss"]) - loss) < 1e-6 * loss
        assert abs(float(row["penalty"]) - l2 * theta @ theta) < 1e-9

        rows = list(csv.DictReader((out / f"gradients-{name}.csv").open()))
        found = np.array([float(r["value"]) for r in rows])
        assert np.linalg.norm(found - gradient) < 1e-5 * np.linalg.norm(gradient)
        entries = [(key, str(i)) for key in sorted(tensors) for i in range(tensors[key].size)]
        assert [(r["parameter"], r["index"]) for r in rows] == entries

        ranks, values, residuals = np.loadtxt(out / f"Hessian-eigenvalues-{name}.csv", delimiter=",", skiprows=1).T
        assert list(ranks) == [1, 2, 3] and list(values) == point["eigenvalues"]
        vectors = np.loadtxt(out / f"Hessian-eigenvectors-{name}.csv", delimiter=",", skiprows=1)
        assert vectors.shape == (theta.size, 3)
        for value, residual, v in zip(values, residuals, vectors.T):
            step = 1e-4
            ahead, behind = (loss_and_gradient(theta + s * v, x, y, l2)[1] for s in (step, -step))
            error = np.linalg.norm((ahead - behind) / (2 * step) - value * v)
            assert error < residual + 1e-5 * abs(values[0])
