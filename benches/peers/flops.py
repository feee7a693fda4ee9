"""Floating-point operations of matrix products and convolutions that this crate does, from the shapes of the weights.

A layer's forward pass takes 2 · rows · inputs · outputs operations, which are called one product here. A gradient takes three
products: outputs, weight gradient, input gradient. A Hessian-vector product at a cached point takes six: WRx + Vx, Wᵀ R∂y + Vᵀ∂y and
R∂y xᵀ + ∂y Rxᵀ; at a fresh point eight, because outputs and input gradient come first. The first layer's inputs have no tangents
and need no derivatives, so it takes two, two and three. If it is dense, it skips inputs of zero, so that only their share `density`
counts. Element-wise work and normalisation are not counted; taps of convolutions outside of the image are. Convolutions are counted as direct
sums, although Winograd's method does 16 of each 36 multiplications of most kernels of 3 × 3.
"""

import json
import math
from pathlib import Path

PRODUCTS = {"gradient": 3, "hvp": 6, "fresh": 8}
FIRST_PRODUCTS = {"gradient": 2, "hvp": 2, "fresh": 3}
# Products of the size of QKᵀ or of the sum of values in attention, including those that are computed again.
SCORE_PRODUCTS = {"gradient": 6, "hvp": 15}


def shapes(weights: Path) -> dict[str, list[int]]:
    """Shapes of the tensors in a safetensors file."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def side(name: str, image: int) -> int:
    """Height and width of the outputs of the convolution with this weight, for square images."""
    part, index, *_ = name.split(".")
    if part == "layers":
        return [image, image, image, image // 2, image // 2, image // 4, image // 4][int(index)]
    return image >> int(part.removeprefix("stage")) if part.startswith("stage") else image


def layers(weights: Path, image: int) -> tuple[int, int]:
    """Operations of one sample's forward pass: of the first layer, and of all others."""
    costs = {}
    for name, shape in shapes(weights).items():
        if len(shape) in (2, 4):
            positions = side(name, image) ** 2 if len(shape) == 4 else 1
            costs[name] = 2 * positions * math.prod(shape)
    first = costs.pop("stem.conv.weight" if "stem.conv.weight" in costs else "layers.0.weight")
    return first, sum(costs.values())


def network(weights: Path, samples: int, quantity: str, image: int = 28, density: float = 1.0) -> float:
    """GFLOP of a quantity of a perceptron or a convolutional network."""
    first, others = layers(weights, image)
    return 1e-9 * samples * (FIRST_PRODUCTS[quantity] * density * first + PRODUCTS[quantity] * others)


def plane_point(weights: Path, samples: int) -> float:
    """GFLOP of a point of a plane of a perceptron: the first layer's outputs are combinations of three, for all points."""
    return 1e-9 * samples * layers(weights, 28)[1]


def language_model(weights: Path, sequences: int, quantity: str) -> float:
    """GFLOP of a quantity of the GPT. Embeddings are no products."""
    found = shapes(weights)
    context, width = found["positions.weight"]
    blocks = len({name.split(".")[1] for name in found if name.startswith("blocks.")})
    matrices = {name: shape for name, shape in found.items() if len(shape) == 2 and name not in ("tokens.weight", "positions.weight")}
    weight = 2 * sum(a * b for a, b in matrices.values())
    scores = 2 * context * width * blocks
    return 1e-9 * sequences * context * (PRODUCTS[quantity] * weight + SCORE_PRODUCTS[quantity] * scores)
