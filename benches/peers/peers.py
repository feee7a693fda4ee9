"""The work of `landscape hvp`, `spectrum` and `surface`, done with PyTorch and SciPy. Prints one JSON line.

    peers.py hvp --weights W.safetensors        times of loss, gradient and Hessian-vector product
    peers.py top --weights W.safetensors        the eigenvalues of largest magnitude, by scipy.sparse.linalg.eigsh
    peers.py surface --weights W.safetensors    the loss on a grid over two random directions
"""

import argparse
import gzip
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

MNIST = Path(__file__).resolve().parents[2] / "data/mnist"


def images(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    def numbers(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((MNIST / f"{name}.gz").read_bytes()), np.uint8, offset=header)

    x = numbers("train-images-idx3-ubyte", 16).reshape(-1, 784)[:samples]
    y = numbers("train-labels-idx1-ubyte", 8)[:samples]
    return torch.tensor(x.astype(np.float32) / 255), torch.tensor(y.astype(np.int64))


def network(path: str) -> torch.nn.Sequential:
    """A multilayer perceptron with sigmoids, of whatever widths the file's weights have."""
    weights = load_file(path)
    layers = []
    for i in range(len(weights) // 2):
        weight = weights[f"layers.{i}.weight"]
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data.copy_(weight)
        linear.bias.data.copy_(weights[f"layers.{i}.bias"])
        layers += [linear, torch.nn.Sigmoid()]
    return torch.nn.Sequential(*layers[:-1])


def median_ms(work, runs: int = 9) -> float:
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["hvp", "top", "surface"])
    arguments.add_argument("--weights", required=True)
    arguments.add_argument("--samples", type=int, default=10_000)
    arguments.add_argument("--k", type=int, default=30)
    arguments.add_argument("--grid", type=int, default=11)
    chosen = arguments.parse_args()

    (x, y), model = images(chosen.samples), network(chosen.weights)
    parameters = list(model.parameters())
    loss = torch.nn.CrossEntropyLoss()

    def gradient(graph: bool) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(loss(model(x), y), parameters, create_graph=graph)

    def product(gradients, v) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(gradients, parameters, grad_outputs=v, retain_graph=True)

    found = {"samples": chosen.samples, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if chosen.what == "surface":
        torch.manual_seed(0)
        base = [p.data.clone() for p in parameters]
        d1, d2 = ([0.01 * torch.randn_like(p) for p in parameters] for _ in range(2))
        places = np.linspace(-1, 1, chosen.grid).tolist()
        start = time.perf_counter()
        with torch.no_grad():
            for alpha in places:
                for beta in places:
                    for p, b, u, v in zip(parameters, base, d1, d2):
                        p.data.copy_(b + alpha * u + beta * v)
                    loss(model(x), y).item()
        found["ms_per_point"] = 1e3 * (time.perf_counter() - start) / chosen.grid**2
        print(json.dumps(found))
        return
    kept = gradient(graph=True)
    if chosen.what == "hvp":
        torch.manual_seed(0)
        v = [torch.randn_like(p) for p in parameters]
        with torch.no_grad():
            found["forward_ms"] = median_ms(lambda: loss(model(x), y).item())
        found["gradient_ms"] = median_ms(lambda: gradient(graph=False))
        found["hvp_rebuilt_ms"] = median_ms(lambda: product(gradient(graph=True), v))
        found["hvp_cached_ms"] = median_ms(lambda: product(kept, v))
    else:
        from scipy.sparse.linalg import LinearOperator, eigsh

        sizes, n = [p.numel() for p in parameters], sum(p.numel() for p in parameters)
        products = 0

        def matvec(v: np.ndarray) -> np.ndarray:
            nonlocal products
            products += 1
            parts = torch.from_numpy(v.ravel().astype(np.float32)).split(sizes)
            shaped = [part.view_as(p) for part, p in zip(parts, parameters)]
            return torch.cat([part.reshape(-1) for part in product(kept, shaped)]).numpy()

        start = time.perf_counter()
        values = eigsh(LinearOperator((n, n), matvec=matvec, dtype=np.float32), k=chosen.k, which="LM")[0]
        found["seconds"] = time.perf_counter() - start
        found["products"] = products
        found["eigenvalues"] = sorted(map(float, values), key=lambda value: -abs(value))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
