"""Every baseline in the real loop on mock data: it learns, goes on after a stop, and its settings are the config's."""

import inspect
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import mock_data
import numpy as np
import pytest
import test_loop

from adsq_jax import config, config_check, methods
from adsq_jax.errors import InputError
from adsq_jax.methods import METHODS

ROOT = Path(__file__).parent.parent.parent
FOLDER = Path(methods.__file__).parent
RESUMED = ("greedyhash", "dsdh")  # one with parameters of its own, and one with a discrete step
ONE_NET = [name for name in METHODS if name != "dadh"]


def small_config(method):
    """Two rounds of 24 updates a network, at one learning rate; most with a frozen trunk, which compiles sooner."""
    small = mock_data.small_config(method=method)
    small.train.epochs_per_round = small.train.log_every = 6
    small.optim.schedule, small.optim.warmup = "constant", 0.0
    small.optim.trunk_lr_scale = float(method in RESUMED)
    return small


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The final state of a method's run that nobody stops, and the run's folder; once a method."""

    @cache
    def left_alone(name):
        directory = tmp_path_factory.mktemp(name)
        return test_loop.train(test_loop.build(small_config(name)), directory=directory)[0], directory

    return left_alone


@pytest.mark.parametrize("name", METHODS)
def test_two_rounds_lower_the_loss(name, whole):
    """The real loop, with discrete steps and LabelNet where they belong: the loss of the last updates is below the first."""
    state, directory = whole(name)
    method = METHODS[name].method(**METHODS[name].SETTINGS)
    assert int(state.step) == 48 * len(state.img_nets)
    assert list(state.img_nets) == (["f", "g"] if method.twin else ["f"])
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    phases = {"img_net": True, "label_net": method.label_net, "codes": method.update_codes is not None}
    assert {line["phase"] for line in lines} == {phase for phase, there in phases.items() if there}
    for net in state.img_nets:
        losses = [line["loss"] for line in lines if line.get("net") == net]
        assert len(losses) == 8
        assert np.mean(losses[-2:]) < np.mean(losses[:2]), losses


@pytest.mark.parametrize("at", [10, 30])
@pytest.mark.parametrize("name", RESUMED)
def test_stopped_and_resumed_it_ends_the_same(name, at, whole, tmp_path, monkeypatch):
    """Stopped in the first and in the second round: parameters of its own, banks and hash codes are those of a whole run."""
    trainer = test_loop.build(small_config(name))
    taken = test_loop.stop_at_batch(at, trainer, monkeypatch)
    with pytest.raises(test_loop.Stopped):
        test_loop.train(trainer, directory=tmp_path)
    assert len(taken) == at
    state, _ = test_loop.train(test_loop.build(small_config(name)), directory=tmp_path)
    assert test_loop.same(state, whole(name)[0])
    assert ("method" in state.img_nets["f"].params) == (name == "greedyhash")


@pytest.mark.parametrize("name", ["greedyhash", "classify"])
def test_a_methods_own_parameters_are_learned(name, whole):
    """The classifier's kernel and bias have moved after two rounds."""
    start = test_loop.build(small_config(name)).init().img_nets["f"].params["method"]
    after = whole(name)[0].img_nets["f"].params["method"]
    assert start.keys() == after.keys() == {"kernel", "bias"}
    for key in start:
        assert np.abs(np.asarray(after[key]) - np.asarray(start[key])).max() > 1e-4


def test_a_file_a_method_below_a_hundred_lines():
    """Each method is one short file, that METHODS lists under its name; beside them stands what the classifying ones share."""
    files = {path.stem: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    assert files.keys() == {*METHODS, "__init__", "classification", "adsq", "method", "objective"}
    assert max(files[name] for name in METHODS) < 100
    for name, module in METHODS.items():
        assert module.__name__ == f"adsq_jax.methods.{name}"
        assert methods.find(name) is module


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_the_knobs(name):
    """A file's SETTINGS are what config.baseline has and its method takes; a comment beside them says what they are."""
    module = METHODS[name]
    default = config.default(method=name)
    config_check.check(default)
    assert default.baseline.to_dict() == module.SETTINGS
    assert all(type(value) is float for value in module.SETTINGS.values())
    parameters = inspect.signature(module.method).parameters.values()
    assert {parameter.name for parameter in parameters} == module.SETTINGS.keys()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    assert re.search(r"^SETTINGS = \{.*\}  # \S", Path(module.__file__).read_text(), re.MULTILINE)
    method = module.method(**module.SETTINGS)
    assert ("label_net" in default) == method.label_net
    assert "objective" not in default
    assert default.eval.query_net == ("sum" if method.twin else "ff")


@pytest.mark.parametrize("name", METHODS)
def test_two_choices_of_settings_are_tried(name):
    """TUNING_GRID has two different choices, of knobs that there are, with values that a config may have."""
    module = METHODS[name]
    one, two = module.TUNING_GRID
    assert {**module.SETTINGS, **one} != {**module.SETTINGS, **two}
    for choice in module.TUNING_GRID:
        assert choice
        assert choice.keys() <= module.SETTINGS.keys()
        changed = config.default(method=name)
        changed.baseline.update(choice)
        config_check.check(changed)


def refusal(changed):
    """What a config is refused with; one line."""
    with pytest.raises(InputError) as error:
        config_check.check(changed)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("make", [lambda: config.default(method="nope"), lambda: mock_data.small_config(method="nope")])
def test_an_unknown_method(make):
    """A name that there isn't is answered with all that there are."""
    with pytest.raises(InputError, match=r"there is no method 'nope': give adsq or one of dsh, dpsh, .*, classify$"):
        make()


def test_an_unknown_method_in_a_config():
    """A config whose method was overwritten with a name that there isn't is refused by that knob."""
    changed = config.default(method="dhn")
    changed.method = "nope"
    assert "config.method='nope' must be one of adsq, dsh, " in refusal(changed)


@pytest.mark.parametrize("name", METHODS)
def test_a_knob_of_another_method(name):
    """Each method refuses a setting that only others have, and ADSQ's objective."""
    for knob in {knob for module in METHODS.values() for knob in module.SETTINGS} - METHODS[name].SETTINGS.keys():
        changed = config.default(method=name)
        changed.baseline[knob] = 1.0
        assert f"config.baseline.{knob} isn't a knob" in refusal(changed)
    changed = config.default(method=name)
    changed.objective = config.default().objective
    assert "config.objective." in refusal(changed)


@pytest.mark.parametrize("name", METHODS)
def test_a_negative_setting(name):
    """No setting may be below 0, infinite, or something else than a number."""
    for knob in METHODS[name].SETTINGS:
        for wrong in (-0.1, float("inf"), float("nan")):
            changed = config.default(method=name)
            changed.baseline[knob] = wrong
            assert re.search(rf"config\.baseline\.{knob}={wrong} must be (at least|above) 0", refusal(changed))


@pytest.mark.parametrize(("name", "knob"), [("dch", "gamma"), ("hashnet", "scale"), ("dseh", "cosine_scale")])
def test_a_setting_that_divides(name, knob):
    """What is divided by, or scales all logits, may not be 0."""
    changed = config.default(method=name)
    changed.baseline[knob] = 0.0
    assert f"config.baseline.{knob}=0.0 must be above 0" in refusal(changed)


def test_no_two_methods_have_the_same_knobs():
    """So a config whose method was changed too late always lacks a knob, or has one too many."""
    knobs = [frozenset(module.SETTINGS) for module in METHODS.values()]
    assert len(set(knobs)) == len(knobs)


@pytest.mark.parametrize("net", ["sum", "gg", "fg"])
@pytest.mark.parametrize("name", ONE_NET)
def test_one_network_has_no_other_to_ask(name, net):
    """query_net of a second network is refused where there is one, and ff is the way out; DADH has two."""
    changed = config.default(method=name)
    changed.eval.query_net = net
    assert f"config.eval.query_net='{net}' needs two networks, and {name} has one: give --config.eval.query_net=ff" in refusal(
        changed
    )
    both = config.default(method="dadh")
    both.eval.query_net = net
    config_check.check(both)


@pytest.mark.parametrize(("before", "after"), [("adsq", "dsh"), ("dsh", "adsq"), ("dsh", "dpsh"), ("dhn", "dseh")])
def test_a_method_that_was_changed_too_late(before, after):
    """config.method alone doesn't make another method's knobs: refused, with the argument that does."""
    changed = config.default(method=before)
    changed.method = after
    assert "--config=FILE.py:method=NAME" in refusal(changed)


@pytest.mark.parametrize(
    ("argument", "override", "said"),
    [
        ("method=nope", (), "there is no method 'nope': give adsq or one of dsh"),
        ("method=dhn", ("--config.baseline.margin=1.0",), "no key margin"),
    ],
)
def test_bad_input_is_one_line_and_status_2(argument, override, said, tmp_path):
    """On the command line each is one line on stderr and status 2, and no folder is left."""
    command = [sys.executable, "-m", "adsq_jax.main", f"--config=configs/digits.py:{argument}", *override]
    command += [f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "run").exists()
