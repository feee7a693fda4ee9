"""Copies of cargo's build directories, so that dependencies are compiled once.

    builds.py copy FROM TO        what FROM has compiled of the dependencies, as TO; whole or not at all
    builds.py prune CACHE KEEP    remove dependencies for other lock files than KEEP's, but for the newest

Cargo decides by its own fingerprints what of a copy it can use: a wrong copy costs time, nothing else.
"""

import os
import shutil
import sys
from pathlib import Path

# The crate itself is built anew in each place: its library has no hash in its name.
OURS = ("loss", "libloss", "ctx", "libctx", "libcode")
FOLDERS = (".fingerprint", "build", "deps")


def copy(source: Path, target: Path) -> None:
    """Compiled code is linked, not copied: compilers replace such files and never write into them."""
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    for profile in [source / "debug", *source.glob("*-*-*/debug")]:
        for folder in FOLDERS:
            for directory, _, files in os.walk(profile / folder):
                inside = Path(directory).relative_to(source)
                if any(name.startswith(OURS) for name in inside.parts):
                    continue
                (part / inside).mkdir(parents=True, exist_ok=True)
                for name in files:
                    if name.startswith(OURS):
                        continue
                    old, new = source / inside / name, part / inside / name
                    if name.endswith((".rlib", ".rmeta", ".so", ".a")) or name.startswith("build-script-build"):
                        link(old, new)
                    else:
                        shutil.copy2(old, new)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        shutil.copytree(part, target, copy_function=link, dirs_exist_ok=True)
        shutil.rmtree(part)
    else:
        part.rename(target)


def link(old: Path | str, new: Path | str) -> None:
    try:
        os.link(old, new)
    except FileExistsError:
        pass
    except OSError:  # another file system
        shutil.copy2(old, new)


def prune(cache: Path, keep: Path) -> None:
    others = [path for path in cache.glob("dependencies-*") if path != keep]
    others.sort(key=lambda path: path.stat().st_mtime)
    for path in others[:-1]:
        shutil.rmtree(path, ignore_errors=True)
    for note in cache.glob("kernels/*/checkout"):
        if not (Path(note.read_text()) / "Cargo.toml").exists():
            shutil.rmtree(note.parent, ignore_errors=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["copy", source, target]:
            copy(Path(source), Path(target))
        case ["prune", cache, keep]:
            prune(Path(cache), Path(keep))
        case _:
            sys.exit(__doc__)
