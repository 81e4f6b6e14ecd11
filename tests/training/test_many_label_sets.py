"""Training with as many label sets as a large set of images with several labels each has."""

import json
import subprocess
import sys

import numpy as np
from support.mock_data import ROOT

# In its own process, whose peak of memory begins when everything is imported.
SCRIPT = """
import json, re
from itertools import combinations
from pathlib import Path

import jax
import numpy as np

from adsq_jax import data, models, training

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20

every, rows = np.array(list(combinations(range(51), 3))), np.arange(20_000)  # of 20,825
labels = np.zeros((20_000, 51), np.uint8)
labels[rows[:, None], np.random.default_rng(0).choice(every, 20_000, replace=False)] = 1
source = data.from_arrays(np.zeros((20_000, 8, 8), np.uint8), labels, query=rows[:0], train=rows, database=rows)
settings = training.LabelNetSettings(hidden=16, steps=1)
network = models.build("small_cnn", bits=12, width=4, features=8)
setup = training.setup(source, "adsq", network, batch_size=16, label_net=settings)
figures = {"sets": len(setup.sets.sets), "ratio": setup.statistics.ratio, "setup": peak()}
state = training.init(setup)
before = jax.tree.map(np.array, state.label_net.params)
state = training.train_label_net(setup, state)
changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.label_net.params, before)
figures |= {"label_net": peak(), "changed": all(jax.tree.leaves(changed))}
batch = next(iter(data.batches(source, batch_size=16, seed=0, epoch=0)))
state, metrics = training.step(setup, state, batch, net="f")
print(json.dumps({**figures, "step": peak(), "loss": float(metrics["loss"])}))
"""


def test_20_000_label_sets_fit_in_little_memory():
    """A matrix of all pairs would be 1.5 GiB in float32, and 0.37 GiB in bool."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["sets"] == 20_000
    assert figures["changed"]
    assert np.isfinite(figures["loss"])
    assert figures["setup"] < figures["label_net"] <= figures["step"] < 1.0
