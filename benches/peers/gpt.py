"""Does the work of `cargo bench --bench gpt` with PyTorch and SciPy, on the weights and sequences that it wrote.

    gpt.py DIR      each line of standard input names a quantity; prints each as a line of JSON
"""

import sys
from pathlib import Path

import numpy as np
import torch
from peers import milliseconds, serve
from safetensors.torch import load_file
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

HEADS = 4


class Block(nn.Module):
    """Attention is written out: PyTorch's fused attention does not differentiate twice."""

    def __init__(self, width: int, context: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("hidden", ~torch.ones(context, context).tril().bool(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, positions, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, 2)
        q, k, v = (part.view(n, positions, HEADS, -1).transpose(1, 2) for part in parts)
        scores = (q @ k.transpose(2, 3) / (width // HEADS) ** 0.5).masked_fill(self.hidden, float("-inf"))
        x = x + self.out((scores.softmax(3) @ v).transpose(1, 2).reshape(n, positions, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor]):
        super().__init__()
        (tokens, width), (context, _) = weights["tokens.weight"].shape, weights["positions.weight"].shape
        layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        self.tokens, self.positions = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, context) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)
        state = {}
        for name, weight in weights.items():
            *path, kind = name.replace("mlp.", "").replace("attention.output", "out").split(".")
            if path[-1] in ("query", "key", "value"):
                both = [weights[f"{'.'.join(name.split('.')[:-2])}.{part}.{kind}"] for part in ("query", "key", "value")]
                path, weight = [*path[:-2], "qkv"], torch.cat(both)
            state[".".join([*path, kind])] = weight
        self.load_state_dict(state)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x)).flatten(0, 1)


def main() -> None:
    directory = Path(sys.argv[1])
    model = Gpt(load_file(directory / "gpt.safetensors"))
    sequences = load_file(directory / "sequences.safetensors")
    inputs, labels = (sequences[name].long() for name in ("inputs", "labels"))
    parameters, loss = list(model.parameters()), nn.CrossEntropyLoss()

    def value() -> torch.Tensor:
        return loss(model(inputs), labels.flatten())

    def gradient(graph: bool) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(value(), parameters, create_graph=graph)

    kept = None
    sizes = [p.numel() for p in parameters]

    def keep() -> None:
        """Makes the gradient's graph, which later products use, if it does not exist."""
        nonlocal kept
        kept = kept or gradient(graph=True)

    def product(v: np.ndarray) -> np.ndarray:
        keep()
        parts = torch.from_numpy(v.ravel().astype(np.float32)).split(sizes)
        vector = [part.view_as(p) for part, p in zip(parts, parameters)]
        parts = torch.autograd.grad(kept, parameters, grad_outputs=vector, retain_graph=True)
        return torch.cat([part.reshape(-1) for part in parts]).numpy()

    n = sum(sizes)
    v = np.random.default_rng(0).standard_normal(n)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    # A learning rate of zero leaves the point where it is.
    optimizer = torch.optim.AdamW(groups, 0.0, betas=(0.9, 0.95))

    def step() -> None:
        nonlocal kept
        # The step changes tensors in place, which the graph refers to.
        kept = None
        optimizer.zero_grad()
        result = value()
        result.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        result.item()

    def measure(quantity: str) -> dict:
        match quantity:
            case "loss":
                return {"loss": value().item()}
            case "top":
                operator = LinearOperator((n, n), matvec=product, dtype=np.float32)
                return {"eigenvalue": float(eigsh(operator, k=1, which="LA", tol=1e-6, return_eigenvectors=False)[0])}
            case "gradient":
                return {"ms": milliseconds(lambda: gradient(graph=False))}
            case "hvp":
                keep()
                return {"ms": milliseconds(lambda: product(v))}
            case "step":
                return {"ms": milliseconds(step)}
        sys.exit(f"no quantity is called {quantity!r}")

    serve(measure)


if __name__ == "__main__":
    main()
