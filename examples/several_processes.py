"""Several processes train one model
=================================

Two processes, each with half of the rows, train one model and get the same bits as one process.

``jax.jit`` adds up over processes what the loss adds up over rows. With ``jax.lax.pmean`` in
``jax.shard_map``, average the gradient before the update, and for ``irprop_plus`` the loss too.
"""

import functools
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_rprop

# %%
# On a cluster, every machine starts this script with its own number. Here it starts itself twice,
# and trains alone meanwhile.
process = os.environ.get("PROCESS")
if process is None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "{}:{}".format(*free.getsockname())
    here = {**os.environ, "ADDRESS": address, "JAX_PLATFORMS": "cpu"}
    script = sys.executable, sys.argv[0]
    run = functools.partial(subprocess.Popen, script, stdout=subprocess.DEVNULL)
    processes = [run(env={**here, "PROCESS": number}) for number in "01"]
else:
    address = os.environ["ADDRESS"]
    jax.distributed.initialize(address, 2, int(process), coordinator_bind_address=address)

# %%
# A linear model. Its numbers are so short in binary that float32 rounds no sum of them, in any
# order; with other data the first losses agree to six or seven digits.
random = np.random.default_rng(0)
inputs = random.integers(-2, 3, (64, 4)).astype(np.float32) / 2
data = inputs, inputs @ (random.integers(-8, 9, 4).astype(np.float32) / 8)

rows = NamedSharding(Mesh(jax.devices(), ("rows",)), PartitionSpec("rows"))
mine = np.array_split(np.arange(64), jax.process_count())[jax.process_index()]
inputs, targets = (jax.make_array_from_process_local_data(rows, array[mine]) for array in data)
params = jax.device_put(np.zeros(4, np.float32), NamedSharding(rows.mesh, PartitionSpec()))
optimizer = optax_rprop.irprop_plus(1 / 4, 1 / 4, 2.0, min_step_size=1 / 32, max_step_size=1 / 4)
opt_state = jax.jit(optimizer.init)(params)


@jax.jit
def step(params, opt_state, inputs, targets):
    loss, gradient = jax.value_and_grad(lambda w: jnp.mean((inputs @ w - targets) ** 2))(params)
    updates, opt_state = optimizer.update(gradient, opt_state, params, value=loss)
    return optax.apply_updates(params, updates), opt_state, loss


losses = []
for _ in range(11):
    params, opt_state, loss = step(params, opt_state, inputs, targets)
    losses.append(float(loss))

# %%
Path("figures").mkdir(exist_ok=True)
if process is not None:
    np.save(f"figures/several_processes_{process}.npy", [*losses, *np.asarray(params)])
    jax.distributed.shutdown()
    sys.exit()

try:
    assert [child.wait(timeout=120) for child in processes] == [0, 0]
finally:
    for child in processes:
        child.kill()  # where one failed, the other would wait for it
first, second = (np.load(f"figures/several_processes_{i}.npy") for i in range(2))
print("Losses of one process and of two:", *zip(losses, first.tolist(), strict=False), sep="\n")
assert first.tolist() == second.tolist() == [*losses, *np.asarray(params)]
assert min(np.diff(losses)) < 0 < max(np.diff(losses))  # so irprop_plus has undone a step
assert losses[-1] < losses[0] / 1000
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.semilogy(losses, color="tab:red")
axes.semilogy(first[:11], "o", mfc="none", color="black")
axes.set(xlabel="step", ylabel="loss", title="One process: the line. Two: the circles, bit for bit")
figure.savefig("figures/several_processes.png")
print("Plot: figures/several_processes.png")
