"""Compiles the crate and its dependencies for the notebooks' kernels."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import builds
from cargo_progress import Build

sys.path.insert(0, str(Path(__file__).parent / "jupyter"))
import cuda
import launch

CELL = ":dep loss-landscape = { path = \"..\" }\nuse loss_landscape::prelude::*;"
COMMAND = ["cargo", "build", "--package", "locked"]
LIMIT_SECONDS = 600
PROJECT = Path(__file__).parent.parent.resolve()
CELL_MANIFEST = '[package]\nname = "ctx"\nversion = "1.0.0"\nedition = "2024"\n\n[lib]\ncrate-type = ["cdylib"]\n'


def state(home: Path) -> str:
    """A hash of everything that the kernel compiles, and how."""
    files = [PROJECT / name for name in ("Cargo.toml", "Cargo.lock", ".cargo/config.toml")]
    files += sorted((PROJECT / "src").rglob("*.rs"))
    files += sorted((PROJECT / "environment/jupyter").glob("*.py"))
    digest = hashlib.sha256(json.dumps(cuda.variables(home)).encode())
    for file in files:
        digest.update(str(file).encode() + file.read_bytes())
    return digest.hexdigest()


class Crate:
    def __init__(self, dependencies: Path):
        """`dependencies` is the directory in the per-user cache for the compiled dependencies of this lock file. It is
        created if it does not exist, and later clones use it."""
        self.dependencies = dependencies
        self.home = launch.home(PROJECT)
        self.state = state(self.home)
        self.stamp = self.home / "compiled"

    def is_compiled(self) -> bool:
        return self.dependencies.exists() and self.stamp.exists() and self.stamp.read_text() == self.state

    def build(self) -> Build:
        """Prepares the build of the crate in a build directory of kernels, and locks this directory."""
        self.directory, self.lock = launch.claim(self.home)
        directory, dependencies = self.directory, self.dependencies
        others = dependencies.parent.glob(f"{dependencies.name[:-16]}*")
        known = [dependencies, *sorted(others, key=os.path.getmtime, reverse=True)]
        # Cargo reuses the unchanged packages of another version's dependencies.
        nearest = next((path for path in known if path.exists()), None)
        if nearest == dependencies or (nearest and not (directory / "cell/target").exists()):
            launch.link(self.home / "dependencies", nearest)
            launch.seed(directory, self.home, PROJECT)
        launch.prepare(directory, self.home, PROJECT)
        launch.write(directory / "cell/Cargo.toml", CELL_MANIFEST)
        launch.write(directory / "cell/src/lib.rs", "")

        target = str(directory / "cell/target")
        as_in_the_kernel = {"CARGO_TARGET_DIR": target, "CARGO_BUILD_BUILD_DIR": target, **launch.NO_RUSTFLAGS}
        as_in_the_kernel |= cuda.variables(self.home)
        self.cargo = Build("the crate", COMMAND, self.home / "build.log", directory / "cell", as_in_the_kernel)
        return self.cargo

    def keep(self) -> None:
        """Copies the results to where later kernels and other clones look for them."""
        directory, home = self.directory, self.home
        target = directory / "cell/target"
        if not self.dependencies.exists():
            builds.drop_others(target, self.cargo.messages())
            builds.copy(target, self.dependencies)
        launch.link(home / "dependencies", self.dependencies)
        crate = home / f"crate-{self.state[:16]}"
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
        os.close(self.lock)

    def start(self) -> None:
        """Starts the kernel once, which fills the caches of cargo's answers and of rustc's arguments."""
        execute(CELL)
        self.stamp.write_text(self.state)


def execute(source: str) -> str:
    """Executes a cell in a new kernel, and returns what it prints. Exits if it fails."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="loss-landscape", cwd=PROJECT / "notebooks", startup_timeout=180)
    messages = []
    try:
        reply = client.execute_interactive(source, timeout=LIMIT_SECONDS, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    printed = [message["content"].get("text") or message["content"].get("evalue") or "" for message in messages]
    if reply["content"]["status"] != "ok":
        print("\n".join(printed), file=sys.stderr)
        sys.exit("The crate does not build in the notebooks' kernel; the errors are above. If they come from the kernel's "
                 "shims, LOSS_LANDSCAPE_PLAIN=1 turns these off: see docs/kernel.md.")
    return "".join(printed)
