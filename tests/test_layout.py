"""The shape of the package, read from its source: imports only go down, and each subject is known in one place."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "adsq_jax"
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
FLOORS = (  # from the ground up: a part imports itself and what stands before it
    "errors",
    "codes",
    "label_columns",
    "storage",
    "methods",
    "models",
    "retrieval",
    "devices",
    "run",
    "data",
    "index",
    "inference",
    "training",
    "config",
    "config_check",
    "command_line",
    "commands",
)
COMMANDS = {"main", "evaluate", "encode", "search", "report", "demo", "export", "__init__"}
PURE = ("codes", "label_columns", "methods", "models", "retrieval")  # know of no flags, configs, files or devices
OUTSIDE = {"absl", "ml_collections", "pathlib", "os", "orbax", "tensorflow_datasets", "grain"}
DEVICES = {"devices", "local_devices", "device_count", "local_device_count", "process_index", "process_count", "device_put"}
EXTRAS = {  # what an extra installs, and the only files that import it
    "lancedb": {"index/embedded.py"},
    "faiss": {"index/embedded.py"},
    "pyarrow": {"index/embedded.py"},
    "pymilvus": {"index/milvus.py", "index/milvus_server.py"},
    "grpc": {"index/milvus_server.py"},
    "uvicorn": {"demo/connections.py", "demo/server.py"},
    "matplotlib": {"report/figures.py"},
    "h5py": {"run/hdf5_files.py"},
    "onnx": {"export/onnx_graph.py"},
    "huggingface_hub": {"inference/hub.py"},
    "wandb": {"run/experiment_trackers.py"},
    "mlflow": {"run/experiment_trackers.py"},
}
LONGEST_FUNCTION = 60


def floor_of(path):
    """The floor of a file: its folder, or its own name; `__main__.py` is a command wherever it stands."""
    part = path.parts[0].removesuffix(".py")
    return "commands" if part in COMMANDS or path.name == "__main__.py" else part


def imports_of(tree):
    """Every module that a file imports, anywhere in it; of `from a import b` both a and a.b, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lengths_of(tree):
    """Lines of each function, without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = node.body[0] if ast.get_docstring(node) is not None else None
            yield node.name, node.end_lineno - node.lineno + 1 - (text.end_lineno - text.lineno + 1 if text else 0)


def public_of(node):
    """Public functions, classes and methods, without those inside functions."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public_of(child)


def names_of(path):
    """The dotted name of a file as a module."""
    return ".".join(("adsq_jax", *path.with_suffix("").parts)).removesuffix(".__init__")


def test_imports_only_go_down():
    """A part of the package imports itself and the parts below it; no module is in a circle of imports."""
    modules = {names_of(path): path for path in TREES}
    edges = {}
    for name, path in modules.items():
        below = {imported for imported in imports_of(TREES[path]) if imported in modules and imported != "adsq_jax"}
        floors = {floor_of(modules[imported]) for imported in below} - {floor_of(path)}
        higher = {floor for floor in floors if FLOORS.index(floor) > FLOORS.index(floor_of(path))}
        assert not higher, f"{path} imports {higher}, which stand above it"
        # what comes `from` a module's own package is a module beside it, not the package
        edges[name] = {imported for imported in below if not f"{name}.".startswith(f"{imported}.")}
    while edges:
        leaves = {name for name, below in edges.items() if not below & edges.keys()}
        assert leaves, f"a circle of imports among {sorted(edges)}"
        edges = {name: below for name, below in edges.items() if name not in leaves}


def test_pure_parts_know_nothing_outside():
    """Codes, methods, models and retrieval import no flags, configs, files or devices."""
    for path, tree in TREES.items():
        if floor_of(path) in PURE and path.parts[:2] != ("models", "weight_files.py"):
            imported = {name.split(".")[0] for name in imports_of(tree)} & OUTSIDE
            assert not imported, f"{path} imports {imported}"


def test_only_devices_knows_of_devices_and_processes():
    """Meshes, shardings, lists of devices and what is between processes are named in devices/ alone."""
    found = set()
    for path, tree in TREES.items():
        dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | set(imports_of(tree))
        named = {name for name in dotted if name.split(".")[0] == "jax" and (DEVICES & set(name.split(".")))}
        named |= {name for name in dotted if name.startswith(("jax.sharding", "jax.distributed", "jax.experimental.multihost"))}
        if named:
            found.add(floor_of(path))
    assert found == {"devices"}


def test_what_only_an_extra_installs_is_imported_in_one_place():
    """Who installs the core alone misses nothing until they ask for more."""
    for library, files in EXTRAS.items():
        found = {path.as_posix() for path, tree in TREES.items() for name in imports_of(tree) if name.split(".")[0] == library}
        assert found == files


def test_files_are_readable():
    """Each file says what it is for, its functions are short, what is public has a docstring of a sentence first."""
    assert len([path for path in TREES if len(path.parts) == 1]) <= 13
    for path, tree in TREES.items():
        assert ast.get_docstring(tree) or not tree.body, f"{path} doesn't say what it is for"
        long = {name for name, lines in lengths_of(tree) if lines > LONGEST_FUNCTION}
        assert not long, f"{path}: {long} are longer than {LONGEST_FUNCTION} lines"
        for node in public_of(tree):
            first = (ast.get_docstring(node) or "").split("\n\n")[0]
            assert re.fullmatch(r"[^\n]+[.:?]", first), f"{path}: {node.name}: {first!r}"
