"""Caches cargo's answers for the kernel, and shows its code analysis fewer packages.

Before it compiles the first cell, the kernel asks cargo about ten questions about the workspace, and its analysis
(rust-analyzer) then reads every package in the answer to `cargo metadata`. These are hundreds, of which cells can name
about twenty, and reading them takes about twenty seconds. So the answer is filtered: of the dependencies of a package
whose manifest has a list `package.metadata.notebook.analysed`, only those in the list remain. Compilation is not affected.

The analysis runs the cargo in CARGO_HOME, so launch.py sets a CARGO_HOME whose cargo is this program.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Holds the user's CARGO_HOME; empty if that was not set.
HOME = "LOSS_LANDSCAPE_CARGO_HOME"
ANSWERS = "answers"


def stand_in(cargo_home: Path) -> None:
    """Sets the CARGO_HOME of child processes."""
    os.environ[HOME] = os.environ.get("CARGO_HOME", "")
    os.environ["CARGO_HOME"] = str(cargo_home)


def restore() -> None:
    """Restores the user's CARGO_HOME, for cargo and its child processes."""
    if HOME in os.environ:
        home = os.environ.pop(HOME)
        os.environ["CARGO_HOME"] = home
        if not home:
            del os.environ["CARGO_HOME"]


def home() -> Path:
    return Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))


def stamps(files) -> dict:
    """Detects changed files: by content for settings, which the kernel rewrites, and by time and size for others."""
    found = {}
    for file in map(str, files):
        try:
            if file.endswith((".toml", ".lock")):
                found[file] = hashlib.sha256(without_members(Path(file).read_bytes())).hexdigest()
            else:
                stat = os.stat(file)
                found[file] = [stat.st_mtime_ns, stat.st_size]
        except FileNotFoundError:
            found[file] = None
    return found


# The packages of a kernel's workspace, in its lock file.
MEMBERS = (b'[[package]]\nname = "ctx"\n', b'[[package]]\nname = "locked"\n')


def without_members(settings: bytes) -> bytes:
    """A lock file without the packages of a kernel's workspace. They repeat their manifests, and cargo rewrites them after the
    kernel's start and after each `:dep`."""
    return b"\n\n".join(part for part in settings.split(b"\n\n") if not part.startswith(MEMBERS))


def settings(folder: Path) -> list[Path]:
    """The manifests, lock files and configurations that cargo reads for a folder, including those that do not exist."""
    names = ("Cargo.toml", "Cargo.lock", ".cargo/config.toml")
    return [path / name for path in (folder, *folder.parents) for name in names] + [home() / "config.toml"]


def pruned(metadata: dict) -> dict:
    """The packages whose types a cell can use."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    members = [m for m in metadata["workspace_members"] if packages[m]["name"] != "locked"]
    reached, todo = set(), [(member, None) for member in members]
    while todo:
        package, allowed = todo.pop()
        if (package, allowed) in reached:
            continue
        reached.add((package, allowed))
        settings = (packages[package]["metadata"] or {}).get("notebook", {})
        inside = frozenset(settings["analysed"]) if "analysed" in settings else allowed
        todo += [
            (dependency["pkg"], inside)
            for dependency in nodes[package]["deps"]
            if inside is None or packages[dependency["pkg"]]["name"] in inside
        ]
    seen = {package for package, _ in reached}
    for node in nodes.values():
        node["dependencies"] = [d for d in node["dependencies"] if d in seen]
        node["deps"] = [d for d in node["deps"] if d["pkg"] in seen]
    return metadata | {
        "packages": [p for p in metadata["packages"] if p["id"] in seen],
        "workspace_members": members,
        "workspace_default_members": [m for m in metadata.get("workspace_default_members", []) if m in seen],
        "resolve": metadata["resolve"] | {"nodes": [n for n in metadata["resolve"]["nodes"] if n["id"] in seen]},
    }


def answer(command: list[str], build: Path) -> int:
    """Prints the command's output, from the cache in the build directory unless a setting has changed."""
    # The analysis names a copy of the lock file, each time in another directory.
    copy = command.index("--lockfile-path") if "--lockfile-path" in command else len(command)
    question = command[1:copy] + command[copy + 2 :]
    environment = {k: v for k, v in os.environ.items() if k.startswith(("CARGO", "RUST")) and "LOCKFILE" not in k}
    folder = Path.cwd()
    manifest = question[question.index("--manifest-path") + 1] if "--manifest-path" in question else None
    where = Path(manifest).parent if manifest else folder
    key = [question, environment, str(folder), list(stamps(settings(where)).items())]
    cached = build / ANSWERS / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(cached.read_text())
        if stamps(known["files"]) == known["files"]:
            sys.stdout.write(known["output"])
            return 0
    except (FileNotFoundError, KeyError, ValueError):
        pass

    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.stdout.write(done.stdout)
        return done.returncode
    output, files = done.stdout, [tool(command[0])]
    if "metadata" in question and "--no-deps" not in question:
        metadata = json.loads(output)
        files += [package["manifest_path"] for package in metadata["packages"] if package["source"] is None]
        output = json.dumps(pruned(metadata))
    cached.parent.mkdir(exist_ok=True)
    part = cached.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"files": stamps(files), "output": output}))
    part.rename(cached)
    sys.stdout.write(output)
    return 0


def tool(cargo: str) -> str:
    """The cargo that rustup's proxy runs. An update changes this file, but not the proxy."""
    own = os.path.join(os.environ.get("RUSTUP_TOOLCHAIN", ""), "bin", "cargo")
    return own if os.path.exists(own) else cargo


def main(arguments: list[str]) -> int:
    restore()
    own = home() / "bin/cargo"
    command = [str(own) if own.exists() else shutil.which("cargo"), *arguments]
    build = Path(os.environ["EVCXR_TMPDIR"]).parent
    if {"metadata", "locate-project", "--version"} & set(arguments) or "--print" in arguments or "get" in arguments:
        return answer(command, build)
    os.execv(command[0], command)
