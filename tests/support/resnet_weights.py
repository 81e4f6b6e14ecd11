"""Random weights of small ResNets, named and shaped as torchvision's."""

import re

import jax
import numpy as np

WIDTH = 4


def torch_arrays(blocks, *, classes=10):
    """Return random arrays of a ResNet with so many basic `blocks` in each stage, named and shaped as torchvision's."""
    shapes = {"conv1.weight": (WIDTH, 3, 7, 7), **norm("bn1", WIDTH)}
    last = WIDTH
    for stage, count in enumerate(blocks):
        width = WIDTH * 2**stage
        for block in range(count):
            prefix = f"layer{stage + 1}.{block}."
            shapes[f"{prefix}conv1.weight"] = (width, last, 3, 3)
            shapes[f"{prefix}conv2.weight"] = (width, width, 3, 3)
            shapes |= {**norm(f"{prefix}bn1", width), **norm(f"{prefix}bn2", width)}
            if last != width:
                shapes |= {f"{prefix}downsample.0.weight": (width, last, 1, 1), **norm(f"{prefix}downsample.1", width)}
            last = width
    shapes |= {"fc.weight": (classes, last), "fc.bias": (classes,)}
    random = np.random.default_rng(0)
    arrays = {name: (random.random(shape) - 0.3).astype(np.float32) / 3 for name, shape in shapes.items()}
    arrays |= {name: x + np.float32(0.5) for name, x in arrays.items() if name.endswith("running_var")}
    counters = {name.replace("var", "count"): np.int64(7) for name in arrays if name.endswith("running_var")}
    return arrays | {name.replace("running_count", "num_batches_tracked"): x for name, x in counters.items()}


def norm(name, width):
    return {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}


def named_as_torch(variables):
    """Return a backbone's variables in torch's names and shapes: an independent inverse of the conversion under test."""
    arrays = {}
    for kind, leaves in (("params", {"kernel": "weight", "scale": "weight"}), ("batch_stats", {})):
        for path, x in jax.tree_util.tree_leaves_with_path(variables[kind]):
            *layers, leaf = [part.key for part in path]
            layer = ".".join(layers)
            layer = re.sub(r"stage(\d)_block(\d)", r"layer\1.\2", layer.replace("stem_norm", "bn1").replace("stem", "conv1"))
            layer = layer.replace("shortcut_norm", "downsample.1").replace("shortcut", "downsample.0").replace("norm", "bn")
            leaf = leaves.get(leaf, {"mean": "running_mean", "var": "running_var"}.get(leaf, leaf))
            arrays[f"{layer}.{leaf}"] = np.moveaxis(x, (3, 2), (0, 1)) if x.ndim == 4 else np.asarray(x)
    return arrays


def in_trunk(arrays):
    return {name: x for name, x in arrays.items() if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}


def assert_equal(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)
