"""Starts the Rust kernel with a build directory of its own: launch.py EVCXR_JUPYTER CONNECTION_FILE

A kernel compiles every cell in its build directory, and two kernels in one directory break each other. So each takes
the first directory that no other holds (a lock that lasts as long as the kernel), and starts from the project's
compiled dependencies instead of from nothing; again when the lock file has changed.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path


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


def claim(folder: Path) -> Path:
    """The first build directory that is free. The lock goes with the process, and on to what it becomes."""
    number = 0
    while True:
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            number += 1
            continue
        os.set_inheritable(lock, True)
        return folder / str(number)


def prepare(build: Path, dependencies: Path, project: Path) -> None:
    """Writes a workspace around the kernel's crate, `cell`, with the project's locked versions.

    The second member keeps the versions that the kernel's crate, at first without dependencies, would drop. The kernel
    analyses everything in its workspace, so that is put together only after it has started.
    """
    cell, taken = build / "cell", build / "dependencies"
    compiled = dependencies.resolve()
    if compiled.exists() and not (taken.exists() and taken.read_text() == compiled.name):
        sys.path.insert(0, str(project / "environment"))
        import builds

        cell.mkdir(parents=True, exist_ok=True)
        builds.copy(compiled, cell / "target")
        taken.write_text(compiled.name)
    (build / "Cargo.toml").unlink(missing_ok=True)
    write(build / "workspace.toml", '[workspace]\nresolver = "3"\nmembers = ["cell", "locked"]\n')
    write(build / "locked/Cargo.toml", LOCKED.format(project=project))
    write(build / "locked/lib.rs", "")
    write(build / ".cargo/config.toml", (project / ".cargo/config.toml").read_text())
    write(build / "Cargo.lock", (project / "Cargo.lock").read_text())

    # mold.py, which uses mold where there is one; another linker would need flags that the compiled dependencies were
    # not built with.
    write(build / "settings/init.evcxr", ":linker mold\n")
    rename = f'std::fs::rename(r#"{build}/workspace.toml"#, r#"{build}/Cargo.toml"#).unwrap();'
    write(build / "settings/prelude.rs", rename)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main(evcxr: str, connection_file: str) -> None:
    folder = home(project())
    build = claim(folder)
    prepare(build, folder / "dependencies", project())
    os.environ["EVCXR_TMPDIR"] = str(build / "cell")
    os.environ["EVCXR_CONFIG_DIR"] = str(build / "settings")
    # The kernel moves a cell's library one folder up from where its relative run path is right.
    standard = Path(subprocess.check_output(["rustc", "--print", "target-libdir"], text=True).strip())
    ours = build / "cell/target" / standard.parent.name / "debug/deps"
    paths = [str(ours), str(standard), os.environ.get("LD_LIBRARY_PATH")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
    os.environ["PATH"] = os.pathsep.join([str(Path(__file__).parent / "bin"), os.environ["PATH"]])
    # Where it says which configuration it found, in the middle of other programs' output. Cells' output goes elsewhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(evcxr, [evcxr, "--control_file", connection_file])


if __name__ == "__main__":
    main(*sys.argv[1:])
