"""What a picture may cost: hostile files are refused before the work, large sound ones are decoded, threads share memory."""

import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from support import hostile_pictures as hostile

from adsq_jax.data import decoding_limits, images
from adsq_jax.data.decoding_limits import Memory, TooCostly
from adsq_jax.data.images import BadImage, decode

HOSTILE = {  # each took 5 seconds and more, or far over a gigabyte
    "scans": (hostile.jpeg_of_many_scans(2000, 1000), "too many scans"),
    "scans behind a false end": (hostile.jpeg_of_hidden_scans(2000, 1000), "too many scans"),
    "segments of a JPEG": (hostile.jpeg_of_many_comments(300_000), "10,000 segments"),
    "EXIF of a JPEG": (hostile.jpeg_of_exif(), "tags overlap"),
    "EXIF of EXIF": (hostile.jpeg_of_repeated_exif(60), "damaged EXIF"),
    "several pictures in a JPEG": (hostile.jpeg_of_several_pictures(), "tags overlap"),
    "EXIF of a PNG": (hostile.png_of_exif(), "tags overlap"),
    "profiles of a JPEG": (hostile.jpeg_of_segments(*[(b"\xff\xe2", bytes(65_000))] * 600), "32 MiB before its pixels"),
    "comments of a GIF": (hostile.gif_of_comments(200_000), "too many parts"),
    "comment of a PPM": (hostile.ppm_of_comment(10**6), "too many parts"),
    "chunks of a PNG": (hostile.png_of_many_chunks(200_000), "too many parts"),
    "text": (hostile.pbm_of_text(3000), "as text"),
    "canvas of a WebP": (hostile.webp_of_canvas(9400, 9400), "1,024 MiB"),
    "tile of a TIFF": (hostile.tiff_of_tile(46_000), "46,000 x 46,000"),
    "offsets of a TIFF": (hostile.tiff_of_offsets(10**6), "1,000,000 numbers"),
    "tags of a TIFF that overlap": (
        hostile.tiff_of_overlapping_tags(4000, 10**6),
        "too many parts|Tag data larger than file",
    ),  # by Pillow 13
    "line": (hostile.png(1, 17_000), "mere line"),
    "long side": (hostile.png(1, 200_001), "longer than 200,000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_at_once(name):
    """A file that asks for much is refused, with what is wrong, in a fraction of the time that it asks for."""
    content, text = HOSTILE[name]
    begin = time.process_time()
    with pytest.raises(BadImage, match=text):
        decode(content, shorter_side=0 if name == "long side" else 72)
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(
    ("content", "text"), [(hostile.png_of_many_pieces(2000), "too many parts"), (hostile.bmp_of_runs(40), "too many parts")]
)
def test_parts_are_counted(content, text, monkeypatch):
    """Chunks and runs that Pillow goes through in Python are counted while it decodes: a few more than allowed are refused."""
    decode(content, shorter_side=0)
    monkeypatch.setattr(decoding_limits, "MOST_READS", 3000)
    with pytest.raises(BadImage, match=text):
        decode(content, shorter_side=0)


def test_rare_kinds():
    """JPEG and TIFF of kinds that browsers don't show are refused by kind."""
    jpeg = bytearray(hostile.saved(hostile.noise(8, 8), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 1] = 0xC9  # arithmetic coding
    with pytest.raises(BadImage, match="ordinary JPEG"):
        decode(bytes(jpeg), shorter_side=0)
    with pytest.raises(BadImage, match="lzma"):
        decode(hostile.saved(hostile.noise(8, 8), "TIFF", compression="lzma"), shorter_side=0)
    with pytest.raises(BadImage, match="BigTIFF"):
        decode(b"MM\0+" + bytes(60), shorter_side=0)


@pytest.mark.parametrize("size", [(20_000, 2_000), (8_000, 5_000)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_large_photographs(size, options):
    """A panorama and a photograph of 40 megapixels are read, progressive or not."""
    content = hostile.saved(Image.new("L", size, 90), "JPEG", **options)
    found = decode(content, shorter_side=256)
    assert found.shape == (256, round(size[0] * 256 / size[1]), 3)
    assert (found == 90).all()


def test_twenty_scans():
    """Twenty scans more than the usual ones are read, also if another picture follows in the file with as many."""
    content = hostile.jpeg_of_many_scans(1000, 20)
    assert (decode(content, shorter_side=256) == 90).all()
    assert (decode(content + 100 * content, shorter_side=256) == 90).all()


def test_metadata_of_megabytes():
    """Profiles and descriptions of megabytes, as editors write them, cost no picture."""
    picture, noise = hostile.noise(8, 8), np.random.default_rng(0).bytes(3 * 2**20)
    expected = np.asarray(picture)
    for kind, options in (("PNG", {"icc_profile": noise[: 2**20]}), ("TIFF", {"tiffinfo": {37724: noise}})):
        np.testing.assert_array_equal(decode(hostile.saved(picture, kind, **options), shorter_side=0), expected)
    jpeg = hostile.saved(picture, "JPEG", quality=95)
    with_profile = hostile.saved(picture, "JPEG", quality=95, icc_profile=noise)
    np.testing.assert_array_equal(decode(with_profile, shorter_side=0), decode(jpeg, shorter_side=0))


MODES = {
    "palette": lambda p: p.quantize(31),
    "transparent palette": lambda p: p.quantize(31),
    "bits": lambda p: p.convert("1"),
    "alpha": lambda p: Image.merge("RGBA", (*p.split(), p.split()[0])),
    "grey alpha": lambda p: Image.merge("LA", p.split()[:2]),
    "deep": lambda p: Image.fromarray(np.asarray(p).astype(np.uint16)[..., 0] * 257 + 3),
}


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("turn", [1, 6])
def test_strips(name, turn, monkeypatch):
    """A picture converted in strips has the pixels that it has in one piece."""
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"transparency": 3} if name == "transparent palette" else {}
    content = hostile.saved(MODES[name](hostile.noise(23, 31)), "PNG", exif=exif, **options)
    expected = decode(content, shorter_side=0)
    assert expected.shape == ((31, 23, 3) if turn == 6 else (23, 31, 3))
    for size in (1, 100):
        monkeypatch.setattr(images, "_STRIP", size)
        np.testing.assert_array_equal(decode(content, shorter_side=0), expected)


@pytest.mark.parametrize("maximum", [1, 7, 200, 256, 1023, 65_534])
@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_ppm_of_any_maximum(kind, maximum):
    """PPM and PGM of an unusual maximum have Pillow's pixels, values above the maximum among them."""
    values = np.random.default_rng(0).integers(0, min(65_536, maximum + maximum // 8 + 1), 7 * 5 * (3 if kind == b"P6" else 1))
    content = kind + b" 7 5 %d\n" % maximum + values.astype(">u2" if maximum > 255 else "u1").tobytes()
    with Image.open(io.BytesIO(content)) as picture:
        pillows = np.asarray(picture)
    if pillows.ndim == 2:  # grey; of 16 bits the upper ones are used
        pillows = np.stack([pillows >> 8 if maximum > 255 else pillows] * 3, axis=-1)
    np.testing.assert_array_equal(decode(content, shorter_side=0), pillows)
    with pytest.raises(BadImage, match="not a complete picture"):
        decode(content[:-1], shorter_side=0)


def test_ppm_of_bits_is_quick():
    """A PPM of 12 MB and the maximum 1, which takes Pillow 11 seconds, is decoded."""
    begin = time.process_time()
    assert decode(hostile.ppm_of_bits(2000), shorter_side=0).max() == 255
    assert time.process_time() - begin < 2


def test_threads_share_memory():
    """Threads together never hold more bytes than there are; whoever asks for more than all is refused."""
    memory, held, most = Memory(100), 0, 0
    lock = threading.Lock()

    def work(size):
        nonlocal held, most
        with memory.take(size, alone=size == 7):
            with lock:
                held += 100 if size == 7 else size
                most = max(most, held)
            time.sleep(0.002)
            with lock:
                held -= 100 if size == 7 else size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 30, 7, 50, 100, 1, 20] * 6))
    assert most == 100
    with pytest.raises(TooCostly, match="MiB"), memory.take(101, alone=False):
        pass
    with pytest.raises(KeyError), memory.take(100, alone=False):
        raise KeyError
    with memory.take(100, alone=False):  # given back
        pass


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_decoding_holds_its_memory(kind, monkeypatch):
    """A picture is refused if all threads' memory doesn't hold it, and waits while another thread has it."""
    content = hostile.saved(hostile.noise(100, 100), kind)
    monkeypatch.setattr(decoding_limits, "SHARED", Memory(50_000))
    with pytest.raises(BadImage, match="MiB to decode"):
        decode(content, shorter_side=0)
    memory = Memory(300_000)
    monkeypatch.setattr(decoding_limits, "SHARED", memory)
    with ThreadPoolExecutor(1) as pool:
        with memory.take(290_000, alone=False):
            waiting = pool.submit(decode, content, shorter_side=0)
            time.sleep(0.05)
            assert not waiting.done()
        assert waiting.result(timeout=10).shape == (100, 100, 3)


@pytest.mark.parametrize("size", [(8, 8), (100, 99), (99, 100), (101, 100), (300, 300)])
def test_another_size_in_the_header(size, monkeypatch):
    """If libjpeg-turbo reads another size than was allowed for, its pixels are not used: Pillow decodes the picture."""
    content = hostile.saved(hostile.noise(100, 100), "JPEG")
    expected = decode(content, shorter_side=0)
    header = decoding_limits.read_jpeg(content)._replace(size=size)
    monkeypatch.setattr(decoding_limits, "read_jpeg", lambda content: header)
    np.testing.assert_array_equal(decode(content, shorter_side=0), expected)
    assert images._decode_plain_jpeg(content, header, shorter_side=0, alone=False) is None


LIMITED = """
import os, resource, sys
from adsq_jax.data import images
small, *paths = sys.argv[1:]
images.decode(open(small, "rb").read(), shorter_side=0)  # imports what is needed
files = {os.path.basename(path): open(path, "rb").read() for path in paths}
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for more in (2, 20, 45, 500):
    for name, content in files.items():
        resource.setrlimit(resource.RLIMIT_AS, (size + more * 2**20, -1))
        try:
            images.decode(content[: len(content) // 2] if more == 500 else content, shorter_side=0)
            found = "pixels"
        except MemoryError:
            found = "memory"
        except images.BadImage as error:
            found = str(error)
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        print(name, more, found)
"""


# Takes a second: it decodes in a process of its own, whose memory is limited.
def test_lack_of_memory_is_no_damage(tmp_path):
    """Where memory is limited, a sound picture is never called damaged, and half a one is."""
    kinds = {"JPEG": {}, "PNG": {}, "TIFF": {"compression": "tiff_lzw"}, "GIF": {}, "WEBP": {"method": 0}}
    (tmp_path / "small").write_bytes(hostile.saved(hostile.noise(8, 8), "WEBP"))
    for kind, options in kinds.items():
        (tmp_path / kind).write_bytes(hostile.saved(Image.new("L" if kind == "GIF" else "RGB", (3000, 3000)), kind, **options))
    command = [sys.executable, "-c", LIMITED, *(tmp_path / name for name in ("small", *kinds))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment).stdout
    found = [line.split(maxsplit=2) for line in output.splitlines()]
    assert len(found) == 4 * len(kinds)
    for kind, more, text in found:
        if more == "500":
            assert "not a complete picture" in text, (kind, text)
        else:
            assert text == "memory" or (text == "pixels" and more != "2"), (kind, more, text)


FOLDER = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from adsq_jax.data import decoding_limits, images
decoding_limits.SHARED = decoding_limits.Memory(80 * 2**20)
contents = [open(path, "rb").read() for path in sys.argv[1:]]
begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(6) as pool:
    list(pool.map(lambda content: images.decode(content, shorter_side=64), contents))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin) // 1024)
"""


# Takes a second: it measures a process of its own.
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of memory is another")
def test_a_folder_of_bombs(tmp_path):
    """Six threads on small files of large pictures take the memory that they share, not six times that of a picture."""
    for kind in ("PNG", "GIF", "TIFF"):
        options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
        (tmp_path / kind).write_bytes(hostile.saved(Image.new("P" if kind == "GIF" else "RGB", (3000, 3000)), kind, **options))
    paths = [tmp_path / kind for kind in ("PNG", "GIF", "TIFF")] * 4
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", FOLDER, *paths]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment).stdout
    assert int(output) < 160, f"{output} MiB"
