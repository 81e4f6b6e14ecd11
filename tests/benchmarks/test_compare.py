"""The comparison of methods: harder data, what is run and tuned, a run end to end, kills, and bad input said in one line."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import mock_data
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adsq_jax import config as config_module
from adsq_jax import config_check, methods
from adsq_jax.data import datasets
from adsq_jax.errors import InputError
from adsq_jax.training.rounds import NotFinite

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
compare, conditions, scores, variants = (
    importlib.import_module(f"benchmarks.methods.{name}") for name in ("compare", "conditions", "scores", "variants")
)
sys.path.remove(str(ROOT))

DIGITS = ROOT / "configs" / "digits.py"
TINY = ("--set=train.rounds=1", "--set=train.epochs_per_round=1", "--set=model.width=4", "--set=model.features=16")
METHODS = tuple(methods.METHODS)


def command(tmp_path, *more, methods="classify"):
    """Arguments of a small comparison on digits."""
    places = (f"--out={tmp_path / 'out'}", f"--work={tmp_path / 'work'}")
    return [f"--config={DIGITS}", f"--methods={methods}", "--bits=8", "--seeds=0", "--validation=100", *TINY, *places, *more]


@contextlib.contextmanager
def start(arguments):
    """The command in a process group of its own, of which nothing stays."""
    whole = [sys.executable, "-m", "benchmarks.methods.compare", *arguments]
    with subprocess.Popen(whole, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finished(arguments):
    """The command run to its end: exit status and stderr."""
    with start(arguments) as process:
        told = process.communicate(timeout=600)[1]
    return process.returncode, told


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def files(folder):
    """Content and time of every JSON."""
    return {path.relative_to(folder): (path.read_text(), path.stat().st_mtime_ns) for path in folder.rglob("*.json")}


def train_labels(dataset):
    return datasets.part_labels(dataset, "train")


# --------------------------------------------------------------------------------------------------------------- harder data

label_sets = st.booleans().flatmap(
    lambda several: st.integers(0, 1_000).map(lambda seed: mock_data.dataset(multi_label=several, seed=seed))
)


@given(label_sets, st.sampled_from(["noise20", "noise40"]))
def test_noise_hands_labels_round_among_its_share(dataset, name):
    """Only a share of the training rows is drawn, the training set's label rows stay the same ones, and others stay clean."""
    trained, measured = conditions.apply(name, dataset)
    before, after = train_labels(dataset), train_labels(trained)
    assert (before != after).any(axis=1).sum() <= round(int(name[5:]) / 100 * len(before))
    np.testing.assert_array_equal(*(np.sort(np.packbits(rows, axis=1), axis=0) for rows in (before, after)))
    outside = np.setdiff1d(np.arange(len(dataset.source)), dataset.split.train)
    np.testing.assert_array_equal(trained.source.labels[outside], dataset.source.labels[outside])
    assert measured is dataset
    assert trained.split is dataset.split


@given(st.integers(1, 60), st.sampled_from([0.2, 0.4]), st.integers(0, 100))
def test_noise_draws_exactly_its_share(n, share, seed):
    """Where every image has labels of its own, just the share of the training rows changes, unless it's one row alone."""
    train = np.random.default_rng(seed).permutation(2 * n)[:n]
    labels = np.unpackbits(np.arange(2 * n, dtype=np.uint8)[:, None], axis=1)
    changed = conditions.noisy(labels, train, share, np.random.default_rng(0))
    rows = np.flatnonzero((changed != labels).any(axis=1))
    drawn = round(share * n)
    assert len(rows) == (drawn if drawn > 1 else 0)
    assert set(rows) <= set(train)


@given(label_sets, st.integers(1, 30), st.integers(0, 100))
def test_few_takes_what_is_needed(dataset, most, seed):
    """Rows are training rows in order, every class has the most or all that there are, and no row was taken in vain."""
    labels, train = dataset.source.labels[np.arange(len(dataset.source))], dataset.split.train
    rows = conditions.few(labels, train, most, np.random.default_rng(seed))
    assert set(rows) <= set(train)
    assert (np.diff(rows) > 0).all()
    count, available = labels[rows].sum(axis=0, dtype=int), labels[train].sum(axis=0, dtype=int)
    assert (count >= np.minimum(most, available)).all()
    if (labels.sum(axis=1) == 1).all():
        np.testing.assert_array_equal(count, np.minimum(most, available))
    reached, taken = np.zeros(labels.shape[1], int), set(rows)
    for row in np.random.default_rng(seed).permutation(train):  # in the order of the draw: each one taken was wanted
        wanted = bool(((reached < most) & (labels[row] > 0)).any())
        assert (row in taken) == wanted
        reached += labels[row] * wanted


def test_few_changes_the_training_set_alone():
    """Queries, database and images stay, and what is measured has the fewer training images too."""
    dataset = mock_data.dataset()
    trained, measured = conditions.apply("few20", dataset)
    assert trained is measured
    assert trained.source is dataset.source
    for part in ("query", "database"):
        np.testing.assert_array_equal(getattr(trained.split, part), getattr(dataset.split, part))


@given(label_sets)
def test_unseen_classes_are_in_no_training_image(dataset):
    """No training image has a held class, every query and database image has one, and relevance is of held classes alone."""
    trained, measured = conditions.apply("unseen", dataset)
    assert trained.split == measured.split or all(map(np.array_equal, trained.split, measured.split))
    held = measured.source.labels[np.arange(len(dataset.source))].any(axis=0)
    assert held.sum() == 5 // 4
    assert not train_labels(trained)[:, held].any()
    assert not train_labels(measured).any()
    for part in ("query", "database"):
        np.testing.assert_array_equal(
            datasets.part_labels(trained, part), datasets.part_labels(dataset._replace(split=trained.split), part)
        )
        assert datasets.part_labels(measured, part).any(axis=1).all()
        there, rows = getattr(dataset.split, part), getattr(measured.split, part)
        np.testing.assert_array_equal(rows, there[dataset.source.labels[there][:, held].any(axis=1)])


@pytest.mark.parametrize("name", ["", *conditions.NAMES])
def test_the_same_draw_twice(name):
    """A condition draws the same rows and labels whenever it is applied, and changes nothing of what it is given."""
    dataset = mock_data.dataset(multi_label=True)
    before = dataset.source.labels[np.arange(140)]
    first, second = (conditions.apply(name, dataset) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert all(map(np.array_equal, one.split, two.split))
        np.testing.assert_array_equal(one.source.labels[np.arange(140)], two.source.labels[np.arange(140)])
    np.testing.assert_array_equal(dataset.source.labels[np.arange(140)], before)


@pytest.mark.parametrize("name", ["noise", "noise10", "few", "seen"])
def test_an_unknown_condition(name):
    """A condition that there isn't is bad input, and those that there are are named."""
    with pytest.raises(InputError, match=f"no condition '{name}': give noise20"):
        conditions.apply(name, mock_data.dataset())


# ------------------------------------------------------------------------------------------------------------ what is planned


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_four_trials(method, tmp_path):
    """They are two learning rates by two choices, all different, and of each the config is as it should be."""
    tasks = compare.trials(method, tmp_path, validation=100, split={})
    assert [task.trial for task in tasks] == [0, 1, 2, 3]
    assert len({task.path for task in tasks}) == 4
    choices = [{key: task.changes[key] for key in task.changes if key != "optim.learning_rate"} for task in tasks]
    assert [task.changes["optim.learning_rate"] for task in tasks] == [rate for rate in compare.RATES for _ in range(2)]
    assert choices[:2] == choices[2:]
    assert choices[0] != choices[1]
    configs = [compare.config_of(task, compare.arguments(command(tmp_path))) for task in tasks]
    for config in configs:
        config_check.check(config)
        assert (config.method, config.bits, config.seed, config.data.validation) == (method, 24, 0, 100)
    assert len({config_module.sha256(config) for config in configs}) == 4


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_the_best_trial(tmp_path_factory, maps):
    """The trial with the highest mAP is taken, the first one of equals."""
    folder = tmp_path_factory.mktemp("trials")
    for task, value in zip(compare.trials("csq", folder, validation=0, split={}), maps, strict=True):
        task.path.parent.mkdir(exist_ok=True)
        task.path.write_text(json.dumps({"map": value, "config_sha256": ""}))
    assert compare.best_trial(folder, "csq").trial == maps.index(max(maps))


def test_runs_take_the_best_settings(tmp_path):
    """A run for each method, code length and seed, each in a file of its own, with its method's settings."""
    given_ = compare.arguments([*command(tmp_path), "--bits=8,16", "--seeds=0,3"])
    best = {method: compare.trials(method, tmp_path, validation=0, split={})[2] for method in ("adsq", "csq")}
    tasks = compare.runs(tmp_path, best, given_, condition="few20")
    assert {(task.method, task.bits, task.seed) for task in tasks} == {(m, b, s) for m in best for b in (8, 16) for s in (0, 3)}
    assert len({task.path for task in tasks}) == 8
    assert all(task.changes == best[task.method].changes and task.validation == 0 for task in tasks)
    assert {task.condition for task in tasks} == {"few20"}


def test_variants_are_one_change_each(tmp_path):
    """Every variant's config passes the check and is another than plain ADSQ's; without a twin the query net is f."""
    given_ = compare.arguments(command(tmp_path, "--variants=all"))
    plain = compare.trials("adsq", tmp_path, validation=0, split={})[0]
    tasks = compare.variant_tasks(tmp_path, plain, given_)
    same = {"neighbours alone", "no label_codes"}  # the first choice is so already
    assert [task.variant for task in tasks] == [name for name in variants.VARIANTS if name not in same]
    configs = {task.variant: compare.config_of(task, given_) for task in tasks}
    shas = {config_module.sha256(config) for config in configs.values()}
    assert len(shas | {config_module.sha256(compare.config_of(tasks[0]._replace(changes=plain.changes), given_))}) == 18
    assert configs["no twin"].eval.query_net == "ff"


def test_a_fingerprint_is_of_all_but_the_place_of_the_features(tmp_path):
    """Another --work gives the same one, another knob another; the config stays as it was."""
    configs = []
    for work in ("a", "b"):
        arguments = [f"--config={ROOT / 'configs' / 'emoji_frozen.py'}", f"--work={tmp_path / work}"]
        configs.append(compare.config_of(compare.Task(Path(), "csq", 8, 0, {}), compare.arguments(arguments)))
    one, other = configs
    assert one.data.feature_cache != other.data.feature_cache
    assert compare.fingerprint(one) == compare.fingerprint(other) != config_module.sha256(one)
    assert one.data.feature_cache == str(tmp_path / "a" / "features")
    other.seed = 1
    assert compare.fingerprint(one) != compare.fingerprint(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b=3", ("a.b", 3)), ("a=1e-3", ("a", 1e-3)), ("a=False", ("a", False)), ("a=", ("a", "")), ("a=b=c", ("a", "b=c"))],
)
def test_read_knob(text, expected):
    """Literals of Python become values, all else stays text, and only the first = divides."""
    found = compare.read_knob(text)
    assert found == expected
    assert type(found[1]) is type(expected[1])


def test_a_knob_without_a_value():
    """Without = it is bad input."""
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        compare.read_knob("train.rounds")


def test_chosen_methods():
    """All is ADSQ and every baseline; names are taken in their order, each once."""
    assert compare.chosen_methods("all") == list(METHODS)
    assert compare.chosen_methods("dsh,adsq,dsh") == ["dsh", "adsq"]


@given(st.lists(st.integers(-5, 300), min_size=1))
def test_numbers(values):
    """Numbers come back in their order, each once."""
    assert compare.numbers(",".join(map(str, values))) == tuple(dict.fromkeys(values))


# -------------------------------------------------------------------------------------------------------------------- one run


def check_run(run):
    """What holds of every run's JSON, whatever its method."""
    assert run["map"] == pytest.approx(np.mean(run["ap"]) / 1e4, abs=1e-4)
    assert len(run["ap"]) == run["n_query"]
    if run["method"] == "adsq":
        assert run["query_net"] == "sum"
        assert np.mean(run["ap_f"]) / 1e4 == pytest.approx(run["map_by_query_net"]["ff"], abs=1e-4)
        assert run["map"] == run["map_by_query_net"]["sum"]
    else:
        assert "ap_f" not in run
    assert "condition" in run
    assert run["memory_mib"] > 0


def test_two_runs_in_this_process(tmp_path, monkeypatch):
    """A baseline's and ADSQ's JSON are what the report reads, and nothing else is left of the runs."""
    monkeypatch.setattr(compare.jax, "clear_caches", lambda: None)  # of the other tests too
    given_ = compare.arguments(command(tmp_path, "--set=eval.batch_size=256"))
    folder = tmp_path / "out" / "digits"
    best = {method: compare.trials(method, folder, validation=0, split={})[1] for method in ("classify", "adsq")}
    tasks = compare.runs(folder / "runs", best, given_)
    maps = [compare.do(task, given_) for task in tasks]
    (found,) = scores.read(tmp_path / "out")
    assert {run["method"]: run["map"] for run in found.runs} == dict(zip(best, maps, strict=True))
    for run in found.runs:
        check_run(run)
        assert run.keys() >= scores.RUN_KEYS.keys()
        assert "train.rounds 1, " in run["settings_of_all"]
        assert run["settings_of_all"].endswith("eval.batch_size 256")
    assert sorted(path.name for path in (folder / "runs").iterdir()) == sorted(task.path.name for task in tasks)
    assert [path.name for path in given_.work.iterdir() if path.is_dir()] == []
    with monkeypatch.context() as nothing:
        nothing.setattr(compare, "ProcessPoolExecutor", None)
        compare.work(tasks, given_)  # nothing is left to run


def write_lists(folder, **parts):
    folder.mkdir()
    for part, rows in parts.items():
        (folder / f"{part}.txt").write_text("".join(f"{row}.png {row % 2} {1 - row % 2}\n" for row in rows))


def own_split(tmp_path, *, train):
    """Arguments of a comparison over lists of 8 pictures to train on, tuned on a split of its own."""
    for row in range(20):
        Image.new("RGB", (8, 8), (12 * row, 0, 0)).save(tmp_path / f"{row}.png")
    write_lists(tmp_path / "whole", query=range(2), train=range(2, 10), database=range(2, 20))
    write_lists(tmp_path / "tuned", query=(2, 3), train=train, database=(4, 5))
    given_ = [f"--config={ROOT / 'configs' / 'lists.py'}", "--methods=csq", f"--out={tmp_path / 'out'}"]
    sets = (f"data.directory='{tmp_path}'", f"data.lists='{tmp_path / 'whole'}'", "train.batch_size=2")
    given_ += [*(f"--set={knob}" for knob in sets), f"--held-out=data.lists='{tmp_path / 'tuned'}'"]
    return compare.arguments(given_)


def test_trials_take_the_split_that_is_given(tmp_path, monkeypatch):
    """--held-out: the trials' config has that split and draws none, the JSON counts what is held out; runs have the whole."""
    asked = []
    monkeypatch.setattr(compare, "work", lambda tasks, _: asked.append(tasks))
    monkeypatch.setattr(compare, "left", lambda _: {"map": 0.5})
    given_ = own_split(tmp_path, train=range(6, 10))
    compare.run(given_)
    tune, runs = asked
    for task in tune:
        config = compare.config_of(task, given_)
        assert (config.data.lists, config.data.validation) == (str(tmp_path / "tuned"), 0)
        assert task.validation == 4
    assert {compare.config_of(task, given_).data.lists for task in runs} == {str(tmp_path / "whole")}


def test_a_split_to_tune_on_has_training_images_alone(tmp_path):
    """An image of the protocol's database in it, which isn't trained on, is named."""
    with pytest.raises(InputError, match=r"--held-out: 12\.png is no training image of "):
        compare.run(own_split(tmp_path, train=(6, 7, 12)))


def test_a_run_that_fails_leaves_no_json(tmp_path, monkeypatch):
    """What a run raises comes out, and its folder and JSON aren't there."""
    given_ = compare.arguments(command(tmp_path))
    task = compare.trials("classify", tmp_path, validation=100, split={})[0]
    monkeypatch.setattr(compare.main, "run", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(compare.jax, "clear_caches", lambda: None)
    with pytest.raises(ZeroDivisionError):
        compare.do(task, given_)
    assert not task.path.exists()
    assert [path.name for path in given_.work.iterdir() if path.is_dir()] == []


def test_a_trial_that_diverges_is_the_worst(tmp_path, monkeypatch):
    """A loss that isn't finite: a trial's JSON says so with mAP 0, so that no run takes it; a run is an error."""

    def diverge(*_, **__):
        raise NotFinite("network f, step 3: loss not finite")

    given_ = compare.arguments(command(tmp_path))
    monkeypatch.setattr(compare.main, "run", diverge)
    monkeypatch.setattr(compare.jax, "clear_caches", lambda: None)
    trial = compare.trials("classify", tmp_path, validation=100, split={})[0]
    assert compare.do(trial, given_) == 0
    found = scores.read_json(trial.path, scores.TRIAL_KEYS)
    assert (found["failed"], found["validation"]) == ("network f, step 3: loss not finite", 100)
    assert compare.left(trial.path)["config_sha256"] == config_module.sha256(compare.config_of(trial, given_))
    run = compare.runs(tmp_path, {"classify": trial}, given_)[0]
    with pytest.raises(NotFinite):
        compare.do(run, given_)
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [(NotFinite("step 3"), "a.json: step 3"), (BrokenProcessPool(), r"a.json or a run beside it was killed")],
)
def test_how_a_run_ended_is_told_with_its_name(error, expected):
    """What a worker raises, and that it was killed, is one line that names the JSON; what isn't bad input comes as it is."""
    task, done = compare.Task(Path("a.json"), "csq", 8, 0, {}), Future()
    done.set_exception(error)
    with pytest.raises(InputError, match=expected):
        compare.outcome(done, task)
    done = Future()
    done.set_result(0.5)
    assert compare.outcome(done, task) == 0.5


@pytest.mark.slow
def test_a_comparison_end_to_end(tmp_path):
    """Trials and runs of two methods are what the report wants, and the same command again runs nothing."""
    given_ = command(tmp_path, methods="classify,adsq")
    status, told = finished(given_)
    assert status == 0, told
    (found,) = scores.read(tmp_path / "out")
    assert (len(found.trials), len(found.runs)) == (8, 2)
    for run in found.runs:
        check_run(run)
        trials = [trial for trial in found.trials if trial["method"] == run["method"]]
        assert run["trial"] == max(trials, key=lambda trial: trial["map"])["trial"]
    before = files(tmp_path / "out")
    assert finished(given_) == (0, "")
    assert files(tmp_path / "out") == before
    status, told = finished([*given_, "--set=train.batch_size=50"])
    assert status == 2
    assert told.startswith("error: ")
    assert "is of another config" in told
    assert told.count("\n") == 1
    assert files(tmp_path / "out") == before


@pytest.mark.slow
def test_killed_and_given_again(tmp_path):
    """After kill -9 of all its processes every JSON is whole, and the same command keeps these and completes."""
    given_ = command(tmp_path)
    with start(given_) as process:
        wait_for(lambda: files(tmp_path / "out"))
        wait_for(lambda: list((tmp_path / "work").glob("classify_1_*")))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    before = files(tmp_path / "out")
    assert 1 <= len(before) < 5
    assert all(json.loads(text)["map"] >= 0 for text, _ in before.values())
    status, told = finished(given_)
    assert status == 0, told
    assert len(files(tmp_path / "out")) == 5
    assert files(tmp_path / "out").items() >= before.items()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(tmp_path, number):
    """Ctrl-C, or SIGTERM to the command alone, ends its workers at once: no process, no folder and no traceback stays."""
    with start(command(tmp_path, "--jobs=2")) as process:
        wait_for(lambda: len(list((tmp_path / "work").glob("classify_*"))) == 2)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.terminate()
        began = time.monotonic()
        told = process.communicate(timeout=120)[1]
        assert time.monotonic() - began < 60  # a second, on a machine of its own
        wait_for(lambda: not alive(process.pid), seconds=10)
    assert process.returncode == 128 + number
    assert "Traceback" not in told
    assert told.endswith("stopped: the same command goes on\n") == (number == signal.SIGINT)
    assert list((tmp_path / "work").glob("classify_*")) == []


def alive(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


# ------------------------------------------------------------------------------------------------------------------ bad input

BAD = {
    "--methods=nope": "no method 'nope'",
    "--methods=": "no method ''",
    "--bits=0": "config.bits=0 must be 1 to",
    "--bits=x": None,
    "--seeds=-1": "config.seed=-1 must be 0 to",
    "--seeds=0,-1": "config.seed=-1 must be 0 to",
    "--seeds=": None,
    "--config=configs/nope.py": "is no file of configs/",
    "--config=nope": "is no file of configs/",
    f"--config={DIGITS}:nope=1": "config argument 'nope=1' is unknown",
    f"--config={ROOT / 'setup.cfg'}": "is no file of configs/",
    f"--config={ROOT / 'benchmarks' / 'variants.py'}": "gives no config: AttributeError",
    "--set=nope=1": "config.nope isn't a knob",
    "--set=train.nope=1": "config.train.nope isn't a knob",
    "--set=train.rounds": "expected KEY=VALUE",
    "--set=train.rounds=x": "train.rounds='x' can't be set",
    "--set=train.rounds=1.5": "train.rounds=1.5 can't be set",
    "--set=train.rounds=0": "config.train.rounds=0 must be at least 1",
    "--set=train=1": "train=1 can't be set",
    "--set=train.rounds={[]:1}": "train.rounds='{[]:1}' can't be set",
    f"--set=train.rounds={20_000 * '-'}1": "can't be set",
    "--set=bits=12": "--set bits: each run has its own, by --methods, --bits",
    "--set=optim.learning_rate=0.5": "--set optim.learning_rate: each run has its own",
    "--set=eval.query_net=ff": "--set eval.query_net: each run has its own",
    "--validation=101": "--validation=101 must be an even number",
    "--validation=-2": "--validation=-2 must be an even number",
    "--validation=100000": "--validation=100000 must be an even number, at least 2 and below the 1000",
    "--held-out=data.validation=100": "--validation and --held-out both say",
    "--held-out=train.rounds=1": "--held-out train.rounds: expected a knob of config.data",
    "--jobs=0": "--jobs=0 must be at least 1",
    "--jobs=x": None,
    "--variants=nope": "no nope in benchmarks/methods/variants.py",
    "--variants=all": "give --methods=adsq",
    "--beyond=nope": "no condition 'nope'",
    "--beyond=": "no condition ''",
    "--nope": None,
}


@pytest.mark.parametrize(("bad", "expected"), BAD.items())
def test_bad_input(tmp_path, monkeypatch, capsys, bad, expected):
    """It is said in one line, or by argparse with exit status 2, before anything is trained or written."""
    monkeypatch.setattr(compare, "ProcessPoolExecutor", None)
    if expected is None:
        with pytest.raises(SystemExit) as left:
            compare.arguments(command(tmp_path, bad))
        assert left.value.code == 2
        assert "error: " in capsys.readouterr().err
        return
    with pytest.raises(InputError) as caught:
        compare.run(compare.arguments(command(tmp_path, bad)))
    assert expected in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("gives", "said"), [("None", "NoneType"), ("{}", "dict")])
def test_a_config_that_is_none(tmp_path, gives, said):
    """A file whose get_config gives something else is told."""
    (tmp_path / "wrong.py").write_text(f"def get_config(argument):\n    return {gives}\n")
    with pytest.raises(InputError, match=f"get_config gives {said}, not a ConfigDict"):
        compare.run(compare.arguments(command(tmp_path, f"--config={tmp_path / 'wrong.py'}")))


def test_conditions_are_run_once(tmp_path):
    """A condition that is given twice is one."""
    assert compare.arguments(command(tmp_path, "--beyond=few20,unseen,few20")).beyond == ("few20", "unseen")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"map": "x", "config_sha256": ""}', '{"map": 1.0}'])
def test_a_damaged_json(tmp_path, content):
    """A file that isn't a run's result is named, and stays as it is."""
    path = tmp_path / "out" / "digits" / "trials" / "classify_1.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(InputError, match=r"classify_1\.json is no result of a run: remove it"):
        compare.run(compare.arguments(command(tmp_path)))
    assert path.read_text() == content


def test_a_json_of_another_config(tmp_path):
    """A run with other settings is refused before anything is trained."""
    path = tmp_path / "out" / "digits" / "trials" / "classify_1.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"map": 0.5, "config_sha256": "0"}')
    with pytest.raises(InputError, match=r"classify_1\.json is of another config: remove it, or give another --out"):
        compare.run(compare.arguments(command(tmp_path)))


def test_a_folder_that_cannot_be_made(tmp_path):
    """A file where the folder of results should be is said before anything is trained."""
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=r"out.* can't be made .*: give another --out or --work"):
        compare.run(compare.arguments(command(tmp_path)))


def test_bad_input_of_the_command(tmp_path):
    """The command itself ends with status 2 and one line that begins with `error: `."""
    status, told = finished(command(tmp_path, "--beyond=nope"))
    assert status == 2
    assert told.startswith("error: no condition 'nope'")
    assert told.count("\n") == 1
