"""The package's shape: which module may import which, names, length of functions, and docstrings, read from the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "adsq_jax"
TREES = {
    path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): ast.parse(
        path.read_text()
    )
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Stand in data/ and index/ so that `python -m adsq_jax.data` and `python -m adsq_jax.index` are their commands.
ENTRIES = {"adsq_jax.data.__main__", "adsq_jax.index.__main__"}
PARTS = ("codes", "objective", "models", "data", "retrieval")  # import none of one another
METHODS = ("adsq", "baselines")  # build on codes, objective and what a method is; and on nothing else
PURE = ("codes", "objective", "models", "retrieval", "method", *METHODS)  # know of no flags, configs, files or devices
MODEL_USERS = ("encode", "search", "report", "demo", "export")  # the entry points for what comes after training
# Entry points and the loop, above all others: what may import each.
ABOVE = {
    "main": set(),
    "train": {"main"},
    "trainer": {"main", "train"},
    "evaluate": set(),
    "results": {"main", "evaluate", "config", "model", "report"},
    "features": {"trainer"},
    "model": {"main", "encode", "hits", "demo", "export", ""},
    "networks": {"train", "trainer", "model"},
    "weights": {"networks"},
    "encoder": {"main", "trainer", "results", "features", "model"},
    "encode": set(),
    "search": set(),
    "hits": {"search", "demo"},
    "pages": {"hits", "report", "demo"},
    "report": set(),
    "demo": set(),
    "export": set(),
    "index": {"encode", "search", "hits", "demo"},
    "parallel": {"main", "evaluate", "trainer", "encoder", "config", "model", *MODEL_USERS},
    "processes": {"main", "command_line", "train", "trainer", "results", "checkpoint", "parallel"},
    "checkpoint": {"train", "features"},
    "progress": {"train", "trainer"},
    "workdir": {"main", "evaluate", "results", "progress", "features", "checkpoint", "model", *MODEL_USERS},
    "command_line": {"main", "evaluate", *MODEL_USERS},
    "config": {"main", "report"},
    "train_step": {"trainer"},
    "adsq": {"trainer"},
    "baselines": {"trainer", "config"},
    "method": {"trainer", "train_step", *METHODS},
}
FORBIDDEN_NAMES = {"utils", "util", "misc", "helpers", "helper", "common"}
DEVICE_NAMES = {
    "devices",
    "local_devices",
    "device_count",
    "local_device_count",
    "process_index",
    "process_count",
    "sharding",
    "device_put",
}
LONGEST = 60


def part_of(module):
    """`adsq_jax.models.img_net` is of `models`."""
    return [*module.split("."), ""][1]


def imports_of(tree):
    """Every module that is imported anywhere in a file; of `from a import b` both a and a.b, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module):
    """Parts of this package that a module imports."""
    return {part_of(name) for name in imports_of(TREES[module]) if name.startswith("adsq_jax.")}


def modules_of(*parts):
    return [module for module in TREES if part_of(module) in parts]


def attributes_of(tree):
    """Dotted names such as jax.local_devices, as they stand in the source."""
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def lengths_of(tree):
    """Lines of each function, without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = node.body[0] if ast.get_docstring(node) is not None else None
            yield node.name, node.end_lineno - node.lineno + 1 - (text.end_lineno - text.lineno + 1 if text else 0)


def device_names(tree):
    """What a file says of devices: jax.sharding and anything in it, device lists, meshes."""
    found = {name for name in imports_of(tree) if name.startswith(("jax.sharding", "jax.experimental.mesh"))}
    found |= {name for name in imports_of(tree) if name.split(".")[0] == "jax" and name.split(".")[-1] in DEVICE_NAMES}
    return found | {name for name in attributes_of(tree) if name.startswith("jax.") and set(name.split(".")) & DEVICE_NAMES}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import jax\njax.local_devices()", {"jax.local_devices"}),
        ("import jax\njax.device_put(1)", {"jax.device_put"}),
        ("from jax.sharding import Mesh", {"jax.sharding", "jax.sharding.Mesh"}),
        ("from jax import devices", {"jax.devices"}),
        ("import jax\njax.numpy.zeros(3)", set()),
    ],
)
def test_device_names(source, found):
    """The search for devices finds each way to name them."""
    assert device_names(ast.parse(source)) == found


def test_the_search_finds_imports():
    """Imports of every form are found, those inside functions too."""
    source = "import a.b as c\nfrom adsq_jax import codes\nfrom adsq_jax.data.sources import Source\ndef f():\n    import d"
    wanted = {"a.b", "adsq_jax", "adsq_jax.codes", "adsq_jax.data.sources", "adsq_jax.data.sources.Source", "d"}
    assert set(imports_of(ast.parse(source))) == wanted
    assert len(TREES) > 20


@pytest.mark.parametrize("module", [module for module in modules_of(*PARTS) if module not in ENTRIES])
def test_parts_stand_alone(module):
    """Codes, objective, models, data and retrieval import nothing of this package but themselves and the error."""
    assert own_imports(module) <= {part_of(module), "errors"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("adsq_jax.errors", set()),
        ("adsq_jax.train_state", {"codes", "objective", "models"}),
        ("adsq_jax.method", {"codes", "objective"}),
        ("adsq_jax.train_step", {"codes", "objective", "models", "train_state", "method"}),
        *((module, {part_of(module), "codes", "objective", "method", "errors"}) for module in modules_of(*METHODS)),
    ],
)
def test_the_step_is_built_of_the_parts(module, allowed):
    """State, step and methods import the parts alone: no config, no files, no devices; the error imports nothing."""
    assert own_imports(module) <= allowed
    assert not device_names(TREES[module])


@pytest.mark.parametrize("part", ABOVE)
def test_imports_go_one_way(part):
    """What is above is imported only from still further above."""
    importers = {part_of(module) for module in TREES if part in own_imports(module) and module not in ENTRIES} - {part}
    assert importers <= ABOVE[part]


def test_no_cycles():
    """No chain of imports between modules leads back to its beginning."""
    names = set(TREES)
    edges = {
        # what comes `from` a module's own package is a module beside it, not the package
        module: {name for name in imports_of(tree) if name in names and not f"{module}.".startswith(f"{name}.")}
        for module, tree in TREES.items()
    }
    while edges:
        leaves = {module for module, below in edges.items() if not below & edges.keys()}
        assert leaves, f"a cycle among {sorted(edges)}"
        edges = {module: below for module, below in edges.items() if module not in leaves}


@pytest.mark.parametrize("module", modules_of(*PURE))
def test_pure_parts_know_nothing_outside(module):
    """Models, objective, codes, retrieval and methods import no flags, configs, files or devices."""
    outside = (
        "absl",
        "ml_collections",
        "jax.sharding",
        "jax.experimental",
        "pathlib",
        "os",
        "orbax",
        "tensorflow_datasets",
        "grain",
    )
    imported = {name for name in imports_of(TREES[module]) if any(name == o or name.startswith(f"{o}.") for o in outside)}
    assert not imported
    assert not own_imports(module) & {"config", "parallel", "workdir", "checkpoint"}
    assert not device_names(TREES[module])


@pytest.mark.parametrize("module", [module for module in TREES if module != "adsq_jax.parallel"])
def test_only_parallel_knows_of_devices(module):
    """Device lists, meshes and shardings are named in parallel.py and nowhere else; the number of processes in processes.py."""
    own = {"jax.process_count", "jax.process_index"} if module == "adsq_jax.processes" else set()
    assert device_names(TREES[module]) == own


@pytest.mark.parametrize(
    ("library", "knows"),
    [
        ("lancedb", {"adsq_jax.index.embedded"}),
        ("faiss", {"adsq_jax.index.embedded"}),
        ("pyarrow", {"adsq_jax.index.embedded"}),
        ("pymilvus", {"adsq_jax.index.milvus", "adsq_jax.index.milvus_server"}),
        ("grpc", {"adsq_jax.index.milvus_server"}),
        ("gradio", {"adsq_jax.demo.page", "adsq_jax.demo.server"}),
        ("matplotlib", {"adsq_jax.report.figures"}),
    ],
)
def test_extras_stand_in_one_place(library, knows):
    """What only an extra installs is imported by those who need it."""
    found = {module for module, tree in TREES.items() for name in imports_of(tree) if name.split(".")[0] == library}
    assert found == knows


@pytest.mark.parametrize("module", [module for module in TREES if module != "adsq_jax.processes"])
def test_only_processes_knows_of_processes(module):
    """What is between processes is named in processes.py and nowhere else."""
    between = {name for name in imports_of(TREES[module]) if name.startswith("jax.experimental.multihost_utils")}
    assert not between
    assert not {name for name in attributes_of(TREES[module]) if name.startswith("jax.distributed")}


def test_parallel_knows_of_devices():
    """The search would find something, if it were elsewhere."""
    assert {"jax.local_devices", "jax.device_put", "jax.sharding.Mesh"} <= device_names(TREES["adsq_jax.parallel"])


def test_lengths():
    """A function counts all lines from its name to its last, but for the docstring, and those of functions inside it."""
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    def g():\n        return 1\n\n    return g\n'
    assert dict(lengths_of(ast.parse(source))) == {"f": 5, "g": 2}


@pytest.mark.parametrize("module", TREES)
def test_module(module):
    """A module is named for what it holds, says so in its docstring, and has no function of more than 60 lines."""
    assert not set(module.split(".")) & FORBIDDEN_NAMES
    tree = TREES[module]
    assert ast.get_docstring(tree) or not tree.body
    assert not {name for name, lines in lengths_of(tree) if lines > LONGEST}


def public_of(node):
    """Public classes and functions of a module or class, and those of its public classes, but not functions' own."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public_of(child)


@pytest.mark.parametrize("module", TREES)
def test_docstrings(module):
    """Every public function, class and method has a docstring, which begins with one line that ends like a sentence."""
    for node in public_of(TREES[module]):
        text = ast.get_docstring(node)
        assert text, f"{node.name} has no docstring"
        first = text.split("\n\n")[0]
        assert "\n" not in first, f"{node.name}: {first}"
        assert first[-1] in ".:?", f"{node.name}: {first}"
