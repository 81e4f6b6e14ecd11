"""`~` at the start of a path is the home, in every flag, argument and config key: a shell leaves it alone in `--flag=~/x`."""

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import mock_data

import adsq_jax
from adsq_jax import config as config_module
from adsq_jax import encode, evaluate, index, main, search
from adsq_jax.data import datasets
from adsq_jax.data.__main__ import main as data_main
from adsq_jax.demo.__main__ import main as demo_main
from adsq_jax.errors import InputError
from adsq_jax.export import codes as codes_files
from adsq_jax.export.__main__ import main as export_main
from adsq_jax.index.__main__ import main as index_main
from adsq_jax.inference import pictures as picture_files
from adsq_jax.models import weight_files
from adsq_jax.report import inputs
from adsq_jax.report.__main__ import main as report_main
from adsq_jax.training import loop

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
PACKAGE = Path(adsq_jax.__file__).parent
MAINS = {
    "codes": codes_files.main,
    "data": data_main,
    "demo": demo_main,
    "encode": encode.main,
    "evaluate": evaluate.main,
    "export": export_main,
    "index": index_main,
    "main": main.main,
    "report": report_main,
    "search": search.main,
}
NO_PATHS = {
    "main --log",
    "main --sweep",
    "export --part",
    "codes --query_net",
    "evaluate --map_at",
    "index --cosine",
    "main --coordinator",
    "search --where",
    "search --host",
    "demo --host",
}
FILES = ("query_codes", "database_codes", "query_labels", "database_labels")
REFUSED = [  # what each command says of a path that is in the home, and isn't what it should be
    ("main", ["--config=~/missing.py", "--workdir=~/x"], "{home}/missing.py"),
    ("main", ["--config=~/folder.py", "--workdir=~/notes.txt"], "{home}/notes.txt"),
    ("data", ["--config=~/folder.py", "--config.data.directory=~/missing", "--out=~/x"], "{home}/missing"),
    ("data", ["--config=~/folder.py", "--out=~/notes.txt"], "{home}/notes.txt"),
    ("data", ["--config=~/folder.py", "--verify=~/missing.json"], "{home}/missing.json"),
    ("encode", ["--workdir=~/missing", "--images=~/pictures", "--index=~/x"], "{home}/missing"),
    ("encode", ["--model=~/notes.txt", "--images=~/pictures", "--index=~/x"], "{home}/notes.txt"),
    ("encode", ["--workdir=~/run", "--images=~/list.txt", "--directory=~/missing", "--index=~/x"], "{home}/missing/red"),
    ("evaluate", ["--workdir=~/missing"], "{home}/missing"),
    ("evaluate", ["--workdir=~/run", "--out=~/notes.txt"], "{home}/notes.txt"),
    *(
        ("evaluate", [f"--{other}=~/{'missing' if other == name else other}.npy" for other in FILES], "{home}/missing.npy")
        for name in FILES
    ),
    (
        "main",
        ["--config=~/folder.py", "--workdir=~/x", "--from=~/missing", "--config.data.directory=~/pictures"],
        "{home}/missing",
    ),
    ("codes", ["~/missing", "--out=~/x.npz"], "{home}/missing"),
    ("codes", ["~/run", "--out=~/here.npz"], "{home}/here.npz"),
    ("export", ["--workdir=~/missing", "--out=~/x"], "{home}/missing"),
    ("export", ["--workdir=~/run", "--out=~/notes.txt"], "{home}/notes.txt"),
    ("report", ["--workdir=~/missing"], "{home}/missing"),
    ("report", ["--workdir=~/run", "--out=~/notes.txt"], "{home}/notes.txt"),
    ("search", ["--index=~/missing", "--query=~/pictures/red"], "{home}/missing"),
    ("search", ["--index=~/index", "--query=~/missing.png"], "{home}/missing.png"),
    ("search", ["--index=~/index", "--query=~/pictures/red", "--workdir=~/missing"], "{home}/missing"),
    ("search", ["--index=~/index", "--query=~/pictures/red", "--out=~/old.html"], "{home}/old.html"),
    ("demo", ["--index=~/missing"], "{home}/missing"),
    ("demo", ["--index=~/index", "--workdir=~/missing"], "{home}/missing"),
    ("index", ["info", "~/missing"], "{home}/missing"),
    ("index", ["duplicates", "~/missing"], "{home}/missing"),
    ("index", ["copy", "~/missing", "~/x"], "{home}/missing"),
    ("index", ["remove", "~/missing", "~/pictures"], "{home}/missing"),
    ("index", ["move", "~/missing", "~/a", "~/b"], "{home}/missing"),
]
DONE_ELSEWHERE = {"report --pictures", "demo --pictures"}  # by the same function as search's


@pytest.fixture
def home(tmp_path, monkeypatch, filled, colours):
    """A home with pictures, a run, an index and files, in another folder than the current one, which stays empty."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    shutil.copytree(colours[0], home / "pictures")
    (home / "run").symlink_to(colours[1])
    shutil.copytree(filled[2], home / "index")
    for name in ("notes.txt", "old.html", "here.npz"):
        (home / name).write_text("not what it should be")
    (home / "list.txt").write_text("red/00.png\nblue/00.png\n")
    for name in FILES:
        np.save(home / f"{name}.npy", np.arange(8) % 2 if name.endswith("labels") else np.eye(8))
    (home / "folder.py").write_text((PACKAGE.parent / "configs" / "folder.py").read_text())
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("name", "arguments", "says"), REFUSED, ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_what_is_refused_is_in_the_home(home, name, arguments, says):
    """A path that isn't there, or is something else, is looked for in the home, and named there."""
    with pytest.raises(InputError) as caught:
        MAINS[name](arguments)
    assert says.format(home=home) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_written_and_read_is_in_the_home(home, capsys):
    """Outputs arrive in the home, patterns leave out what is there, and moved pictures are followed."""
    encode.main(["--workdir=~/run", "--images=~/pictures", "--index=~/made", "--exclude=~/pictures/red/*"])
    search.main(["--index=~/made", "--query=~/pictures/red/00.png", "--out=~/hits.html", "--pictures=~/pictures", "--k=1"])
    assert "data:image" in (home / "hits.html").read_text()
    index_main(["copy", "~/made", "~/copied"])
    with index.open_index(home / "copied") as opened:
        ids = list(opened.ids())
    assert ids
    assert all(name.startswith(f"{home}/pictures/") and "/red/" not in name for name in ids)
    index_main(["move", "~/copied", "~/pictures/blue", "~/pictures/red"])
    index_main(["remove", "~/copied", "~/pictures/red"])
    with index.open_index(home / "copied") as opened:
        assert {name.split("/")[-2] for name in opened.ids()} == {"green"}
    index_main(["info", "~/copied"])
    assert f"{home}/copied" in capsys.readouterr().out
    assert picture_files.named(["~/pictures"]).holds(str(home / "pictures"))


def settings(**changes):
    data = mock_data.load_config("digits").data
    return datasets.Settings(**{**{field: data[field] for field in datasets.Settings._fields}, **changes})


LISTS = {"name": "lists", "reader": "lists", "protocol": "own"}
KEYS = {  # what reads each path of a config
    "data.directory": lambda path: datasets.open_source(settings(name="folder", protocol="own", directory=path)),
    "data.lists": lambda path: datasets.open_source(settings(**LISTS, directory="~/pictures", lists=path)),
    "data.manifest": lambda path: datasets.load(settings(manifest=path)),
    "data.feature_cache": None,
    "model.pretrained": weight_files.read,
}


@pytest.mark.parametrize("key", KEYS)
def test_config_keys(home, key):
    """A path of a config is in the home, and what is wrong with it is told of there."""
    if key == "data.feature_cache":
        config = config_module.default()
        config.data.feature_cache = "~/features"
        assert loop.feature_directory(config, Path("run")) == home / "features"
        return
    with pytest.raises(InputError) as caught:
        KEYS[key]("~/notes.txt")
    assert f"{home}/notes.txt" in str(caught.value)


def test_pictures_of_a_run_whose_config_has_it(home):
    """A report shows pictures below a data.directory in the home, with --pictures and without."""
    run = settings(name="folder", protocol="own", directory="~/pictures")
    for named in (None, picture_files.named(["~/pictures"]), picture_files.named([str(home)])):
        places = inputs._places(run, named, remote=False)
        assert places.find(str(home / "pictures" / "red" / "00.png")) is not None


def test_every_flag_is_here():
    """Every flag that takes a text is tried with `~` above, or takes no path; so is every key of a config with a path."""
    tried = {f"{name} {flag.partition('=')[0]}" for name, arguments, _ in REFUSED for flag in arguments if "=~" in flag}
    tried |= {"encode --exclude", "search --pictures"}
    tried = {flag for flag in tried if "--config" not in flag}
    known = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("flags.text", "flags.texts"):
                command = path.parent.name if path.stem == "__main__" else path.stem
                flag = node.args[0]
                names = [flag.value] if isinstance(flag, ast.Constant) else FILES
                known |= {f"{command} --{name}" for name in names}
    assert tried | NO_PATHS | DONE_ELSEWHERE == known
    leaves = {
        f"{section}.{key}": value for section in ("data", "model") for key, value in config_module.default()[section].items()
    }
    assert {key for key, value in leaves.items() if value == ""} == KEYS.keys() | {"data.tfds_name", "data.strip_prefix"}
