"""Compiles a cell without cargo if nothing but the cell has changed.

The kernel compiles each cell by `mold -run cargo build …`, and mold is the one program that it finds by its search path.
So launch.py puts this program there under that name. Cargo needs about 0.4 seconds per cell to find that none of 300
packages has changed. This program checks only files that can change, those of packages with a path, and then repeats
cargo's last call of rustc. A source that was compiled before is not compiled again: each kernel starts with the same cells,
and so does a notebook that runs again. It passes every other command, and every case that looks different, on to cargo.

For a cell with a variable that cannot be stored, the kernel also runs `cargo check`, to report compile errors first. The
set-up compiles the dependencies for `cargo build`, and in a new build directory `cargo check` would check all of them,
for minutes. So this program runs `cargo build` instead, which reports the same errors.
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
# The file of the present cell, as seen by cargo.
SOURCE = "cell/src/lib.rs"
# Number of kept outcomes for one record. One takes 100 to 300 kB.
OUTCOMES = 200
# Variables, by the starts of their names, that differ between sessions of a user and do not affect a compilation.
SESSION = (
    "COLORTERM", "COLUMNS", "DBUS_SESSION", "DISPLAY", "INVOCATION_ID", "JOURNAL_STREAM", "JPY_", "LINES", "OLDPWD", "PWD",
    "SESSION_MANAGER", "SHLVL", "SSH_", "STY", "TERM", "TMUX", "VSCODE_", "WAYLAND_DISPLAY", "WINDOWID", "XAUTHORITY",
    "XDG_SEAT", "XDG_SESSION", "XDG_VTNR",
)
# Set for a recorded call of cargo, to the file for the record.
RECORD = "LOSS_LANDSCAPE_RECORD"


def linked(command: list[str]) -> list[str]:
    """The command, run with the linker mold if that is installed."""
    here = str(Path(sys.argv[0]).parent)
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != here)
    mold = shutil.which("mold", path=path)
    return [mold, "-run", *command] if mold else command


def record_of(command: list[str]) -> Path:
    """The file for the record of a command, manifest and environment."""
    # The kernel sets the first only for `cargo build`.
    without = ("EVCXR_EXECUTION_SO_PATH", *SESSION)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(without)}
    key = json.dumps([command, sorted(environment.items()), Path("Cargo.toml").read_text()])
    return Path.cwd() / RECORDS / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def watched(arguments: list[str]) -> list[str]:
    """The files that cargo would check: manifests, settings, linked libraries, sources of packages with a path."""
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
    """As cargo's rustc wrapper: records how the cell is compiled, then compiles it."""
    pairs = list(zip(arguments, arguments[1:]))
    if ("--crate-name", "ctx") in pairs and ("--crate-type", "cdylib") in pairs:
        # The level is from the command `:opt`: cargo ignores the profile in a member's manifest. Many small codegen
        # units, most of which are unchanged since the cell before, without LTO, save a third of rustc's time.
        manifest = (Path(os.environ[RECORD]).parents[2] / "Cargo.toml").read_text()
        level = next((line[-1] for line in manifest.splitlines() if line.startswith("opt-level = ")), "1")
        # As in the stock kernel, cells that do not use the crate share one standard library too.
        arguments = [*arguments, f"-Copt-level={level}", "-Ccodegen-units=256", "-Clto=off", "-Cprefer-dynamic"]
        ours = (RECORD, "RUSTC_WRAPPER", "CARGO_MAKEFLAGS", "MAKEFLAGS")
        environment = {k: v for k, v in os.environ.items() if k not in ours}
        note = {"arguments": arguments, "environment": environment, "folder": os.getcwd()}
        Path(os.environ[RECORD]).write_text(json.dumps(note))
    os.execvp(arguments[0], arguments)


def repeat(known: dict, outcomes: Path) -> int:
    """Compiles the cell as recorded, or takes the outcome of an earlier cell with the same source."""
    arguments, folder = known["arguments"], Path(known["folder"])
    out = Path(folder, arguments[arguments.index("--out-dir") + 1])
    library, shown, dependencies = out / "libctx.so", out.parent / "libctx.so", out / "ctx.d"
    # The libraries of earlier cells are links to the same file, and loaded.
    for file in (library, shown, dependencies):
        file.unlink(missing_ok=True)
    outcome = outcomes / hashlib.sha256((folder / SOURCE).read_bytes()).hexdigest()[:32]
    compiled = outcome.with_suffix(".so")
    try:
        code, messages = json.loads(outcome.read_text())
        if code == 0:
            os.link(compiled, library)
    except (OSError, ValueError):
        # The kernel reads rustc's messages from cargo's output.
        done = subprocess.run(
            linked(arguments), env=known["environment"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        code, messages = done.returncode, done.stdout.decode(errors="replace")
        if is_reproducible(code, messages, dependencies):
            keep(outcome, compiled, library, code, messages)
    sys.stdout.write(messages)
    if code == 0:
        os.link(library, shown)
        print(json.dumps({"reason": "compiler-artifact", "target": {"name": "ctx"}, "filenames": [str(shown)]}))
    return code


def is_reproducible(code: int, messages: str, dependencies: Path) -> bool:
    """Whether the same source will have the same outcome: it reads no other file, and only the type checker found errors."""
    try:
        sources = [line for line in dependencies.read_text().splitlines() if line.endswith(":")]
        errors = [e for e in map(json.loads, messages.splitlines()) if e.get("level") == "error"]
    except (OSError, ValueError):
        return False
    # Errors of macros, which may have tried to read a file, have no code.
    coded = all(error["code"] or error["message"].startswith("aborting due to") for error in errors)
    return sources == [f"{SOURCE}:"] and (code == 0 or (errors != [] and coded))


def keep(outcome: Path, compiled: Path, library: Path, code: int, messages: str) -> None:
    """Keeps an outcome, and removes the oldest."""
    outcome.parent.mkdir(parents=True, exist_ok=True)
    for file in (outcome, compiled):
        file.unlink(missing_ok=True)
    if code == 0:
        os.link(library, compiled)
    outcome.write_text(json.dumps([code, messages]))
    kept = sorted((file for file in outcome.parent.iterdir() if not file.suffix), key=lambda file: file.stat().st_mtime_ns)
    for file in kept[:-OUTCOMES]:
        file.with_suffix(".so").unlink(missing_ok=True)
        file.unlink()


def build(command: list[str]) -> int:
    recorded = record_of(command)
    try:
        known = json.loads(recorded.read_text())
        if cargo.stamps(known["files"]) == known["files"]:
            return repeat(known, recorded.with_suffix(""))
    except (FileNotFoundError, ValueError):
        shutil.rmtree(recorded.with_suffix(""), ignore_errors=True)

    start = time.time_ns()
    recorded.unlink(missing_ok=True)
    recorded.parent.mkdir(parents=True, exist_ok=True)
    new = recorded.with_suffix(".new")
    new.unlink(missing_ok=True)
    environment = {**os.environ, "RUSTC_WRAPPER": sys.argv[0], RECORD: str(new)}
    code = subprocess.run(linked(command), env=environment).returncode
    if code == 0 and new.exists():
        note = json.loads(new.read_text())
        note["files"] = cargo.stamps(watched(note["arguments"]))
        # A file that changed during the build may be older or newer than what was compiled from it. The lock file is not:
        # cargo writes it before it compiles.
        checked = [file for file, stamp in note["files"].items() if stamp and not file.endswith(".lock")]
        if all(os.stat(file).st_mtime_ns < start for file in checked):
            new.write_text(json.dumps(note))
            new.rename(recorded)
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
