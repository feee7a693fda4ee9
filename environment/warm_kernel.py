"""Compiles the crate in the notebooks' build directory, through the kernel itself: warm_kernel.py DEPENDENCIES"""

import os
import sys
from pathlib import Path

from jupyter_client.manager import start_new_kernel

sys.path.insert(0, str(Path(__file__).parent / "jupyter"))
import launch

CELL = ":dep loss-landscape = { path = \"..\" }\nuse loss_landscape::prelude::*;"
LIMIT_SECONDS = 3600


def main(dependencies: str) -> None:
    project = Path(__file__).parent.parent.resolve()
    link = launch.home(project) / "dependencies"
    link.unlink(missing_ok=True)
    link.symlink_to(dependencies)
    manager, client = start_new_kernel(kernel_name="loss-landscape", cwd=project / "notebooks", startup_timeout=180)
    try:
        messages = []
        reply = client.execute_interactive(CELL, timeout=LIMIT_SECONDS, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        for message in messages:
            print(message["content"].get("text") or message["content"].get("evalue") or "", file=sys.stderr)
        sys.exit("The crate does not build in the notebooks' kernel; the errors are above.")


if __name__ == "__main__":
    main(*sys.argv[1:])
