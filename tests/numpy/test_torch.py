"""Exchanges weights with PyTorch, if it is installed."""

import pytest
from test_surface import landscape, safetensors

torch = pytest.importorskip("torch")

NET = ["--dataset", "synthetic", "--layers", "20,4,2"]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(20, 4), torch.nn.Linear(4, 2)])


def test_pytorch_loads_what_is_saved(tmp_path):
    paths = [tmp_path / name for name in ["w.pth", "w.safetensors"]]
    for path in paths:
        landscape("train", *NET, "--epochs", 1, "--save", path)
    state = torch.load(paths[0], weights_only=True)
    arrays = safetensors(paths[1])
    assert sorted(state) == sorted(arrays)
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()
        assert (tensor.numpy() == arrays[name]).all()
    Net().load_state_dict(state, strict=True)
    mapped = torch.load(paths[0], weights_only=True, mmap=True)
    assert all((mapped[name] == tensor).all() for name, tensor in state.items())


def test_running_statistics_of_a_saved_network_are_loaded(tmp_path):
    path = tmp_path / "w.pth"
    net = ["--dataset", "synthetic", "--model", "shallow", "--norm", "batch"]
    landscape("train", *net, "--epochs", 1, "--save", path)
    state = torch.load(path, weights_only=True)
    [norm] = {name.removesuffix(".running_mean") for name in state if name.endswith("running_mean")}
    module = torch.nn.BatchNorm1d(64)
    module.load_state_dict({name.removeprefix(f"{norm}."): t for name, t in state.items() if name.startswith(norm)})
    assert (module.running_mean == state[f"{norm}.running_mean"]).all()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_pytorch_saves_is_loaded(tmp_path, legacy, dtype):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(20, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, 2)).to(dtype)
    checkpoint = {"state_dict": torch.nn.DataParallel(model).state_dict(), "epoch": 3}
    torch.save(checkpoint, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    numbers = ["--dtype", "f64", "--samples", 50, "--top", 2]
    found = landscape("spectrum", *NET, *numbers, "--weights", tmp_path / "w.pth")
    renamed = {f"layers.{name[0] == '2':d}{name[1:]}": t for name, t in model.state_dict().items()}
    torch.save(renamed, tmp_path / "renamed.pth")
    expected = landscape("spectrum", *NET, *numbers, "--weights", tmp_path / "renamed.pth")
    assert found["eigenvalues"] == expected["eigenvalues"]
