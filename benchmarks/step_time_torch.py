"""The PyTorch part of step_time.py: prints the median seconds of torch.optim.Rprop steps.

python examples/step_time_torch.py '[[1000], [1000]]' 30 cpu
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch


def median_seconds(step: Callable[[], object], turns: int, device: str) -> float:
    """Of so many steps, after two that are not counted."""
    seconds = []
    for _ in range(turns + 2):
        began = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def main(shapes: str, turns: str, backend: str) -> None:
    """Foreach as it is, then compiled, and on a GPU as a CUDA graph too."""
    device = "cuda" if backend == "gpu" else "cpu"
    for name in ("torch foreach", "torch compiled", "torch CUDA graph"):
        parameters = [
            torch.zeros(shape, device=device, requires_grad=True) for shape in json.loads(shapes)
        ]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        captured = name == "torch CUDA graph"
        if captured and device == "cpu":
            continue
        options = {"capturable": True} if captured else {}
        optimizer = torch.optim.Rprop(parameters, foreach=True, **options)
        step = torch.compile(optimizer.step) if name == "torch compiled" else optimizer.step
        if captured:
            optimizer.step()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                optimizer.step()
            step = graph.replay
        print(json.dumps([name, median_seconds(step, int(turns), device)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
