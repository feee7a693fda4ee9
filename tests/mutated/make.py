"""Makes the files that tests/mutated_files.rs damages and that Rust does not write itself. Needs numpy and torch: `python make.py`."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
random = np.random.default_rng(0)
weight = random.standard_normal((3, 4)).astype(np.float32)

np.savez_compressed(
    HERE / "compressed.npz",
    weight=weight,
    transposed=np.asfortranarray(random.standard_normal((4, 3))),
    half=weight.astype(np.float16),
    labels=np.arange(6),
    scalar=np.float64(2.5),
    big_endian=weight.astype(">f4"),
)
state = OrderedDict(
    {
        "layer.weight": torch.tensor(weight),
        "layer.bias": torch.arange(3.0),
        "norm.num_batches_tracked": torch.tensor(7),
        "half": torch.tensor(weight).half(),
        "view": torch.arange(12.0).reshape(3, 4).T,
    }
)
torch.save(state, HERE / "state.pth")
torch.save({"state_dict": state, "epoch": 3}, HERE / "checkpoint.pth")
torch.save(state, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
