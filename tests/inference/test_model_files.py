"""What a model's folder may hold: each field in its range and each array as its network has it, else one line, at no cost."""

import copy
import hashlib
import json
import time

import absl.logging
import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import adsq_jax
from adsq_jax.data import gallery
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.errors import InputError
from adsq_jax.inference import model_files, new_images
from adsq_jax.inference.model import Model
from adsq_jax.models import network
from adsq_jax.models.layers import Layers

SECONDS = 5  # that a refusal may take, tracing of the network included


@pytest.fixture(scope="module")
def trained(colours):
    """The description of a small model, and its arrays by name."""
    folder = colours[1] / "model"
    return json.loads((folder / "model.json").read_text()), safetensors.numpy.load_file(folder / "weights.safetensors")


def write(folder, description, arrays):
    """Write a model whose hashes are right, whatever it holds."""
    content = safetensors.numpy.save(arrays)
    (folder / "model").mkdir(exist_ok=True, parents=True)
    (folder / "model" / "weights.safetensors").write_bytes(content)
    description = {**description, "weights_sha256": hashlib.sha256(content).hexdigest()}
    description["sha256"] = model_files.identity(description)
    (folder / "model" / "model.json").write_text(json.dumps(description))


def refusal(folder):
    """Load a model, which must be refused in one line and soon; return the line."""
    began = time.monotonic()
    with pytest.raises(InputError, match="is not a complete model") as raised:
        adsq_jax.load(folder)
    assert time.monotonic() - began < SECONDS
    assert "\n" not in str(raised.value)
    return str(raised.value)


FIELDS = {  # a field, and values that no trained model has
    "format": (0, 2, True, 1.0, "1"),
    "bits": (0, 257, True, 12.0, "12", None, 13),
    "bit_order": ("big", None, []),
    "query_net": ("", "gf", None, [], {}),
    "method": (None, 3, [], "x" * 1_001),
    "batch_size": (0, -1, 2**20 + 1, 1.5, True, None, 10**30),
    "dtype": ("float64", "float16", "", None, [], {}),
    "view": (None, [], {}, {"resize": 0}),
    "view.resize": (-5, 72.5, 9_000, 1, True, None, "72", float("nan"), 10**30, [72]),
    "view.image_size": (0, -8, 8.5, 73, 9_000, True, None, "8", 10**30),
    "view.bit_depth": (0, 8, 17, 12.0, True, "12", None),
    "view.crop": (4,),
    "network": (None, [], {}, "small_cnn"),
    "network.backbone": ("", "resnet", None, [], {}, "vit_b16", "alexnet"),
    "network.width": (-1, 2.5, True, None, "32", 10**6, 10**30, 17),
    "network.options": (None, [], {"classes": 10}, {"stages": [9] * 9}, {"layers": 1}, {"approximate_gelu": True}),
    "network.features": (0, -1, 2.5, True, None, 10**30, 3),
    "network.mean": (None, [], [0.5], [0.5] * 4, [0, 0, 2], [-1, 0, 0], [0, 0, float("nan")], ["0", 0, 0], [True, 0, 0], 0.5),
    "network.deviation": (None, [], [0, 0, 0], [1, 1, 0], [1, 1, -1], [1, 1, 1e-30], [1, 1, float("nan")], [1, 1, 1e9], 1),
    "network.bounded": (None, 0, 1, "true", []),
    "network.head": ("tanh", "batch_norm"),  # beside `bounded`
    "network.seed": (4,),
    "seed": (4,),
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_a_range(trained, tmp_path, field):
    """Values of other types, out of range, or that don't fit the weights, with hashes set right; and unknown fields."""
    description, arrays = trained
    write(tmp_path, description, arrays)
    adsq_jax.load(tmp_path)
    section, _, name = field.rpartition(".")
    for value in FIELDS[field]:
        changed = copy.deepcopy(description)
        (changed[section] if section else changed)[name] = value
        write(tmp_path, changed, arrays)
        refusal(tmp_path)


@pytest.mark.parametrize("head", ["tanh", "linear", "batch_norm", "layer_norm"])
def test_heads(trained, tmp_path, head):
    """A model of each head is the same one after it was saved and loaded; the older field `bounded` has the first two."""
    built = network.build("small_cnn", bits=8, width=2, features=4, head=head)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: built.img_net.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8), train=False))
    variables = jax.tree.map(lambda x: random.uniform(size=x.shape).astype(np.float32), shapes)
    view = Preprocessing(resize=0, image_size=8)
    fields = {**built.arguments, "features": 4, "mean": [0.5] * 3, "deviation": [0.5] * 3, "head": head}
    model = Model.from_networks(
        {"f": variables}, network=fields, bits=8, dtype="float32", preprocessing=view, query_net="ff", batch_size=4, method="x"
    )
    model.save(tmp_path)
    stored = json.loads((tmp_path / "model" / "model.json").read_text())["network"]
    expected = {"bounded": head == "tanh"} if head in ("tanh", "linear") else {"head": head}
    assert stored == {**{name: value for name, value in fields.items() if name != "head"}, **expected}
    loaded = adsq_jax.load(tmp_path)
    images = random.integers(0, 256, (4, 8, 8, 3), np.uint8)
    (found,), (wanted,) = (x.relaxed_codes(x.variables, images, part="query") for x in (loaded, model))
    assert np.array_equal(found, wanted)
    np.testing.assert_allclose(wanted, built.img_net.apply(variables, images, train=False)[1], rtol=1e-4, atol=1e-5)


def test_a_bit_depth_travels(trained, tmp_path, caplog):
    """A saved model reads pictures of 12 bits as it was trained on them, in every way; one without the field has depth 0."""
    description, arrays = trained
    write(tmp_path / "plain", description, arrays)
    write(tmp_path / "deep", {**description, "view": {**description["view"], "bit_depth": 12}}, arrays)
    plain, deep = adsq_jax.load(tmp_path / "plain"), adsq_jax.load(tmp_path / "deep")
    assert (plain.bit_depth, deep.bit_depth) == (0, 12)
    assert plain.sha256 != deep.sha256
    values = np.random.default_rng(0).integers(0, 4_096, (80, 80), dtype=np.uint16)
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "pictures" / "a.png"
    Image.fromarray(values).save(path)
    wanted = plain.preprocess(Image.fromarray(values << 4), 0)
    found = [deep.preprocess(path, 0), deep.preprocess(Image.fromarray(values), 0)]
    opened = gallery.read(str(tmp_path / "pictures"), directory="")
    (image,) = new_images.read_ahead(deep, opened, [(0, None)], contents=None, threads=1)
    for pixels in (*found, image.pixels):
        assert np.array_equal(pixels, wanted)
    assert not caplog.records
    absl.logging._log_counter_per_token.clear()
    list(new_images.read_ahead(plain, opened, [(0, None)] * 2, contents=None, threads=1))
    (record,) = caplog.records
    assert f"{path} has 16 bits and values below 4,096 alone" in record.getMessage()
    assert model_files.view_fields(Preprocessing(9, 8, flip=True)) == {"resize": 9, "image_size": 8}
    assert model_files.view_fields(Preprocessing(9, 8, bit_depth=12)) == {"resize": 9, "image_size": 8, "bit_depth": 12}


@pytest.mark.parametrize("head", ["tanh", "linear", "sigmoid", None, 1, [], {}])
def test_a_head_has_one_name(trained, tmp_path, head):
    """A head that `bounded` stands for has no other name, since a hash of the fields identifies a model; others are unknown."""
    description, arrays = trained
    network_fields = {name: value for name, value in description["network"].items() if name != "bounded"}
    write(tmp_path, {**description, "network": {**network_fields, "head": head}}, arrays)
    assert "expected batch_norm or layer_norm" in refusal(tmp_path)


@pytest.mark.parametrize("field", ["format", "bits", "method", "network", "network.mean", "view.resize"])
def test_every_field_is_there(trained, tmp_path, field):
    description, arrays = trained
    changed = copy.deepcopy(description)
    section, _, name = field.rpartition(".")
    del (changed[section] if section else changed)[name]
    write(tmp_path, changed, arrays)
    assert f"lacks '{name}'" in refusal(tmp_path)


def test_a_crop_larger_than_the_picture_is_named(trained, tmp_path):
    """Which gave other codes without a word; the line says what is wrong, and one thing to do."""
    description, arrays = trained
    changed = copy.deepcopy(description)
    changed["view"] = {"resize": 8, "image_size": 16}
    write(tmp_path, changed, arrays)
    line = refusal(tmp_path)
    assert "resize=8 is less than image_size=16" in line
    assert line.count("fix:") == 1


def with_array(arrays, end, change):
    """Change the first array whose name has an ending."""
    name = next(name for name in arrays if name.endswith(end))
    return {**arrays, name: change(arrays[name])}


def without(arrays, start):
    return {name: array for name, array in arrays.items() if not name.startswith(start)}


def with_more(arrays, name, size=1):
    return {**arrays, name: np.zeros(size, np.float32)}


NAN, INFINITE = np.float32("nan"), np.float32("inf")
WEIGHTS = {  # a change of the arrays, and what the line says
    "NaN": (lambda a: with_array(a, "hash/kernel", lambda x: x * NAN), "hash/kernel has numbers that aren't finite"),
    "infinite": (lambda a: with_array(a, "hash/bias", lambda x: x + INFINITE), "aren't finite"),
    "one NaN in a statistic": (lambda a: with_array(a, "/mean", lambda x: np.append(x[1:], NAN)), "aren't finite"),
    "a variance below 0": (lambda a: with_array(a, "/var", lambda x: -x - 1), "has a variance below 0"),
    "a statistic of one channel": (lambda a: with_array(a, "/var", lambda x: x[:1]), "expected float32"),
    "another shape": (lambda a: with_array(a, "hash/bias", lambda x: np.append(x, x)), "hash/bias is float32[24]"),
    "a scalar": (lambda a: with_array(a, "hash/bias", lambda x: np.array(x.sum())), "hash/bias is float32[]"),
    "transposed": (lambda a: with_array(a, "hash/kernel", lambda x: np.ascontiguousarray(x.T)), "hash/kernel is float32"),
    "another type": (lambda a: with_array(a, "hash/bias", lambda x: x.astype(np.float64)), "is float64[12], expected float32"),
    "an integer": (lambda a: with_array(a, "hash/bias", lambda x: x.astype(np.int32)), "is int32[12], expected float32[12]"),
    "missing": (lambda a: without(a, "f/params/hash/bias"), "lacks 'f/params/hash/bias'"),
    "a network missing": (lambda a: without(a, "g/"), "lacks 'g/"),
    "unknown": (lambda a: with_more(a, "f/params/hash/more"), "has an unknown array 'f/params/hash/more'"),
    "another network": (lambda a: with_more(a, "h/params/hash/bias"), "has an unknown array 'h/"),
    "a part of a name": (lambda a: with_more(a, "f/params"), "has an unknown array 'f/params'"),
    "none": (lambda a: {}, "weights.safetensors was changed"),
    "too much": (lambda a: with_more(a, "f/x", 2**20), "weights.safetensors was changed"),
}


@pytest.mark.parametrize("change", WEIGHTS)
def test_every_array_is_as_the_network_has_it(trained, tmp_path, change):
    """Names, shapes, dtypes and numbers, with hashes set right."""
    description, arrays = trained
    changed, said = WEIGHTS[change]
    write(tmp_path, description, changed(arrays))
    assert said in refusal(tmp_path)


def test_a_file_that_only_claims_to_be_large_is_not_read(trained, tmp_path):
    """A hundred GiB without a byte on the disk."""
    description, arrays = trained
    write(tmp_path, description, arrays)
    with (tmp_path / "model" / "weights.safetensors").open("r+b") as file:
        file.truncate(100 * 2**30)
    assert "was changed" in refusal(tmp_path)
    with (tmp_path / "model" / "model.json").open("r+b") as file:
        file.truncate(100 * 2**30)
    refusal(tmp_path)


def test_numbers_that_overflow_inside_the_network(trained, tmp_path):
    """Finite weights whose sums aren't: encoding says so in one line, and returns no code."""
    description, arrays = trained
    huge = {name: np.full_like(x, 3e38) * np.sign(x) if x.ndim > 1 else x for name, x in arrays.items()}
    write(tmp_path, description, huge)
    model = adsq_jax.load(tmp_path)
    with pytest.raises(InputError, match="the model computes no numbers"):
        model.encode(np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8))


def expected(backbone, *, image_size, width=0):
    fields = {"options": {}, "features": 512, "mean": (0.5,) * 3, "deviation": (0.25,) * 3, "head": "tanh"}
    img_net = network.make_img_net(layers=Layers(), backbone=backbone, width=width, bits=16, **fields)
    return model_files.Expected(img_net, image_size=image_size)


# Five networks are traced, the deepest in a second each.
@pytest.mark.parametrize(
    ("backbone", "image_size", "most"),
    [
        ("small_cnn", 32, 200_000),
        ("resnet18", 224, 1_400),
        ("vgg16", 224, 340),
        ("vit_b16", 224, 2_400),
        ("alexnet", 224, 6_000),
    ],
)
def test_a_batch_is_bounded_by_what_it_costs(backbone, image_size, most):
    """Batches of the usual size stay as they are; the largest array of the largest batch has at most 4 GiB."""
    cost = expected(backbone, image_size=image_size)
    assert 256 <= cost.batch_size <= most
    with pytest.raises(InputError, match="computes arrays of"):
        expected("vgg16", image_size=4_096)


def test_the_largest_batch_of_a_model_is_bounded(trained, tmp_path, monkeypatch):
    """Whatever batch size its description names."""
    description, arrays = trained
    monkeypatch.setattr(model_files, "MAX_BYTES_AT_ONCE", 2**20)
    write(tmp_path, {**description, "batch_size": 2**20}, arrays)
    model = adsq_jax.load(tmp_path)
    assert 1 <= model.batch_size <= 2**20 / (model.image_size**2 * 3 * 4) + jax.local_device_count()
    assert model.sha256 == description["sha256"]


def test_a_cut_picture_keeps_no_memory_of_the_whole(colours):
    """Hundreds of them wait while a folder is encoded."""
    model = adsq_jax.load(colours[1])
    pixels = np.zeros((model.resize or model.image_size, 50, 3), np.uint8)
    if model.resize:
        assert not np.shares_memory(model.crop(pixels, name="x"), pixels)
