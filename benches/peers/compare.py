"""Compares this crate with PyTorch and SciPy and prints a table of ratios, in Markdown.

    python3 benches/peers/compare.py [ROUNDS] [gpt]

Installs the peers into target/peers (several gigabytes, once), builds the release binary and the notebooks' kernel, and
trains a 784-128-128-10 network for three epochs. Then it measures the peer and this crate in turn, ROUNDS times
[default: 3]. With `gpt` it measures only the language model.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches/peers"
PYTHON = ROOT / "target/peers/bin/python"
HEADER = "| work; compared with | this crate | other | ratio | goal |\n| --- | --- | --- | --- | --- |"


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


def median(results: list[dict], key: str) -> float:
    return statistics.median(result[key] for result in results)


def language_model(rounds: int) -> None:
    """Compares the language model, trained for 200 steps, on 32 sequences of 64 characters."""
    ours, folder = binary("bench", "gpt", "--release"), ROOT / "target/peers/gpt"
    folder.mkdir(exist_ok=True)
    pairs = [(answer(ours, folder), answer(PYTHON, PEERS / "gpt.py", folder)) for _ in range(rounds)]
    mine, theirs = zip(*pairs)

    rows = [
        ("gradient; PyTorch", mine, "gradient_ms", theirs, "gradient_ms", "≤ 0.60"),
        ("HVP, point cached; PyTorch, graph cached", mine, "hvp_ms", theirs, "hvp_ms", "≤ 0.50"),
        ("a training step of AdamW; PyTorch", mine, "step_ms", theirs, "step_ms", "≤ 0.80"),
        ("HVP; gradient", mine, "hvp_ms", mine, "gradient_ms", "≤ 2.4"),
        ("Gauss–Newton product; gradient", mine, "gauss_newton_ms", mine, "gradient_ms", "≤ 1.7"),
    ]
    print(HEADER)
    for work, a, key, b, other_key, goal in rows:
        a, b = median(a, key), median(b, other_key)
        print(f"| {work} | {a:.1f} ms | {b:.1f} ms | {a / b:.2f} | {goal} |")
    mine, theirs = pairs[0]
    print(f"| product with the block of a parameter, mean; HVP | | | {median([m for m, _ in pairs], 'block_share'):.2f} | ≤ 0.35 |")
    difference = abs(mine["eigenvalue"] / theirs["eigenvalue"] - 1)
    print(
        f"\nλ₁ is {mine['eigenvalue']:.6g}, with a residual of {mine['residual']:.0e}; eigsh on PyTorch finds "
        f"{theirs['eigenvalue']:.6g}: a relative difference of {difference:.0e}. PyTorch {theirs['torch']}, {theirs['threads']} threads."
    )


def main() -> None:
    arguments = sys.argv[1:]
    rounds = int(next((word for word in arguments if word.isdigit()), 3))
    peers()
    if "gpt" in arguments:
        return language_model(rounds)
    ours = binary("bin", "landscape", "--release")
    run("environment/setup.sh")
    own = binary("bench", "own", "--release")

    weights = ROOT / "target/peers/weights.safetensors"
    run(ours, "train", "--epochs", "3", "--save", weights)
    at = ["--weights", str(weights)]

    def in_turn(*commands: list, weights: Path = weights) -> list[list[dict]]:
        """Runs all commands once per round and returns the answers of each command."""
        found = [[answer(*command, "--weights", weights) for command in commands] for _ in range(rounds)]
        return [list(answers) for answers in zip(*found)]

    def peer(what: str) -> list:
        return [PYTHON, PEERS / "peers.py", what]

    table = []

    def row(work: str, our_value: str, peer_value: str, ratio: float, goal: str) -> None:
        table.append(f"| {work} | {our_value} | {peer_value} | {ratio:.2f} | {goal} |")

    theirs, mine = in_turn(peer("hvp"), [ours, "hvp", "--json"])
    for work, key, their_key, goal in [
        ("HVP, point cached; PyTorch, graph cached", "hvp_ms", "hvp_cached_ms", "≤ 0.50"),
        ("HVP at a fresh point; PyTorch, graph rebuilt", "fresh_hvp_ms", "hvp_rebuilt_ms", "≤ 0.35"),
        ("gradient; PyTorch", "gradient_ms", "gradient_ms", "≤ 0.50"),
    ]:
        a, b = median(mine, key), median(theirs, their_key)
        row(work, f"{a:.1f} ms", f"{b:.1f} ms", a / b, goal)

    facts = [answer(own) for _ in range(rounds)]
    hvp, rate = median(mine, "hvp_ms"), median(facts, "gemm_gflops")
    row("6.1 GFLOP of an HVP at the GEMM rate; HVP", f"{hvp:.1f} ms", f"{6.1e3 / rate:.1f} ms", 6.1e3 / rate / hvp, "≥ 0.70")
    gradient = median(mine, "gradient_ms")
    row("HVP; gradient", f"{hvp:.1f} ms", f"{gradient:.1f} ms", hvp / gradient, "≤ 1.6")
    [graph] = in_turn([ours, "hvp", "--autograd", "--json"])
    a, b = median(graph, "hvp_ms"), median(graph, "gradient_ms")
    row("HVP; gradient, by candle's graph", f"{a:.0f} ms", f"{b:.0f} ms", a / b, "≤ 3.5")

    cells = [answer(ROOT / ".venv/bin/python", PEERS / "cell.py", weights) for _ in range(rounds)]
    a = median(cells, "hvp_ms")
    row("HVP in a notebook's cell; release", f"{a:.1f} ms", f"{hvp:.1f} ms", a / hvp, "≤ 1.15")

    theirs, mine = in_turn(peer("top"), [ours, "spectrum", "--top", "30", "--json"])
    a, b = median(mine, "seconds"), median(theirs, "seconds")
    row("top 30, residuals ≤ 10⁻⁴ λ₁; SciPy's eigsh on PyTorch", f"{a:.2f} s", f"{b:.2f} s", a / b, "≤ 0.20")
    pairs = list(zip(mine[0]["eigenvalues"], theirs[0]["eigenvalues"], strict=True))
    difference = max(abs(x - y) for x, y in pairs) / abs(pairs[0][1])
    worst = max(mine[0]["residuals"]) / pairs[0][0]

    theirs_surface, mine_surface = in_turn(peer("surface"), [ours, "surface", "--grid", "51", "--json"])
    a, b = median(mine_surface, "ms_per_point"), median(theirs_surface, "ms_per_point")
    row("a point of a 51 × 51 plane; PyTorch", f"{a:.1f} ms", f"{b:.1f} ms", a / b, "≤ 0.15")

    def epoch(model: str, name: str, weights: Path, rounds: int, goal: str) -> None:
        """One epoch of Adam in batches of 128. This crate also evaluates the test images."""
        pairs = [
            (answer(*peer("epoch"), "--weights", weights), answer(ours, "train", "--model", model, "--epochs", "1", "--json"))
            for _ in range(rounds)
        ]
        theirs, mine = zip(*pairs)
        a, b = median(mine, "seconds"), median(theirs, "seconds")
        row(f"an epoch of {name}, 60,000 images; PyTorch", f"{a:.2f} s", f"{b:.2f} s", a / b, goal)

    epoch("mlp", "the perceptron", weights, rounds, "≤ 0.40")
    for model, name, goals in [("cnn", "seven convolutions", ["≤ 0.70", "≤ 0.60"]), ("resnet20", "ResNet-20", ["", "≤ 0.80"])]:
        saved = ROOT / f"target/peers/{model}.safetensors"
        run(ours, "train", "--model", model, "--epochs", "0", "--save", saved)
        their_times, our_times = in_turn(
            [*peer("hvp"), "--samples", "256"], [ours, "hvp", "--model", model, "--samples", "256", "--json"], weights=saved
        )
        for work, key, their_key, goal in zip(["gradient", "HVP"], ["gradient_ms", "hvp_ms"], ["gradient_ms", "hvp_cached_ms"], goals):
            a, b = median(our_times, key), median(their_times, their_key)
            row(f"{work} of {name}, 256 images; PyTorch", f"{a:.0f} ms", f"{b:.0f} ms", a / b, goal)

    a, b = median(facts, "nn_hvp_ms"), median(facts, "candle_hvp_ms")
    row("HVP of a candle model on `nn::conv2d`; on candle's own", f"{a:.0f} ms", f"{b:.0f} ms", a / b, "≤ 0.20")
    epoch("resnet20", "ResNet-20", ROOT / "target/peers/resnet20.safetensors", 1, "≤ 1.0")

    together, alone = median(facts, "density_seconds"), median(facts, "density_one_by_one_seconds")
    row("density, 10 probes × 60 steps; one probe at a time", f"{together:.2f} s", f"{alone:.2f} s", together / alone, "≤ 0.70")
    # The cost of a decomposition of ResNet-18: the number of products, and the time of one.
    top = answer(ours, "spectrum", "--model", "resnet20", "--samples", "256", "--top", "10", "--json")
    product = 10_000 * median(facts, "resnet18_hvp_seconds_per_image")
    hours = top["products"] * product / 3600
    _, memory = run(ours, "spectrum", "--top", "30", "--samples", "60000", *at, "--json")

    print(HEADER)
    print("\n".join(table))
    print(
        f"\nEigenvalues of the top 30 differ by at most {difference:.0e} λ₁, and the largest residual is {worst:.0e} λ₁ "
        f"({mine[0]['products']} products; eigsh {theirs[0]['products']}). The top 30 on 60,000 images use at most "
        f"{memory:.2f} GiB (goal 1.5). GEMM rate: {rate:.0f} GFLOP/s. PyTorch {theirs[0]['torch']}, "
        f"{theirs[0]['threads']} threads. A product of ResNet-18 with 10,000 images of 3 × 32 × 32 would take "
        f"{product / 60:.1f} min, and its top 10, with the {top['products']} products that ResNet-20's took, {hours:.1f} hours."
    )


if __name__ == "__main__":
    main()
