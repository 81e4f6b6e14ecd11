"""A trained model apart from its run: the run's own codes bit for bit, from arrays, paths and PIL alike."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from support import mock_data, runs

import adsq_jax
from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.retrieval import features as compressed

ROOT = Path(__file__).parents[2]


def run(directory, *, method="adsq", **knobs):
    """A short run in this process; its data."""
    config = mock_data.small_config(method=method)
    config.update_from_flattened_dict(knobs)
    setup = runs.make_setup(config, devices=4)
    runs.run(setup, directory)
    return setup.data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run"
    return folder, run(folder)


def pictures(dataset, part):
    return np.stack([dataset.source.image(int(row), shorter_side=0) for row in getattr(dataset.split, part)])


def test_the_codes_of_the_run(trained):
    """Of queries and database, those that the run has kept."""
    folder, dataset = trained
    model = adsq_jax.load(folder)
    for part in ("query", "database"):
        assert np.array_equal(
            model.encode(pictures(dataset, part), part=part, packed=True), np.load(folder / "codes" / f"{part}_sum.npy")
        )


@pytest.mark.parametrize("query_net", ["ff", "gg", "fg", "sum"])
def test_every_query_net(trained, tmp_path, query_net):
    """Each part is encoded by the network that `eval.query_net` says: of fg queries by f, the database by g."""
    folder, dataset = trained
    shutil.copytree(folder, tmp_path / "run")
    description = json.loads((tmp_path / "run" / "model" / "model.json").read_text()) | {"query_net": query_net}
    description["sha256"] = adsq_jax.inference.model_files.identity(description)
    (tmp_path / "run" / "model" / "model.json").write_text(json.dumps(description))
    model = adsq_jax.load(tmp_path / "run")
    for part, net in zip(("query", "database"), codes.QUERY_NETS[query_net], strict=True):
        assert np.array_equal(
            model.encode(pictures(dataset, part), part=part, packed=True), np.load(folder / "codes" / f"{part}_{net}.npy")
        )
    trunk = codes.QUERY_NETS[query_net][1].replace("sum", "f")  # the database's first network, for queries too
    pixels = pictures(dataset, "query")
    packed, features = model.encode_with_features(pixels, part="query")
    assert np.array_equal(packed, model.encode(pixels, part="query", packed=True))
    expected = model._img_net.apply(model.variables[trunk], pixels, train=False, method="trunk")
    np.testing.assert_allclose(model.features(pixels), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(features.astype(int) - compressed.compress(np.asarray(expected))).max() <= 1


# Compiles and trains each kind.
@pytest.mark.parametrize(
    "knobs",
    [
        {"optim.trunk_lr_scale": 0.0},
        {"objective.twin": False, "eval.query_net": "ff"},
        {"method": "greedyhash"},
        {"model.dtype": "bfloat16"},
    ],
    ids=["frozen trunk", "no twin", "another method", "bfloat16"],
)
def test_other_kinds_of_run(tmp_path, knobs):
    """A frozen trunk, which both networks share; one network; a method with parameters of its own, which aren't kept."""
    dataset = run(tmp_path / "run", **knobs)
    model = adsq_jax.load(tmp_path / "run")
    net = codes.QUERY_NETS[model.description["query_net"]][1]
    wanted = np.load(tmp_path / "run" / "codes" / f"database_{net}.npy")
    found = model.encode(pictures(dataset, "database"))
    assert np.mean(found != codes.unpack(wanted, bits=12)) < (
        0.02 if "model.dtype" in knobs else 0.002
    )  # sums in another order


def test_images_of_any_kind_give_the_same_code(trained, tmp_path):
    """Arrays, lists, PIL, paths, text; one or many; grey as three equal channels."""
    folder, dataset = trained
    model = adsq_jax.load(folder)
    images = pictures(dataset, "query")[:3]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    wanted = model.encode(images)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for several in (list(images), paths, [str(path) for path in paths], [Image.open(path) for path in paths]):
        assert np.array_equal(model.encode(several), wanted)
    for one in (images[0], paths[0], str(paths[0]), Image.open(paths[0])):
        assert np.array_equal(model.encode(one), wanted[:1])
    assert np.array_equal(model.encode(jnp.asarray(images)), wanted)
    assert np.array_equal(model.encode(jnp.asarray(images[0])), wanted[:1])
    grey = images[0, :, :, 0]
    assert np.array_equal(model.encode(grey), model.encode(np.repeat(grey[..., None], 3, axis=2)))
    assert np.array_equal(model.encode(Image.fromarray(grey)), model.encode(grey))
    stack = images[..., 0]  # [n, h, w]
    for grey_images in (stack, stack[..., None], list(stack)):
        assert np.array_equal(model.encode(grey_images), model.encode(np.repeat(stack[..., None], 3, axis=3)))
    assert model.encode([]).shape == (0, 12)
    assert wanted.dtype == np.int8
    assert np.array_equal(codes.pack(wanted), model.encode(images, packed=True))


def test_any_number_of_images(trained):
    """One, a few, a batch, and more: each row is the code of its own image."""
    folder, dataset = trained
    model = adsq_jax.load(folder)
    images = np.concatenate([pictures(dataset, "database")] * 20)
    wanted = model.encode(images)
    assert len(images) > 2 * model.batch_size
    for count in (1, 2, 3, 7, model.batch_size, model.batch_size + 1):
        assert np.array_equal(model.encode(images[:count]), wanted[:count])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nowhere.png", "nowhere.png isn't there"),
        (".", "is not a file"),
        ("a\0b", "has a null in its name"),
        (b"bytes", "image 0 is bytes"),
        (np.zeros((8, 8, 3)), "image 0 is float64"),
        (np.zeros((8, 8, 4), np.uint8), "image 0 is uint8"),
        (np.zeros((0, 8, 3), np.uint8), "image 0 is uint8"),
        ([[1, [2]]], "image 0 is not an image"),
        (np.zeros((9, 8, 3), np.uint8), "image 0 is 9x8: expected 8x8"),
        (7, "int is not an image"),
        ("ftp://cat.jpg", "ftp://cat.jpg begins with ftp://"),
        (None, "NoneType is not an image"),
    ],
    ids=str,
)
def test_what_is_no_image(trained, image, said):
    """One line says which, and what was expected."""
    model = adsq_jax.load(trained[0])
    with pytest.raises(InputError) as raised:
        model.encode(image)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_picture(trained, tmp_path):
    (tmp_path / "cat.jpg").write_text("not a cat")
    with pytest.raises(InputError, match=r"cat\.jpg is not a complete picture"):
        adsq_jax.load(trained[0]).encode(tmp_path / "cat.jpg")


def test_another_part(trained):
    with pytest.raises(InputError, match="expected query or database"):
        adsq_jax.load(trained[0]).encode(np.zeros((8, 8), np.uint8), part="train")


@pytest.mark.parametrize("place", ["nowhere", ".", "file"])
def test_no_run(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="holds no trained model; fix: finish the run"):
        adsq_jax.load(tmp_path / place)


def damages(description):
    yield from (
        (key, {**description, key: other})
        for key in description
        for other in (None, "x", -1, [], {})
        if key != "method"  # "x"
    )
    yield "batch_size", {**description, "batch_size": 10**12}
    yield "method", {**description, "method": None}
    yield "empty", {}
    yield "list", []


@pytest.mark.parametrize("resigned", [False, True])
def test_a_description_that_was_changed(trained, tmp_path, resigned):
    """Whatever stands in model.json, with its hash set right or not: one line, and no other exception."""
    shutil.copytree(trained[0] / "model", tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    for key, changed in damages(json.loads(path.read_text())):
        if resigned and isinstance(changed, dict):
            changed = {**changed, "sha256": adsq_jax.inference.model_files.identity(changed)}
        path.write_text(json.dumps(changed))
        if resigned and key == "sha256":
            continue  # which is right again
        with pytest.raises(InputError, match="is not a complete model"):
            adsq_jax.load(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda x: x[:-1], lambda x: x[:-1] + bytes([x[-1] ^ 1]), lambda x: b"", lambda x: b"x" * 100]
)
def test_weights_that_were_changed(trained, tmp_path, damage):
    shutil.copytree(trained[0] / "model", tmp_path / "model")
    path = tmp_path / "model" / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"weights.safetensors was changed"):
        adsq_jax.load(tmp_path)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Unable to initialize backend 'tpu': none")])
def test_a_machine_that_cannot_load_it(trained, monkeypatch, error):
    """Nobody is told to train again because memory or a device is missing."""

    def fail(content):
        raise error

    monkeypatch.setattr(safetensors.numpy, "load", fail)
    with pytest.raises(type(error)) as raised:
        adsq_jax.load(trained[0])
    assert raised.value is error


def test_weights_that_are_gone(trained, tmp_path):
    shutil.copytree(trained[0] / "model", tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="is not a complete model"):
        adsq_jax.load(tmp_path)


def test_the_hash_is_of_what_decides_the_codes(trained, colours, tmp_path):
    """Another model has another hash; the same run's is the same wherever it lies."""
    shutil.copytree(trained[0], tmp_path / "moved")
    assert adsq_jax.load(tmp_path / "moved").sha256 == adsq_jax.load(trained[0]).sha256
    assert adsq_jax.load(colours[1]).sha256 != adsq_jax.load(trained[0]).sha256


def test_in_an_object_store(trained, bucket, tmp_path):
    """A run's folder on s3:// loads as one on the disk, and encodes pictures that are there."""
    place = mock_data.upload(trained[0] / "model", f"{bucket}/run/model")
    model = adsq_jax.load(str(place).removesuffix("/model"))
    assert model.sha256 == adsq_jax.load(trained[0]).sha256
    image = pictures(trained[1], "query")[0]
    Image.fromarray(image).save(tmp_path / "image.png")
    mock_data.upload(tmp_path, f"{bucket}/pictures")
    assert np.array_equal(model.encode(f"{bucket}/pictures/image.png"), model.encode(image))
    with pytest.raises(InputError, match=r"none\.png isn't there"):
        model.encode(f"{bucket}/pictures/none.png")


def test_importing_the_package_costs_nothing():
    """`import adsq_jax` loads neither JAX nor Flax; a search loads nothing that only training needs, or SciPy."""
    program = (
        "import sys, adsq_jax; assert not {'jax', 'flax'} & sys.modules.keys();"
        "import adsq_jax.search; assert not {'grain', 'orbax', 'optax', 'scipy'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
