"""benchmarks/speed/time_to_map.py: its clock, its reading of curves, its command line, and a short training of this project."""

import importlib.util
import json
import sys
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest

from adsq_jax import models
from adsq_jax.data import datasets, sources, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.errors import InputError
from benchmarks.speed import peer_training, time_to_map
from benchmarks.speed.peer_training import Peer
from benchmarks.speed.time_to_map import Job

pytestmark = pytest.mark.benchmark

JOB = Job("configs/digits.py", "csq", 12, 0, 0.8, 10.0)
CURVE = [
    {"passes": passes, "seconds": 30.0 * passes, "cpu_seconds": 45.0 * passes, "map": mean_ap}
    for passes, mean_ap in enumerate((0.5, 0.79, 0.8, 0.78), start=1)
]


@pytest.fixture
def imports_undone(tmp_path):
    """Forget what was imported of a clone in `tmp_path`, and what stood in for torchvision; torch itself stays."""
    path, known = list(sys.path), set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        of_clone = str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path))
        if of_clone or name in peer_training.STAND_INS:
            del sys.modules[name]
    sys.path[:] = path


def run_of(job, curve=CURVE, failed=None):
    """Make what `time_to_map.run` returns."""
    return {"job": asdict(job), "name": job.name, "failed": failed, "curve": curve}


def test_the_first_score_at_the_target_counts():
    """At .80 the third point, though the fourth is lower; above the best there is none."""
    assert time_to_map.crossing(CURVE, 0.8) == CURVE[2]
    assert time_to_map.crossing(CURVE, 0.81) is None
    assert time_to_map.crossing([], 0.1) is None


def test_the_clock_stands_still_in_a_pause(monkeypatch):
    """By a clock that the test sets: a pause's seconds don't count, those before and after it do, nor what was before."""
    now = {"wall": 100.0, "cpu": 7.0}

    def pass_by(seconds):
        now["wall"] += seconds
        now["cpu"] += 2 * seconds

    monkeypatch.setattr(time_to_map.time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(time_to_map.os, "times", lambda: (now["cpu"] - 3, 1.0, 1.5, 0.5, -1.0))  # with its children's
    watch = time_to_map.Stopwatch(wall=90.0, cpu=2.0)
    pass_by(4)
    with watch.paused():
        pass_by(16)
    assert watch.read() == (14.0, 13.0)
    pass_by(8)
    with watch.paused():
        pass_by(32)
    assert watch.read() == (22.0, 29.0)


def test_a_finished_run_is_one_that_answers():
    """It reached the target, or went on for as long as is asked; another seed, rate or setting is another run."""
    finished = time_to_map.is_finished
    assert finished(run_of(JOB), JOB)
    assert finished(run_of(JOB), replace(JOB, target=0.7, most_minutes=99))
    assert not finished(run_of(JOB), replace(JOB, target=0.9))  # it ended at .80
    assert not finished(run_of(JOB), replace(JOB, whole=True))
    assert finished(run_of(JOB, CURVE[:2]), JOB)
    assert finished(run_of(JOB, CURVE[:2]), replace(JOB, target=0.9))
    assert not finished(run_of(JOB, CURVE[:2]), replace(JOB, most_minutes=20))
    assert not finished(run_of(JOB), replace(JOB, seed=1))
    assert not finished(run_of(JOB), replace(JOB, rate=2.0))
    assert not finished(run_of(JOB), replace(JOB, settings={"train.rounds": 2}))
    assert not finished(run_of(JOB), replace(JOB, peer="elsewhere"))
    assert not finished(run_of(JOB, [], failed="ValueError: no"), JOB)  # tried again


def test_the_table_names_the_fastest_of_the_peer():
    """1.5 minutes against 3 and 4 of two rates, medians over the seeds; a failed method and a slow one come last."""
    peer = replace(JOB, peer="clone", method="GreedyHash")
    slower = [{**point, "seconds": 2 * point["seconds"], "cpu_seconds": 3 * point["cpu_seconds"]} for point in CURVE]
    slowest = [{**point, "seconds": 3 * point["seconds"]} for point in CURVE]
    runs = [
        run_of(replace(peer, method="CSQ"), [], failed="ValueError: a power of 2"),
        *(run_of(replace(peer, seed=seed), curve) for seed, curve in enumerate((slower, CURVE, slowest))),
        run_of(replace(peer, rate=100.0), slowest),
        run_of(replace(JOB, method="adsq"), CURVE[:2]),
        run_of(JOB),
    ]
    lines = time_to_map.summary(runs, target=0.8).splitlines()
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        "CSQ",
        "GreedyHash, DeepHash-pytorch",
        "GreedyHash, DeepHash-pytorch, learning rate x 100",
        "CSQ, DeepHash-pytorch",
        "ADSQ",
    ]
    assert lines[1].split() == ["CSQ", "1.50", "2.25", "3", "0.8000", "1"]
    assert lines[2].split()[2:] == ["3.00", "2.25", "3", "0.8000", "3"]
    assert "failed: ValueError: a power of 2" in lines[4]
    assert "not in 1.0" in lines[5]
    assert (
        lines[6] == "CSQ: 2.00 times as fast as GreedyHash, DeepHash-pytorch; by CPU minutes, 1.00 times as fast as the least"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target=0"], "--target: expected above 0"),
        (["--most-minutes=0"], "--most-minutes: expected"),
        (["--score-every=0"], "--score-every: expected at least 1"),
        (["--peer-rates=1,x"], "--peer-rates: expected numbers above 0"),
        (["--peer-rates=-1"], "--peer-rates: expected numbers above 0"),
        (["--methods=nothing"], "nothing"),
        (["--peer=EMPTY", "--peer-methods=DSH"], "expected a clone with DSH.py"),
        (["--set=no.key=1"], "no.key"),
    ],
)
def test_flags_are_checked_before_the_first_training(flags, message, tmp_path):
    """One line each."""
    flags = [flag.replace("EMPTY", str(tmp_path)) for flag in flags]
    with pytest.raises(InputError, match=message) as caught:
        time_to_map.jobs_of(time_to_map.arguments(flags))
    assert "\n" not in str(caught.value)


def test_jobs_are_those_asked_for(tmp_path):
    """Each method, seed and rate; settings are this project's."""
    (tmp_path / "DSH.py").touch()
    flags = ["--methods=csq", "--seeds=0,1", f"--peer={tmp_path}", "--peer-methods=DSH", "--peer-rates=1,100"]
    jobs = time_to_map.jobs_of(time_to_map.arguments([*flags, "--rounds=2,4", "--set=train.batch_size=50"]))
    assert [(job.name, job.seed) for job in jobs] == [
        ("CSQ, batch_size 50, rounds 2", 0),
        ("CSQ, batch_size 50, rounds 2", 1),
        ("CSQ, batch_size 50, rounds 4", 0),
        ("CSQ, batch_size 50, rounds 4", 1),
        ("DSH, DeepHash-pytorch", 0),
        ("DSH, DeepHash-pytorch", 1),
        ("DSH, DeepHash-pytorch, learning rate x 100", 0),
        ("DSH, DeepHash-pytorch, learning rate x 100", 1),
    ]
    assert [job.settings.get("train.rounds") for job in jobs] == [2, 2, 4, 4, None, None, None, None]


@pytest.mark.parametrize("content", ["{", "[]", '{"runs": [{}]}'])
def test_other_files_are_no_results(tmp_path, content):
    """A file that the script didn't write is refused, and stays."""
    (tmp_path / "digits_12bits.json").write_text(content)
    with pytest.raises(InputError, match="give another --out"):
        time_to_map.measure([JOB], tmp_path)
    assert (tmp_path / "digits_12bits.json").read_text() == content


# A process trains: it starts Python and compiles without a cache, some 20 seconds.
@pytest.mark.slow
def test_a_run_is_measured_and_not_repeated(tmp_path, monkeypatch):
    """Two passes of ADSQ and its scores; the second call trains nothing; the plot is there."""
    job = replace(
        JOB, method="adsq", target=1.0, settings={"train.rounds": 1, "train.epochs_per_round": 1, "label_net.steps": 9}
    )
    text = time_to_map.measure([job], tmp_path)
    (run,) = json.loads((tmp_path / "digits_12bits.json").read_text())["runs"]
    assert [point["passes"] for point in run["curve"]] == [1, 2]
    assert 0 < run["curve"][0]["seconds"] < run["curve"][1]["seconds"]
    assert 0 < run["curve"][0]["cpu_seconds"] < run["curve"][1]["cpu_seconds"]
    assert all(0 < point["map"] < 1 for point in run["curve"])
    assert (tmp_path / "digits_12bits.png").is_file()
    monkeypatch.setattr(time_to_map, "run", None)
    assert time_to_map.measure([job], tmp_path) == text


def test_a_clone_without_the_method_or_its_parts_is_refused(tmp_path, imports_undone):
    """No such file; a file without a training loop; one that needs a package; one that can't be run."""
    with pytest.raises(InputError, match="got no such file"):
        peer_training.load(Peer(tmp_path, "Absent", 1.0))
    for name, content, message in (
        ("Empty", "", "expected a method with get_config"),
        ("Needs", "import a_package_that_nobody_has", "pip install a_package_that_nobody_has"),
        ("Broken", "1 / 0", "ZeroDivisionError"),
    ):
        (tmp_path / f"peer{name}.py").write_text(content)
        with pytest.raises(InputError, match=message) as caught:
            peer_training.load(Peer(tmp_path, f"peer{name}", 1.0))
        assert "\n" not in str(caught.value)


if importlib.util.find_spec("torch"):  # the extra `test` doesn't install it
    # Imports PyTorch.
    def test_the_network_in_torch_is_the_same():
        """From the same weights and statistics: the hash layer's outputs, in training and in evaluation."""
        import torch

        network = models.build("small_cnn", bits=12, width=4, features=16, image_size=28, mean=(0.3, 0.4, 0.5))
        net = peer_training.torch_network(network)
        ours = network.img_net.clone(head="linear")
        images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)
        variables = ours.init(jax.random.key(0), images, train=False)
        params = variables["params"]
        weights = {f"convs.{k}.weight": np.transpose(params["backbone"][f"Conv_{k}"]["kernel"], (3, 2, 0, 1)) for k in range(5)}
        for name in ("semantic", "hash"):
            weights |= {f"{name}.weight": params[name]["kernel"].T, f"{name}.bias": params[name]["bias"]}
        loaded = net.load_state_dict({name: torch.tensor(np.array(x)) for name, x in weights.items()}, strict=False)
        assert not loaded.unexpected_keys
        assert all(key.split(".")[0] in ("norms", "mean", "deviation") for key in loaded.missing_keys)
        for train in (True, False):
            net.train(train)
            theirs = net(peer_training.images_to_torch(images)).detach().numpy()
            (_, outputs), updated = ours.apply(variables, images, train=train, mutable=["batch_stats"])
            np.testing.assert_allclose(theirs, outputs, rtol=1e-3, atol=1e-4)
            if train:
                variables = {**variables, **updated}  # as torch has updated its own; its variances are of n - 1
                for norm in net.norms:
                    norm.running_var.fill_(1.0)
                variables["batch_stats"] = jax.tree.map(lambda x: x, variables["batch_stats"])
                stats = variables["batch_stats"]["backbone"]
                for values in stats.values():
                    values["var"] = np.ones_like(values["var"])

    # A method as the peer has them, written for this test: its settings, and a loop that gets data and measurement by name.
    STAND_IN = """
import torch
from torchvision import models, transforms
from torchvision.datasets import CIFAR10
get_data = validate = None
class Data(CIFAR10):
    pass
def get_config():
    optimizer = {"type": torch.optim.SGD, "optim_params": {"lr": 0.5}}
    return {"optimizer": optimizer, "batch_size": 8, "net": models.resnet18, "device": torch.device("cuda:1")}
def train_val(given, bit):
    assert given is config  # as some methods read it
    train, queries, database, num_train, num_test, num_database = get_data(config)
    assert (num_train, num_test, num_database, config["n_class"]) == (20, 4, 30, 3)
    net = config["net"](bit).to(config["device"])
    optimizer = config["optimizer"]["type"](net.parameters(), **config["optimizer"]["optim_params"])
    print("not for the reader of scores")
    for epoch in range(config["epoch"]):
        net.train()
        seen = []
        for image, label, ind in train:
            assert image.shape == (8, 3, 8, 8) and label.shape == (8, 3) and net(image).shape == (8, bit)
            assert (label.argmax(1) == ind % 3).all()
            seen += ind.tolist()
        assert len(seen) == len(set(seen)) == 8 * len(train) == 16
        rates.append(optimizer.param_groups[0]["lr"])
        validate(config, 0.0, queries, database, net, bit, epoch, num_database)
rates = []
"""

    # Imports PyTorch.
    def test_a_loop_of_the_peer_gets_this_projects_data_and_ends_when_it_is_enough(tmp_path, imports_undone, capsys):
        """Batches without repetition, labels by row, the rate times its factor; codes of any rows; two passes, then the end."""
        (tmp_path / "StandIn.py").write_text(STAND_IN)
        images = np.random.default_rng(0).integers(0, 256, (34, 8, 8, 3), dtype=np.uint8)
        rows = np.arange(34)
        data = datasets.Dataset(
            sources.ArraySource(images, Labels.from_ids(rows % 3, classes=3), classes=["a", "b", "c"]),
            splits.Split(query=rows[30:], train=rows[:20] * 1, database=rows[:30]),
            protocol="digits",
            split_sha256="",
            map_at="all",
            preprocessing=Preprocessing(0, 8),
        )
        network = models.build("small_cnn", bits=12, width=4, features=16, image_size=8)
        passes = []

        def score(count, encode):
            passes.append(count)
            codes = encode(rows[5:])
            assert codes.shape == (29, 12)
            np.testing.assert_array_equal(codes[3:6], encode(rows[8:11]))
            if count == 2:
                raise peer_training.Enough

        peer_training.train(Peer(tmp_path, "StandIn", 4.0), data, network, seed=0, score=score)
        assert passes == [1, 2]
        assert sys.modules["StandIn"].rates == [2.0, 2.0]
        assert capsys.readouterr().out == ""
