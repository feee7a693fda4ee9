"""Writes the files of this directory. Needs torch, torchvision, numpy and safetensors:

    python tests/weights/make.py

Every entry i of a tensor of weights is (i - 3) / 8, plus the tensor's position in its file: exact in all types.
"""

import json
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
import torchvision

HERE = Path(__file__).parent
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}


def weights(dtype=torch.float32, prefix=""):
    """The state dict of a perceptron of the widths 3, 4, 2, as nn.Sequential names it."""
    entries = enumerate(SHAPES.items())
    return OrderedDict(
        (prefix + name, ((torch.arange(np.prod(shape)) - 3) / 8 + i).reshape(shape).to(dtype))
        for i, (name, shape) in entries
    )


def arrays(**renamed):
    return {renamed.get(name, name): tensor.numpy() for name, tensor in weights().items()}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x)


def state_dict_of_a_module():
    """With the metadata that PyTorch adds, and parameters instead of tensors."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    model.load_state_dict(weights())
    return model.state_dict(), OrderedDict(model.named_parameters())


def checkpoint(kept):
    """A training's checkpoint, with all that usually comes along."""
    parameters = [torch.nn.Parameter(tensor) for tensor in weights().values()]
    optimizer = torch.optim.Adam(parameters)
    sum((p * p).sum() for p in parameters).backward()
    optimizer.step()
    return {
        "epoch": 3,
        "best": np.float64(0.5),
        "args": Namespace(lr=0.1),
        "rng": torch.arange(5, dtype=torch.uint8),
        "optimizer": optimizer.state_dict(),
        "state_dict": kept,
    }


def types():
    """One array of each type, and views of shared, strided, transposed and repeated storages."""
    base = torch.arange(24, dtype=torch.float32)
    numbers = torch.tensor([0, 1, 5])
    found = {str(dtype).removeprefix("torch."): numbers.to(dtype) for dtype in TYPES}
    found |= {
        "part": base[5:11].reshape(2, 3),
        "transposed": base.reshape(2, 12).t()[:3],
        "strided": base.reshape(2, 3, 4)[:, ::2, 1:3],
        "repeated": torch.tensor([[7.0]]).expand(3, 2),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "negative": -numbers,
    }
    return found


TYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.bool,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
]


def numpy_types():
    """As `types`, for NumPy."""
    base = np.arange(24, dtype=np.float32)
    numbers = np.array([0, 1, 5])
    codes = ["f2", "f4", "f8", "?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">f4", ">i4", ">f8"]
    found = {f"{np.dtype(code).name}{'_big' * (code[0] == '>')}": numbers.astype(code) for code in codes}
    return found | {
        "fortran": np.asfortranarray(base.reshape(2, 3, 4)),
        "fortran_big": np.asfortranarray(base.reshape(4, 6).astype(">f8")),
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3)),
        "negative": -numbers,
    }


def save(name, content, **options):
    torch.save(content, HERE / name, **options)


plain, parameters = state_dict_of_a_module()
save("sequential.pth", plain)
save("parameters.pt", parameters)
save("legacy.pth", plain, _use_new_zipfile_serialization=False)
save("half.pth", weights(torch.float16))
save("bfloat.pth", weights(torch.bfloat16))
save("wrapped.pth", checkpoint(weights(prefix="module._orig_mod.")))
save("checkpoint.ckpt", checkpoint(weights(prefix="model.")), _use_new_zipfile_serialization=False)
save("types.pth", types())
save("types_legacy.pth", {k: v for k, v in types().items() if v.dtype not in (torch.uint16, torch.uint32, torch.uint64)},
     _use_new_zipfile_serialization=False)
save("nested.pt", {"encoder": {"0": {"weight": weights()["0.weight"]}}, "head": {"bias": weights()["2.bias"]}})
save("protocol4.pth", weights(), pickle_protocol=4)
safetensors.torch.save_file(weights(torch.float16), HERE / "half.safetensors")
safetensors.torch.save_file({k: v for k, v in types().items() if v.is_contiguous()}, HERE / "types.safetensors")
np.savez(HERE / "plain.npz", **arrays())
np.savez_compressed(HERE / "compressed.npz", **arrays())
np.savez_compressed(HERE / "types.npz", **numpy_types())
np.savez(HERE / "positional.npz", *arrays().values())

# Shards with an index.
names = list(SHAPES)
shards = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
for shard, inside in shards.items():
    safetensors.torch.save_file({name: weights()[name] for name in inside}, HERE / shard)
index = {"metadata": {}, "weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
(HERE / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")

# What is refused.
save("refused_module.pt", Net())
torch.jit.script(Net()).save(HERE / "refused_script.pt")
save("refused_sparse.pth", {"weight": torch.eye(3).to_sparse()})
save("refused_complex.pth", {"weight": torch.zeros(2, dtype=torch.complex64)})
save("refused_quantized.pth", {"weight": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)})
save("refused_list.pth", [torch.zeros(2)])
np.savez(HERE / "refused_text.npz", names=np.array(["cat", "dog"]))
np.savez(HERE / "refused_objects.npz", objects=np.array([None, 1], dtype=object))
np.savez(HERE / "refused_fields.npz", fields=np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]))

# Names and shapes of torchvision's networks.
for name in ["resnet18", "densenet121"]:
    state = getattr(torchvision.models, name)(weights=None).state_dict()
    shapes = {key: list(tensor.shape) for key, tensor in state.items()}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items())
    (HERE / f"{name}.json").write_text("{\n" + lines + "\n}\n")
