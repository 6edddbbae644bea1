"""PyTorch's part of step_time.py: prints the median seconds of a step of torch.optim.Rprop.

python benchmarks/_step_time_torch.py '[[1000], [1000]]' 30 cpu
"""

import json
import statistics
import sys
import time

try:
    import torch
except ImportError:
    sys.exit()


def median_seconds(step, turns, device):
    """Of so many steps, after two that are not counted."""
    seconds = []
    for _ in range(turns + 2):
        began = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def main(shapes, turns, backend):
    """As it is, then compiled, and on a GPU as a CUDA graph too."""
    device = "cuda" if backend == "gpu" else "cpu"
    names = ["torch foreach", "torch compiled"] + ["torch CUDA graph"] * (device == "cuda")
    for name in names:
        parameters = [
            torch.zeros(shape, device=device, requires_grad=True) for shape in json.loads(shapes)
        ]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        graphed = name == "torch CUDA graph"
        optimizer = torch.optim.Rprop(parameters, foreach=True, capturable=graphed)
        step = torch.compile(optimizer.step) if name == "torch compiled" else optimizer.step
        if graphed:
            optimizer.step()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                optimizer.step()
            step = graph.replay
        print(json.dumps([name, median_seconds(step, int(turns), device)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
