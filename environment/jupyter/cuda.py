"""Cells on an NVIDIA GPU, after `environment/setup.sh --cuda`.

Cargo compiles CUDA code again if a variable that names the toolkit or the GPU has changed. So the set-up stores them, and
every build of the crate for notebooks gets the same.
"""

import ctypes
import json
import os
from pathlib import Path

LIBRARIES = ("lib64", "lib", "targets/x86_64-linux/lib", "lib/x86_64-linux-gnu")
# The crate's library cannot be loaded without it. Toolkits contain a stub, whose functions return errors.
DRIVER = "libcuda.so.1"
# Read by the build scripts of cudarc and candle-kernels.
FOUND = ("CUDARC_CUDA_VERSION", "CUDA_COMPUTE_CAP", "NVCC_CCBIN")


def choice(folder: Path) -> Path:
    """The file with the stored variables, in the directory for all kernels of a checkout. Without it, cells use the CPU."""
    return folder / "cuda.json"


def choose(folder: Path) -> None:
    """Stores that cells use CUDA, with the toolkit and the GPU that the environment names."""
    home = os.environ["CUDA_HOME"]
    stored = dict.fromkeys(("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"), home)
    stored |= {"NVCC": f"{home}/bin/nvcc"} | {name: os.environ[name] for name in FOUND if name in os.environ}
    choice(folder).write_text(json.dumps(stored, indent=1))


def forget(folder: Path) -> None:
    """Stores that cells use the CPU."""
    choice(folder).unlink(missing_ok=True)


def variables(folder: Path) -> dict[str, str]:
    """The environment variables of builds. Empty without CUDA."""
    stored = choice(folder)
    return json.loads(stored.read_text()) if stored.exists() else {}


def libraries(folder: Path) -> list[Path]:
    """The directories of the toolkit's libraries. Empty without CUDA."""
    home = variables(folder).get("CUDA_HOME")
    return [path for name in LIBRARIES if home and ((path := Path(home, name)) / "libcudart.so").exists()]


def stub(folder: Path) -> Path | None:
    """The toolkit's stub of the driver's library. None without CUDA, with an installed driver, and if there is no stub."""
    stubs = [path for library in libraries(folder) if (path := library / "stubs/libcuda.so").exists()]
    return stubs[0] if stubs and not has_driver() else None


def has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
        return True
    except OSError:
        return False
