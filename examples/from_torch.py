"""From PyTorch
============

``optax_rprop.rprop`` is the rule of ``torch.optim.Rprop``: here two linear layers train with both
and take the same path, bit for bit. Without PyTorch, the path of one weight is compared with what
PyTorch 2.13 gave.

======================================  =========================================
PyTorch                                 optax_rprop
======================================  =========================================
``lr=0.01``                             ``learning_rate=0.01``
``etas=(0.5, 1.2)``                     ``eta_minus=0.5, eta_plus=1.2``
``step_sizes=(1e-6, 50)``               ``min_step_size=1e-6, max_step_size=50``
``maximize=True``                       the gradient of the negated loss
``foreach``, ``capturable``             ``jax.jit``
``differentiable=True``                 ``jax.grad`` through ``update``
``optimizer.state[p]["step_size"]``     ``optax_rprop.step_sizes(opt_state)``
``optimizer.state[p]["prev"].sign()``   ``optax_rprop.prev_signs(opt_state)``
======================================  =========================================
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

EPOCHS = 200
random = np.random.default_rng(0)
x = random.uniform(-1, 1, (100, 1))
line = x, 2 * x + 3 + 0.1 * random.normal(size=x.shape), [[-1.0]], [0.5]
inputs, noise = random.normal(size=(100, 3)), random.normal(size=(100, 2))
layer = inputs, inputs @ random.normal(size=(3, 2)) + noise, np.ones((2, 3)), np.zeros(2)


# %%
# Both return the weights and biases after each epoch, a row for each.
def jax_path(inputs, targets, weight, bias):
    params = jnp.array(weight), jnp.array(bias)
    optimizer = optax_rprop.rprop(learning_rate=0.01)
    opt_state = optimizer.init(params)

    def loss(params):
        weight, bias = params
        return jnp.mean((inputs @ weight.T + bias - targets) ** 2)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    rows = []
    for _ in range(EPOCHS):
        params, opt_state = step(params, opt_state)
        rows.append(np.concatenate(params, axis=None))
    return np.array(rows)


def torch_path(inputs, targets, weight, bias):
    inputs, targets, weight, bias = map(torch.tensor, (inputs, targets, weight, bias))
    layer = torch.nn.Linear(*weight.T.shape, dtype=torch.float64)
    layer.load_state_dict({"weight": weight, "bias": bias})
    optimizer = torch.optim.Rprop(layer.parameters(), lr=0.01)
    rows = []
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        torch.mean((layer(inputs) - targets) ** 2).backward()
        optimizer.step()
        rows.append(np.concatenate([p.detach() for p in layer.parameters()], axis=None))
    return np.array(rows)


# %%
# Training ends at the least-squares solution, to a few times min_step_size.
paths = [jax_path(*line), jax_path(*layer)]
for (inputs, targets, *_), path in zip((line, layer), paths, strict=True):
    solution = np.linalg.lstsq(np.column_stack([inputs, np.ones(100)]), targets)[0]
    assert abs(path[-1] - np.append(solution[:-1].T, solution[-1])).max() < 5e-6

pytorch_2_13 = [-0.99, -0.9007008000000001, -0.6784958146560002, -0.12557870552481834]
pytorch_2_13 += [1.250255995468484, 1.986337914018399, 1.972536378045588]  # every fifth epoch
assert paths[0][:35:5, 0].tolist() == pytorch_2_13

figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
panels[0].set_title("A line: weight and bias")
panels[1].set_title("3 inputs, 2 outputs: six weights, two biases")
for panel, path in zip(panels, paths, strict=True):
    panel.plot(np.arange(1, 61), path[:60], color="tab:red")
    panel.set(xlabel="epoch", ylabel="value")
if torch:
    for panel, problem, path in zip(panels, (line, layer), paths, strict=True):
        theirs = torch_path(*problem)
        print(f"The largest difference from PyTorch: {abs(path - theirs).max():g}")
        assert np.all(path == theirs)
        panel.plot(np.arange(1, 61, 4), theirs[:60:4], "o", mfc="none", color="black")
else:
    print("PyTorch is not installed: only one weight's path was compared.")
    panels[0].plot(range(1, 36, 5), pytorch_2_13, "o", mfc="none", color="black")
panels[0].plot([], color="tab:red", label="optax_rprop.rprop")
panels[0].plot([], "o", mfc="none", color="black", label="torch.optim.Rprop")
panels[0].legend(loc="lower right")
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/from_torch.png")
