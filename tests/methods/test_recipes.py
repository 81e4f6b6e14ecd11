"""Recipes: names, settings and how they reach a config; `find` and `as_method`; and bad input, each a one-line error."""

import importlib
import inspect
import re
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from support import mock_data

from adsq_jax import config, config_check, main, methods
from adsq_jax.errors import InputError
from adsq_jax.methods import METHODS, Method

ROOT = Path(__file__).parent.parent.parent
FOLDER = Path(methods.__file__).parent
BASELINES = [name for name in METHODS if name != "adsq"]
ONE_NET = [name for name in BASELINES if name != "dadh"]
MINE = """
from functools import partial
from adsq_jax.methods import LossInputs, Method, Terms
SETTINGS = {"pull": 0.1}
def loss(inputs: LossInputs, *, pull: float = 0.1) -> Terms:
    return {"pull": pull * (abs(inputs.relaxed_codes) - 1) ** 2}
def method(*, pull: float) -> Method:
    return Method(loss=partial(loss, pull=pull))
"""


def message(call, *arguments):
    """Return the one line of the InputError that a call raises."""
    with pytest.raises(InputError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def module(**names):
    """Return a module with other names and a loss: its setting `pull`, 1 by default, times the number of rows."""
    own = types.ModuleType("own")
    own.loss = lambda inputs, *, pull=1: {"pull": pull * len(inputs.relaxed_codes)}
    vars(own).update(names)
    return own


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return the dotted name of a module with a method of one's own, not imported yet."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "mymodule.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mypackage", "mypackage.mymodule"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "mypackage.mymodule"


def test_a_recipe_makes_a_method():
    """Given settings replace defaults, in a nested dict entry by entry; the recipe itself doesn't change."""
    method = methods.dpsh(eta=0.2)
    assert isinstance(method, Method)
    assert method.loss.keywords == {"eta": 0.2, "weighted": 1.0}
    method = methods.adsq(weights={"code_guidance": 0.5}, twin=False)
    assert method.loss.keywords["weights"] == {**methods.adsq.settings["weights"], "code_guidance": 0.5}
    assert not method.twin
    methods.adsq.settings["weights"]["code_guidance"] = 9.0
    assert methods.adsq.settings["weights"]["code_guidance"] == 0.0


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_has_default_settings(name):
    """Without settings, the loss of a recipe equals that of its method with default settings."""
    recipe, u = METHODS[name], np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32) / 2
    parameters = {"kernel": jnp.ones((8, 3)), "bias": jnp.zeros(3), "proxies": jnp.ones((3, 8))}
    guidance = methods.objective.Guidance(u, u, np.full(6, 1 / 6, np.float32))
    inputs = methods.loss_inputs(u, [0, 1, 2, 0, 1, 1], parameters=parameters, guidance=guidance, second_view=-u)
    assert recipe.loss(inputs) == recipe().loss(inputs)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: methods.dpsh(et=0.2),
            r"a setting of dpsh, got 'et'; fix: did you mean 'eta'\? give one of eta, weighted",
        ),
        (lambda: methods.dpsh(eta="0.2"), "expected dpsh's eta like its default 0.1, got '0.2'"),
        (lambda: methods.dpsh(eta=float("nan")), "expected dpsh's eta like its default 0.1, got nan"),
        (lambda: methods.adsq(head="linear"), "expected adsq's head as one of tanh, layer_norm, got 'linear'"),
        (lambda: methods.adsq(twin=1), "expected adsq's twin like its default True, got 1"),
        (lambda: methods.adsq(weights=1.0), "expected adsq's weights like its default {'likelihood'"),
        (
            lambda: methods.adsq(weights={"balanc": 1.0}),
            "adsq's weights, got 'balanc'; fix: did you mean 'balance'",
        ),
        (lambda: methods.find("dps"), r"there is no method 'dps': did you mean 'dpsh'\? give one of adsq, dsh, "),
        (lambda: methods.as_method("dps"), "there is no method 'dps'"),
        (lambda: methods.find(".mine", allow_import=True), "expected a module with a method, got '.mine'"),
        (lambda: methods.find("no.such_module", allow_import=True), "got 'no.such_module': No module named 'no'"),
        (
            lambda: methods.as_method("adsq_jax.methods.b_step"),
            "methods.b_step' without loss; fix: define loss",
        ),
        (lambda: methods.as_method(types.ModuleType("empty")), "got the module 'empty' without loss; fix: "),
        (
            lambda: methods.as_method(module(SETTINGS=["pull"])),
            r"expected SETTINGS = \{'NAME': DEFAULT\} and method\(\*, ...\) in the module",
        ),
        (lambda: methods.as_method(module(SETTINGS={1: 0.5})), "got other types; fix: "),
        (lambda: methods.as_method(module(method=3)), "got other types; fix: "),
        (lambda: methods.as_method(module(method=lambda: 3)), r"expected a Method from .*'s method\(...\), got int; fix: "),
        (lambda: methods.find("random", allow_import=True), r"without loss; fix: define loss\(inputs\) in /.*/random.py, or "),
        (lambda: methods.as_method(3), r"expected a method, got int; fix: give methods.adsq\(\), or one of adsq, dsh"),
    ],
)
def test_wrong_names_and_settings(call, text):
    """Each is one line that says what was expected, and the nearest name."""
    assert re.search(text, message(call))


@pytest.mark.parametrize("settings", [None, {"pull": 0.1}])
def test_a_module_that_has_only_a_loss_is_a_method(settings):
    """Its settings, if it has any, are passed to the loss; everything else is as a `Method` has it by default."""
    own = module() if settings is None else module(SETTINGS=settings)
    method = methods.as_method(own)
    assert method == Method(loss=method.loss)
    inputs = methods.loss_inputs(np.ones((4, 2), np.float32), [0, 1, 0, 1])
    assert method.loss(inputs) == {"pull": 4 if settings is None else 0.4}


def test_a_module_in_the_current_folder_needs_no_package(tmp_path, monkeypatch):
    """`find("mymodule")` imports mymodule.py where imports are allowed, and never a name that was read from a file."""
    (tmp_path / "mymodule_of_a_test.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    assert "there is no method 'mymodule_of_a_test'" in message(lambda: methods.find("mymodule_of_a_test"))
    assert "mymodule_of_a_test" not in sys.modules
    recipe = methods.find("mymodule_of_a_test", allow_import=True)
    assert recipe.settings == {"pull": 0.1}
    assert methods.find("dsh", allow_import=True) is METHODS["dsh"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise ValueError('first\\nsecond')", "'raises_in_a_test', which raises ValueError: first; fix: "),
        ("def loss(inputs: return 1", "which raises SyntaxError: "),
    ],
)
def test_a_module_that_fails_is_named(tmp_path, monkeypatch, source, text):
    """A command then names the module, the kind of error and its first line, also for one that a config's argument raises."""
    (tmp_path / "raises_in_a_test.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert text in message(lambda: methods.find("raises_in_a_test", allow_import=True))


def test_a_method_of_ones_own_is_found_by_its_dotted_name(mine):
    """It is imported only where the caller allows it; its recipe's name finds it again."""
    assert f"got the module '{mine}'; fix: " in message(lambda: methods.find(mine))
    assert mine not in sys.modules
    recipe = methods.find(mine, allow_import=True)
    assert recipe.name == mine
    assert recipe.settings == {"pull": 0.1}
    assert recipe.tuning_grid == ()
    assert recipe(pull=1.0).loss.keywords == {"pull": 1.0}


def test_as_method_takes_names_recipes_modules_and_methods(mine):
    """A method stays as it is; the others get their default settings."""
    method = methods.dsh()
    assert methods.as_method(method) is method
    for same in ("dpsh", methods.dpsh, methods.dpsh.module):
        assert methods.as_method(same).loss.keywords == methods.dpsh.settings
    assert methods.as_method(mine).loss.keywords == {"pull": 0.1}


def test_a_module_that_was_named_in_a_file_is_not_imported():
    """It would run."""
    assert "this" not in sys.modules
    message(lambda: methods.find("this"))
    assert "this" not in sys.modules


def test_each_method_is_one_short_file():
    """METHODS lists every file with a method, by its name; the other files are what methods share."""
    files = {path.stem: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    shared = {
        "__init__",
        "b_step",
        "batch",
        "label_set_pairs",
        "classification",
        "hash_centers",
        "method",
        "objective",
        "recipe",
        "separation",
    }
    assert files.keys() == {*METHODS, *shared, "itq"}  # which isn't trained
    assert max(files[name] for name in BASELINES) < 100
    for name, recipe in METHODS.items():
        assert recipe.module.__name__ == f"adsq_jax.methods.{name}"
        assert methods.find(name) is recipe is getattr(methods, name)
        assert importlib.import_module(f"adsq_jax.methods.{name}") is recipe.module


@pytest.mark.parametrize("name", BASELINES)
def test_settings_are_config_keys(name):
    """A file's SETTINGS are config.baseline, and the arguments of its method and loss; a comment beside them explains them."""
    recipe = METHODS[name]
    default = config.default(method=name)
    config_check.check(default)
    assert default.baseline.to_dict() == recipe.settings
    assert all(type(value) is float for value in recipe.settings.values())
    parameters = inspect.signature(recipe.module.method).parameters.values()
    assert {parameter.name for parameter in parameters} == recipe.settings.keys()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    defaults = {parameter.name: parameter.default for parameter in inspect.signature(recipe.loss).parameters.values()}
    assert defaults.pop("inputs") is inspect.Parameter.empty
    assert defaults == {name: value for name, value in recipe.settings.items() if name in defaults}
    assert re.search(r"^SETTINGS = \{.*\}  # \S", Path(recipe.module.__file__).read_text(), re.MULTILINE)
    method = recipe()
    assert ("label_net" in default) == method.label_net
    assert "objective" not in default
    assert default.eval.query_net == ("sum" if method.twin else "ff")


@pytest.mark.parametrize(
    ("name", "head"), [("orthohash", "batch_norm"), ("dpn", "linear"), ("hyp2", "linear"), ("csq", "tanh")]
)
def test_the_head_is_that_of_the_paper(name, head):
    """BatchNorm before the sign in OrthoHash; bare outputs where the loss has cosines or a hinge; tanh for CSQ's bits."""
    assert METHODS[name]().head == head


def test_the_settings_of_adsq_are_the_config():
    """The recipe's defaults are config.objective's for data with one label an image."""
    assert config.default().objective.to_dict() == methods.adsq.settings


@pytest.mark.parametrize("name", METHODS)
def test_the_tuning_grid_has_two_choices(name):
    """They differ, and have settings of the method with values that a config may have."""
    recipe = METHODS[name]
    one, two = recipe.tuning_grid
    assert {**recipe.settings, **one} != {**recipe.settings, **two}
    for choice in recipe.tuning_grid:
        assert choice
        assert recipe(**choice)
        changed = config.default(method=name)
        changed["objective" if name == "adsq" else "baseline"].update(choice)
        config_check.check(changed)


@pytest.mark.parametrize("make", [lambda: config.default(method="nope"), lambda: mock_data.small_config(method="nope")])
def test_an_unknown_method_of_a_config(make):
    """The error lists all methods."""
    with pytest.raises(InputError, match=r"there is no method 'nope': give one of adsq, dsh, dpsh, .*, classify, or a module"):
        make()


def test_a_method_changed_to_an_unknown_one():
    """The message names the key and lists the methods."""
    changed = config.default(method="dhn")
    changed.method = "nope"
    assert "config.method='nope': there is no method 'nope': give one of adsq, dsh, " in message(config_check.check, changed)


@pytest.mark.parametrize("name", BASELINES)
def test_a_setting_of_another_method(name):
    """Each method refuses a setting that only others have, and ADSQ's objective."""
    for key in {key for other in BASELINES for key in METHODS[other].settings} - METHODS[name].settings.keys():
        changed = config.default(method=name)
        changed.baseline[key] = 1.0
        assert f"config.baseline.{key} is not a config key" in message(config_check.check, changed)
    changed = config.default(method=name)
    changed.objective = config.default().objective
    assert "config.objective." in message(config_check.check, changed)


@pytest.mark.parametrize("name", BASELINES)
def test_a_negative_setting(name):
    """No setting may be below 0, infinite or NaN."""
    for key in METHODS[name].settings:
        for wrong in (-0.1, float("inf"), float("nan")):
            changed = config.default(method=name)
            changed.baseline[key] = wrong
            assert re.search(
                rf"config\.baseline\.{key}={wrong}: expected (at least|above) 0", message(config_check.check, changed)
            )


@pytest.mark.parametrize(
    ("name", "key"),
    [("dch", "gamma"), ("hashnet", "scale"), ("dseh", "cosine_scale"), ("dhd", "temperature"), ("dhd", "deviation")],
)
def test_a_setting_that_divides(name, key):
    """A divisor, or the scale of all logits, may not be 0."""
    changed = config.default(method=name)
    changed.baseline[key] = 0.0
    assert f"config.baseline.{key}=0.0: expected above 0" in message(config_check.check, changed)


def test_no_two_methods_have_the_same_settings():
    """So a config whose method was changed too late lacks a key, or has one too many."""
    settings = [frozenset(recipe.settings) for recipe in METHODS.values()]
    assert len(set(settings)) == len(settings)


@pytest.mark.parametrize("net", ["sum", "gg", "fg"])
@pytest.mark.parametrize("name", ONE_NET)
def test_one_network_has_no_second_query_net(name, net):
    """With one network only query_net=ff is accepted; DADH has two."""
    changed = config.default(method=name)
    changed.eval.query_net = net
    text = message(config_check.check, changed)
    assert text.startswith(f"config.eval.query_net={net!r}: expected ff: {name} trains one network")
    assert text.endswith("fix: --config.eval.query_net=ff")
    both = config.default(method="dadh")
    both.eval.query_net = net
    config_check.check(both)


@pytest.mark.parametrize(("before", "after"), [("adsq", "dsh"), ("dsh", "adsq"), ("dsh", "dpsh"), ("dhn", "dseh")])
def test_a_method_changed_too_late(before, after):
    """Setting config.method doesn't add another method's keys; the message names the argument that does."""
    changed = config.default(method=before)
    changed.method = after
    assert "--config=FILE.py:method=NAME" in message(config_check.check, changed)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections imports the config by it
@pytest.mark.parametrize(
    ("argument", "override", "text"),
    [
        ("method=nope", (), "there is no method 'nope': give one of adsq, dsh"),
        ("method=dhn", ("--config.baseline.margin=1.0",), "margin"),
    ],
)
def test_a_command_refuses_bad_input(argument, override, text, tmp_path):
    """Each is one line, and no folder is left."""
    config_file = ROOT / "configs" / "digits.py"
    arguments = [f"--config={config_file}:{argument}", *override, f"--workdir={tmp_path / 'run'}"]
    assert text in message(main.main, arguments)
    assert not (tmp_path / "run").exists()
