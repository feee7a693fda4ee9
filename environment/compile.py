"""Compiles the kernel and the crate, and installs the kernel: compile.py [--build-only] [--tests] [--cuda | --cpu]

--build-only installs nothing and needs no Python packages.
--tests also gives the compiled dependencies to the builds of the tests. --cuda compiles the crate for the GPU that the
environment names, also in later set-ups, and --cpu for the CPU again.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import builds
import cargo_progress
import compile_crate
import compile_kernel
from compile_crate import cuda, launch

# The kernel's build compiles large packages one after the other, and leaves a core free.
CORES_FOR_BOTH = 2
PROJECT = Path(__file__).parent.parent.resolve()
NO_SOURCES = (
    "[set-up] The sources of Rust packages could not be downloaded; cargo's message is above. Check the network, and "
    "HTTPS_PROXY if there is a proxy, then run this again."
)
NO_TOOLKIT = (
    "[set-up] The kernel of this clone is for the GPU, and its CUDA compiler {} is missing. Run environment/setup.sh --cuda to "
    "use another, or environment/setup.sh --cpu for a kernel without CUDA."
)


def say(text: str) -> None:
    print(f"[set-up] {text}", flush=True)


def fetch(manifest: Path, host: str) -> None:
    """Downloads the sources of packages, unless all are there."""
    command = ["cargo", "fetch", "--locked", "--target", host, "--manifest-path", manifest]
    if subprocess.run([*command, "--offline"], cwd="/", capture_output=True).returncode != 0:
        say("downloading the sources of Rust packages (about a minute) …")
        if subprocess.run([*command, "--quiet"], cwd="/").returncode != 0:
            sys.exit(NO_SOURCES)


def choose_device(options: list[str]) -> dict[str, str]:
    """Stores the choice of a device, if there is a new one, and returns the variables for CUDA."""
    folder = launch.home(PROJECT)
    if "--cuda" in options:
        cuda.choose(folder)
    elif "--cpu" in options:
        cuda.forget(folder)
    variables = cuda.variables(folder)
    if variables and not Path(variables["NVCC"]).exists():
        sys.exit(NO_TOOLKIT.format(variables["NVCC"]))
    return variables


def main(options: list[str]) -> None:
    cache = Path(os.environ["LOSS_LANDSCAPE_CACHE"])
    host, rustc = compile_kernel.host()
    locked = b"".join((PROJECT / name).read_bytes() for name in ("Cargo.lock", ".cargo/config.toml"))
    # Cargo compiles packages again if their sources are in another place.
    locked += bytes(launch.cargo.home())
    if variables := choose_device(options):
        locked += json.dumps(variables).encode()
    dependencies = cache / f"dependencies-{rustc}-{hashlib.sha256(locked).hexdigest()[:16]}"
    evaluator = compile_kernel.evaluator(cache, host)

    crate = compile_crate.Crate(dependencies)
    todo = []
    if not evaluator.exists():
        fetch(compile_kernel.SOURCES / "Cargo.toml", host)
        todo.append(compile_kernel.build(cache, host))
    if not crate.is_compiled():
        fetch(PROJECT / "Cargo.toml", host)
        todo.append(crate.build())
    if todo:
        say(f"building {' and '.join(build.name for build in todo)} …")
        cargo_progress.run(todo, at_once=len(os.sched_getaffinity(0)) >= CORES_FOR_BOTH)
    if not evaluator.exists():
        compile_kernel.keep(cache, host)
    if "--build-only" in options:
        return
    import install_kernel

    install_kernel.main(str(evaluator))
    if not crate.is_compiled():
        crate.keep()
        builds.prune(cache, dependencies)
        say("starting the kernel once …")
        crate.start()
    compile_kernel.prune(cache)
    if "--cuda" in options:
        say(compile_crate.execute('println!("best_device() in a cell: {:?}", best_device()?);').strip())
    if "--tests" in options and not (PROJECT / "target/debug").exists():
        builds.copy(dependencies, PROJECT / "target")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("[set-up] interrupted. What is built is kept: run this again to resume.")
