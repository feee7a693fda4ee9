"""Does the work of `landscape hvp`, `spectrum` and `surface` with PyTorch and SciPy. Prints one JSON line.

    peers.py hvp --weights W.safetensors        times of loss, gradient and Hessian-vector product
    peers.py top --weights W.safetensors        the eigenvalues of largest magnitude, by scipy.sparse.linalg.eigsh
    peers.py surface --weights W.safetensors    the loss on a grid over two random directions
    peers.py epoch --weights W.safetensors      one pass of Adam over all training images, in batches of 128
    peers.py point --weights W.safetensors      a point of the L2 study: training to early stopping, then eigsh
"""

import argparse
import copy
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


class Block(torch.nn.Module):
    """A block of ResNet-20 with group normalisation. Parameter names are those of this crate."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = torch.nn.GroupNorm(8, outputs)
        self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = torch.nn.GroupNorm(8, outputs)
        self.shortcut = torch.nn.Sequential()
        if stride > 1:
            self.shortcut.add_module("conv", torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.add_module("norm", torch.nn.GroupNorm(8, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


def named(*parts: tuple[str, torch.nn.Module]) -> torch.nn.Sequential:
    sequential = torch.nn.Sequential()
    for name, module in parts:
        sequential.add_module(name, module)
    return sequential


def resnet20() -> torch.nn.Sequential:
    stem = named(("conv", torch.nn.Conv2d(1, 16, 3, 1, 1, bias=False)), ("norm", torch.nn.GroupNorm(8, 16)))
    stages, channels = [], 16
    for stage, outputs in enumerate([16, 32, 64]):
        blocks = [(f"block{b}", Block(outputs if b else channels, outputs, 2 if stage and not b else 1)) for b in range(3)]
        stages.append((f"stage{stage}", named(*blocks)))
        channels = outputs
    image, relu = torch.nn.Unflatten(1, (1, 28, 28)), torch.nn.ReLU()
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return named(("image", image), ("stem", stem), ("relu", relu), *stages, ("pool", pool), ("out", torch.nn.Linear(64, 10)))


def network(path: str) -> torch.nn.Sequential:
    """A ResNet-20, or dense layers with sigmoids or 3 × 3 convolutions with tanh, with the shapes of the weights in the file."""
    weights = load_file(path)
    if "stem.conv.weight" in weights:
        model = resnet20()
        model.load_state_dict(weights)
        return model
    layers = []
    for i in range(len(weights) // 2):
        weight = weights[f"layers.{i}.weight"]
        if weight.dim() == 4:
            layer, between = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, 2 if i in (3, 5) else 1, 1), torch.nn.Tanh()
        else:
            layer, between = torch.nn.Linear(weight.shape[1], weight.shape[0]), torch.nn.Sigmoid()
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(weights[f"layers.{i}.bias"])
        layers += [layer, between]
    if "layers.0.weight" in weights and weights["layers.0.weight"].dim() == 4:
        layers.insert(-2, torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
        layers.insert(0, torch.nn.Unflatten(1, (1, 28, 28)))
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
    arguments.add_argument("what", choices=["hvp", "top", "surface", "epoch", "point"])
    arguments.add_argument("--weights", required=True)
    arguments.add_argument("--samples", type=int, default=10_000)
    arguments.add_argument("--k", type=int, default=30)
    arguments.add_argument("--grid", type=int, default=11)
    arguments.add_argument("--l2", type=float, default=0.0)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--patience", type=int, default=5)
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
    def descend(optimizer: torch.optim.Optimizer) -> float:
        """One epoch. Returns the mean loss over its batches."""
        total = 0.0
        for batch in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            value = loss(model(x[batch]), y[batch])
            value.backward()
            optimizer.step()
            total += value.item() * len(batch)
        return total / len(x)

    if chosen.what == "epoch":
        (x, y), optimizer = images(60_000), torch.optim.Adam(parameters, 1e-3)
        start = time.perf_counter()
        descend(optimizer)
        found["seconds"] = time.perf_counter() - start
        print(json.dumps(found))
        return
    if chosen.what == "point":
        plain = loss

        def loss(outputs, labels):
            return plain(outputs, labels) + chosen.l2 * sum((p * p).sum() for p in parameters)

        (x, y), optimizer = images(60_000), torch.optim.Adam(parameters, 1e-3)
        start, best, since = time.perf_counter(), float("inf"), 0
        for found["epochs"] in range(1, chosen.epochs + 1):
            mean = descend(optimizer)
            if mean < best:
                best, since, state = mean, 0, copy.deepcopy(model.state_dict())
            else:
                since += 1
                if since >= chosen.patience:
                    break
        model.load_state_dict(state)
        found["training_seconds"] = time.perf_counter() - start
        found["loss"], found["samples"] = best, len(x)
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
