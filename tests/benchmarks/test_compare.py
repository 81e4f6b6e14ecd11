"""The comparison of methods: conditions, planned trials and runs, a run end to end, kills, and bad input."""

import contextlib
import dataclasses
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import mock_data

from adsq_jax import config as config_module
from adsq_jax import config_check, methods
from adsq_jax.data import datasets
from adsq_jax.errors import InputError
from adsq_jax.run import codes_folder
from adsq_jax.training import NotFinite
from benchmarks.methods import compare, conditions, one_run, run_file, scores, tasks, variants

pytestmark = pytest.mark.benchmark
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "configs" / "digits.py"
TINY = ("--set=train.rounds=1", "--set=train.epochs_per_round=1", "--set=model.width=4", "--set=model.features=16")
SPLIT = {"folds": [tasks.Fold(100)]}


def command(tmp_path, *more, methods="classify"):
    """Return the arguments of a small comparison on digits."""
    places = (f"--out={tmp_path / 'out'}", f"--work={tmp_path / 'work'}")
    return [f"--config={DIGITS}", f"--methods={methods}", "--bits=8", "--seeds=0,", "--validation=100", *TINY, *places, *more]


def options(arguments):
    """Return what a command line asks for."""
    return compare.Options(**compare.arguments(arguments))


@contextlib.contextmanager
def start(arguments):
    """Start the command in its own process group, and kill what is left of it."""
    whole = [sys.executable, "-m", "benchmarks.methods.compare", *arguments]
    with subprocess.Popen(whole, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finished(arguments):
    """Run the command to its end; return its exit status and stderr."""
    with start(arguments) as process:
        stderr = process.communicate(timeout=600)[1]
    return process.returncode, stderr


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def lines(tmp_path):
    """Return the lines of the results."""
    path = tmp_path / "out" / "digits" / "runs.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def put(tmp_path, *lines):
    """Write the file of results; return its path."""
    path = tmp_path / "out" / "digits" / "runs.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(line + "\n" for line in lines))
    return path


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


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_method_has_four_trials(method, tmp_path):
    """They are two learning rates by two choices, all different, and of each the config is as it should be."""
    trials = tasks.trials(method, **SPLIT)
    assert [task.trial for task in trials] == [0, 1, 2, 3]
    assert len({task.name for task in trials}) == 4
    choices = [{key: task.changes[key] for key in task.changes if key != "optim.learning_rate"} for task in trials]
    assert [task.changes["optim.learning_rate"] for task in trials] == [rate for rate in tasks.RATES for _ in range(2)]
    assert choices[:2] == choices[2:]
    assert choices[0] != choices[1]
    configs = [tasks.config_of(task, options(command(tmp_path))) for task in trials]
    for config in configs:
        config_check.check(config)
        assert (config.method, config.bits, config.seed, config.data.validation) == (method, 24, 0, 100)
    assert len({config_module.sha256(config) for config in configs}) == 4


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_the_best_trial(maps):
    """Runs take the settings of the trial with the highest mAP, the first one of equals."""
    trials, wanted = tasks.trials("csq", **SPLIT), []
    finished = {task.name: {"map": value} for task, value in zip(trials, maps, strict=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "folds_of", lambda _: [tasks.Fold(100)])
        patch.setattr(compare, "read_finished", lambda _: finished)
        patch.setattr(compare, "work", lambda several, *_: wanted.append(several))
        compare.run(options(command(Path("unused"), methods="csq")))
    assert wanted[0] == trials
    assert [task.trial for task in wanted[1]] == [maps.index(max(maps))]
    assert not wanted[1][0].validation


def test_runs_take_the_best_settings(tmp_path):
    """A run for each method, code length and seed, each with its own name, with its method's settings."""
    given_ = options([*command(tmp_path), "--bits=8,16", "--seeds=0,3"])
    best = {method: tasks.trials(method, folds=[tasks.Fold(0)])[2] for method in ("adsq", "csq")}
    runs = tasks.runs(best, given_, condition="few20")
    assert {(task.method, task.bits, task.seed) for task in runs} == {(m, b, s) for m in best for b in (8, 16) for s in (0, 3)}
    assert len({task.name for task in runs}) == 8
    assert all(task.changes == best[task.method].changes and task.validation == 0 for task in runs)
    assert {task.condition for task in runs} == {"few20"}


def test_variants_are_one_change_each(tmp_path):
    """Every variant's config passes the check and is another than plain ADSQ's; without a twin the query net is f."""
    given_ = options(command(tmp_path, "--variants=all"))
    plain = tasks.trials("adsq", folds=[tasks.Fold(0)])[0]
    runs = tasks.variant_runs(plain, given_)
    same = {
        "not separated",
        "head layer_norm",
        "no likelihood",
        "with neighbours",
        "no code_guidance",
        "no bit_likelihood",
        "with consistency",
        "no label_codes",
    }  # as in the first trial
    assert [task.variant for task in runs] == [name for name in variants.VARIANTS if name not in same]
    configs = {task.variant: tasks.config_of(task, given_) for task in runs}
    shas = {config_module.sha256(config) for config in configs.values()}
    assert len(shas | {config_module.sha256(tasks.config_of(runs[0]._replace(changes=plain.changes), given_))}) == 1 + len(runs)
    assert configs["no twin"].eval.query_net == "ff"


def test_a_fingerprint_is_of_all_but_the_place_of_the_features(tmp_path):
    """Another --work gives the same one, another value of a key another; the config stays as it was."""
    configs = []
    for work in ("a", "b"):
        arguments = [f"--config={ROOT / 'configs' / 'emoji_frozen.py'}", f"--work={tmp_path / work}"]
        configs.append(tasks.config_of(tasks.Task("csq", 8, 0, {}), options(arguments)))
    one, other = configs
    assert one.data.feature_cache != other.data.feature_cache
    assert tasks.fingerprint(one) == tasks.fingerprint(other) != config_module.sha256(one)
    assert one.data.feature_cache == str(tmp_path / "a" / "features")
    other.seed = 1
    assert tasks.fingerprint(one) != tasks.fingerprint(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b=3", ("a.b", 3)), ("a=1e-3", ("a", 1e-3)), ("a=False", ("a", False)), ("a=", ("a", "")), ("a=b=c", ("a", "b=c"))],
)
def test_read_setting(text, expected):
    """Python literals become values, all else stays text, and only the first = divides."""
    setting = tasks.read_setting(text)
    assert setting == expected
    assert type(setting[1]) is type(expected[1])


@pytest.mark.parametrize(
    ("given_", "folds"),
    [
        ("", []),
        ("lists=A", [{"lists": "A"}]),
        ("lists=A seed=1", [{"lists": "A", "seed": 1}]),
        ("lists=A lists=B", [{"lists": "A"}, {"lists": "B"}]),
        ("seed=1 lists=A lists=B", [{"seed": 1, "lists": "A"}, {"seed": 1, "lists": "B"}]),
        ("lists=A seed=1 lists=B seed=2", [{"lists": "A", "seed": 1}, {"lists": "B", "seed": 2}]),
    ],
)
def test_read_folds(given_, folds):
    """A key that is given again begins a further split; the others stay, in any order."""
    assert tasks.read_folds(map(tasks.read_setting, given_.split())) == folds


def test_a_setting_without_a_value():
    """Without = it is bad input."""
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        tasks.read_setting("train.rounds")


def test_which_methods_variants_and_budgets(tmp_path):
    """All is every known one; names keep their order, each once; a dotted name is a method of one's own."""
    assert options(command(tmp_path, methods="all")).methods == list(methods.METHODS)
    assert options(command(tmp_path, methods="dsh,adsq,dsh")).methods == ["dsh", "adsq"]
    assert options(command(tmp_path, methods="dsh,adsq_jax.methods.csq")).methods == ["dsh", "csq"]
    assert options(command(tmp_path, "--variants=all")).variants == list(variants.VARIANTS)
    assert options(command(tmp_path, "--budget=all")).budgets == list(tasks.BUDGETS)


@given(st.lists(st.integers(-5, 300), min_size=1))
def test_numbers(values):
    """Numbers come back in their order, each once, with or without a comma at the end."""
    text = ",".join(map(str, values))
    assert compare.numbers(text) == compare.numbers(f"{text},") == tuple(dict.fromkeys(values))


@pytest.mark.parametrize(("text", "expected"), [("2", (0, 1)), ("1", (0,)), ("0,", (0,)), ("5,", (5,)), ("0,3", (0, 3))])
def test_a_number_of_seeds_or_a_list(text, expected):
    """One number is how many; with a comma they are the seeds themselves."""
    assert compare.seeds(text) == expected


def test_the_function_has_the_options_and_their_defaults():
    """Every option is a named argument of `compare`, with the same default; a number of seeds is 0 upwards there too."""
    parameters = inspect.signature(compare.compare).parameters
    fields = {field.name: field for field in dataclasses.fields(tasks.Options)}
    assert parameters.keys() == fields.keys()
    plain = tasks.Options(config="configs/digits.py", methods=("csq",))
    for name in parameters.keys() - {"config", "methods", "settings", "held_out", "variants", "budgets"}:
        assert parameters[name].default == getattr(plain, name), name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "run", lambda options: options)
        patch.setattr(compare, "table", lambda options, _: options)
        assert list(compare.compare(str(DIGITS), seeds=2).seeds) == [0, 1]
        assert compare.compare(str(DIGITS), seeds=(4,)).seeds == (4,)


@pytest.mark.parametrize("count", range(5))
def test_the_first_trials(tmp_path, monkeypatch, count):
    """--trials=N has the first N of the four; without any, nothing is held out and the config keeps its settings."""
    asked = []
    monkeypatch.setattr(compare, "folds_of", lambda _: [tasks.Fold(100)])
    monkeypatch.setattr(compare, "work", lambda several, *_: asked.append(several))
    monkeypatch.setattr(compare, "read_finished", lambda _: {task.name: {"map": 0.5} for task in asked[0]})
    given_ = options([text for text in command(tmp_path, methods="csq") if "--validation" not in text] + [f"--trials={count}"])
    compare.run(given_)
    assert asked[:-1] == ([tasks.trials("csq", **SPLIT)[:count]] if count else [])
    ((task,),) = asked[-1:]
    assert task.trial == (0 if count else None)
    config = tasks.config_of(task, given_)
    default = config_module.default(method="csq")
    assert (config.optim.learning_rate == default.optim.learning_rate) == (not count)
    assert config.data.validation == 0
    if not count:
        assert config.baseline == default.baseline


def test_the_budget_of_twice_the_epochs(tmp_path):
    """It doubles the rounds, changes nothing else, and gives the run a name of its own."""
    given_ = options(command(tmp_path, "--budget=double"))
    plain, double = tasks.Task("csq", 8, 0, {}), tasks.Task("csq", 8, 0, {}, budget="double")
    configs = [tasks.config_of(task, given_) for task in (plain, double)]
    assert [config.train.rounds for config in configs] == [1, 2]
    configs[1].train.rounds = 1
    assert configs[0] == configs[1]
    assert double.name == "csq double, 8 bits, seed 0"


def test_two_networks_are_the_sum_of_two_seeds(tmp_path, monkeypatch):
    """Codes are the signs of the summed relaxed codes of a seed and of the seed 1,000 later, each from its own encoder."""
    dataset = mock_data.dataset()
    relaxed = {seed: np.random.default_rng(seed).normal(size=(len(dataset.source), 8)).astype(np.float32) for seed in (3, 1003)}

    def train(setup, **_):
        encoder = lambda variables, rows: relaxed[setup.seed][rows] * variables  # noqa: E731
        return SimpleNamespace(encoder=encoder, devices=setup.devices), SimpleNamespace(variables={"f": 2.0}), 0.0

    monkeypatch.setattr(one_run.loop, "train", train)
    config = mock_data.small_config(method="csq")
    config.update(bits=8, seed=3)
    result = one_run.two_networks(config, conditions.Pair(dataset, dataset), tmp_path, began=time.monotonic())
    packed, _, _ = codes_folder.read(tmp_path / "codes")
    for part in ("query", "database"):
        rows = getattr(dataset.split, part)
        for net, summed in (("f", relaxed[3]), ("g", relaxed[1003]), ("sum", relaxed[3] + relaxed[1003])):
            expected = np.packbits(summed[rows] >= 0, axis=1, bitorder="little")
            np.testing.assert_array_equal(packed[part][net], expected)
    assert result["map"] == result["map_by_query_net"]["sum"]
    assert result["query_net"] == "sum"
    assert config.seed == 3


# -------------------------------------------------------------------------------------------------------------------- one run


def check_run(run):
    """Check what holds for every run's line, whatever its method."""
    assert run["map"] == pytest.approx(np.mean(run["ap"]) / 1e4, abs=1e-4)
    assert len(run["ap"]) == run["n_query"]
    if run["method"] == "adsq" or run["budget"] == "two_nets":
        assert run["query_net"] == "sum"
        assert np.mean(run["ap_f"]) / 1e4 == pytest.approx(run["map_by_query_net"]["ff"], abs=1e-4)
        assert run["map"] == run["map_by_query_net"]["sum"]
    else:
        assert "ap_f" not in run
    assert "condition" in run
    assert run["memory_mib"] > 0


# Trains two methods, of other sizes than other tests, and one of them twice more.
def test_a_comparison_in_this_process(tmp_path, monkeypatch):
    """The function trains without tuning, the lines are what the report reads, and nothing else is left of the runs.

    Of two networks, the first one is the plain run's.
    """
    monkeypatch.setattr(one_run.jax, "clear_caches", lambda: None)  # the other tests use them too
    monkeypatch.setattr(compare, "ProcessPoolExecutor", InlinePool)
    asked = compare.arguments([text for text in command(tmp_path, "--set=eval.batch_size=256") if "--validation" not in text])
    asked |= {"trials": 0, "methods": ["classify", "adsq"], "against": "classify"}
    text = compare.compare(**asked)
    assert [line.split("  ")[0] for line in text.splitlines()[1:]] == ["method", *read_rows(tmp_path)]
    text += compare.compare(**asked | {"methods": ["classify"], "budgets": ["two_nets"]})
    assert "Classification, two networks  0." in text
    (read,) = scores.read(tmp_path / "out")
    runs = {(run["method"], run["budget"]): run for run in read.runs}
    assert list(runs) == [("adsq", ""), ("classify", ""), ("classify", "two_nets")]
    for run in runs.values():
        check_run(run)
        assert run.keys() >= scores.RUN_KEYS.keys()
        assert run["trial"] is None
        assert "train.rounds 1, " in run["settings_of_all"]
        assert run["settings_of_all"].endswith("eval.batch_size 256")
    assert runs["classify", "two_nets"]["map_by_query_net"]["ff"] == runs["classify", ""]["map"]
    assert [file.name for file in (tmp_path / "out" / "digits").iterdir()] == ["runs.jsonl"]
    assert [file.name for file in (tmp_path / "work").iterdir() if file.is_dir()] == []
    monkeypatch.setattr(compare, "ProcessPoolExecutor", None)
    compare.compare(**asked)  # nothing is left to run


def read_rows(tmp_path):
    """Return the rows of the table of a data set's runs."""
    (read,) = scores.read(tmp_path / "out")
    return list(read.table)


def write_lists(folder, **parts):
    folder.mkdir()
    for part, rows in parts.items():
        (folder / f"{part}.txt").write_text("".join(f"{row}.png {row % 2} {1 - row % 2}\n" for row in rows))


def own_split(tmp_path, *, train, more=None):
    """Return the arguments of a comparison over lists of 8 training pictures with a split for tuning, or two of them."""
    for row in range(20):
        Image.new("RGB", (8, 8), (12 * row, 0, 0)).save(tmp_path / f"{row}.png")
    write_lists(tmp_path / "whole", query=range(2), train=range(2, 10), database=range(2, 20))
    write_lists(tmp_path / "tuned", query=(2, 3), train=train, database=(4, 5))
    given_ = [f"--config={ROOT / 'configs' / 'lists.py'}", "--methods=csq", f"--out={tmp_path / 'out'}"]
    sets = (f"data.directory='{tmp_path}'", f"data.lists='{tmp_path / 'whole'}'", "train.batch_size=2")
    given_ += [*(f"--set={setting}" for setting in sets), f"--held-out=data.lists='{tmp_path / 'tuned'}'"]
    if more is not None:
        write_lists(tmp_path / "more", query=(8, 9), train=more, database=(4, 5))
        given_ += ["--held-out=data.protocol='own'", f"--held-out=data.lists='{tmp_path / 'more'}'"]
    return options(given_)


def test_trials_take_the_split_that_is_given(tmp_path, monkeypatch):
    """--held-out: the trials' config has that split and draws none, the line counts what is held out; runs have the whole."""
    asked = []
    monkeypatch.setattr(compare, "work", lambda several, *_: asked.append(several))
    monkeypatch.setattr(compare, "read_finished", lambda _: {task.name: {"map": 0.5} for task in asked[0]})
    given_ = own_split(tmp_path, train=range(6, 10))
    compare.run(given_)
    trials, runs = asked
    for task in trials:
        config = tasks.config_of(task, given_)
        assert (config.data.lists, config.data.validation) == (str(tmp_path / "tuned"), 0)
        assert task.validation == 4
    assert {tasks.config_of(task, given_).data.lists for task in runs} == {str(tmp_path / "whole")}


def test_trials_are_tuned_on_the_mean_of_their_folds(tmp_path, monkeypatch):
    """--held-out with a key that was given: a further split; each trial has both, and the highest mean is chosen."""
    asked, maps = [], {}
    monkeypatch.setattr(compare, "work", lambda several, *_: asked.append(several))
    monkeypatch.setattr(
        compare, "read_finished", lambda _: {task.name: {"map": maps[task.trial, task.fold]} for task in asked[0]}
    )
    maps |= {(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.5, (1, 1): 0.6, (2, 0): 0.0, (2, 1): 1.0, (3, 0): 0.6, (3, 1): 0.4}
    given_ = own_split(tmp_path, train=range(6, 10), more=(2, 3, 6))
    assert [fold["data.lists"] for fold in given_.held_out] == [str(tmp_path / "tuned"), str(tmp_path / "more")]
    compare.run(given_)
    trials, runs = asked
    assert [(task.trial, task.fold, task.validation) for task in trials] == [
        (trial, fold, held) for trial in range(4) for fold, held in enumerate((4, 5))
    ]
    assert len({task.name for task in trials}) == 8
    for task in trials:
        assert tasks.config_of(task, given_).data.lists == str(tmp_path / ("more" if task.fold else "tuned"))
    assert {(task.trial, task.fold) for task in runs} == {(1, 0)}
    assert {tasks.config_of(task, given_).data.lists for task in runs} == {str(tmp_path / "whole")}


def test_a_split_to_tune_on_has_training_images_alone(tmp_path):
    """An image of the protocol's database in it, which isn't trained on, is named."""
    with pytest.raises(InputError, match=r"--held-out: 12\.png is no training image of "):
        compare.run(own_split(tmp_path, train=(6, 7, 12)))


def test_a_split_to_tune_on_holds_out_something(tmp_path):
    """Training on all images leaves none to tune on, and is refused."""
    given_ = own_split(tmp_path, train=range(2, 10))
    given_.settings["data.allow_overlap"] = True
    with pytest.raises(InputError, match="--held-out: it trains on all 8 training images"):
        compare.run(given_)


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """What a run raises comes out, and its folder is removed."""
    given_ = options(command(tmp_path))
    monkeypatch.setattr(one_run.main, "train_and_evaluate", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(one_run.jax, "clear_caches", lambda: None)
    with pytest.raises(ZeroDivisionError):
        one_run.train(tasks.trials("classify", **SPLIT)[0], given_)
    assert [path.name for path in given_.work.iterdir() if path.is_dir()] == []


def test_a_trial_that_diverges_is_the_worst(tmp_path, monkeypatch):
    """A loss that isn't finite: a trial's line says so with mAP 0, so that no run takes it; a run is an error."""

    def diverge(*_, **__):
        raise NotFinite("network f, step 3: loss not finite")

    given_ = options(command(tmp_path))
    monkeypatch.setattr(one_run.main, "train_and_evaluate", diverge)
    monkeypatch.setattr(one_run.jax, "clear_caches", lambda: None)
    trial = tasks.trials("classify", **SPLIT)[0]
    line = one_run.train(trial, given_)
    assert line["map"] == 0
    scores.check_line({**line, "where": "here"}, "digits")
    assert (line["failed"], line["validation"]) == ("network f, step 3: loss not finite", 100)
    assert line["config_sha256"] == config_module.sha256(tasks.config_of(trial, given_))
    with pytest.raises(NotFinite):
        one_run.train(tasks.runs({"classify": trial}, given_)[0], given_)


class InlinePool:
    """A pool that runs what is submitted at once, in this process."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def shutdown(self, **_):
        pass

    def submit(self, function, *arguments):
        done = Future()
        try:
            done.set_result(function(*arguments))
        except InputError as error:
            done.set_exception(error)
        return done


def test_two_comparisons_at_once(tmp_path, monkeypatch):
    """A run that another comparison has written meanwhile isn't written again: two lines of a run would be refused."""
    given_, path = options(command(tmp_path)), tmp_path / "runs.jsonl"
    trials, other = tasks.trials("classify", **SPLIT), [True]

    def train(task, given_):
        if other:
            other.clear()
            compare.work(trials, path, given_)
        sha256 = tasks.fingerprint(tasks.config_of(task, given_))
        return {**one_run.identity(task, given_), "map": 0.5, "config_sha256": sha256}

    monkeypatch.setattr(compare, "ProcessPoolExecutor", InlinePool)
    monkeypatch.setattr(compare.one_run, "train", train)
    compare.work(trials, path, given_)
    assert sorted(line["trial"] for line in run_file.read(path)) == [0, 1, 2, 3]
    compare.work(trials, path, given_)
    line = run_file.read(path)[0]
    with pytest.raises(InputError, match="is of another config: remove the line"):
        run_file.append(path, {**line, "config_sha256": "other"})


def test_a_failed_run_keeps_those_beside_it(tmp_path, monkeypatch):
    """The lines of all runs that finished are written, the error is raised, and the same command runs only the rest."""
    given_ = options(command(tmp_path))
    trials, path, fail, ran = tasks.trials("classify", **SPLIT), tmp_path / "runs.jsonl", [True], []

    def train(task, given_):
        ran.append(task.trial)
        if task.trial == 1 and fail:
            raise NotFinite("step 3")
        sha256 = tasks.fingerprint(tasks.config_of(task, given_))
        return {**one_run.identity(task, given_), "map": 0.5, "config_sha256": sha256}

    monkeypatch.setattr(compare, "ProcessPoolExecutor", InlinePool)
    monkeypatch.setattr(compare.one_run, "train", train)
    with pytest.raises(InputError, match="classify, trial 1: step 3"):
        compare.work(trials, path, given_)
    assert {line["trial"] for line in run_file.read(path)} == {0, 2, 3}
    fail.clear()
    compare.work(trials, path, given_)
    assert ran == [0, 1, 2, 3, 1]
    assert {line["trial"] for line in run_file.read(path)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("error", "expected"),
    [(NotFinite("step 3"), "csq, 8 bits, seed 0: step 3"), (BrokenProcessPool(), "csq, 8 bits, seed 0, or a run beside it")],
)
def test_the_error_of_a_run_names_it(error, expected):
    """What a worker raises, and that it was killed, is one line that names the run."""
    task, done = tasks.Task("csq", 8, 0, {}), Future()
    done.set_exception(error)
    with pytest.raises(InputError, match=expected):
        compare.outcome(done, task)
    done = Future()
    done.set_result({"map": 0.5})
    assert compare.outcome(done, task) == {"map": 0.5}


def check_best_run(tmp_path):
    """Check a finished comparison of one method: two trials, and a run with the best one's settings."""
    (read,) = scores.read(tmp_path / "out")
    (run,) = read.runs
    check_run(run)
    assert len(read.trials) == 2
    assert run["trial"] == max(read.trials, key=lambda trial: trial["map"])["trial"]


# Four trainings of ADSQ, each from nothing.
@pytest.mark.slow
def test_a_comparison_end_to_end(tmp_path, monkeypatch):
    """After kill -9 of all its processes the same command keeps what is finished and completes; then it runs nothing."""
    given_ = command(tmp_path, "--trials=2", methods="adsq")
    with start(given_) as process:
        wait_for(lambda: lines(tmp_path))
        wait_for(lambda: list((tmp_path / "work").glob("adsq_trial 1_*")))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    before = lines(tmp_path)
    assert 1 <= len(before) < 3
    assert all(json.loads(line)["map"] >= 0 for line in before)
    status, stderr = finished(given_)
    assert status == 0, stderr
    after = lines(tmp_path)
    assert len(after) == 3
    assert after[: len(before)] == before
    check_best_run(tmp_path)
    monkeypatch.setattr(compare, "ProcessPoolExecutor", None)  # whoever wanted to run something would fail
    compare.run(options(given_))
    with pytest.raises(InputError, match="is of another config"):
        compare.run(options([*given_, "--set=train.batch_size=50"]))
    assert lines(tmp_path) == after


# Starts the command, which starts two workers.
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(tmp_path, number):
    """Ctrl-C, or SIGTERM to the command alone, ends its workers at once: no process, no folder and no traceback stays."""
    with start(command(tmp_path, "--jobs=2")) as process:
        wait_for(lambda: len(list((tmp_path / "work").glob("classify_*"))) == 2)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.terminate()
        began = time.monotonic()
        stderr = process.communicate(timeout=120)[1]
        assert time.monotonic() - began < 60  # a second, on a machine of its own
        wait_for(lambda: not alive(process.pid), seconds=10)
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    assert stderr.endswith("stopped: repeat the command to go on\n") == (number == signal.SIGINT)
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
    "--bits=0": "config.bits=0: expected 1 to",
    "--bits=x": None,
    "--seeds=-1,": "config.seed=-1: expected 0 to",
    "--seeds=0": "--seeds: expected at least one seed, got none; fix: --seeds=3 for 0, 1 and 2, --seeds=0, for 0 alone",
    "--seeds=-1": "--seeds: expected at least one seed",
    "--trials=5": "--trials=5: expected 0 to 4",
    "--trials=-1": "--trials=-1: expected 0 to 4",
    "--trials=0": "--trials=0 asks for none: leave them out",
    "--trials=x": None,
    "--against=csq": "--against=csq: expected one of --methods=classify",
    "--budget=nope": "--budget=nope: expected all, or some of double, two_nets",
    "--budget=double --methods=csq,dadh": "--budget is for methods of one network, and dadh trains two",
    "--methods=adsq_jax.codes": "expected a method, got the module 'adsq_jax.codes'",
    "--seeds=0,-1": "config.seed=-1: expected 0 to",
    "--seeds=": None,
    "--config=configs/nope.py": "is no file of configs/",
    "--config=nope": "is no file of configs/",
    f"--config={DIGITS}:nope=1": "config argument 'nope=1' is unknown",
    f"--config={ROOT / 'setup.cfg'}": "is no file of configs/",
    f"--config={ROOT / 'benchmarks' / 'methods' / 'variants.py'}": "gives no config: AttributeError",
    "--set=nope=1": "config.nope is not a config key",
    "--set=train.nope=1": "config.train.nope is not a config key",
    "--set=train.rounds": "expected KEY=VALUE",
    "--set=train.rounds=x": "train.rounds='x' can't be set",
    "--set=train.rounds=1.5": "train.rounds=1.5 can't be set",
    "--set=train.rounds=0": "config.train.rounds=0: expected at least 1",
    "--set=train=1": "train=1 can't be set",
    "--set=train.rounds={[]:1}": "train.rounds='{[]:1}' can't be set",
    f"--set=train.rounds={20_000 * '-'}1": "can't be set",
    "--set=bits=12": "--set bits: it differs between runs",
    "--set=optim.learning_rate=0.5": "--set optim.learning_rate: it differs between runs",
    "--set=eval.query_net=ff": "--set eval.query_net: it differs between runs",
    "--validation=101": "--validation=101 must be an even number",
    "--validation=-2": "--validation=-2 must be an even number",
    "--validation=100000": "--validation=100000 must be an even number, at least 2 and below the 1000",
    "--held-out=data.validation=100": "--validation and --held-out both say",
    "--held-out=data.lists=A --held-out=data.lists=A": "--held-out: expected different splits, got one twice",
    "--held-out=train.rounds=1": "--held-out train.rounds: expected a key of config.data",
    "--jobs=0": "--jobs=0 must be at least 1",
    "--jobs=x": None,
    "--variants=nope": "--variants=nope: expected all, or some of no label_net",
    "--variants=all": "give --methods=adsq",
    "--conditions=nope": "no condition 'nope'",
    "--conditions=": "no condition ''",
    "--nope": None,
}


@pytest.mark.parametrize(("bad", "expected"), BAD.items())
def test_bad_input(tmp_path, monkeypatch, capsys, bad, expected):
    """It is one line, or argparse's error with exit status 2, before anything is trained or written."""
    monkeypatch.setattr(compare, "ProcessPoolExecutor", None)
    if expected is None:
        with pytest.raises(SystemExit) as left:
            compare.arguments(command(tmp_path, *bad.split()))
        assert left.value.code == 2
        assert "error: " in capsys.readouterr().err
        return
    with pytest.raises(InputError) as caught:
        compare.run(options(command(tmp_path, *bad.split())))
    assert expected in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("gives", "expected"), [("None", "NoneType"), ("{}", "dict")])
def test_a_config_that_is_none(tmp_path, gives, expected):
    """A file whose get_config gives something else is refused."""
    (tmp_path / "wrong.py").write_text(f"def get_config(argument):\n    return {gives}\n")
    with pytest.raises(InputError, match=f"expected a ConfigDict of get_config, got {expected}"):
        compare.run(options(command(tmp_path, f"--config={tmp_path / 'wrong.py'}")))


def test_conditions_are_run_once(tmp_path):
    """A condition that is given twice is one."""
    assert options(command(tmp_path, "--conditions=few20,unseen,few20")).conditions == ("few20", "unseen")


TRIAL = {"method": "classify", "trial": 1, "bits": 24, "seed": 0, "validation": 100, "map": 0.5, "config_sha256": "0"}


@pytest.mark.parametrize("line", ["", "{", "[]", "3", json.dumps({**TRIAL, "map": "x"}), '{"map": 1.0, "config_sha256": ""}'])
def test_a_damaged_line(tmp_path, line):
    """A line that isn't a run's result is named, and the file stays as it is."""
    path = put(tmp_path, json.dumps(TRIAL | {"trial": 0}), line)
    content = path.read_text()
    with pytest.raises(InputError, match=r"runs\.jsonl, line 2 .*remove the line"):
        compare.run(options(command(tmp_path)))
    assert path.read_text() == content


def test_two_lines_of_a_run(tmp_path):
    """They are refused."""
    put(tmp_path, json.dumps(TRIAL), json.dumps(TRIAL))
    with pytest.raises(InputError, match=r"line 2 and .*line 1 are of the same run \(classify, trial 1\): remove one"):
        compare.run(options(command(tmp_path)))


def test_a_line_of_another_config(tmp_path):
    """A run with other settings is refused before anything is trained."""
    put(tmp_path, json.dumps(TRIAL))
    with pytest.raises(InputError, match=r"line 1 \(classify, trial 1\) is of another config: remove the line"):
        compare.run(options(command(tmp_path)))


def test_a_folder_that_cannot_be_made(tmp_path):
    """A file where a folder should be is refused before anything is trained."""
    (tmp_path / "work").write_text("")
    with pytest.raises(InputError, match=r"work.* can't be made .*: give another --work"):
        compare.run(options(command(tmp_path)))
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=r"runs\.jsonl can't be read .*Not a directory"):
        compare.run(options(command(tmp_path)))


def test_bad_input_of_the_command(tmp_path):
    """The command itself ends with status 2 and one line that begins with `error: `."""
    status, stderr = finished(command(tmp_path, "--conditions=nope"))
    assert status == 2
    assert stderr.startswith("error: no condition 'nope'")
    assert stderr.count("\n") == 1
