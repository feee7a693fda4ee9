"""Compiles the kernel's evaluator, the program that compiles and runs cells."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from cargo_progress import Build

SOURCES = Path(__file__).parent.resolve() / "kernel"
DAY_SECONDS = 86400


def evaluator(cache: Path, host: str) -> Path:
    """The program in the per-user cache, whether or not it exists yet."""
    files = [*sorted(SOURCES.glob("Cargo.*")), *sorted((SOURCES / "src").glob("*.rs"))]
    key = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    return cache / f"evaluator-{host}-{key}" / "evaluator"


def build(cache: Path, host: str) -> Build:
    # Not in the checkout, whose .cargo/config.toml is for the crate.
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", SOURCES / "Cargo.toml"]
    command += ["--target", host, "--target-dir", cache / "evaluator-target"]
    return Build("the kernel", command, cache / "evaluator-target/build.log")


def keep(cache: Path, host: str) -> None:
    """Copies the built program to its place in the cache."""
    # Another clone may have built its own since: cargo puts this one back, at once.
    build(cache, host).messages()
    program = evaluator(cache, host)
    program.parent.mkdir(exist_ok=True)
    part = program.with_name(f"evaluator.part-{os.getpid()}")
    shutil.copy2(cache / "evaluator-target" / host / "release/evaluator", part)
    part.rename(program)


def prune(cache: Path) -> None:
    """Removes evaluators that no clone uses. A new one may be waiting for its clone's set-up."""
    used = set()
    for checkout in cache.glob("kernels/*/checkout"):
        specification = Path(checkout.read_text()) / ".venv/share/jupyter/kernels/loss-landscape/kernel.json"
        with suppress(OSError, ValueError, KeyError):
            used.update(json.loads(specification.read_text())["argv"])
    for folder in cache.glob("evaluator-*-*"):
        if str(folder / "evaluator") not in used and time.time() - folder.stat().st_mtime > DAY_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def host() -> tuple[str, str]:
    """The host's target and the version of rustc, as in the names of the cache."""
    fields = dict(
        line.split(": ", 1) for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines() if ": " in line
    )
    return fields["host"], f"rustc-{fields['release']}-{fields['commit-hash'][:8]}"
