"""Matrices that Python programs serve with python/landscape_external.py, compared with NumPy and PyTorch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).parents[2]

MATRIX = """
import sys, time
import numpy as np
sys.path.insert(0, {python!r})
print("loading the model")
from landscape_external import serve
a = np.random.default_rng(0).standard_normal((300, 300))
a = a + a.T
def hvp(v):
    print("a print in a product")
    {line}
    return a @ v
if __name__ == "__main__":
    serve(hvp, 300, {options})
"""


def landscape(*arguments):
    command = ["cargo", "run", "--quiet", "--locked", "--bin", "landscape", "--", *map(str, arguments), "--json"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def program(path, options="dtype='f64', name='symmetric'", line=""):
    file = path / "hvp.py"
    file.write_text(MATRIX.format(python=str(PROJECT / "python"), options=options, line=line))
    return f"'{sys.executable}' '{file}'"


def matrix():
    a = np.random.default_rng(0).standard_normal((300, 300))
    return a + a.T


@pytest.mark.parametrize("dtype, tolerance", [("f64", 1e-9), ("f32", 1e-4)])
def test_eigenvalues(tmp_path, dtype, tolerance):
    command = program(tmp_path, f"dtype='{dtype}', name='symmetric'")
    out = landscape("spectrum", "--external", command, "--top", 10, "--which", "la", "--tolerance", tolerance, "--block", 3)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    expected = np.linalg.eigvalsh(matrix())[::-1]
    errors = np.abs(np.array(found["eigenvalues"]) - expected[:10])
    assert (errors <= np.array(found["residuals"]) + 1e-5 * (dtype == "f32")).all(), errors
    assert found["external"]["name"] == "symmetric" and found["parameters"] == 300


@pytest.mark.parametrize(
    "line, words",
    [
        ("raise ZeroDivisionError('in the model')", "ZeroDivisionError: in the model"),
        ("return v[:-1]", "hvp must return shape (300,), not (299,)"),
        ("return v * float('nan')", "not finite: entry 0 of 300 is NaN"),
        ("return a @ v + np.random.standard_normal(300)", "is not symmetric"),
    ],
)
def test_errors_quote_the_program(tmp_path, line, words):
    out = landscape("trace", "--external", program(tmp_path, line=line))
    assert out.returncode == 1 and words in out.stderr, out.stderr


def test_a_killed_landscape_leaves_no_process(tmp_path):
    """Not even one in a long product, and without any chance to clean up."""
    mark = tmp_path / "id"
    line = f"import os; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    build = ["cargo", "build", "--locked", "--bin", "landscape", "--message-format", "json"]
    build = subprocess.run(build, cwd=PROJECT, check=True, capture_output=True, text=True)
    built = [message.get("executable") for message in map(json.loads, build.stdout.splitlines())]
    main = subprocess.Popen([*filter(None, built), "trace", "--external", program(tmp_path, line=line)])
    while not mark.exists() or not mark.read_text():
        assert main.poll() is None
        time.sleep(0.02)
    main.send_signal(signal.SIGKILL)
    main.wait()
    stat = Path(f"/proc/{mark.read_text()}/stat")
    for _ in range(100):
        if not stat.exists() or ") Z " in stat.read_text():
            return
        time.sleep(0.1)
    os.kill(int(mark.read_text()), signal.SIGKILL)
    pytest.fail("the process runs on")


def test_the_example_is_the_hessian_of_its_model(tmp_path):
    torch = pytest.importorskip("torch")
    command = f"'{sys.executable}' '{PROJECT}/python/hvp.py'"
    out = landscape("spectrum", "--external", command, "--top", 5, "--which", "la", "--tolerance", 1e-6)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
    inputs, labels = torch.randn(600, 20).double(), torch.randint(3, (600,))
    theta = {name: p.detach().double() for name, p in model.named_parameters()}
    shapes = [(name, p.shape, p.numel()) for name, p in theta.items()]

    def loss(flat):
        parts = flat.split([size for _, _, size in shapes])
        parameters = {name: part.view(shape) for (name, shape, _), part in zip(shapes, parts)}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(model, parameters, inputs), labels)

    flat = torch.cat([p.reshape(-1) for p in theta.values()])
    hessian = torch.autograd.functional.hessian(loss, flat)
    expected = torch.linalg.eigvalsh(hessian).flip(0)[:5].numpy()
    errors = np.abs(np.array(found["eigenvalues"]) - expected)
    assert (errors <= np.array(found["residuals"]) + 1e-5 * expected[0]).all(), errors
