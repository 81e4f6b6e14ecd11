"""An exported encoder gives the model's codes without this package, on every platform and for any number of images.

As ONNX, it gives them in ONNX Runtime.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import jax.export
import numpy as np
import onnxruntime
import pytest
import skimage.data
from PIL import Image
from support import mock_data

import adsq_jax
from adsq_jax import codes, export, storage
from adsq_jax.data import images
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.devices import DataParallel
from adsq_jax.errors import InputError
from adsq_jax.export import artifact, onnx_model
from adsq_jax.export.__main__ import main
from adsq_jax.training.init import init
from adsq_jax.training.loop import setup_from_config

ROOT = Path(__file__).parent.parent
ALONE = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("adsq_jax", "flax", "optax", "orbax", "ml_collections"):
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Refused())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(run, out):
    return [sys.executable, "-m", "adsq_jax.export", f"--workdir={run}", f"--out={out}"]


def ran(*arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def encoder(colours, tmp_path_factory):
    """An exported encoder's folder, whose parent didn't exist."""
    out = tmp_path_factory.mktemp("export") / "below" / "encoder"
    assert export.export(colours[1], out) == out
    return out


def loaded(folder, part="query"):
    manifest = json.loads((folder / "manifest.json").read_text())
    return jax.export.deserialize((folder / manifest["files"][part]["name"]).read_bytes())


@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_the_models_codes_for_any_number_of_images(encoder, colours, count):
    """The codes equal those of `Model.encode` on the same pixels, bit for bit."""
    model = adsq_jax.load(colours[1])
    images = np.random.default_rng(count).integers(0, 256, (count, 10, 10, 3), np.uint8)  # a size that isn't resized
    packed_codes = np.asarray(loaded(encoder).call(images[:, 1:9, 1:9]))
    assert packed_codes.dtype == np.uint8
    assert np.array_equal(packed_codes, model.encode(images, packed=True))


def test_manifest(encoder, colours):
    """The manifest has the files with their hashes, the sizes of codes and images, the model's hash, platforms and versions."""
    manifest = json.loads((encoder / "manifest.json").read_text())
    model = adsq_jax.load(colours[1])
    assert manifest["model_sha256"] == model.sha256
    assert (manifest["bits"], manifest["image_size"], manifest["resize"]) == (12, 8, 10)
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["files"]["query"] == manifest["files"]["database"]
    for file in manifest["files"].values():
        assert hashlib.sha256((encoder / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert {path.name for path in encoder.iterdir()} == {"encoder.bin", "manifest.json", "example.py"}
    assert encoder.stat().st_mode & 0o777 == 0o755  # others may read it
    assert tuple(manifest["platforms"]) == loaded(encoder).platforms == ("cpu", "cuda", "tpu")


def photographs(folder):
    """Write a picture of each kind that the example reads: large JPEG, rotated, grey, transparent, palette, 16 bits."""
    pictures = {"cat.jpg": skimage.data.chelsea(), "astronaut.png": skimage.data.astronaut(), "grey.png": skimage.data.camera()}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name, quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pictures["astronaut.png"]).save(folder / "turned.jpg", exif=turned)
    clear = Image.fromarray(pictures["cat.jpg"]).convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(clear.width) % 256, (clear.height, 1)).astype(np.uint8)))
    clear.save(folder / "clear.png")
    clear.quantize(64).save(folder / "palette.gif", transparency=3)
    Image.fromarray(pictures["cat.jpg"][:100, :187]).save(folder / "rounded.png")  # 72 x 134.64 pixels, once resized
    Image.fromarray(np.linspace(0, 65_535, 300 * 300, dtype=np.uint16).reshape(300, 300)).save(folder / "16 bits.png")
    return sorted(str(path) for path in folder.iterdir())


def test_the_example_alone(encoder, colours, tmp_path):
    """In a process that can import neither this package nor Flax, the example gives the codes of `Model.encode`."""
    paths = photographs(tmp_path)
    done = ran(sys.executable, "-c", ALONE, encoder / "example.py", *paths, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = adsq_jax.load(colours[1]).encode(paths, packed=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [code.tobytes().hex() for code in wanted]
    assert [int(line[1]) for line in lines] == np.unpackbits(wanted ^ wanted[0], axis=1).sum(axis=1).tolist()
    assert len({line[0] for line in lines}) > 1


def test_the_example_of_a_bit_depth(encoder, colours, tmp_path):
    """Where the manifest has a bit depth, the example takes the upper 8 of so many bits."""
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["bit_depth"] == 0
    (folder / "manifest.json").write_text(json.dumps({**manifest, "bit_depth": 12}))
    values = np.random.default_rng(0).integers(0, 4_096, (30, 20), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    done = ran(sys.executable, "-c", ALONE, folder / "example.py", tmp_path / "a.png", cwd=tmp_path)
    (wanted,) = adsq_jax.load(colours[1]).encode([Image.fromarray(values << 4)], packed=True)
    assert done.stdout.split()[0] == wanted.tobytes().hex(), done.stderr


def tiff_of_12_bits(values):
    """A grey TIFF of one strip by its specification that stores 12 bits a value, uint16[h, w] of an even w."""
    data = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.reshape(-1, 2).tolist())
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def png_of_16_bits(values):
    """A PNG by its specification of 16 bits in each colour, uint16[h, w, 3]."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", *values.shape[1::-1], 16, 2, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks.items()
    )


@pytest.mark.parametrize("bit_depth", [0, 10, 12, 16])
def test_the_example_reads_16_bits_as_the_package(tmp_path, bit_depth):
    """The same pixels of each kind of deep picture, and where the package has an error, one line and exit status 2."""
    values = np.random.default_rng(0).integers(0, 2 ** (bit_depth or 16), (8, 8), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values).save(tmp_path / "grey.tiff")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "8 bits.png")
    Image.fromarray(values | 5_000).save(tmp_path / "more.png")
    contents = {"12 bits.tiff": tiff_of_12_bits(values & 4_095), "colour.png": png_of_16_bits(np.dstack([values] * 3))}
    for most in (4_095, 65_535):
        contents[f"{most}.pgm"] = f"P5 8 8 {most}\n".encode() + (values & most).astype(">u2").tobytes()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = sorted(tmp_path.iterdir())
    (tmp_path / "manifest.json").write_text(json.dumps({"image_size": 8, "resize": 0, "bit_depth": bit_depth}))
    example = {"__file__": str(tmp_path / "example.py")}
    exec(artifact._EXAMPLE.partition("\n\ncodes = ")[0], example)  # without the encoder
    refused = []
    for path in paths:
        try:
            wanted = images.decode(path.read_bytes(), shorter_side=0, bit_depth=bit_depth)
        except images.BadImage:
            refused.append(path.name)
            with pytest.raises(SystemExit, match=r"^2$"):
                example["pixels"](path)
        else:
            np.testing.assert_array_equal(example["pixels"](path), wanted, err_msg=path.name)
    assert refused == (["colour.png", "more.png"] if bit_depth in (10, 12) else [])


def test_the_example_on_larger_pictures(tmp_path):
    """The example gives the same codes where it reads a JPEG at a fraction of its size and crops it, to 64 pixels a side."""
    folder = tmp_path / "run"
    untrained(folder, image_size=64, resize=72)
    export.export(folder, tmp_path / "encoder")
    (tmp_path / "pictures").mkdir()
    paths = photographs(tmp_path / "pictures")
    done = ran(sys.executable, "-c", ALONE, tmp_path / "encoder" / "example.py", *paths)
    assert done.returncode == 0, done.stderr
    wanted = adsq_jax.load(folder).encode(paths, packed=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [code.tobytes().hex() for code in wanted]


def untrained(folder, *, image_size=8, resize=0, **settings):
    """Save the model that training begins with in a run's folder, and load it."""
    config = mock_data.small_config(image_size=image_size)
    config.update_from_flattened_dict({"data.resize": resize, **settings})
    data = mock_data.dataset(image_size=max(image_size, resize))
    data = data._replace(preprocessing=Preprocessing(resize=resize, image_size=image_size))
    folder.mkdir()
    setup = setup_from_config(config, data, devices=DataParallel("shard_map"))
    setup.model(init(setup), query_net=config.eval.query_net).save(folder)
    return adsq_jax.load(folder)


KINDS = {
    "frozen trunk": {"optim.trunk_lr_scale": 0.0},
    "bfloat16": {"model.dtype": "bfloat16"},
    "one network": {"objective.twin": False, "eval.query_net": "ff"},
    "f and g": {"eval.query_net": "fg"},
    "running averages": {"model.backbone": "resnet18"},
}


# Lowers each model for three platforms.
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(tmp_path, kind):
    """Each kind is exported for all platforms; here its codes of queries and of the database are the model's."""
    model = untrained(tmp_path / "run", **KINDS[kind])
    (tmp_path / "encoder").mkdir()
    artifact.write(model, tmp_path / "encoder")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    for part in ("query", "database"):
        packed_codes = np.asarray(loaded(tmp_path / "encoder", part).call(pixels))
        assert np.unpackbits(packed_codes ^ model.encode(pixels, part=part, packed=True)).sum() <= (
            3 if kind == "bfloat16" else 0
        )
    assert (tmp_path / "encoder" / "database.bin").exists() == (kind == "f and g")


def test_the_same_model_gives_the_same_file(encoder, colours, tmp_path):
    """The command in another process writes the same bytes, so that exports can be compared by their hash."""
    done = ran(*command(colours[1], tmp_path / "again"), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/again: ")
    content = (tmp_path / "again" / "encoder.bin").read_bytes()
    assert content == (encoder / "encoder.bin").read_bytes()
    assert b".py" not in content  # no path of this machine


@pytest.mark.parametrize("at", [0, 100, -1])
def test_an_encoder_that_was_changed_is_not_run(encoder, colours, tmp_path, at):
    """One byte more or less, anywhere: one line and status 2, before JAX sees it, which may crash."""
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    content = bytearray((folder / "encoder.bin").read_bytes())
    content[at] ^= 1
    (folder / "encoder.bin").write_bytes(content)
    done = ran(sys.executable, folder / "example.py", colours[0] / "red" / "00.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: encoder.bin isn't the file that was exported; fix: export it again\n"


def test_refusals_overwrite_nothing(encoder, colours, tmp_path):
    """A file, and a folder or a link to one with files are refused and stay as they were; an empty folder is filled."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(encoder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    cases = [({"--out": tmp_path / name}, "nothing was overwritten") for name in ("file", "link", "full")]
    cases += [({"--out": tmp_path / "file/below"}, "can't be written"), ({"--out": "s3://a/b"}, "is in an object store")]
    cases += [
        ({"--workdir": ""}, "expected --workdir=DIR and --out=FOLDER"),
        ({"--part": "query"}, "--part=query goes with a .onnx file, .*; fix: leave it out, or give --out=FILE.onnx"),
        ({"--out": tmp_path / "encoder.tflite"}, r"got \.tflite; fix: export into \.onnx"),
        ({"--out": tmp_path / "encoder.ONNX"}, r"expected a folder, or a file \.onnx .* got \.ONNX"),
        ({"--workdir": "/nowhere"}, "holds no trained model"),
    ]
    for flags, message in cases:
        with pytest.raises(InputError, match=message):
            main([f"{name}={value}" for name, value in {"--workdir": colours[1], "--out": tmp_path / "new", **flags}.items()])
    assert sorted(os.listdir(tmp_path)) == ["file", "full", "link"]
    assert os.listdir(tmp_path / "full") == ["mine"]
    (tmp_path / "empty").mkdir()
    export.export(colours[1], tmp_path / "empty")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "full", "link"]


def test_without_flatbuffers(colours, tmp_path, monkeypatch):
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(InputError, match=r"pip install 'adsq_jax\[export\]'"):
        export.export(colours[1], tmp_path / "encoder")
    assert not list(tmp_path.iterdir())


def session(content):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def onnx_file(colours, tmp_path_factory):
    """The encoder as the command exports it to ONNX."""
    out = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
    done = ran(*command(colours[1], out), cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{out}: [\d.]+ MiB; takes images, gives relaxed_codes and codes\n", done.stdout)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_as_onnx(tmp_path, kind):
    """Relaxed codes are those of the networks in float32, and the codes their signs, packed as the model packs them."""
    model = untrained(tmp_path / "run", **KINDS[kind])
    pixels = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)
    for part in ("query", "database"):
        relaxed, packed = session(onnx_model.to_onnx(model, part=part)).run(["relaxed_codes", "codes"], {"images": pixels})
        assert (relaxed.dtype, packed.dtype) == (np.float32, np.uint8)
        assert np.array_equal(packed, codes.pack(codes.binarize(relaxed)))
        if kind == "bfloat16":
            assert np.unpackbits(packed ^ model.encode(pixels, part=part, packed=True)).mean() < 0.02
            continue
        wanted = np.asarray(sum(model.relaxed_codes(model.variables, pixels, part=part)))
        np.testing.assert_allclose(relaxed, wanted, atol=1e-5)
        clear = np.abs(wanted) > 1e-4
        assert clear.mean() > 0.9
        assert np.array_equal(codes.unpack(packed, bits=12)[clear], model.encode(pixels, part=part)[clear])


def test_one_file_for_each_of_two_networks(tmp_path):
    """Where queries and database are encoded by f and g, the part must be named; a model of one network needs none."""
    untrained(tmp_path / "run", **KINDS["f and g"])
    with pytest.raises(InputError, match="queries are encoded by network f and the database by g; fix: export two files"):
        export.export_onnx(tmp_path / "run", tmp_path / "encoder.onnx")
    assert os.listdir(tmp_path) == ["run"]
    for part, net in (("query", "f"), ("database", "g")):
        path = export.export_onnx(tmp_path / "run", tmp_path / f"{part}.onnx", part=part)
        assert session(path).get_modelmeta().custom_metadata_map["networks"] == net


def test_metadata_of_an_onnx_file(onnx_file, colours):
    """It says for which pictures the file is, and by which model; the same model gives the same bytes."""
    model = adsq_jax.load(colours[1])
    opened = session(onnx_file)
    said = opened.get_modelmeta().custom_metadata_map
    assert (said["bits"], said["image_size"], said["resize"], said["networks"]) == ("12", "8", "10", "sum")
    assert (said["bit_order"], said["model_sha256"], said["method"]) == (codes.BIT_ORDER, model.sha256, "adsq")
    assert said["preprocessing"] == artifact.PREPROCESSING
    [images], outputs = opened.get_inputs(), opened.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["n", 8, 8, 3])
    assert [(x.name, x.type, x.shape) for x in outputs] == [
        ("relaxed_codes", "tensor(float)", ["n", 12]),
        ("codes", "tensor(uint8)", ["n", 2]),
    ]
    assert onnx_model.to_onnx(model, part=None) == onnx_file.read_bytes()


def test_the_guide_loads_an_onnx_file(onnx_file, colours, monkeypatch):
    """The lines of docs/guides/export.md give the codes of the model for pictures that it has prepared."""
    [block] = re.findall(r"```python\n([^`]*onnxruntime[^`]*)```", (ROOT / "docs" / "guides" / "export.md").read_text())
    model = adsq_jax.load(colours[1])
    paths = sorted(colours[0].rglob("*.png"))
    names = {"images": np.stack([model.preprocess(path, number) for number, path in enumerate(paths)])}
    monkeypatch.chdir(onnx_file.parent)
    exec(block, names)
    assert np.array_equal(names["codes"], model.encode(paths, packed=True))
    assert names["relaxed_codes"].shape == (len(paths), 12)


def test_an_onnx_file_in_an_object_store(tmp_path, bucket):
    """It is written there, from a model that is there, and not written again."""
    model = untrained(tmp_path / "run")
    place = f"{bucket}/encoder.onnx"
    export.export_onnx(mock_data.upload(tmp_path / "run", f"{bucket}/run"), place)
    assert storage.read(storage.path(place)) == onnx_model.to_onnx(model, part=None)
    with pytest.raises(InputError, match="is there already"):
        export.export_onnx(tmp_path / "run", place)


def test_refusals_of_an_onnx_file(onnx_file, colours, tmp_path):
    """What is there stays as it was, and nothing is left of an export that fails; each is one line and status 2."""
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    cases = [({"--out": tmp_path / name}, "is there already") for name in ("there.onnx", "folder.onnx")]
    cases += [
        ({"--out": tmp_path / "nowhere/new.onnx"}, "expected a file in an existing folder"),
        ({"--workdir": tmp_path}, "holds no trained model"),
        ({"--part": "base"}, "--part=base: expected query or database"),
    ]
    mock_data.assert_refused("adsq_jax.export.__main__", cases, {"--workdir": colours[1], "--out": tmp_path / "new.onnx"})
    with pytest.raises(InputError, match=r"expected a name that ends with \.onnx"):
        export.export_onnx(colours[1], tmp_path / "new.tflite")
    assert sorted(os.listdir(tmp_path)) == ["folder.onnx", "there.onnx"]
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_without_onnx(colours, tmp_path, monkeypatch):
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'adsq_jax\[onnx\]'"):
        export.export_onnx(colours[1], tmp_path / "encoder.onnx")
    assert not list(tmp_path.iterdir())
