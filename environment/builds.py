"""Copies cargo's build directories, so that nothing is compiled twice.

Cargo's fingerprints decide which files of a copy are still valid. A wrong copy therefore costs only time.
"""

import os
import re
import shutil
from pathlib import Path

CRATE = ("loss", "libloss")
CELLS = ("ctx", "libctx", "libcode", "locked", "liblocked")
FOLDERS = (".fingerprint", "build", "deps")
HASH = re.compile(r"-([0-9a-f]{16})\b")


def copy(source: Path, target: Path) -> None:
    """Copies the compiled dependencies. Compiled code is hard-linked: compilers replace it. Other files cargo modifies."""
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    copy_matching(source, part, lambda parts: not any(name.startswith(CRATE + CELLS) for name in parts))
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        shutil.copytree(part, target, copy_function=link, dirs_exist_ok=True)
        shutil.rmtree(part)
    else:
        part.rename(target)


def copy_crate(source: Path, target: Path) -> None:
    """Copies the compiled crate itself and replaces the one in `target`: its file name contains no hash."""
    copy_matching(source, target, lambda parts: any(name.startswith(CRATE) for name in parts))


def copy_matching(source: Path, target: Path, wanted) -> None:
    for profile in profiles(source):
        for folder in FOLDERS:
            for directory, _, files in os.walk(profile / folder):
                inside = Path(directory).relative_to(source)
                for name in files:
                    if not wanted((*inside.parts, name)):
                        continue
                    old, new = source / inside / name, target / inside / name
                    new.parent.mkdir(parents=True, exist_ok=True)
                    new.unlink(missing_ok=True)
                    program = folder == "build" and name.startswith(("build-script-", "build_script_")) and old.suffix != ".d"
                    if program or old.suffix in (".rlib", ".rmeta", ".so", ".a"):
                        link(old, new)
                    else:
                        shutil.copy2(old, new)


def profiles(target: Path) -> list[Path]:
    return [target / "debug", *target.glob("*-*-*/debug")]


def drop_others(target: Path, messages: str) -> None:
    """Removes compiled packages that are not in cargo's JSON messages about a build: those of an older lock file.

    The crate remains: its hash is not in the messages, because the file names of dynamic libraries have none.
    """
    used = set(HASH.findall(messages))
    for folder in (profile / name for profile in profiles(target) for name in FOLDERS):
        for path in folder.iterdir() if folder.exists() else ():
            if (found := HASH.search(path.name)) and found[1] not in used and not path.name.startswith(CRATE):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def link(old: Path | str, new: Path | str) -> None:
    try:
        os.link(old, new)
    except FileExistsError:
        pass
    except OSError:  # another file system
        shutil.copy2(old, new)


def prune(cache: Path, keep: Path) -> None:
    """Removes the dependencies of other lock files, except the newest, and the build directories of deleted clones."""
    others = [path for path in cache.glob("dependencies-*") if path != keep]
    others.sort(key=lambda path: path.stat().st_mtime)
    for path in others[:-1]:
        shutil.rmtree(path, ignore_errors=True)
    for checkout in cache.glob("kernels/*/checkout"):
        if not (Path(checkout.read_text()) / "Cargo.toml").exists():
            shutil.rmtree(checkout.parent, ignore_errors=True)
