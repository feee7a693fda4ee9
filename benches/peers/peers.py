"""Does the work of this crate with PyTorch and SciPy, on the CPU.

    peers.py turns [--weights W.safetensors]    each line of standard input names a quantity; prints each as a line of JSON
    peers.py point --weights W.safetensors      a point of the L2 study: training to early stopping, then eigsh; prints JSON
"""

import argparse
import copy
import gzip
import json
import sys
import time
from collections.abc import Callable
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


def colour_images(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of 3 × 32 × 32 values that `benches/own.rs` makes."""
    pixels = np.sin(np.arange(samples * 3 * 32 * 32, dtype=np.float32)).reshape(samples, -1)
    return torch.from_numpy(pixels), torch.arange(samples) % 10


class Block(torch.nn.Module):
    """A block of a residual network with group normalisation. Parameter names are those of this crate."""

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


def resnet(shape: list[int], widths: list[int], blocks: int) -> torch.nn.Sequential:
    """A residual network for images of this shape (channels, height, width), as this crate's."""
    channels = widths[0]
    stem = named(("conv", torch.nn.Conv2d(shape[0], channels, 3, 1, 1, bias=False)), ("norm", torch.nn.GroupNorm(8, channels)))
    stages = []
    for stage, outputs in enumerate(widths):
        first = Block(channels, outputs, 2 if stage else 1)
        others = [Block(outputs, outputs, 1) for _ in range(1, blocks)]
        stages.append((f"stage{stage}", named(*((f"block{b}", block) for b, block in enumerate([first, *others])))))
        channels = outputs
    image, relu = torch.nn.Unflatten(1, shape), torch.nn.ReLU()
    pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return named(("image", image), ("stem", stem), ("relu", relu), *stages, ("pool", pool), ("out", torch.nn.Linear(channels, 10)))


def network(path: str) -> torch.nn.Sequential:
    """A ResNet-20 or ResNet-18, or dense layers with sigmoids or 3 × 3 convolutions with tanh, with the shapes of the weights in the file."""
    weights = load_file(path)
    if "stem.conv.weight" in weights:
        large = "stage3.block0.conv1.weight" in weights
        model = resnet([3, 32, 32], [64, 128, 256, 512], 2) if large else resnet([1, 28, 28], [16, 32, 64], 3)
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


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def serve(measure: Callable[[str], dict]) -> None:
    """Answers each line of standard input, the name of a quantity, with a line of JSON."""
    for line in sys.stdin:
        print(json.dumps(measure(line.strip())), flush=True)


def rate(shape: str) -> float:
    """GFLOP/s of products of an m × k with a k × n matrix, for `m k n`; with a `t` at the end, the first is stored transposed."""
    m, k, n = map(int, shape.split()[:3])
    a, b, c = torch.ones(k, m).t() if shape.endswith("t") else torch.ones(m, k), torch.ones(k, n), torch.empty(m, n)
    products = max(3, 2_000_000_000 // (2 * m * k * n))
    return 2e-6 * m * k * n * products / milliseconds(lambda: [torch.mm(a, b, out=c) for _ in range(products)])


def machine() -> dict:
    """What PyTorch multiplies matrices with."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "mkl": torch.backends.mkl.is_available(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


class Work:
    """A model, the mean loss over some samples, and its derivatives."""

    def __init__(self, model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, l2: float = 0.0):
        self.model, self.x, self.y, self.l2 = model, x, y, l2
        self.parameters = list(model.parameters())
        self.kept = None
        torch.manual_seed(0)
        self.v = [torch.randn_like(p) for p in self.parameters]

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.cross_entropy(self.model(x), y)
        return mean + self.l2 * sum((p * p).sum() for p in self.parameters) if self.l2 else mean

    def gradient(self, graph: bool) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(self.loss(self.x, self.y), self.parameters, create_graph=graph)

    def product(self, gradient, v) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(gradient, self.parameters, grad_outputs=v, retain_graph=True)

    def keep(self) -> None:
        """Makes the gradient's graph, which later products use, if it does not exist."""
        self.kept = self.kept or self.gradient(graph=True)

    def cached_product(self, v) -> tuple[torch.Tensor, ...]:
        self.keep()
        return self.product(self.kept, v)

    def top(self, k: int) -> dict:
        from scipy.sparse.linalg import LinearOperator, eigsh

        sizes = [p.numel() for p in self.parameters]
        n, products = sum(sizes), 0

        def matvec(v: np.ndarray) -> np.ndarray:
            nonlocal products
            products += 1
            parts = torch.from_numpy(v.ravel().astype(np.float32)).split(sizes)
            shaped = [part.view_as(p) for part, p in zip(parts, self.parameters)]
            return torch.cat([part.reshape(-1) for part in self.cached_product(shaped)]).numpy()

        start = time.perf_counter()
        values = eigsh(LinearOperator((n, n), matvec=matvec, dtype=np.float32), k=k, which="LM")[0]
        ms = 1e3 * (time.perf_counter() - start)
        return {"ms": ms, "products": products, "eigenvalues": sorted(map(float, values), key=lambda value: -abs(value))}

    def plane(self, points: int) -> float:
        """Milliseconds of a point, from one row of a plane along two random directions."""
        base = [p.data.clone() for p in self.parameters]
        d1, d2 = ([0.01 * torch.randn_like(p) for p in self.parameters] for _ in range(2))

        def row() -> None:
            with torch.no_grad():
                for beta in np.linspace(-1, 1, points).tolist():
                    for p, b, u, v in zip(self.parameters, base, d1, d2):
                        p.data.copy_(b + u + beta * v)
                    self.loss(self.x, self.y).item()

        ms = milliseconds(row)
        for p, b in zip(self.parameters, base):
            p.data.copy_(b)
        return ms / points

    def descend(self, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
        """One epoch in batches of 128. Returns the mean loss over its batches."""
        total = 0.0
        for batch in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            value = self.loss(x[batch], y[batch])
            value.backward()
            optimizer.step()
            total += value.item() * len(batch)
        return total / len(x)

    def epoch(self, samples: int) -> float:
        (x, y), state = images(samples), copy.deepcopy(self.model.state_dict())
        optimizer = torch.optim.Adam(self.parameters, 1e-3)
        ms = milliseconds(lambda: self.descend(optimizer, x, y))
        self.model.load_state_dict(state)
        self.kept = None
        return ms

    def measure(self, quantity: str) -> dict:
        name, _, argument = quantity.partition(" ")
        match name:
            case "loss":
                return {"loss": self.loss(self.x, self.y).item()}
            case "density":
                return {"density": (self.x != 0).float().mean().item()}
            case "top":
                return self.top(int(argument))
            case "gradient":
                ms = milliseconds(lambda: self.gradient(graph=False))
            case "hvp":
                self.keep()
                ms = milliseconds(lambda: self.cached_product(self.v))
            case "fresh":
                ms = milliseconds(lambda: self.product(self.gradient(graph=True), self.v))
            case "plane":
                ms = self.plane(int(argument))
            case "epoch":
                ms = self.epoch(int(argument))
            case _:
                sys.exit(f"no quantity is called {quantity!r}")
        return {"ms": ms}


def study_point(model: torch.nn.Module, l2: float, epochs: int, patience: int, k: int) -> dict:
    """Training with early stopping, and the eigenvalues of largest magnitude."""
    x, y = images(60_000)
    work = Work(model, x, y, l2)
    found, optimizer = {"samples": len(x)}, torch.optim.Adam(work.parameters, 1e-3)
    start, best, since = time.perf_counter(), float("inf"), 0
    for found["epochs"] in range(1, epochs + 1):
        mean = work.descend(optimizer, x, y)
        if mean < best:
            best, since, state = mean, 0, copy.deepcopy(model.state_dict())
        else:
            since += 1
            if since >= patience:
                break
    model.load_state_dict(state)
    found |= {"training_seconds": time.perf_counter() - start, "loss": best}
    top = work.top(k)
    return found | {"seconds": top["ms"] / 1e3, "products": top["products"], "eigenvalues": top["eigenvalues"]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["turns", "point"])
    arguments.add_argument("--weights")
    arguments.add_argument("--samples", type=int, default=10_000)
    arguments.add_argument("--k", type=int, default=30)
    arguments.add_argument("--l2", type=float, default=0.0)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--patience", type=int, default=5)
    chosen = arguments.parse_args()
    if chosen.weights is None:
        serve(lambda quantity: machine() if quantity == "machine" else {"gflops": rate(quantity)})
        return
    model = network(chosen.weights)
    if chosen.what == "point":
        print(json.dumps(study_point(model, chosen.l2, chosen.epochs, chosen.patience, chosen.k)))
        return
    large = "stage3.block0.conv1.weight" in model.state_dict()
    x, y = colour_images(chosen.samples) if large else images(chosen.samples)
    serve(Work(model, x, y).measure)


if __name__ == "__main__":
    main()
