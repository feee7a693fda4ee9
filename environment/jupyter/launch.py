"""Starts the program that evaluates cells, in a build directory of its own.

A kernel compiles every cell in its build directory, and two kernels in one directory would break each other. So each
kernel takes the first directory that no other kernel has locked. The lock lasts as long as the kernel. The directory
starts with the dependencies and the crate that the set-up compiled, and is refreshed when the set-up compiled new ones.

All cells must share one copy of candle. So in the kernel the crate is a dynamic library, and cells link to it: `package`
writes a package with the crate's sources and `crate-type = ["dylib"]`, and a cargo path override replaces every
dependency named loss-landscape with it. Elsewhere the crate is an ordinary library.

LOSS_LANDSCAPE_PLAIN=1 starts the kernel without the shims cargo.py and mold.py. docs/kernel.md describes all of this.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cargo
import cuda
from evaluator import Evaluator

# Cells need little optimisation because the crate has the hot loops, and rustc takes two thirds of a cell's time.
CONFIG = '[evcxr]\nopt_level = "1"\n'

# evcxr compiles the first cell with a `?` twice. So that is this one, whose compilation is kept.
FIRST_CELL = """:dep loss-landscape = {{ path = "{project}" }}
use loss_landscape::prelude::*;
Ok::<(), Error>(())?;
"""

LOCKED = """[package]
name = "locked"
version = "0.0.0"
edition = "2024"

[lib]
path = "lib.rs"

[dependencies]
loss-landscape = {{ path = "{project}" }}
"""

# The kernel sets RUSTFLAGS=-Cprefer-dynamic, and cargo would then compile every dependency a second time, apart from those
# of the tests. This variable takes precedence. The flag is not needed: cargo adds it for the dynamic library, and cells
# have no other way to link to it.
NO_RUSTFLAGS = {"CARGO_ENCODED_RUSTFLAGS": ""}


def project() -> Path:
    """The checkout whose .venv this file was installed into."""
    return Path(__file__).resolve().parents[5]


def home(project: Path) -> Path:
    """The directory for all kernels of a checkout."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loss-landscape"
    cache = Path(os.environ.get("LOSS_LANDSCAPE_CACHE", default))
    folder = cache / "kernels" / hashlib.sha256(str(project).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkout").write_text(str(project))
    return folder


def held(folder: Path, number: int) -> int | None:
    """Locks a build directory. Returns None if another process has locked it."""
    lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def claim(folder: Path) -> tuple[Path, int]:
    """Returns the first free build directory and its lock, which the program that replaces this process inherits."""
    number = 0
    while (lock := held(folder, number)) is None:
        number += 1
    os.set_inheritable(lock, True)
    return folder / str(number), lock


def clean(folder: Path) -> None:
    """Removes outdated build directories that no kernel uses, except the first."""
    for build in folder.glob("[1-9]*"):
        if build.is_dir() and not all(seeded(build, folder / kind) for kind in ("dependencies", "crate")):
            if (lock := held(folder, int(build.name))) is not None:
                shutil.rmtree(build)
                os.close(lock)


def seeded(build: Path, compiled: Path) -> bool:
    """Whether the build directory holds a copy of `compiled`."""
    noted = build / compiled.name
    return noted.exists() and noted.read_text() == compiled.resolve().name


def note(build: Path, compiled: Path) -> None:
    """Records that the build directory holds a copy of `compiled`."""
    (build / compiled.name).write_text(compiled.resolve().name)


def seed(build: Path, folder: Path, project: Path) -> None:
    """Copies what the set-up compiled into the build directory."""
    sys.path.insert(0, str(project / "environment"))
    import builds

    target = build / "cell/target"
    dependencies, crate = folder / "dependencies", folder / "crate"
    if dependencies.exists() and not seeded(build, dependencies):
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (build / "crate").unlink(missing_ok=True)
        builds.copy(dependencies.resolve(), target)
        note(build, dependencies)
    if crate.exists() and not seeded(build, crate):
        builds.copy_crate(crate.resolve(), target)
        note(build, crate)


def package(folder: Path, project: Path) -> Path:
    """Writes the crate as a package whose library is dynamic.

    With CUDA, the feature is one of its default features. So every cell gets it, also if its `:dep` does not list it.
    """
    package = folder / "package"
    for name in ("benches", "data", "src"):
        link(package / name, project / name)
    manifest = (project / "Cargo.toml").read_text()
    if cuda.variables(folder):
        manifest = re.sub(r"^default = \[", 'default = ["cuda", ', manifest, count=1, flags=re.MULTILINE)
    write(package / "Cargo.toml", f'{manifest}\n[lib]\ncrate-type = ["dylib"]\n')
    return package


def prepare(build: Path, folder: Path, project: Path) -> None:
    """Writes a workspace around the kernel's crate `cell`, with the project's locked versions.

    Cargo would remove the locked versions while `cell` has no dependencies. The second member keeps them.
    """
    config = f'paths = ["{package(folder, project)}"]\n\n' + (project / ".cargo/config.toml").read_text()
    write(build / ".cargo/config.toml", config)
    write(build / "Cargo.toml", '[workspace]\nresolver = "3"\nmembers = ["cell", "locked"]\n')
    write(build / "locked/Cargo.toml", LOCKED.format(project=project))
    write(build / "locked/lib.rs", "")
    write(build / "Cargo.lock", (project / "Cargo.lock").read_text())


def link(path: Path, target: Path) -> None:
    """Makes `path` a symbolic link to `target`, if that exists. An existing link is replaced atomically."""
    if target.exists() and not (path.is_symlink() and path.readlink() == target):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        part.unlink(missing_ok=True)
        part.symlink_to(target)
        part.rename(path)


def write(path: Path, text: str) -> None:
    """Writes a file, atomically and only if its content changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        part.write_text(text)
        part.rename(path)


def install_shims(build: Path, libraries: Path) -> None:
    """Puts mold.py before other programs in the search path, and cargo.py where the kernel's analysis looks for cargo.

    The analysis also gets a standard library without tests and processor intrinsics: it would read 40 MB of sources.
    """
    os.environ["PATH"] = os.pathsep.join([str(Path(__file__).parent / "bin"), os.environ["PATH"]])
    for name in ("core", "alloc", "std", "proc_macro"):
        link(build / "library" / name / "src", libraries / name / "src")
    if (build / "library/core/src").exists():
        os.environ["RUST_SRC_PATH"] = str(build / "library")
        # An empty library, for the cell that needs none (see evaluator.rs).
        (build / "library/none/core").mkdir(parents=True, exist_ok=True)
    cargo_home = build / "cargo"
    for name in ("registry", "git", "config.toml", "credentials.toml"):
        link(cargo_home / name, cargo.home() / name)
    link(cargo_home / "bin/cargo", Path(__file__).parent / "analysis/cargo")
    cargo.stand_in(cargo_home)


def cuda_libraries(folder: Path) -> list[Path]:
    """Directories of the libraries that the crate with CUDA is linked to, if it is built with CUDA."""
    found = cuda.libraries(folder)
    if stub := cuda.stub(folder):
        link(folder / "driver" / cuda.DRIVER, stub)
        found.append(folder / "driver")
    return found


def build_directory() -> Path:
    """The build directory of this kernel."""
    return Path(os.environ["EVCXR_TMPDIR"]).parent


def find_rust() -> None:
    """Adds the directory of cargo to the search path if it is not there, as under editors that do not read a shell's settings."""
    programs = cargo.home() / "bin"
    if shutil.which("cargo") is None and (programs / "cargo").exists():
        os.environ["PATH"] = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])


def start(program: str) -> Evaluator:
    """Starts the evaluator in a build directory of its own."""
    plain = os.environ.get("LOSS_LANDSCAPE_PLAIN") == "1"
    find_rust()
    folder = home(project())
    build, lock = claim(folder)
    seed(build, folder, project())
    prepare(build, folder, project())
    clean(folder)
    write(build / "config/evcxr.toml", CONFIG)
    write(build / "config/init.evcxr", FIRST_CELL.format(project=project()))
    os.environ["EVCXR_TMPDIR"] = str(build / "cell")
    os.environ["EVCXR_CONFIG_DIR"] = str(build / "config")
    os.environ["LOSS_LANDSCAPE_KERNEL"] = "1"
    # ipykernel's own settings and history.
    os.environ.setdefault("IPYTHONDIR", str(folder / "ipython"))
    os.environ |= NO_RUSTFLAGS | cuda.variables(folder)

    standard = Path(subprocess.check_output(["rustc", "--print", "target-libdir"], text=True).strip())
    if not plain:
        install_shims(build, standard.parents[1] / "src/rust/library")
    libraries = build / "cell/target" / standard.parent.name / "debug/deps"
    paths = [libraries, standard, *cuda_libraries(folder), os.environ.get("LD_LIBRARY_PATH")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(str(path) for path in paths if path)
    return Evaluator(program, os.environ, build / "evaluator.log", lock)
