"""What PyTorch's AdamW and SGD make of 100 steps in float64, for tests/methods.rs. Run: python tests/data/pytorch.py > tests/data/pytorch.txt

Each line has a case, its tensor's length, the step, and the parameters after it. Gradients and first parameters are by a
formula, which the test has too.
"""

import torch

LENGTHS = [1, 5, 16, 33, 127]
CASES = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.01),
    "adamw-betas": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.0),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
}


def number(index, step):
    """A number from -1 to 1, a multiple of 1/1000; step 0 is for the first parameters."""
    return ((index * 7919 + step * 104729 + index * step * 31) % 2001 - 1000) / 1000


for name, make in CASES.items():
    tensors = [torch.tensor([number(i, 0) for i in range(n)], dtype=torch.float64) for n in LENGTHS]
    optimizer = make(tensors)
    for step in range(1, 101):
        for tensor in tensors:
            tensor.grad = torch.tensor([number(i, step) for i in range(len(tensor))], dtype=torch.float64)
        optimizer.step()
        if step in (1, 2, 10, 100):
            for tensor in tensors:
                print(name, len(tensor), step, *(repr(value) for value in tensor.tolist()))
