"""Compiles the crate for the notebooks' kernels: compile_crate.py DEPENDENCIES

DEPENDENCIES is the directory in the per-user cache for the compiled dependencies of this lock file. It is created if it
does not exist, and later clones use it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import builds
from jupyter_client.manager import start_new_kernel

sys.path.insert(0, str(Path(__file__).parent / "jupyter"))
import launch

CELL = ":dep loss-landscape = { path = \"..\" }\nuse loss_landscape::prelude::*;"
LIMIT_SECONDS = 600
PROJECT = Path(__file__).parent.parent.resolve()
CELL_MANIFEST = '[package]\nname = "ctx"\nversion = "1.0.0"\nedition = "2024"\n\n[lib]\ncrate-type = ["cdylib"]\n'


def state() -> str:
    """A hash of everything that the kernel compiles."""
    files = [PROJECT / name for name in ("Cargo.toml", "Cargo.lock", ".cargo/config.toml")]
    files += sorted((PROJECT / "src").rglob("*.rs"))
    files += sorted((PROJECT / "environment/jupyter").glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file).encode() + file.read_bytes())
    return digest.hexdigest()


def build(directory: Path, home: Path, dependencies: Path) -> None:
    """Compiles the crate in a build directory of kernels."""
    others = dependencies.parent.glob(f"{dependencies.name[:-16]}*")
    known = [dependencies, *sorted(others, key=os.path.getmtime, reverse=True)]
    # Cargo reuses the unchanged packages of another version's dependencies.
    nearest = next((path for path in known if path.exists()), None)
    if nearest == dependencies or (nearest and not (directory / "cell/target").exists()):
        launch.link(home / "dependencies", nearest)
        launch.seed(directory, home, PROJECT)
    launch.prepare(directory, home, PROJECT)
    launch.write(directory / "cell/Cargo.toml", CELL_MANIFEST)
    launch.write(directory / "cell/src/lib.rs", "")

    target = str(directory / "cell/target")
    as_in_the_kernel = {"CARGO_TARGET_DIR": target, "CARGO_BUILD_BUILD_DIR": target, **launch.NO_RUSTFLAGS}
    command = ["cargo", "build", "--package", "locked"]
    if subprocess.run(command, cwd=directory / "cell", env=os.environ | as_in_the_kernel).returncode != 0:
        sys.exit("The crate does not build; the errors are above.")


def keep(directory: Path, home: Path, dependencies: Path, name: str) -> None:
    """Copies the results to where later kernels and other clones look for them."""
    target = directory / "cell/target"
    if not dependencies.exists():
        builds.copy(target, dependencies)
    launch.link(home / "dependencies", dependencies)
    crate = home / f"crate-{name}"
    part = crate.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    builds.copy_crate(target, part)
    shutil.rmtree(crate, ignore_errors=True)
    part.rename(crate)
    launch.link(home / "crate", crate)
    for old in home.glob("crate-*"):
        if old != crate:
            shutil.rmtree(old)
    for kind in ("dependencies", "crate"):
        launch.note(directory, home / kind)


def start() -> None:
    """Starts the kernel once, which fills the caches of cargo's answers and of rustc's arguments."""
    manager, client = start_new_kernel(kernel_name="loss-landscape", cwd=PROJECT / "notebooks", startup_timeout=180)
    messages = []
    try:
        reply = client.execute_interactive(CELL, timeout=LIMIT_SECONDS, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        for message in messages:
            print(message["content"].get("text") or message["content"].get("evalue") or "", file=sys.stderr)
        sys.exit("The crate does not build in the notebooks' kernel; the errors are above. If they come from the kernel's "
                 "shims, LOSS_LANDSCAPE_PLAIN=1 turns these off: see docs/kernel.md.")


def main(dependencies: Path) -> None:
    home, now = launch.home(PROJECT), state()
    stamp = home / "compiled"
    if dependencies.exists() and stamp.exists() and stamp.read_text() == now:
        return
    what = "crate (about a minute)" if dependencies.exists() else "crate and its dependencies (about 10 minutes on two cores, once)"
    print(f"[set-up] building the {what} …", flush=True)
    directory, lock = launch.claim(home)
    build(directory, home, dependencies)
    keep(directory, home, dependencies, now[:16])
    os.close(lock)
    builds.prune(dependencies.parent, dependencies)
    start()
    stamp.write_text(now)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
