"""Makes the golden files of this folder: each reference model's logits for seeded weights and images.

    python tests/models/reference/make.py            # all of them
    python tests/models/reference/make.py NAME ...   # some: torchvision_resnet18 ...

It needs torch 2.14.1, torchvision 0.29.1, timm 1.0.31 and efficientnet-lite-pytorch 0.1.0, and reads nothing from the
network. Each NAME.npz holds `logits_SIDE` (computed in float64, kept as float32[2, classes]), the `names` and `shapes`
(JSON) of the weights that `seeded.weights` makes, the number of `parameters` (without buffers) and `versions` (JSON).
A vision transformer's also holds `pos_embedding_96`: its position embeddings resampled for images of 96 pixels, of which
only the first 8 channels are kept, and the function that did it as `pos_embedding_96_by`.
"""

import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import seeded
import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from timm.layers import resample_abs_pos_embed
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

HERE = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "timm", "efficientnet-lite-pytorch", "numpy")
BLOCKS, WIDTH, HEADS, HIDDEN = 12, 768, 12, 3072  # ViT-B
Arrays = dict[str, np.ndarray]


def from_torchvision(name: str) -> nn.Module:
    """A model of torchvision with seeded weights."""
    return with_weights(torchvision.models.get_model(name, weights=None))


def from_timm(name: str) -> nn.Module:
    """A model of timm with seeded weights."""
    return with_weights(timm.create_model(name, pretrained=False))


def from_efficientnet_lite_pytorch(name: str) -> nn.Module:
    """A model of efficientnet-lite-pytorch with seeded weights."""
    return with_weights(EfficientNet.from_name(name))


def with_weights(model: nn.Module) -> nn.Module:
    """The model with seeded weights in place of its own."""
    made = seeded.weights(shapes_of(model))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in made.items()}, strict=True)
    return model


def from_augreg() -> nn.Module:
    """timm's ViT-B/16 as Google's vision_transformer computes it, with a seeded .npz file of that layout loaded."""
    model = timm.create_model("vit_base_patch16_224", pretrained=False, act_layer="gelu_tanh")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ViT-B_16.npz"
        np.savez(path, **seeded.weights(augreg_shapes()))
        model.load_pretrained(str(path))
    kept = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    if kept:
        raise ValueError(f"the file did not set {kept}")
    return model


def augreg_shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of a ViT-B/16 checkpoint of Google's vision_transformer."""
    shapes = {
        "cls": (1, 1, WIDTH),
        "embedding/kernel": (16, 16, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "head/kernel": (WIDTH, 1000),
        "head/bias": (1000,),
        "Transformer/posembed_input/pos_embedding": (1, 197, WIDTH),
        "Transformer/encoder_norm/scale": (WIDTH,),
        "Transformer/encoder_norm/bias": (WIDTH,),
    }
    for block in range(BLOCKS):
        shapes |= {f"Transformer/encoderblock_{block}/{name}": shape for name, shape in block_shapes().items()}
    return shapes


def block_shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of one encoder block of such a checkpoint."""
    size = WIDTH // HEADS
    attention = "MultiHeadDotProductAttention_1"
    shapes = {f"{norm}/{name}": (WIDTH,) for norm in ("LayerNorm_0", "LayerNorm_2") for name in ("scale", "bias")}
    shapes |= {f"{attention}/{name}/kernel": (WIDTH, HEADS, size) for name in ("query", "key", "value")}
    shapes |= {f"{attention}/{name}/bias": (HEADS, size) for name in ("query", "key", "value")}
    shapes |= {f"{attention}/out/kernel": (HEADS, size, WIDTH), f"{attention}/out/bias": (WIDTH,)}
    shapes |= {"MlpBlock_3/Dense_0/kernel": (WIDTH, HIDDEN), "MlpBlock_3/Dense_0/bias": (HIDDEN,)}
    return shapes | {"MlpBlock_3/Dense_1/kernel": (HIDDEN, WIDTH), "MlpBlock_3/Dense_1/bias": (WIDTH,)}


def resampled_by_torchvision(model: nn.Module) -> Arrays:
    """The position embeddings for images of 96 pixels, by torchvision's function as it is called without options."""
    key = "encoder.pos_embedding"
    state = interpolate_embeddings(96, 16, {key: model.state_dict()[key]})
    by = "torchvision.models.vision_transformer.interpolate_embeddings (bicubic, align_corners=True, no antialias)"
    return position_arrays(state[key], by)


def resampled_by_timm(model: nn.Module) -> Arrays:
    """The position embeddings for images of 96 pixels, by timm's function as it is called without options."""
    resampled = resample_abs_pos_embed(model.state_dict()["pos_embed"], [6, 6])
    return position_arrays(resampled, "timm.layers.resample_abs_pos_embed (bicubic, align_corners=False, antialias)")


def position_arrays(resampled: torch.Tensor, by: str) -> Arrays:
    """The part of the resampled position embeddings that is kept."""
    return {"pos_embedding_96": resampled[0, :, :8].numpy().astype(np.float32), "pos_embedding_96_by": np.array(by)}


def no_more(_: nn.Module) -> Arrays:
    """Nothing besides logits."""
    return {}


Recipe = tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[nn.Module], Arrays]]
RECIPES: dict[str, Recipe] = {
    "torchvision_resnet18": (partial(from_torchvision, "resnet18"), (224, 75), no_more),
    "timm_tf_efficientnet_lite0": (partial(from_timm, "tf_efficientnet_lite0"), (224, 160), no_more),
    "efficientnet_lite_pytorch_lite0": (
        partial(from_efficientnet_lite_pytorch, "efficientnet-lite0"),
        (224, 160),
        no_more,
    ),
    "torchvision_resnet50": (partial(from_torchvision, "resnet50"), (224, 75), no_more),
    "torchvision_alexnet": (partial(from_torchvision, "alexnet"), (224, 96), no_more),
    "torchvision_vit_b_16": (partial(from_torchvision, "vit_b_16"), (224,), resampled_by_torchvision),
    "timm_vit_base_patch16_224": (partial(from_timm, "vit_base_patch16_224"), (224,), resampled_by_timm),
    "augreg_vit_b16": (from_augreg, (224,), resampled_by_timm),
    "timm_resnet18": (partial(from_timm, "resnet18"), (224, 75), no_more),
    "timm_resnet50": (partial(from_timm, "resnet50"), (224, 75), no_more),
    "torchvision_vgg16": (partial(from_torchvision, "vgg16"), (224, 64), no_more),
    "timm_vgg16": (partial(from_timm, "vgg16"), (224, 64), no_more),
}


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a model's state dict."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def logits_of(model: nn.Module, side: int) -> np.ndarray:
    """The model's logits for the seeded images, in the model's precision."""
    batch = torch.from_numpy(seeded.images(side)).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        return model(batch.to(next(model.parameters()).dtype)).numpy()


def make(name: str) -> None:
    """Write one golden file and report how far float32 lies from it."""
    build, sides, more = RECIPES[name]
    model = build().eval()
    arrays = more(model)
    single = {side: logits_of(model, side) for side in sides}
    shapes = augreg_shapes() if build is from_augreg else shapes_of(model)
    model.double()
    double = {side: logits_of(model, side) for side in sides}
    arrays |= {f"logits_{side}": value.astype(np.float32) for side, value in double.items()}
    arrays |= {"names": np.array(list(shapes)), "shapes": np.array([json.dumps(shape) for shape in shapes.values()])}
    arrays["parameters"] = np.array(sum(value.numel() for value in model.parameters()))
    arrays["versions"] = np.array(json.dumps({package: importlib.metadata.version(package) for package in PACKAGES}))
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    for side in sides:
        report(name, side, single[side], double[side])


def report(name: str, side: int, single: np.ndarray, double: np.ndarray) -> None:
    """Print the size and spread of the logits, and refuse those that tell classes or images apart too little."""
    error = np.abs(single - double).max() / np.abs(double).max()
    devices = double.std(axis=1).min()
    apart = (double[0] - double[1]).std() / devices
    print(f"{name} {side}: float32 off by {error:.1e}, deviation over classes {devices:.3g}, images apart {apart:.3g}")
    if error > 1e-5 or devices < 0.1 or apart < 0.05:
        raise ValueError(f"{name}: not fit for a golden file")


def main(names: list[str]) -> None:
    """Make the files of these names, or all."""
    torch.set_num_threads(1)
    for name in names or RECIPES:
        make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
