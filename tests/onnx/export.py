"""Exports small PyTorch networks as ONNX, with the values that a reader of the files must reproduce.

To make the files again, in this directory:

    pip install numpy torch onnx onnxscript onnxruntime
    python export.py              # all cases
    python export.py mlp lenet    # some cases

For each case it writes `NAME.onnx`, `NAME.npz` and an entry of `cases.json`. Arrays of the `.npz`:

- `inputs`, `targets`: n = 8 samples or token sequences, and their labels, one a position for language models
- `outputs`: onnxruntime's outputs for them
- `loss`: the mean cross-entropy by PyTorch in float64
- `gradient/P`: its gradient with respect to parameter P, in float64
- `direction1/P`, `product1/P`, `direction2/P`, `product2/P`: directions, and the Hessian's products with them by double backward in
  float64. Both are rounded to float32 unless the model is float64.

P is PyTorch's name. `cases.json` says for each P which initialisers of the file hold it, and whether the file holds the transposed
matrix; the shape may differ too. Two initialisers for one P are copies of a tied parameter: the gradient with respect to P is the sum
of theirs. `buffers` lists the running statistics likewise. If `fold` is set, P is a parameter of the network whose batch normalisation
is folded into its convolutions. All values belong to the weights as the file holds them. `supported` is false for files that a reader
must refuse.

Every case has its own random seed, so the files change only with the versions of the packages.
"""

import json
import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import models
import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = Path(__file__).parent
SAMPLES = 8


@dataclass
class Case:
    name: str
    model: object  # a function that returns the module
    shape: tuple  # of one sample
    classes: int
    dynamo: bool
    opset: int
    dynamic: bool = True  # the batch axis
    vocabulary: int = 0  # the inputs are tokens, with a target each
    dtype: torch.dtype = torch.float32
    fold: bool = False  # the exporter folds batch normalisation
    constant_folding: bool = True  # of the TorchScript exporter
    optimize: bool = True  # by the exporter on torch.export
    metadata: bool = False  # keep what the exporter says about initialisers
    external: bool = False  # the weights are in a file of their own
    supported: bool = True
    directions: int = 2


def mlp_gelu_tanh():
    return models.mlp(lambda: nn.GELU(approximate="tanh"))


IMAGE = (3, 16, 16)
CASES = [
    Case("mlp", models.mlp, (12,), 5, dynamo=False, opset=13),
    Case("mlp_fixed_batch", lambda: models.mlp(nn.Tanh), (12,), 5, dynamo=True, opset=18, dynamic=False),
    Case("mlp_f64", lambda: models.mlp(nn.Tanh), (12,), 5, dynamo=False, opset=17, dtype=torch.float64),
    Case("mlp_f16", models.mlp, (12,), 5, dynamo=False, opset=17, dtype=torch.float16),
    Case("mlp_gelu_tanh", mlp_gelu_tanh, (12,), 5, dynamo=False, opset=16),
    Case("mlp_gelu_operator", mlp_gelu_tanh, (12,), 5, dynamo=True, opset=20),
    Case("activations", models.Activations, (8,), 4, dynamo=False, opset=15),
    Case("lenet", models.LeNet, (1, 16, 16), 10, dynamo=False, opset=14, dynamic=False),
    Case("vgg", models.Vgg, IMAGE, 10, dynamo=True, opset=20, external=True),
    Case("vgg_folded", lambda: models.Vgg(batch_norm=True), IMAGE, 10, dynamo=False, opset=13, fold=True),
    Case("resnet18", models.ResNet18, (3, 32, 32), 10, dynamo=False, opset=17, directions=1),
    Case("resnet18_dynamo", lambda: models.ResNet18(2), (3, 32, 32), 10, dynamo=True, opset=18, fold=True),
    Case("densenet", models.DenseNet, IMAGE, 10, dynamo=True, opset=21, fold=True),
    Case("mobilenet_v2", models.MobileNetV2, IMAGE, 10, dynamo=False, opset=15),
    Case("mobilenet_v2_folded", models.MobileNetV2, IMAGE, 10, dynamo=False, opset=17, fold=True),
    Case("group_norm", models.GroupNormNet, IMAGE, 7, dynamo=False, opset=13),
    Case("group_norm_operator", models.GroupNormNet, IMAGE, 7, dynamo=True, opset=21),
    Case("vit_class_token", lambda: models.Vit("sdpa", True), IMAGE, 10, dynamo=True, opset=18),
    Case("vit_mean", lambda: models.Vit("by_hand", False), IMAGE, 10, dynamo=False, opset=14),
    Case("encoder", models.EncoderClassifier, (7, 6), 4, dynamo=True, opset=19),
    Case("gpt_by_hand", lambda: models.Gpt("by_hand"), (10,), 13, dynamo=False, opset=13, vocabulary=13),
    Case("gpt_sdpa", lambda: models.Gpt("sdpa"), (10,), 13, dynamo=True, opset=18, vocabulary=13),
    Case("gpt_multihead", lambda: models.Gpt("multihead"), (10,), 13, dynamo=False, opset=17, vocabulary=13),
    Case("gpt_tied", lambda: models.Gpt("sdpa", tied=True), (10,), 13, dynamo=True, opset=20, vocabulary=13),
    Case(
        "gpt_tied_unfolded",
        lambda: models.Gpt("by_hand", tied=True),
        (10,),
        13,
        dynamo=False,
        opset=16,
        vocabulary=13,
        constant_folding=False,
    ),
    Case("rotary", models.Rotary, (10,), 13, dynamo=True, opset=18, vocabulary=13, metadata=True),
    Case("rotary_unoptimized", models.Rotary, (10,), 13, dynamo=True, opset=20, vocabulary=13, optimize=False, metadata=True),
    Case("conv1d", models.Conv1dNet, (2, 16), 4, dynamo=False, opset=17),
    Case("lstm", models.Lstm, (6, 5), 4, dynamo=False, opset=17, supported=False),
]


def prepare(model, inputs, targets):
    """Gives every parameter a value of its own, and trains for a few steps: outputs and running statistics are those of real networks."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.2)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and not parameter.detach().any():
            nn.init.normal_(parameter, std=0.2)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(20):
        optimizer.zero_grad()
        loss(model, inputs, targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def draw(case):
    """Inputs and targets. The inputs of a class share a mean, so that the labels depend on them."""
    if case.vocabulary:
        tokens = torch.randint(case.vocabulary, (SAMPLES, case.shape[0] + 1))
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    targets = torch.randint(case.classes, (SAMPLES,))
    return 0.5 * torch.randn(case.classes, *case.shape)[targets] + torch.randn(SAMPLES, *case.shape), targets


def folded(model):
    """The network with each batch normalisation folded into the convolution before it."""
    model = fuse(model)
    model.delete_all_unused_submodules()
    return model.requires_grad_(True)


def export(case, model, inputs):
    path = HERE / f"{case.name}.onnx"
    options = {"input_names": ["input"], "output_names": ["output"], "opset_version": case.opset}
    if case.dynamo:
        if case.dynamic:
            options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
        options |= {"external_data": case.external, "optimize": case.optimize, "verbose": False}
        torch.onnx.export(model, (inputs,), path, dynamo=True, **options)
    else:
        if case.dynamic:
            options["dynamic_axes"] = {"input": {0: "batch"}, "output": {0: "batch"}}
        training = torch.onnx.TrainingMode.EVAL if case.fold else torch.onnx.TrainingMode.PRESERVE
        options |= {"training": training, "do_constant_folding": case.constant_folding}
        torch.onnx.export(model, (inputs,), path, dynamo=False, **options)
    graph = onnx.load(path)
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    values = [] if case.metadata else graph.graph.value_info
    for value in [*values, *graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    location = f"{case.name}.onnx.data"
    (HERE / location).unlink(missing_ok=True)
    onnx.save(graph, path, save_as_external_data=case.external, location=location, size_threshold=256)
    return path


def initialisers(path):
    """The floating arrays of the file, by name: initialisers, and constants with a value."""
    graph = onnx.load(path).graph
    tensors = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors |= {node.output[0]: a.t for a in node.attribute if a.name == "value"}
    arrays = {name: numpy_helper.to_array(t) for name, t in tensors.items()}
    return {name: a for name, a in arrays.items() if a.dtype.kind == "f" and a.size > 0}


def locate(value, arrays):
    """The initialisers that hold `value`, transposed or reshaped or not, and the value there."""
    for equal in (np.array_equal, lambda a, b: a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-6)):
        found = []
        for name, array in arrays.items():
            same = array.size == value.size and equal(array.reshape(-1), value.reshape(-1))
            transposed = not same and value.ndim == 2 and equal(array.T, value)
            if same or transposed:
                found.append({"name": name, "shape": list(array.shape), "transposed": transposed})
                held = array.T if transposed else array.reshape(value.shape)
        if found:
            return found, held
    return [], value


def loss(model, inputs, targets):
    outputs = model(inputs)
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def make(case):
    torch.manual_seed(sum(map(ord, case.name)))
    inputs, targets = draw(case)
    model = prepare(case.model(), inputs, targets).to(case.dtype)
    if inputs.is_floating_point():
        inputs = inputs.to(case.dtype)
    with sdpa_kernel(SDPBackend.MATH):
        path = export(case, model, inputs)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]

        reference = (folded(model) if case.fold else model).double()
        arrays = initialisers(path)
        mapping = {}
        for part in ("parameters", "buffers"):
            mapping[part] = {}
            for name, tensor in getattr(reference, f"named_{part}")():
                if not tensor.is_floating_point() or name.endswith("mask"):
                    continue
                places, value = locate(tensor.detach().to(case.dtype).numpy(), arrays)
                mapping[part][name] = {"shape": list(tensor.shape), "initializers": places}
                tensor.data = torch.tensor(value.astype(np.float64)).reshape(tensor.shape)

        x = inputs.double() if inputs.is_floating_point() else inputs
        names, parameters = zip(*reference.named_parameters())
        value = loss(reference, x, targets)
        gradient = torch.autograd.grad(value, parameters, create_graph=True)
        rounded = np.float64 if case.dtype == torch.float64 else np.float32
        saved = {"inputs": inputs.numpy(), "targets": targets.numpy(), "outputs": outputs, "loss": np.float64(value.item())}
        saved |= {f"gradient/{n}": g.detach().numpy().astype(rounded) for n, g in zip(names, gradient)}
        for i in range(1, case.directions + 1):
            direction = [torch.randn(p.shape).double() for p in parameters]
            product = torch.autograd.grad(gradient, parameters, direction, retain_graph=True)
            saved |= {f"direction{i}/{n}": d.numpy().astype(rounded) for n, d in zip(names, direction)}
            saved |= {f"product{i}/{n}": p.numpy().astype(rounded) for n, p in zip(names, product)}
        agreement = np.abs(reference(x).detach().numpy() - outputs).max()
    np.savez(HERE / f"{case.name}.npz", **saved)
    count = sum(p.numel() for p in parameters)
    missing = [n for part in mapping.values() for n, m in part.items() if not m["initializers"]]
    operators = sorted({n.op_type for n in onnx.load(path).graph.node})
    size = sum(f.stat().st_size for f in HERE.glob(f"{case.name}.*"))
    print(f"{case.name:20} {count:6} parameters, loss {value.item():.4f}, |outputs| {np.abs(outputs).mean():.2f}, onnxruntime differs "
          f"by {agreement:.1e}, {size / 1e3:.0f} kB, {' '.join(operators)}" + (f", NOT IN THE FILE: {missing}" if missing else ""))
    return {
        "name": case.name,
        "exporter": "torch.export" if case.dynamo else "TorchScript",
        "opset": case.opset,
        "supported": case.supported,
        "dtype": str(case.dtype).removeprefix("torch."),
        "dynamic_batch": case.dynamic,
        "fold": case.fold,
        "directions": case.directions,
        "operators": operators,
        **mapping,
    }


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    index = HERE / "cases.json"
    entries = {e["name"]: e for e in json.loads(index.read_text())} if wanted else {}
    for case in CASES:
        if not wanted or case.name in wanted:
            entries[case.name] = make(case)
    entries = [entries[case.name] for case in CASES if case.name in entries]
    index.write_text("[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]\n")


if __name__ == "__main__":
    main()
