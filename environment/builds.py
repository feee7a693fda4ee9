"""Copies of cargo's build directories, so that nothing is compiled twice.

    builds.py copy FROM TO        what FROM has compiled of the dependencies, as TO; whole or not at all

Cargo decides by its own fingerprints what of a copy it can use: a wrong copy costs time, nothing else.
"""

import os
import shutil
import sys
from pathlib import Path

CRATE = ("loss", "libloss")
CELLS = ("ctx", "libctx", "libcode", "locked", "liblocked")
FOLDERS = (".fingerprint", "build", "deps")


def copy(source: Path, target: Path) -> None:
    """Compiled code is linked, not copied: compilers replace such files and never write into them."""
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    take(source, part, lambda parts: not any(name.startswith(CRATE + CELLS) for name in parts))
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        shutil.copytree(part, target, copy_function=link, dirs_exist_ok=True)
        shutil.rmtree(part)
    else:
        part.rename(target)


def copy_crate(source: Path, target: Path) -> None:
    """What `source` has compiled of the crate itself, in the place of what `target` has: its library has no hash in its name."""
    take(source, target, lambda parts: any(name.startswith(CRATE) for name in parts))


def take(source: Path, target: Path, wanted) -> None:
    for profile in [source / "debug", *source.glob("*-*-*/debug")]:
        for folder in FOLDERS:
            for directory, _, files in os.walk(profile / folder):
                inside = Path(directory).relative_to(source)
                for name in files:
                    if not wanted((*inside.parts, name)):
                        continue
                    old, new = source / inside / name, target / inside / name
                    new.parent.mkdir(parents=True, exist_ok=True)
                    new.unlink(missing_ok=True)
                    if name.endswith((".rlib", ".rmeta", ".so", ".a")) or name.startswith("build-script-build"):
                        link(old, new)
                    else:
                        shutil.copy2(old, new)


def link(old: Path | str, new: Path | str) -> None:
    try:
        os.link(old, new)
    except FileExistsError:
        pass
    except OSError:  # another file system
        shutil.copy2(old, new)


def prune(cache: Path, keep: Path) -> None:
    """Removes dependencies for other lock files than `keep`'s, but for the newest, and build directories of clones that
    are gone."""
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
        case _:
            sys.exit(__doc__)
