"""Networks: ImgNet with its backbones, LabelNet, and pretrained weights. `build` makes an ImgNet from plain arguments."""

from adsq_jax import errors as _errors

with _errors.needing(__name__):
    from adsq_jax.models.backbones import NAMES as BACKBONES
    from adsq_jax.models.img_net import ImgNet
    from adsq_jax.models.label_net import LabelNet
    from adsq_jax.models.network import Network, Pretrained, build, with_axis

__all__ = ["BACKBONES", "ImgNet", "LabelNet", "Network", "Pretrained", "build", "with_axis"]
