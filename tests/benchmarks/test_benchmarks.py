"""The benchmarks, on small samples: they run, and what they compare this package with does the same work."""

import importlib.util
import io
import json
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

from adsq_jax import retrieval
from adsq_jax.devices import data_parallel
from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.retrieval import hamming
from adsq_jax.training import init
from benchmarks import rows
from benchmarks.methods import emoji_lists, tiny_imagenet_lists
from benchmarks.speed import backbones, evaluator, kernels, label_sets
from benchmarks.speed import input as input_benchmark

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("labels", [0, 21])
def test_the_sort_beside_the_evaluator_lies_within_its_bounds(labels):
    """The sort's mAP, of some order of ties, is between the worst and the best order."""
    data = evaluator.made_up(50, 500, 16, labels)
    ready = evaluator.unpacked(data, bits=16, label_dtype=np.int64)
    bounds = retrieval.measure(**data, bits=16).at("all")
    assert bounds.map_worst <= evaluator.sort_based(ready, n_query=50) <= bounds.map_best


def test_the_bare_pass_adds_up_all_distances():
    """XOR and population count of every pair: for each query the sum of its histogram's distances."""
    data = evaluator.made_up(20, 400, 64, 0)
    labels = {name: data[name] for name in ("query_labels", "database_labels")}
    counts, _ = retrieval.distance_histograms(data["query_codes"], data["database_codes"], bits=64, **labels)
    np.testing.assert_array_equal(evaluator.bare_pass(data, ShardedDatabase())(), counts @ np.arange(65))


def test_a_case_and_the_scale_run(monkeypatch, tmp_path):
    """Every figure measured is a positive number; the files of the large database are gone afterwards."""
    monkeypatch.setitem(evaluator.CASES, "small", (20, 400, 64, 21, 5))
    monkeypatch.setattr(evaluator, "TURNS", 2)
    figures = [evaluator.compare("small", ShardedDatabase()), evaluator.scale(5_000, ShardedDatabase(), tmp_path)]
    for case in figures:
        # an extrapolation from so little is noise
        assert all(value > 0 for name, value in case.items() if name != "case" and "extrapolated" not in name), case
    assert list(tmp_path.iterdir()) == []


def test_the_kernels_are_checked_and_timed(monkeypatch):
    """Each way has a line for each case; a kernel that counts wrongly is named, and nothing is timed."""
    for name, value in {"TURNS": 2, "SHAPES": ((8, 64), (16, 128)), "NEIGHBOURS": 5, "CHECKED": ((20, 0), (40, 5))}.items():
        monkeypatch.setattr(kernels, name, value)
    case = kernels.Case(20, 300, 64, 5)
    measured = kernels.measure((case,), checked=(30, 200))
    assert measured["checked"] == ["30 x 200, 20 bits, 10 classes", "30 x 200, 40 bits, 5 labels"]
    lines = kernels.table(measured).splitlines()
    assert [line.split("  ")[1] for line in lines if "pairs/s" in line] == list(measured["cases"][str(case)])
    count = hamming._count_by_matmul
    monkeypatch.setattr(hamming, "_count_by_matmul", lambda *query, **more: 2 * count(*query, **more))
    with pytest.raises(
        SystemExit, match="not exact: 30 x 200, 20 bits, 10 classes: matmul; 30 x 200, 40 bits, 5 labels: matmul"
    ):
        kernels.measure((case,), checked=(30, 200))


def emoji_archive(path, vendor):
    """Make a package as npm packs it, with three emoji, a skin tone, and members that lead out of it."""
    emojis = [
        {"name": "RED CAT FACE", "image": "1.png", "subcategory": "cat-face", "has_img_google": True, "has_img_twitter": True},
        {"name": "Waving Cat", "image": "2.png", "subcategory": "hand", "has_img_google": True, "has_img_twitter": False},
        {"name": "Dog & Cat", "image": "3.png", "subcategory": "hand", "has_img_google": True, "has_img_twitter": True},
    ]
    emojis[2]["skin_variations"] = {"1F3FB": {"image": "3-a.png", "has_img_google": True, "has_img_twitter": True}}
    files = {f"img/{vendor}/64/{name}.png": b"png" for name in ("1", "2", "3", "3-a")}
    files |= {"emoji.json": json.dumps(emojis).encode(), "LICENSE": b"MIT", "package.json": b"{}"}
    files |= {f"img/{vendor}/64/../../../../../out.png": b"no", f"img/{vendor}/sheets/1.png": b"no"}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return emojis


def test_emoji_lists(tmp_path, monkeypatch):
    """Of a package only its small pictures, emoji.json and licence are unpacked; all pictures of an emoji are in one part."""
    out = tmp_path / "out"
    for vendor in emoji_lists.VENDORS:
        emojis = emoji_archive(tmp_path / f"{vendor}.tgz", vendor)
        with tarfile.open(tmp_path / f"{vendor}.tgz") as archive:
            emoji_lists.unpack(archive, vendor, out)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    pictures = {f"out/{vendor}/{name}.png" for vendor in emoji_lists.VENDORS for name in ("1", "2", "3", "3-a")}
    extra = {"out/emoji.json", "out/google/LICENSE", "out/twitter/LICENSE", "google.tgz", "twitter.tgz"}
    assert files == pictures | extra
    monkeypatch.setattr(emoji_lists, "FEWEST", 2)
    many = [json.loads(json.dumps(emoji).replace('"image": "', f'"image": "{k}-')) for k in range(20) for emoji in emojis]
    classes, lists = emoji_lists.make_lists(many)
    assert classes == ["(cat-face)", "(hand)", "cat", "dog", "face", "red", "waving"]
    parts = {part: {line.split()[0] for line in lines} for part, lines in lists.items()}
    assert not parts["query"] & parts["database"]
    assert parts["train"] < parts["database"]
    queries = []
    for fold in emoji_lists.FOLDS:
        tuned = {part: parts[f"{fold}/{part}"] for part in ("query", "train", "database")}
        emoji = {
            part: {name.split("/")[1].removesuffix(".png").removesuffix("-a") for name in names}
            for part, names in tuned.items()
        }
        assert not emoji["query"] & (emoji["train"] | emoji["database"])
        assert all(tuned.values())
        assert set().union(*tuned.values()) == parts["train"]
        queries.append(tuned["query"])
    assert len(queries) == 3
    assert sum(map(len, queries)) == len(set().union(*queries))  # each fold has its own
    assert len(lists["query"]) + len(lists["database"]) == 20 * (2 + 1 + 4)
    lines = dict(line.split(" ", 1) for line in lists["query"] + lists["database"])
    assert lines["google/0-1.png"] == lines["twitter/0-1.png"] == "1 0 1 0 1 1 0"
    assert "twitter/0-2.png" not in lines
    assert lines["google/0-3.png"] == "0 1 1 1 0 0 0"


def test_tiny_imagenet_lists(tmp_path, monkeypatch, capsys):
    """Of the first synsets, validation images are queries, all training images the database, and some are drawn to train on."""
    synsets = ["n03", "n01", "n02"]
    (tmp_path / "wnids.txt").write_text("\n".join(synsets) + "\n")
    (tmp_path / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tbullfrog\nn03\tapple\nn04\tentity\n")
    for synset in synsets:
        (tmp_path / "train" / synset / "images").mkdir(parents=True)
        for k in range(6):
            (tmp_path / "train" / synset / "images" / f"{synset}_{k}.JPEG").touch()
    (tmp_path / "val").mkdir()
    lines = [f"val_{k}.JPEG\t{synset}\t0\t0\t62\t62\n" for k, synset in enumerate(["n02", "n03", "n01", "n02"])]
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    monkeypatch.setattr(tiny_imagenet_lists, "CLASSES", 2)
    monkeypatch.setattr(tiny_imagenet_lists, "TRAIN", 3)
    monkeypatch.setattr("sys.argv", ["tiny_imagenet_lists", f"--directory={tmp_path}"])
    tiny_imagenet_lists.main()
    assert capsys.readouterr().out == "classes 2, query 3, train 6, database 12\n"
    lists = {name: (tmp_path / f"{name}.txt").read_text().splitlines() for name in ("query", "train", "database", "classes")}
    assert lists["classes"] == ["goldfish", "bullfrog"]
    assert lists["query"] == ["val/images/val_0.JPEG 0 1", "val/images/val_2.JPEG 1 0", "val/images/val_3.JPEG 0 1"]
    labels = {"n01": "1 0", "n02": "0 1"}
    assert lists["database"] == [f"train/{s}/images/{s}_{k}.JPEG {labels[s]}" for s in ("n01", "n02") for k in range(6)]
    assert set(lists["train"]) < set(lists["database"])
    assert [sum(line.endswith(end) for line in lists["train"]) for end in labels.values()] == [3, 3]
    assert tiny_imagenet_lists.make_lists(tmp_path, seed=1)["train"] != lists["train"]
    (tmp_path / "words.txt").unlink()
    with pytest.raises(SystemExit, match=r"isn't tiny-imagenet-200 .*words\.txt"):
        tiny_imagenet_lists.main()


def is_crop_of(view, wholes):
    """Return whether a view is cut out of one of the images, found by six pixels of its first row."""
    for whole in wholes:
        rows = np.lib.stride_tricks.sliding_window_view(whole, 6, axis=1).transpose(0, 1, 3, 2)  # [h, w - 5, 6, 3]
        for top, left in np.argwhere((rows == view[0, :6]).all(axis=(2, 3))):
            if np.array_equal(whole[top : top + 224, left : left + 224], view):
                return True
    return False


def test_the_reader_that_is_timed_does_the_work(tmp_path, monkeypatch):
    """It gives batches of crops of the files, some mirrored and some not; a long list is read whole."""
    monkeypatch.setattr(input_benchmark, "IMAGES", 70)
    names = input_benchmark.pictures(tmp_path)
    batch = next(input_benchmark.ours(tmp_path, names))
    assert batch.shape == (64, 224, 224, 3)
    wholes = [np.asarray(Image.open(tmp_path / name)) for name in names]
    as_they_are = [is_crop_of(view, wholes) for view in batch[:8]]
    mirrored = [is_crop_of(view[:, ::-1], wholes) for view in batch[:8]]
    assert np.logical_xor(as_they_are, mirrored).all()
    assert any(as_they_are)
    assert any(mirrored)
    monkeypatch.setattr(input_benchmark, "LINES", 1_000)
    memory = input_benchmark.long_list(tmp_path)
    assert memory["lines"] == 1_000
    assert memory["bytes_per_image"] < 100


# Compiles LabelNet's step and an ImgNet's.
def test_label_sets_are_measured(tmp_path):
    """All sets differ, each of three labels; every figure is a positive number, and has its place in the table."""
    labels = label_sets.make_data(300).source.labels[np.arange(300)]
    assert len(np.unique(labels, axis=0)) == 300
    assert (labels.sum(axis=1) == 3).all()
    row = label_sets.measure(300, hidden=16, steps=1)
    parts = {"start", "LabelNet, compiled", "LabelNet", "ImgNet, compiled", "ImgNet", "B-step"}
    assert row["seconds"].keys() == row["core_seconds"].keys() == row["peak_gib"].keys() == parts
    assert all(value > 0 for name in ("seconds", "core_seconds", "peak_gib") for value in row[name].values())
    row["core_seconds"] |= {"LabelNet": 3.0, "B-step": 0.25, "ImgNet": 0.5}
    row["peak_gib"]["B-step"] = 999.0
    about = {"machine": "a machine", "date": "today", "hidden": 16, "features": 512, "bits": 48, "batch": 128}
    content = {**about, "labels": 80, "labels_an_image": 3, "rows": [row]}
    (tmp_path / "label_sets.json").write_text(json.dumps(content))
    lines = rows.label_sets_rows(tmp_path / "label_sets.json").splitlines()
    assert lines[2] == "| 300 | 3.0 | 3333.3 | 0.2 | 0.50 | 999.00 |"
    assert lines[-1] == "16 and 512 units of LabelNet, 48 bits, batch 128, 3 of 80 labels per image (a machine, today)."


def test_layers_are_those_of_the_networks():
    """ResNet-18 has 20 convolutions, EfficientNet-Lite0 16 with a kernel for each channel; a layer's times are positive."""
    resnet, lite = (backbones.convolutions(case) for case in backbones.CASES.values())
    assert sum(row["times"] for row in resnet) == 20
    assert sum(row["times"] for row in lite) == 16
    assert all(row["kernel"][2] == 1 for row in lite)
    devices = data_parallel.DataParallel("shard_map", devices=jax.devices()[:2])
    times = backbones.layer_times({**resnet[0], "x": (2, 8, 8, 3), "kernel": (7, 7, 3, 4)}, devices, turns=2)
    assert times.pop("layer").startswith("7x7/2")
    assert all(value > 0 for value in times.values())


def test_the_backbones_beside_torch_as_a_table(tmp_path):
    """The table has the better layout of torch."""
    case = {
        "case": "encoding",
        "batch": 32,
        "images_per_second": {"adsq_jax": 20.0, "torch": 5.0, "torch, channels_last": 10.0},
        "best_of_torch": "torch, channels_last",
        "adsq_jax_times_as_fast": 2.0,
        "adsq_jax_times_as_fast_by_cpu_seconds": 1.9,
    }
    (tmp_path / "speed.json").write_text(json.dumps({"cases": [case], "machine": "a machine", "date": "today"}))
    lines = rows.backbone_rows(tmp_path / "speed.json").splitlines()
    assert lines[2:] == ["| encoding, batch 32 | 20 | 10 | 2.00 | 1.90 |", "", "a machine, today."]


if importlib.util.find_spec("torch"):  # the extra `test` doesn't install it
    # Imports PyTorch, and compiles the step of a ResNet.
    def test_torch_beside_the_training_step_does_the_same_work():
        """From the same weights: every loss term, the loss, and the gradient's norm of both networks."""
        import torch

        case = backbones.QUICK["training step"]
        side = backbones.Torch(case, channels_last=True)
        side.ours.run(1)
        for name, net in side.nets.items():
            params = init(side.ours.setup).img_nets[name].params
            weights = {}
            for path, value in jax.tree.leaves_with_path(params):
                *parts, kind = (key.key for key in path)
                value = np.asarray(value)
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
                kind = {"kernel": "weight", "scale": "weight"}.get(kind, kind)
                weights[".".join([*parts, kind])] = torch.tensor(np.array(value))
            loaded = net.load_state_dict(weights, strict=False)
            assert not loaded.unexpected_keys
            assert all("running" in key or "num_batches" in key for key in loaded.missing_keys)
        side.run(1)
        for name, terms in side.terms.items():
            ours = side.ours.metrics[name]
            assert terms.keys() == ours.keys()
            for term, value in terms.items():
                np.testing.assert_allclose(float(value.detach()), np.mean(ours[term]), rtol=1e-3, atol=1e-6, err_msg=term)
