"""Answers the kernel's questions to cargo from what cargo answered before, and shows its analysis fewer packages.

Before it compiles anything the kernel asks cargo some ten questions about the workspace, and its analysis then reads
and resolves every package in the answer: hundreds, some twenty seconds, of which cells see a dozen. So the answer to
`cargo metadata` holds, of what a package depends on that names `analysed` packages in its manifest's
`package.metadata.notebook`, those alone. What is compiled is cargo's own business and does not change.

The kernel's analysis finds cargo in CARGO_HOME; so launch.py gives it one with this for cargo.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# CARGO_HOME as it was; empty if it was not set.
HOME = "LOSS_LANDSCAPE_CARGO_HOME"
ANSWERS = "answers"


def stand_in(ours: Path) -> None:
    """Makes this the CARGO_HOME of all that is started."""
    os.environ[HOME] = os.environ.get("CARGO_HOME", "")
    os.environ["CARGO_HOME"] = str(ours)


def restore() -> None:
    """Puts CARGO_HOME back, for cargo and all that it starts."""
    if HOME in os.environ:
        home = os.environ.pop(HOME)
        os.environ["CARGO_HOME"] = home
        if not home:
            del os.environ["CARGO_HOME"]


def home() -> Path:
    return Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))


def stamps(files) -> dict:
    """What tells whether a file has changed: the text of settings, which the kernel writes anew, else time and size."""
    found = {}
    for file in map(str, files):
        try:
            if file.endswith((".toml", ".lock")):
                found[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            else:
                stat = os.stat(file)
                found[file] = [stat.st_mtime_ns, stat.st_size]
        except FileNotFoundError:
            found[file] = None
    return found


def settings(folder: Path) -> list[Path]:
    """The manifests, lock files and configurations that count in a folder, or would if they were there."""
    names = ("Cargo.toml", "Cargo.lock", ".cargo/config.toml")
    return [path / name for path in (folder, *folder.parents) for name in names] + [home() / "config.toml"]


def pruned(metadata: dict) -> dict:
    """The packages that a cell's code can name or have values of."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    members = [m for m in metadata["workspace_members"] if packages[m]["name"] != "locked"]
    reached, todo = set(), [(member, None) for member in members]
    while todo:
        package, only = todo.pop()
        if (package, only) in reached:
            continue
        reached.add((package, only))
        notes = (packages[package]["metadata"] or {}).get("notebook", {})
        inside = frozenset(notes["analysed"]) if "analysed" in notes else only
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
    """Prints what the command prints, and keeps it in the build directory for as long as no setting changes."""
    # The kernel's analysis names a copy of the lock file, in another directory each time.
    copy = command.index("--lockfile-path") if "--lockfile-path" in command else len(command)
    question = command[1:copy] + command[copy + 2 :]
    environment = {k: v for k, v in os.environ.items() if k.startswith(("CARGO", "RUST")) and "LOCKFILE" not in k}
    folder = Path.cwd()
    manifest = question[question.index("--manifest-path") + 1] if "--manifest-path" in question else None
    where = Path(manifest).parent if manifest else folder
    about = [question, environment, str(folder), list(stamps(settings(where)).items())]
    kept = build / ANSWERS / f"{hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(kept.read_text())
        if stamps(known["files"]) == known["files"]:
            sys.stdout.write(known["said"])
            return 0
    except (FileNotFoundError, ValueError):
        pass

    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.stdout.write(done.stdout)
        return done.returncode
    said, files = done.stdout, [tool(command[0])]
    if "metadata" in question and "--no-deps" not in question:
        metadata = json.loads(said)
        files += [package["manifest_path"] for package in metadata["packages"] if package["source"] is None]
        said = json.dumps(pruned(metadata))
    kept.parent.mkdir(exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"files": stamps(files), "said": said}))
    part.rename(kept)
    sys.stdout.write(said)
    return 0


def tool(cargo: str) -> str:
    """The program behind rustup's, which changes with an update."""
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
