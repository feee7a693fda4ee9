"""The processor that measurements run on, from /proc and /sys."""

import os
import re
from pathlib import Path

# Instruction sets that decide how fast matrices are multiplied, as /proc/cpuinfo names them.
NAMED = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile"]


def caches() -> str:
    """Sizes of the caches that hold data, as one core sees them."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "caches unknown"


def describe(peer: dict) -> str:
    """One paragraph on the processor and on PyTorch, which described itself."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", cpuinfo)
    flags = re.search(r"flags\s*: (.*)", cpuinfo)
    sets = [word for word in NAMED if flags and word in flags[1].split()]
    return (
        f"{name[1] if name else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores; {caches()}; {', '.join(sets)}. "
        f"PyTorch {peer['torch']} with {'MKL' if peer['mkl'] else 'no MKL'}, {peer['capability']}, {peer['threads']} threads."
    )
