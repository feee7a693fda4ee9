"""Starts the Rust kernel with a build directory of its own: launch.py EVCXR_JUPYTER CONNECTION_FILE

A kernel compiles every cell in its build directory, and two kernels in one directory break each other. So each takes
the first directory that no other holds (a lock that lasts as long as the kernel), and starts from what the set-up
compiled, dependencies and crate; again when the set-up has compiled others.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cargo

LOCKED = """[package]
name = "locked"
version = "0.0.0"
edition = "2024"

[lib]
path = "lib.rs"

[dependencies]
loss-landscape = {{ path = "{project}" }}
"""


def project() -> Path:
    """The checkout whose .venv this file was installed into."""
    return Path(__file__).resolve().parents[5]


def home(project: Path) -> Path:
    """Where the kernels of a checkout build."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loss-landscape"
    cache = Path(os.environ.get("LOSS_LANDSCAPE_CACHE", default))
    folder = cache / "kernels" / hashlib.sha256(str(project).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkout").write_text(str(project))
    return folder


def held(folder: Path, number: int) -> int | None:
    """The lock of a build directory, or nothing if another has it."""
    lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def claim(folder: Path) -> tuple[Path, int]:
    """The first build directory that is free, and its lock, which goes with the process and on to what it becomes."""
    number = 0
    while (lock := held(folder, number)) is None:
        number += 1
    os.set_inheritable(lock, True)
    return folder / str(number), lock


def clean(folder: Path) -> None:
    """Removes build directories beside the first that no kernel holds and that hold what the set-up has replaced."""
    for build in folder.glob("[1-9]*"):
        if build.is_dir() and not all(seeded(build, folder / kind) for kind in ("dependencies", "crate")):
            if (lock := held(folder, int(build.name))) is not None:
                shutil.rmtree(build)
                os.close(lock)


def seeded(build: Path, compiled: Path) -> bool:
    """Whether the build directory has been given this."""
    noted = build / compiled.name
    return noted.exists() and noted.read_text() == compiled.resolve().name


def note(build: Path, compiled: Path) -> None:
    """Remembers that it has been."""
    (build / compiled.name).write_text(compiled.resolve().name)


def seed(build: Path, folder: Path, project: Path) -> None:
    """Puts what the set-up compiled where the kernel's cargo looks for it."""
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


def prepare(build: Path, project: Path) -> None:
    """Writes a workspace around the kernel's crate, `cell`, with the project's locked versions.

    The second member keeps the versions that the kernel's crate, at first without dependencies, would drop.
    """
    write(build / "Cargo.toml", '[workspace]\nresolver = "3"\nmembers = ["cell", "locked"]\n')
    write(build / "locked/Cargo.toml", LOCKED.format(project=project))
    write(build / "locked/lib.rs", "")
    write(build / ".cargo/config.toml", (project / ".cargo/config.toml").read_text())
    write(build / "Cargo.lock", (project / "Cargo.lock").read_text())

    # mold.py, which uses mold where there is one; another linker would need flags that the compiled dependencies were
    # not built with. Cells are optimised little: what is hot is in the crate, and rustc takes two thirds of the time.
    write(build / "config/init.evcxr", ":linker mold\n:opt 1\n")


def link(path: Path, target: Path) -> None:
    """Makes `path` a link to what is there, if it is there. At no time is there no link."""
    if target.exists() and not (path.is_symlink() and path.readlink() == target):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        part.symlink_to(target)
        part.rename(path)


def narrow(build: Path, libraries: Path) -> None:
    """Shows the kernel's analysis what cells can name, of the packages (cargo.py) and of the standard library.

    It would read 40 MB of Rust's own sources, most of it tests and the instructions of other processors.
    """
    for name in ("core", "alloc", "std", "proc_macro"):
        link(build / "library" / name / "src", libraries / name / "src")
    if (build / "library/core/src").exists():
        os.environ["RUST_SRC_PATH"] = str(build / "library")
    ours = build / "cargo"
    for name in ("registry", "git", "config.toml", "credentials.toml"):
        link(ours / name, cargo.home() / name)
    link(ours / "bin/cargo", Path(__file__).parent / "analysis/cargo")
    cargo.stand_in(ours)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main(evcxr: str, connection_file: str) -> None:
    folder = home(project())
    build, _ = claim(folder)
    seed(build, folder, project())
    prepare(build, project())
    clean(folder)
    os.environ["EVCXR_TMPDIR"] = str(build / "cell")
    os.environ["EVCXR_CONFIG_DIR"] = str(build / "config")
    # The kernel moves a cell's library one folder up from where its relative run path is right.
    standard = Path(subprocess.check_output(["rustc", "--print", "target-libdir"], text=True).strip())
    narrow(build, standard.parents[1] / "src/rust/library")
    ours = build / "cell/target" / standard.parent.name / "debug/deps"
    paths = [str(ours), str(standard), os.environ.get("LD_LIBRARY_PATH")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
    os.environ["PATH"] = os.pathsep.join([str(Path(__file__).parent / "bin"), os.environ["PATH"]])
    # Where it says which configuration it found, in the middle of other programs' output. Cells' output goes elsewhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(evcxr, [evcxr, "--control_file", connection_file])


if __name__ == "__main__":
    main(*sys.argv[1:])
