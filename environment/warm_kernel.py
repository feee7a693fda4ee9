"""Compiles the crate in the notebooks' build directory, through the kernel itself: warm_kernel.py DEPENDENCIES"""

import hashlib
import sys
from pathlib import Path

from jupyter_client.manager import start_new_kernel

sys.path.insert(0, str(Path(__file__).parent / "jupyter"))
import launch

CELL = ":dep loss-landscape = { path = \"..\" }\nuse loss_landscape::prelude::*;"
LIMIT_SECONDS = 3600
PROJECT = Path(__file__).parent.parent.resolve()


def state() -> str:
    """A hash of all that the kernel compiles."""
    files = [PROJECT / name for name in ("Cargo.toml", "Cargo.lock", ".cargo/config.toml")]
    files += sorted((PROJECT / "src").rglob("*.rs"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file).encode() + file.read_bytes())
    return digest.hexdigest()


def main(dependencies: str) -> None:
    home = launch.home(PROJECT)
    link, stamp = home / "dependencies", home / "0/compiled"
    link.unlink(missing_ok=True)
    link.symlink_to(dependencies)
    if stamp.exists() and stamp.read_text() == state():
        return
    print("[set-up] building the crate for the notebooks' cells (about a minute when it has changed) …", flush=True)
    manager, client = start_new_kernel(kernel_name="loss-landscape", cwd=PROJECT / "notebooks", startup_timeout=180)
    messages = []
    try:
        reply = client.execute_interactive(CELL, timeout=LIMIT_SECONDS, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        for message in messages:
            print(message["content"].get("text") or message["content"].get("evalue") or "", file=sys.stderr)
        sys.exit("The crate does not build in the notebooks' kernel; the errors are above.")
    stamp.write_text(state())


if __name__ == "__main__":
    main(*sys.argv[1:])
