"""Runs points of the L2 study with this crate and with PyTorch and SciPy, and estimates the time of all 451 points.

    python3 benches/peers/study.py

This crate runs 12 points from 0 to 0.09 on all 60,000 images, two at a time, and then, one after another, the 4 points that
the peer also runs. Run `compare.py` first: it installs the peers.
"""

import statistics
import tempfile
import time
from pathlib import Path

from compare import PEERS, PYTHON, ROOT, answer, binary, run

SETTINGS = ["--epochs", "20", "--patience", "5"]
STRENGTHS = ["0", "0.0002", "0.002", "0.02"]


def main() -> None:
    ours = binary("bin", "landscape", "--release")
    weights = ROOT / "target/peers/start.safetensors"
    run(ours, "train", "--epochs", "0", "--save", weights)

    def sweep(*arguments: str) -> float:
        with tempfile.TemporaryDirectory() as directory:
            started = time.perf_counter()
            run(ours, "sweep", *SETTINGS, "--top", "30", "--parquet", "--out", Path(directory) / "study", *arguments, "--json")
            return time.perf_counter() - started

    twelve = sweep("--l2", "0:0.09:12", "--jobs", "2")
    mine = [sweep("--l2", strength) for strength in STRENGTHS]
    theirs = [answer(PYTHON, PEERS / "peers.py", "point", "--weights", weights, *SETTINGS, "--l2", l2) for l2 in STRENGTHS]
    seconds = [point["training_seconds"] + point["seconds"] for point in theirs]
    for strength, our_time, their_time, point in zip(STRENGTHS, mine, seconds, theirs):
        print(
            f"λ = {strength}: ours {our_time:.1f} s, PyTorch and eigsh {their_time:.1f} s "
            f"({point['epochs']} epochs, {point['products']} products), ratio {our_time / their_time:.2f}"
        )
    print(
        f"12 points in {twelve:.0f} s, two at a time: all 451 would take {451 * twelve / 12 / 3600:.1f} hours; "
        f"a point of PyTorch's takes {statistics.mean(seconds):.0f} s, ours one at a time {statistics.mean(mine):.1f} s"
    )


if __name__ == "__main__":
    main()
