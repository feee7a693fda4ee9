"""Hessian of a PyTorch model for `landscape spectrum --external "python hvp.py" --top 30`.

Replace the model, the data and the loss by your own. The matrix is the Hessian of the mean loss at the model's weights, in the
order of model.parameters().
"""

import torch
from landscape_external import serve

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
inputs, labels = torch.randn(600, 20), torch.randint(3, (600,))
batches = list(zip(inputs.split(200), labels.split(200)))  # or a DataLoader without shuffling
model.eval()  # no dropout, running statistics: the products of a matrix do not change

parameters = [p for p in model.parameters() if p.requires_grad]
dim = sum(p.numel() for p in parameters)


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def hvp(v):
    v = torch.from_numpy(v).to(parameters[0])
    total = torch.zeros_like(v)
    for x, y in batches:
        loss = torch.nn.functional.cross_entropy(model(x), y, reduction="sum") / len(inputs)
        gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True))
        total += flat(torch.autograd.grad(gradient @ v, parameters))
    return total.cpu()


serve(hvp, dim, dtype="f32", name="perceptron 20-32-3 on random data, seed 0")
