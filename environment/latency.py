"""Measures the latency of the notebooks' kernel: latency.py [NOTEBOOK…]

Prints a table of the time from the kernel's start to the first cell, of typical cells, and of a cell with a figure. For each
NOTEBOOK, also prints the median and the maximum over its cells of the time until a cell runs, without its computation.
"""

import statistics
import sys
import time
from pathlib import Path

import nbformat
from compile_crate import CELL, PROJECT
from jupyter_client.manager import start_new_kernel

CELLS = [
    ("first `let`", "let moons = two_moons(100, 0.1, 0, &Device::Cpu)?;"),
    ("second `let`", "let model = Mlp::new(&[2, 3, 2], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;"),
    ("a `for`", "let mut total = 0; for i in 0..3 { total += i; }"),
    ("a value", "total"),
    ("a function", "fn double(x: usize) -> usize { 2 * x }"),
    ("a struct", "struct Pair { left: f64, right: f64 }"),
    ("a closure's result", "let squares: Vec<f64> = (0..5).map(|i| f64::from(i).powi(2)).collect(); squares"),
    ("an objective", "let objective = Objective::of(&model, &moons, Loss::CrossEntropy)?;"),
    ("a figure", "figure::spectrum(&objective.hessian().dense()?.eigen()?)"),
    ("the figure again", "figure::spectrum(&objective.hessian().dense()?.eigen()?)"),
]


MARK = "the cell runs"


class Kernel:
    def __enter__(self):
        self.started = time.monotonic()
        self.manager, self.client = start_new_kernel(
            kernel_name="loss-landscape", cwd=PROJECT / "notebooks", startup_timeout=180
        )
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, source: str) -> tuple[float, float]:
        """Seconds until a cell prints MARK, and until it ends. The cell must not fail."""
        marked, problems = None, []

        def hear(message):
            nonlocal marked
            kind, content = message["msg_type"], message["content"]
            if kind == "error" or (kind == "stream" and content["name"] == "stderr"):
                problems.append(content.get("text") or content.get("evalue"))
            elif kind == "stream" and MARK in content["text"] and marked is None:
                marked = time.monotonic()

        if not source.startswith(":"):
            # The kernel does not compile the same source twice.
            source = f"let _ = {time.time_ns()}u64;\n{source}"
        start = time.monotonic()
        self.client.execute_interactive(source, timeout=600, output_hook=hear)
        end = time.monotonic()
        if problems:
            sys.exit(f"This cell failed:\n{source}\n{problems}")
        return (marked or end) - start, end - start


def row(what: str, seconds: float) -> None:
    print(f"| {what} | {seconds:.2f} s |", flush=True)


def basics() -> None:
    with Kernel() as kernel:
        row("kernel answers", time.monotonic() - kernel.started)
        kernel.run(CELL)
        row("kernel's start to the crate's prelude", time.monotonic() - kernel.started)
        times = []
        for what, source in CELLS:
            times.append(kernel.run(source)[1])
            row(what, times[-1])
        row("median of these after the first", statistics.median(times[1:]))


def notebook(path: Path) -> list[float]:
    """Seconds until each cell runs, without the first two cells."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    with Kernel() as kernel:
        for source in cells[:2]:
            kernel.run(source)
        waits = [kernel.run(f'println!("{MARK}");\n{source}')[0] for source in cells[2:]]
    row(f"{path.stem}, median cell until it runs", statistics.median(waits))
    row(f"{path.stem}, slowest cell until it runs", max(waits))
    return waits


if __name__ == "__main__":
    print("| | |\n| --- | --- |")
    basics()
    waits = [wait for name in sys.argv[1:] for wait in notebook(Path(name))]
    if waits:
        row("median of all these cells", statistics.median(waits))
