"""From PyTorch
============

``optax_rprop.rprop`` and ``torch.optim.Rprop`` train two layers and take the same path bit for bit.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_rprop

try:
    import torch
except ImportError:
    torch = None

jax.config.update("jax_enable_x64", True)  # in float32 a gradient near 0 may round to another sign

random = np.random.default_rng(0)
x = random.uniform(-1, 1, (100, 1))
line = x, 2 * x + 3 + 0.1 * random.normal(size=x.shape), [[-1.0]], [0.5]
inputs, noise = random.normal(size=(100, 3)), random.normal(size=(100, 2))
layer = inputs, inputs @ random.normal(size=(3, 2)) + noise, np.ones((2, 3)), np.zeros(2)


# %%
# Both return the weights and biases after each of 200 epochs, a row for each.
def jax_path(inputs, targets, weight, bias):
    def loss(params):
        weight, bias = params
        return jnp.mean((inputs @ weight.T + bias - targets) ** 2)

    def step(carry, _):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), jnp.concatenate(params, axis=None)

    params = jnp.array(weight), jnp.array(bias)
    optimizer = optax_rprop.rprop(learning_rate=0.01)
    return np.array(jax.lax.scan(step, (params, optimizer.init(params)), length=200)[1])


def torch_path(*problem):
    inputs, targets, weight, bias = map(torch.tensor, problem)
    layer = torch.nn.Linear(*weight.T.shape, dtype=torch.float64)
    layer.load_state_dict({"weight": weight, "bias": bias})
    optimizer = torch.optim.Rprop(layer.parameters(), lr=0.01)
    rows = []
    for _ in range(200):
        optimizer.zero_grad()
        torch.mean((layer(inputs) - targets) ** 2).backward()
        optimizer.step()
        rows.append(np.concatenate([p.detach() for p in layer.parameters()], axis=None))
    return np.array(rows)


# %%
# Training ends at the least-squares solution, to a few times min_step_size.
pytorch_2_13 = [-0.99, -0.9007008000000001, -0.6784958146560002, -0.12557870552481834]
pytorch_2_13 += [1.250255995468484, 1.986337914018399, 1.972536378045588]  # every fifth epoch
assert jax_path(*line)[:35:5, 0].tolist() == pytorch_2_13

figure, panels = plt.subplots(2, 1, figsize=(6, 7.5), layout="constrained")
panels[0].set_title("A line: weight and bias")
panels[1].set_title("3 inputs, 2 outputs: six weights, two biases")
for panel, problem in zip(panels, (line, layer), strict=True):
    path = jax_path(*problem)
    solution = np.linalg.lstsq(np.column_stack([problem[0], np.ones(100)]), problem[1])[0]
    assert abs(path[-1] - np.append(solution[:-1].T, solution[-1])).max() < 5e-6
    panel.plot(path[:60], color="tab:red")
    panel.set(xlabel="epoch", ylabel="value")
    if torch:
        theirs = torch_path(*problem)
        print(f"The largest difference from PyTorch: {abs(path - theirs).max():g}")
        assert np.all(path == theirs)
        panel.plot(range(0, 60, 4), theirs[:60:4], "o", mfc="none", color="black")
if not torch:
    print("PyTorch is not installed: compared with what PyTorch 2.13 gave for one weight.")
    panels[0].plot(range(0, 35, 5), pytorch_2_13, "o", mfc="none", color="black")
panels[0].legend(panels[0].lines[1:3], ["optax_rprop.rprop", "torch.optim.Rprop"])
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/from_torch.png")
print("Plot: figures/from_torch.png")
