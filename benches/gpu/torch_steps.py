"""PyTorch on a GPU: whether its tensors there get the CPU's bits, and what a step costs beside AdamW and beside the same
step in eager operations. Writes a line of JSON for each line of the bundle's table.

    python torch_steps.py [--quick] [--device cuda]

The package `koala_optim` is the one in the folder python, and the models are those of ffi/python/bench/step.py.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "python"))

# What a step should cost at most, as a multiple of AdamW's, and what it should be faster than eager operations.
AT_MOST_OF_ADAMW = {"ResNet-50": 1.3, "GPT-2 small": 1.65}
FASTER_THAN_EAGER = 20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="small tensors only")
    parser.add_argument("--device", default="cuda", help="of PyTorch")
    options = parser.parse_args()
    device = options.device
    if device == "cuda":
        device += ":" + os.environ.get("KOALA_CUDA_DEVICE", "0")
    try:
        import torch
    except ImportError as error:
        return line("PyTorch", "skipped", f"no PyTorch here: {error}")
    if options.device == "cuda" and not torch.cuda.is_available():
        return line("PyTorch", "skipped", f"PyTorch {torch.__version__} finds no CUDA device here")
    try:
        import step
        from koala_optim.torch import KoalaPlusPlus
    except ImportError as error:
        return line("PyTorch", "skipped", f"koala_optim can't be imported (it needs cffi): {error}")
    try:
        KoalaPlusPlus([parameter(torch, (2,), torch.float32, device)], fallback="error").step(loss=0.5)
    except TypeError as error:
        return line("PyTorch", "failed", f"koala_optim has no kernel for its tensors: {error}")
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        same_bits(torch, KoalaPlusPlus, dtype, device)
    models = {"ResNet-50": step.resnet_50(), "GPT-2 small": step.gpt_2_small()}
    if options.quick:
        models = {"32 small tensors": [(16, 16)] * 32}
    for name, shapes in models.items():
        compare(torch, KoalaPlusPlus, step.Eager, name, shapes, device)


def parameter(torch, shape, dtype, device):
    """One with a gradient."""
    made = torch.nn.Parameter(torch.randn(shape, dtype=torch.float64).to(dtype).to(device))
    made.grad = torch.randn(shape, dtype=torch.float64).to(dtype).to(device)
    return made


def same_bits(torch, optimizer_class, dtype, device):
    """Five steps of some tensors on the CPU and on the device."""
    torch.manual_seed(0)
    shapes = [(300, 70), (1,), (1025,), (70000,)]
    here = [parameter(torch, shape, dtype, "cpu") for shape in shapes]
    there = [torch.nn.Parameter(one.detach().to(device, copy=True)) for one in here]
    both = [(ours, optimizer_class(ours, 0.1, 0.01)) for ours in (here, there)]
    for _ in range(5):
        for one, other in zip(here, there):
            one.grad = torch.randn(one.shape, dtype=torch.float64).to(dtype)
            other.grad = one.grad.to(device, copy=True)
        for _, optimizer in both:
            optimizer.step(loss=0.5)
    same = all(bits(torch, one) == bits(torch, other) for one, other in zip(here, there))
    line(f"PyTorch: the CPU's bits after five steps, {dtype}", "passed" if same else "failed", "")


def bits(torch, tensor):
    return bytes(tensor.detach().cpu().flatten().view(torch.uint8).tolist())


def compare(torch, optimizer_class, eager_class, name, shapes, device):
    """Times of KOALA++, of AdamW and of eager operations, in turn."""
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def seconds(step, count):
        synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            step()
        synchronize()
        return (time.perf_counter() - begin) / count

    parameters = [parameter(torch, shape, torch.float32, device) for shape in shapes]
    koala = optimizer_class(parameters, 1e-6, 1e-4, fallback="error")
    eager = eager_class(parameters, 1e-6, 1e-4)
    adam = torch.optim.AdamW(parameters, 1e-6, fused=True)
    steps = [(lambda: koala.step(loss=0.5), 10), (adam.step, 10), (lambda: eager.step(0.5), 1)]
    for step, _ in steps:
        step()
    times = [[seconds(step, count) for step, count in steps] for _ in range(15)]
    ours, adams, eagers = (statistics.median(column) for column in zip(*times))
    line(f"PyTorch: a step, {name}", "measured", f"{ours * 1e3:.3f} ms", value=ours)
    goal, ratio = AT_MOST_OF_ADAMW.get(name), statistics.median(row[0] / row[1] for row in times)
    text = f"{ratio:.2f} x AdamW(fused=True), which takes {adams * 1e3:.3f} ms" + (f"; goal {goal} x" if goal else "")
    line(f"PyTorch: beside AdamW, {name}", "measured", text, value=ratio, at_most=goal)
    goal, ratio = FASTER_THAN_EAGER, statistics.median(row[2] / row[0] for row in times)
    text = f"those take {ratio:.1f} x as long, {eagers * 1e3:.3f} ms; goal {goal} x"
    line(f"PyTorch: beside eager operations, {name}", "measured", text, value=ratio, at_least=goal)


def line(name, outcome, text, **more):
    print(json.dumps({"name": name, "outcome": outcome, "text": text, **more}), flush=True)


if __name__ == "__main__":
    main()
