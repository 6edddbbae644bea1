"""Writes data/torch_rprop.npz: a gradient stream and what torch.optim.Rprop makes of it.

Run with torch 2.13.0: python tests/helpers/make_torch_rprop.py
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("data") / "torch_rprop.npz"


def run(values, gradients, **given):
    """The weights and the step sizes of torch.optim.Rprop after each step."""
    import torch

    parameter = torch.tensor(values, requires_grad=True)
    optimizer = torch.optim.Rprop([parameter], **given)
    weights, step_sizes = [], []
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        weights.append(parameter.detach().numpy().copy())
        step_sizes.append(optimizer.state[parameter]["step_size"].numpy().copy())
    return np.array(weights), np.array(step_sizes)


def main():
    """Ten weights, 200 steps, magnitudes within 1e-15 to 1e15, one gradient in ten zero."""
    random = np.random.default_rng(0)
    shape = (200, 10)
    gradients = random.standard_normal(shape) * 10.0 ** random.uniform(-14, 14, shape)
    gradients[random.random(shape) < 0.1] = 0
    gradients = gradients.astype(np.float32)
    weights, step_sizes = run(np.zeros(10, np.float32), gradients)
    np.savez_compressed(PATH, gradients=gradients, weights=weights, step_sizes=step_sizes)


if __name__ == "__main__":
    main()
