"""PyTorch's part of step_time.py: prints the median seconds of a step of torch.optim.Rprop."""

import json
import statistics
import sys
import time

try:
    import torch
except ImportError:
    sys.exit()


def main(shapes, turns, backend):
    """As it is, then compiled; the first two steps do not count."""
    device = "cuda" if backend == "gpu" else "cpu"
    for name in ("torch foreach", "torch compiled"):
        parameters = [torch.zeros(shape, device=device) for shape in json.loads(shapes)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        step = torch.optim.Rprop(parameters, foreach=True).step
        if name == "torch compiled":
            step = torch.compile(step)
        seconds = []
        for _ in range(int(turns) + 2):
            began = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        print(json.dumps([name, statistics.median(seconds[2:])]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
