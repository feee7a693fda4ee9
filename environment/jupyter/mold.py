"""Compiles a cell without cargo where nothing but the cell has changed.

The kernel compiles each cell by `mold -run cargo build …`, the one program that it looks up by name. So it finds this
one, in a folder that only its search path has. Cargo takes some 0.4 seconds a cell to see that none of 300 packages has
changed; this looks at the files that can have changed, those of packages with a path, and then repeats the last call
of rustc as cargo made it. Whatever else it is asked, or where anything looks different, it leaves to cargo.

The kernel also runs `cargo check`, on a cell with a variable that it cannot store, to report compile errors first. The
set-up compiles the dependencies for `cargo build`, and in a new build directory `cargo check` would go through all of
them again, for minutes. So it is answered by `cargo build`, which reports the same errors.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cargo

RECORDS = Path("target/cells")
# Set for the call of cargo that is to be recorded, to the file for it.
RECORD = "LOSS_LANDSCAPE_RECORD"


def linked(command: list[str]) -> list[str]:
    """The command, with the linker mold where there is one."""
    here = str(Path(sys.argv[0]).parent)
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != here)
    mold = shutil.which("mold", path=path)
    return [mold, "-run", *command] if mold else command


def record_of(command: list[str]) -> Path:
    """The file for what decides how a cell is compiled, but for the files that count.

    Jupyter's variables do not decide, nor does one that the kernel sets only for `cargo build`.
    """
    without = ("JPY_", "EVCXR_EXECUTION_SO_PATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(without)}
    about = json.dumps([command, sorted(environment.items()), Path("Cargo.toml").read_text()])
    return Path.cwd() / RECORDS / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.json"


def watched(arguments: list[str]) -> list[str]:
    """The files that cargo would look at: manifests, settings, what the cell links, sources of packages with a path."""
    files = {arguments[0], *map(str, cargo.settings(Path.cwd()))}
    files.update(a.partition("=")[2] for a in arguments if a.endswith((".so", ".rlib", ".rmeta")) and "=" in a)
    registry = str(cargo.home() / "registry")
    for listing in [*Path("target/debug/deps").glob("*.d"), *Path("target").glob("*-*/debug/deps/*.d")]:
        for line in listing.read_text().splitlines():
            source = line[:-1].replace("\\ ", " ")
            if line.endswith(":") and not source.startswith((registry, "src/", "cell/src/")):
                files.add(source if source.startswith("/") else f"../{source}")
    manifests = (next((m for folder in Path(file).parents if (m := folder / "Cargo.toml").exists()), None) for file in files)
    return sorted(files | {str(manifest) for manifest in manifests if manifest})


def record(arguments: list[str]) -> None:
    """As cargo's wrapper of rustc: notes how the cell is compiled, then compiles it."""
    pairs = list(zip(arguments, arguments[1:]))
    if ("--crate-name", "ctx") in pairs and ("--crate-type", "cdylib") in pairs:
        # As the command `:opt` says; cargo takes profiles from the workspace alone. In small parts, of which most are
        # as in the cell before, and without optimising across them: a third of rustc's time.
        manifest = (Path(os.environ[RECORD]).parents[2] / "Cargo.toml").read_text()
        level = next((line[-1] for line in manifest.splitlines() if line.startswith("opt-level = ")), "1")
        arguments = [*arguments, f"-Copt-level={level}", "-Ccodegen-units=256", "-Clto=off"]
        ours = (RECORD, "RUSTC_WRAPPER", "CARGO_MAKEFLAGS", "MAKEFLAGS")
        environment = {k: v for k, v in os.environ.items() if k not in ours}
        note = {"arguments": arguments, "environment": environment, "folder": os.getcwd()}
        Path(os.environ[RECORD]).write_text(json.dumps(note))
    os.execvp(arguments[0], arguments)


def repeat(known: dict) -> int:
    arguments = known["arguments"]
    out = Path(known["folder"], arguments[arguments.index("--out-dir") + 1])
    library, shown = out / "libctx.so", out.parent / "libctx.so"
    # Earlier cells' libraries are links to the same file, and loaded.
    for file in (library, shown):
        file.unlink(missing_ok=True)
    # What rustc says is what the kernel reads of cargo's output.
    done = subprocess.run(linked(arguments), env=known["environment"], cwd=known["folder"], stderr=subprocess.STDOUT)
    if done.returncode == 0:
        os.link(library, shown)
        print(json.dumps({"reason": "compiler-artifact", "target": {"name": "ctx"}, "filenames": [str(shown)]}))
    return done.returncode


def build(command: list[str]) -> int:
    noted = record_of(command)
    try:
        known = json.loads(noted.read_text())
        if cargo.stamps(known["files"]) == known["files"]:
            return repeat(known)
    except (FileNotFoundError, ValueError):
        pass

    start = time.time_ns()
    noted.unlink(missing_ok=True)
    noted.parent.mkdir(parents=True, exist_ok=True)
    new = noted.with_suffix(".new")
    new.unlink(missing_ok=True)
    environment = {**os.environ, "RUSTC_WRAPPER": sys.argv[0], RECORD: str(new)}
    code = subprocess.run(linked(command), env=environment).returncode
    if code == 0 and new.exists():
        note = json.loads(new.read_text())
        note["files"] = cargo.stamps(watched(note["arguments"]))
        # What changed meanwhile may be older than what was compiled of it, or newer.
        if all(stamp is None or os.stat(file).st_mtime_ns < start for file, stamp in note["files"].items()):
            new.write_text(json.dumps(note))
            new.rename(noted)
    return code


def main(arguments: list[str]) -> int:
    cargo.restore()
    if RECORD in os.environ and arguments[:1] != ["-run"]:
        record(arguments)
    command = arguments[1:]
    if "metadata" in command:
        return cargo.answer(command, Path.cwd().parent)
    command = ["build" if word == "check" else word for word in command]
    if "build" in command and "RUSTC_WRAPPER" not in os.environ:
        return build(command)
    command = linked(command)
    os.execvp(command[0], command)
