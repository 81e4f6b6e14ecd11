"""Start the ImgNets from the weights of another run: what fits is taken, and what doesn't begins anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.inference import loading, model_files

Tree = Any  # a pytree of arrays


@dataclass(frozen=True, repr=False)
class StartingWeights:
    """A trained model to start from."""

    source: str  # where it was read, for messages and result.json
    sha256: str  # of what decides its codes
    network: Mapping[str, Any]  # the arguments of `models.network.make_img_net` but for layers and bits
    variables: Mapping[str, Tree]  # by network, "f", maybe "g", and "trunk" of a frozen trunk

    def __repr__(self) -> str:
        return f"StartingWeights({self.network['backbone']} of {self.source})"

    def trunk(self, name: str) -> Tree:
        """Return the variables of one network's backbone: {"params": {"backbone": ...}, "batch_stats": {...}}."""
        owner = self.variables.get("trunk") or self._network(name)
        return {kind: {key: below for key, below in tree.items() if key == "backbone"} for kind, tree in owner.items()}

    def shared_trunk(self) -> Tree:
        """Return the variables of the one backbone; raise InputError if there are two."""
        if "trunk" not in self.variables and "g" in self.variables:
            raise InputError(
                f"{self.source} has two backbones, and a frozen one is shared; fix: train it, as with "
                "--config.optim.trunk_lr_scale=0.1, or start from a run with a frozen backbone or with one network"
            )
        return self.trunk("f")

    def _network(self, name: str) -> Tree:
        return self.variables.get(name) or self.variables["f"]

    def replace(self, name: str, variables: Mapping[str, Tree], *, with_trunk: bool) -> tuple[dict[str, Tree], list[str]]:
        """Replace the variables of one network by those of the same name and shapes.

        Args:
          name: "f" or "g"; where the run had one network, both start from it.
          variables: drawn at random, {"params": ..., "batch_stats": ...}.
          with_trunk: whether `variables` have the backbone.

        Returns:
          The variables, and the names of the layers that were taken.

        Raises:
          InputError: the backbone's arrays have other shapes.
        """
        theirs = dict(self._network(name))
        if with_trunk:
            theirs = {kind: {**theirs.get(kind, {}), **tree} for kind, tree in self.trunk(name).items()}
        taken = []
        new = {kind: dict(tree) for kind, tree in variables.items()}
        for layer in variables["params"]:
            kinds = [kind for kind in variables if layer in variables[kind]]
            fits = all(_shapes(variables[kind][layer]) == _shapes(theirs.get(kind, {}).get(layer)) for kind in kinds)
            if layer == "backbone" and not fits:
                raise InputError(
                    f"the backbone of {self.source} has other shapes; fix: the data.image_size and model.width that it had"
                )
            if fits:
                taken.append(layer)
                for kind in kinds:
                    new[kind][layer] = jax.tree.map(np.asarray, theirs[kind][layer])
        return new, taken

    def report(self, shapes: Mapping[str, Tree], *, frozen_trunk: bool) -> dict[str, Any]:
        """Return what `result.json` says about the start.

        Args:
          shapes: of the variables that are trained, as `TrainSetup.net_shapes`.
          frozen_trunk: whether the backbone isn't trained.
        """
        _, taken = self.replace("f", shapes, with_trunk=not frozen_trunk)
        new = sorted(set(shapes["params"]) - set(taken))
        return {"source": self.source, "sha256": self.sha256, "taken": sorted({"backbone", *taken}), "new": new}


def _shapes(tree: Tree) -> Any:
    return jax.tree.map(np.shape, tree)


def read_start(directory: str | Path, *, backbone: str, width: int = 0) -> StartingWeights:
    """Read the weights of a run to start another one from.

    Args:
      directory: a run's folder, or a folder with a `model.json`; on a disk or in an object store.
      backbone: the one to train; the run must have the same.
      width: its width, as the config key `model.width`.

    Returns:
      The weights, for `adsq_jax.training.setup` and `adsq_jax.models.build`.

    Raises:
      InputError: there is no model, it is damaged, or it has another backbone.

    Source: this project.
    """
    model = loading.load(directory)
    network = model_files.network_arguments(model.description["network"])
    if (network["backbone"], network["width"]) != (backbone, width):
        raise InputError(
            f"{directory} has backbone {network['backbone']} of width {network['width']}, got {backbone} of width {width}; "
            f"fix: --config.model.backbone={network['backbone']} --config.model.width={network['width']}"
        )
    return StartingWeights(str(directory), model.sha256, network, model.variables)


def network_options(
    start: StartingWeights | None, *, pretrained: str, mean: Sequence[float], deviation: Sequence[float]
) -> Any:
    """Return the arguments of `adsq_jax.models.build` that a start decides: the backbone's options, mean and deviation.

    Raises:
      InputError: there are pretrained weights as well.
    """
    if start is None:
        return {"pretrained": pretrained, "mean": mean, "deviation": deviation}
    if pretrained:
        raise InputError(
            f"expected weights of one origin, got pretrained={pretrained} and those of {start.source}; fix: give one of them"
        )
    return {
        "options": dict(start.network["options"]),
        "mean": mean or start.network["mean"],
        "deviation": deviation or start.network["deviation"],
    }
