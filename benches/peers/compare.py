"""Compares this crate with PyTorch and SciPy and prints Markdown for the README.

    python3 benches/peers/compare.py [--only PARTS] [--turns N] [--python PATH]

Installs the peers into target/peers (several gigabytes, once) unless PATH is a Python that has them, and builds release binaries.
Each part measures this crate and the peer in turn in two processes that live through the part, N times [default: 10; half as
often where a turn takes many seconds], and prints medians with quartiles. PARTS is a list such as `mlp,gpt`:

    rates       GFLOP/s of matrix products (always measured, for the shares of the rate)
    mlp         perceptron: gradient, Hessian-vector products, a point of a plane, an epoch
    graph       perceptron: derivatives by candle's graph
    top         perceptron: 30 eigenvalues
    density     perceptron: spectral density, all probes at once and one at a time
    cnn         seven convolutions
    resnet20    ResNet-20: gradient, product, and a tenth of an epoch
    resnet18    ResNet-18, 64 images of 3 × 32 × 32
    gpt         language model
    candle      a candle model on this crate's convolution and on candle's
    notebook    a product in a notebook's cell, after environment/setup.sh
    memory      peak memory of 30 eigenvalues on 60,000 images

Without --only: rates, mlp, top, cnn, resnet20, resnet18 and gpt.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

import flops
import machine

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches/peers"
PYTHON = ROOT / "target/peers/bin/python"
HEADER = (
    "| work; compared with | this crate | other | ratio | goal | GFLOP | of our rate |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)
PARTS = ["mlp", "graph", "top", "density", "cnn", "resnet20", "resnet18", "gpt", "candle", "notebook", "memory"]
DEFAULT = ["mlp", "top", "cnn", "resnet20", "resnet18", "gpt"]
# Seconds between two measurements: threads that wait for work have gone to sleep by then.
PAUSE = 0.05
# A quantity that takes less, in milliseconds, is measured three times a turn, and the median counts.
QUICK = 300
SAMPLES = 10_000
# Rows of a tile of this crate, and of the matrices that PyTorch multiplies.
TILE, ALL = 313, 10_000
LARGE = "1024 1024 1024"
SHAPES = [
    ("large square matrices", LARGE, "2048 2048 2048"),
    ("perceptron, 784 → 128, outputs", f"{TILE} 784 128", f"{ALL} 784 128"),
    ("perceptron, 784 → 128, weight gradient", f"128 {TILE} 784 t", f"128 {ALL} 784 t"),
    ("perceptron, 128 → 128, outputs", f"{TILE} 128 128", f"{ALL} 128 128"),
    ("perceptron, 128 → 128, weight gradient", f"128 {TILE} 128 t", f"128 {ALL} 128 t"),
    ("perceptron, 128 → 10, outputs", f"{TILE} 128 10", f"{ALL} 128 10"),
    ("GPT, 128 → 384, outputs", "256 128 384", "2048 128 384"),
    ("GPT, 128 → 512, outputs", "256 128 512", "2048 128 512"),
    ("GPT, 512 → 128, outputs", "256 512 128", "2048 512 128"),
    ("GPT, 128 → 512, weight gradient", "512 256 128 t", "512 2048 128 t"),
]


def run(*command: str | Path) -> tuple[str, float]:
    """Runs a command and returns its standard output and its peak memory in GiB."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([*map(str, command)], stdout=out, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(map(str, command))} failed")
        out.seek(0)
        return out.read(), usage.ru_maxrss / 2**20


def answer(*command: str | Path) -> dict:
    return json.loads(run(*command)[0])


def binary(kind: str, name: str, *profile: str) -> Path:
    """Builds an executable and returns its path."""
    lines, _ = run("cargo", "build", "--locked", "--message-format=json-render-diagnostics", f"--{kind}", name, *profile)
    messages = [json.loads(line) for line in lines.splitlines()]
    return Path(next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name))


def peers() -> None:
    stamp = PYTHON.parent.parent / "requirements"
    wanted = (PEERS / "requirements.txt").read_text()
    if not (stamp.exists() and stamp.read_text() == wanted):
        print("installing the peers (several minutes) …", file=sys.stderr)
        venv.create(PYTHON.parent.parent, with_pip=True, clear=True)
        run(PYTHON, "-m", "pip", "install", "--quiet", "-r", PEERS / "requirements.txt")
        stamp.write_text(wanted)


class Side:
    """A process that measures quantities, one at a time; `last` is its last answer."""

    def __init__(self, *command: str | Path):
        self.command = [*map(str, command)]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def ask(self, quantity: str) -> dict:
        time.sleep(PAUSE)
        try:
            print(quantity, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sys.exit(f"{' '.join(self.command)} failed at {quantity!r}")
        self.last = json.loads(line)
        return self.last

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Times:
    """Measurements of one quantity, one for each turn, in milliseconds, and this crate's matrix rate after each."""

    def __init__(self, values: list[float], rates: list[float] | None = None):
        self.values, self.rates, self.median = values, rates, statistics.median(values)

    def share(self, gflop: float) -> float:
        """Share of the matrix rate at which this many operations are done."""
        return statistics.median(1e3 * gflop / time / rate for time, rate in zip(self.values, self.rates, strict=True))

    def __str__(self) -> str:
        """The median with quartiles."""
        scale, unit = (1, "ms") if self.median < 2000 else (1e3, "s")
        low, high = self.median, self.median
        if len(self.values) > 1:
            low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        digits = 2 if unit == "s" or self.median < 10 else 1 if self.median < 100 else 0
        return f"{self.median / scale:.{digits}f} ({low / scale:.{digits}f}–{high / scale:.{digits}f}) {unit}"


def ratio(a: Times, b: Times) -> float:
    """Median of the ratios of the turns."""
    return statistics.median(x / y for x, y in zip(a.values, b.values, strict=True))


def once(side: Side, quantity: str) -> float:
    first = side.ask(quantity)["ms"]
    if first > QUICK:
        return first
    return statistics.median([first, side.ask(quantity)["ms"], side.ask(quantity)["ms"]])


def in_turn(turns: int, rate: Side, *quantities: tuple[Side, str], warm_up: bool = True) -> list[Times]:
    """Measures quantities and the matrix rate one after another, `turns` times."""
    for side, quantity in quantities:
        if warm_up:
            side.ask(quantity)
    found, rates = [], []
    for _ in range(turns):
        found.append([once(side, quantity) for side, quantity in quantities])
        rates.append(rate.ask(LARGE)["gflops"])
    return [Times([*values], rates) for values in zip(*found)]


class Table:
    """Rows of the table, and sentences below it."""

    def __init__(self):
        self.rows, self.notes = [], []

    def add(self, work: str, ours: Times, other: Times, goal: str = "", gflop: float = 0.0) -> None:
        share = f"{ours.share(gflop):.2f}" if gflop else ""
        done = f"{gflop:.2f}" if gflop else ""
        self.rows.append(f"| {work} | {ours} | {other} | {ratio(ours, other):.2f} | {goal} | {done} | {share} |")
        print(self.rows[-1], file=sys.stderr)


def rates(ours: Side, turns: int) -> str:
    """The machine, and a table of its rates."""
    theirs = Side(PYTHON, PEERS / "peers.py", "turns")
    lines = ["| matrix product, f32 | this crate's kernel, GFLOP/s | PyTorch, GFLOP/s |\n| --- | --- | --- |"]
    for name, our_shape, their_shape in SHAPES:
        pairs = [[side.ask(shape)["gflops"] for side, shape in ((ours, our_shape), (theirs, their_shape))] for _ in range(turns)]
        mine, other = (statistics.median(values) for values in zip(*pairs))
        sizes = [" × ".join(shape.split()[:3]) for shape in (our_shape, their_shape)]
        lines.append(f"| {name} | {mine:.0f} ({sizes[0]}, on each core) | {other:.0f} ({sizes[1]}) |")
    about = machine.describe(theirs.ask("machine"))
    theirs.close()
    return f"{about}\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PARTS", help="parts, separated by commas")
    parser.add_argument("--turns", metavar="N", type=int, default=10)
    parser.add_argument("--python", metavar="PATH", type=Path)
    chosen = parser.parse_args()
    parts = chosen.only.split(",") if chosen.only else DEFAULT
    if unknown := set(parts) - {"rates", *PARTS}:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    if chosen.turns < 1:
        parser.error("--turns must be at least 1")
    if chosen.python:
        globals()["PYTHON"] = chosen.python
    else:
        peers()
    turns, slow = chosen.turns, max(1, chosen.turns // 2)
    folder = ROOT / "target/peers"
    folder.mkdir(parents=True, exist_ok=True)
    own = binary("bench", "own", "--release")
    started = time.perf_counter()
    rate = Side(own, "rate")
    about, table = rates(rate, turns), Table()

    def sides(name: str, samples: int) -> tuple[Side, Side, Path]:
        """Both processes for a model of the zoo, with the same weights, after a comparison of their losses."""
        weights = folder / f"{name}.safetensors"
        ours = Side(own, name, weights)
        mine = ours.ask("loss")["loss"]
        theirs = Side(PYTHON, PEERS / "peers.py", "turns", "--weights", weights, "--samples", str(samples))
        other = theirs.ask("loss")["loss"]
        if abs(mine - other) > 1e-4 * abs(other):
            sys.exit(f"{name}: the losses differ: {mine} and {other}")
        return ours, theirs, weights

    def derivatives(name: str, title: str, samples: int, goals: dict[str, str], count: Callable[[Path, str], float]) -> None:
        """Rows of a convolutional network."""
        ours, theirs, weights = sides(name, samples)
        for quantity, goal in goals.items():
            mine, other = in_turn(turns if name != "resnet18" else slow, rate, (ours, quantity), (theirs, quantity))
            work = {"gradient": "gradient", "hvp": "HVP"}[quantity]
            table.add(f"{work} of {title}; PyTorch", mine, other, goal, count(weights, quantity))
        if name == "resnet20":
            mine, other = in_turn(slow, rate, (ours, "epoch 6000"), (theirs, "epoch 6000"), warm_up=False)
            gflop = flops.network(weights, 6000, "gradient")
            table.add("a tenth of an epoch of ResNet-20, 6,000 images; PyTorch", mine, other, "≤ 1.0", gflop)
        ours.close()
        theirs.close()

    if {"mlp", "graph", "top", "density"} & {*parts}:
        ours, theirs, weights = sides("mlp", SAMPLES)
        density = theirs.ask("density")["density"]
        count = lambda quantity, samples=SAMPLES: flops.network(weights, samples, quantity, density=density)
    if "mlp" in parts:
        for work, quantity, goal in [
            ("HVP, point cached; PyTorch, graph cached", "hvp", "≤ 0.50"),
            ("HVP at a fresh point; PyTorch, graph rebuilt", "fresh", "≤ 0.35"),
            ("gradient; PyTorch", "gradient", "≤ 0.50"),
        ]:
            table.add(work, *in_turn(turns, rate, (ours, quantity), (theirs, quantity)), goal, count(quantity))
        table.add("HVP; gradient", *in_turn(turns, rate, (ours, "hvp"), (ours, "gradient")), "≤ 1.6")
        point = in_turn(slow, rate, (ours, "plane 51"), (theirs, "plane 51"), warm_up=False)
        table.add("a point of a 51 × 51 plane; PyTorch", *point, "≤ 0.15", flops.plane_point(weights, SAMPLES))
        epoch = in_turn(turns, rate, (ours, "epoch 60000"), (theirs, "epoch 60000"))
        table.add("an epoch of the perceptron, 60,000 images; PyTorch", *epoch, "≤ 0.40", count("gradient", 60_000))
        table.notes.append(
            f"Operations of the perceptron: inputs are non-zero with a density of {density:.3f}, and products with zeros are skipped, so an "
            f"HVP does {count('hvp'):.2f} GFLOP, not {flops.network(weights, SAMPLES, 'hvp'):.2f}."
        )
    if "graph" in parts:
        table.add("HVP; gradient, by candle's graph", *in_turn(turns, rate, (ours, "autograd_hvp"), (ours, "autograd_gradient")), "≤ 3.5")
    if "top" in parts:
        mine, other = in_turn(slow, rate, (ours, "top 30"), (theirs, "top 30"), warm_up=False)
        a, b = ours.last, theirs.last
        gflop = a["products"] * count("hvp")
        table.add("top 30, residuals ≤ 10⁻⁴ λ₁; SciPy's eigsh on PyTorch", mine, other, "≤ 0.20", gflop)
        largest = abs(b["eigenvalues"][0])
        difference = max(abs(x - y) for x, y in zip(a["eigenvalues"], b["eigenvalues"], strict=True)) / largest
        table.notes.append(
            f"Eigenvalues of the top 30 differ by at most {difference:.0e} λ₁, and the largest residual is "
            f"{max(a['residuals']) / largest:.0e} λ₁ ({a['products']} products; eigsh {b['products']})."
        )
    if "density" in parts:
        both = in_turn(slow, rate, (ours, "density"), (ours, "density_one_by_one"), warm_up=False)
        table.add("density, 10 probes × 60 steps; one probe at a time", *both, "≤ 0.70")
    if {"mlp", "graph", "top", "density"} & {*parts}:
        ours.close()
        theirs.close()
    if "cnn" in parts:
        derivatives(
            "cnn", "seven convolutions, 256 images", 256, {"gradient": "≤ 0.70", "hvp": "≤ 0.60"}, lambda w, q: flops.network(w, 256, q)
        )
    if "resnet20" in parts:
        derivatives("resnet20", "ResNet-20, 256 images", 256, {"gradient": "", "hvp": "≤ 0.80"}, lambda w, q: flops.network(w, 256, q))
    if "resnet18" in parts:
        derivatives("resnet18", "ResNet-18, 64 images", 64, {"hvp": ""}, lambda w, q: flops.network(w, 64, q, image=32))
    if "gpt" in parts:
        language_model(table, folder / "gpt", turns, rate)
    if "candle" in parts:
        models = Side(own, "candle")
        both = in_turn(slow, rate, (models, "nn"), (models, "candle"))
        table.add("HVP of a candle model on `nn::conv2d`; on candle's own", *both, "≤ 0.20")
        models.close()
    if "notebook" in parts:
        run("environment/setup.sh")
        ours, _, weights = sides("mlp", SAMPLES)
        pairs = [(answer(ROOT / ".venv/bin/python", PEERS / "cell.py", weights)["hvp_ms"], once(ours, "hvp")) for _ in range(slow)]
        table.add("HVP in a notebook's cell; release", *(Times([*values]) for values in zip(*pairs)), "≤ 1.15")
        ours.close()
    if "memory" in parts:
        landscape, weights = binary("bin", "landscape", "--release"), folder / "mlp.safetensors"
        if not weights.exists():
            run(landscape, "train", "--epochs", "3", "--save", weights)
        _, memory = run(landscape, "spectrum", "--top", "30", "--samples", "60000", "--weights", weights, "--json")
        table.notes.append(f"The top 30 on 60,000 images use at most {memory:.2f} GiB (goal 1.5).")

    print(f"{about}\n")
    if table.rows:
        print(HEADER)
        print("\n".join(table.rows))
    print(
        f"\nMedians and quartiles of {turns} turns ({slow} where a turn takes many seconds); ratios are medians of the turns' ratios. GFLOP: "
        "operations of matrix products and convolutions that this crate does, by formula (`benches/peers/flops.py`). Of our rate: the share of this "
        f"crate's rate for large matrices, measured in each turn. It can exceed 1 for convolutions, which are counted as direct sums, while "
        f"Winograd's method does fewer multiplications. {' '.join(table.notes)}"
    )
    rate.close()
    print(f"measured in {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


def language_model(table: Table, folder: Path, turns: int, rate: Side) -> None:
    """Rows of the language model, trained for 200 steps, on 32 sequences of 64 characters."""
    folder.mkdir(exist_ok=True)
    ours = Side(binary("bench", "gpt", "--release"), folder)
    ours.ask("loss")
    theirs, weights = Side(PYTHON, PEERS / "gpt.py", folder), folder / "gpt.safetensors"
    for work, quantity, goal in [
        ("gradient of the GPT; PyTorch", "gradient", "≤ 0.60"),
        ("HVP of the GPT, point cached; PyTorch, graph cached", "hvp", "≤ 0.50"),
    ]:
        gflop = flops.language_model(weights, 32, quantity)
        table.add(work, *in_turn(turns, rate, (ours, quantity), (theirs, quantity)), goal, gflop)
    table.add("a training step of AdamW of the GPT; PyTorch", *in_turn(turns, rate, (ours, "step"), (theirs, "step")), "≤ 0.80")
    table.add("HVP of the GPT; gradient", *in_turn(turns, rate, (ours, "hvp"), (ours, "gradient")), "≤ 2.4")
    both = in_turn(turns, rate, (ours, "gauss_newton"), (ours, "gradient"))
    table.add("Gauss–Newton product of the GPT; gradient", *both, "≤ 1.7")
    both = in_turn(1, rate, (ours, "blocks"), (ours, "hvp"), warm_up=False)
    table.add("GPT: product with the block of a parameter, mean; HVP", *both, "≤ 0.35")
    mine, other = ours.ask("top"), theirs.ask("top")
    difference = abs(mine["eigenvalue"] / other["eigenvalue"] - 1)
    table.notes.append(
        f"λ₁ of the GPT is {mine['eigenvalue']:.6g}, with a residual of {mine['residual']:.0e}; eigsh on PyTorch finds "
        f"{other['eigenvalue']:.6g}: a relative difference of {difference:.0e}."
    )
    ours.close()
    theirs.close()


if __name__ == "__main__":
    main()
