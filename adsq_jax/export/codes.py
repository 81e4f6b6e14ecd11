"""Write the codes of a run or of an index, with their labels, for NumPy, MATLAB or another evaluator.

`adsq codes RUN --out=FILE.npz`, or `adsq codes INDEX --out=FILE.csv`. All arrays go into one .npz or .mat; a .npy, .csv or .txt
holds one, and FILE.csv stands for FILE_codes.csv, FILE_labels.csv and so on.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from adsq_jax import codes, command_line, index, storage
from adsq_jax.errors import InputError
from adsq_jax.retrieval import query_nets
from adsq_jax.run import array_output, codes_folder, workdir


def main(arguments: Sequence[str]) -> None:
    """Read the flags, write the files, and say what they hold."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("out", f"Where to write: a name that ends with {', '.join(array_output.SUFFIXES)}.")
    flags.text("query_net", "Which codes of a run: ff, gg, fg or sum. By default those of its result.")
    given = flags.parse(positional=("RUN_OR_INDEX",))
    if not given.out:
        raise InputError("expected --out=FILE.npz, or another ending: see --help")
    written = export_codes(given.positional[0], given.out, query_net=given.query_net)
    for name, (file, shape) in written.items():
        print(f"{file}: {name} {list(shape)}")
    if command := _evaluation({name: file for name, (file, _) in written.items()}):
        print(f"measure them: {command}")


def export_codes(
    place: str | Path, out: str | Path, *, query_net: str | None = None
) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Write the codes of a run or an index, with what `read_codes` returns beside them. No file is overwritten.

    Args:
      place: the folder of a finished run; or an index, as `adsq_jax.index.open_index` takes it.
      out: FILE.npz or FILE.mat for all arrays; or FILE.npy, FILE.csv or FILE.txt for a file FILE_NAME.npy and so on for each
        array. In MATLAB ids [n] are a column; ids of one or two classes, and labels of one class, are two logical columns, as a
        single one may be either; and names are cells.
      query_net: as for `read_codes`.

    Returns:
      The file and the shape of each array, by name.

    Raises:
      InputError: as `read_codes`; a file exists already or can't be written; or the arrays are too large for the format.

    Source: this project.
    """
    if Path(str(out)).suffix not in array_output.SUFFIXES:
        array_output.check_new_files(Path(str(out)), [])
    arrays = read_codes(place, query_net=query_net)
    files = array_output.check_new_files(storage.path(str(out)), list(arrays))
    array_output.write(files, arrays)
    return {name: (files[name], array.shape) for name, array in arrays.items()}


def _evaluation(files: Mapping[str, Path]) -> str:
    """Return the command that measures codes in files; of an index each item against the others, "" if it has no labels."""
    places = {
        name: shlex.quote(f"{file}:{name}" if file.suffix in array_output.TOGETHER else str(file))
        for name, file in files.items()
    }
    if "query_codes" in places:
        names = ("query_codes", "query_labels", "database_codes", "database_labels")
        return " ".join(["adsq evaluate", *(f"--{name}={places[name]}" for name in names)])
    if "labels" in places:
        return f"adsq evaluate --query_codes={places['codes']} --query_labels={places['labels']} --leave_self_out"
    return ""


def read_codes(place: str | Path, *, query_net: str | None = None) -> dict[str, np.ndarray]:
    """Read the codes of a run or of an index.

    Args:
      place: the folder of a finished run; or an index, as `adsq_jax.index.open_index` takes it.
      query_net: of a run: one of `adsq_jax.codes.QUERY_NETS`; None for the one of its result. None for an index.

    Returns:
      Of a run `query_codes` and `database_codes`, int8[n, bits] in {-1, +1}, with `query_labels` and `database_labels`, class
      ids [n] or multi-hot [n, c], and `label_names`, strings [c], unless the run is from before results had them. Of an index
      `codes` and `ids`, strings [n] in their order as text; and, if there are labels, `labels` with `label_names`, strings [c]:
      ids int64[n] of the names if each item has one label, else multi-hot bool[n, c].

    Raises:
      InputError: there is neither, it is damaged or empty, the run has no such codes, or an extra is missing.

    Source: this project.
    """
    if query_net is not None and query_net not in codes.QUERY_NETS:
        raise InputError(f"--query_net={query_net:.100}: expected one of {', '.join(codes.QUERY_NETS)}")
    text = str(place)
    if not text.startswith(("http://", "https://")):
        directory = storage.path(text)
        try:
            if storage.is_file(directory / "codes" / "manifest.json"):
                return _of_run(directory, query_net)
        except OSError as error:
            raise InputError(f"{directory!s:.200} can't be read ({error.strerror}); fix: give another folder") from error
        if storage.is_remote(directory) or not index.exists(text):
            raise InputError(f"{directory!s:.200} holds neither a finished run nor an index; fix: give the folder of one")
    if query_net is not None:
        raise InputError(f"--query_net goes with a run, and {text:.200} is an index; fix: leave it out")
    return _of_index(text)


def _of_run(directory: Path, query_net: str | None) -> dict[str, np.ndarray]:
    packed, labels, bits = codes_folder.read(directory / "codes")
    result = workdir.read_json(directory / "result.json")
    if not isinstance(result, dict):
        raise InputError(f"{directory / 'result.json'} is not the result of a run; fix: restore it, or train again")
    query_net = query_net or result.get("query_net")
    nets = query_nets.available_query_nets(packed)
    if query_net not in nets:
        raise InputError(
            f"{directory} has no codes of query_net={query_net!r:.50}; fix: give one of {', '.join(nets) or 'another run'}"
        )
    arrays = {}
    for part, net in zip(("query", "database"), nets[query_net], strict=True):
        try:
            arrays[f"{part}_codes"] = codes.unpack(packed[part][net], bits=bits)
        except ValueError as error:
            raise InputError(f"{directory / 'codes'} is damaged ({error})") from error
        arrays[f"{part}_labels"] = np.asarray(labels[part])
    names = result.get("class_names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        arrays["label_names"] = np.array(names)
    return arrays


def _of_index(place: str) -> dict[str, np.ndarray]:
    with index.open_index(place) as opened:
        batches = list(opened.scan())
        bits = opened.manifest.bits
    items = [item for batch in batches for item in batch.items]
    if not items:
        raise InputError(f"{place:.200} is an empty index; fix: encode pictures into it first")
    packed = np.concatenate([batch.codes for batch in batches])
    order = sorted(range(len(items)), key=lambda row: items[row].id)  # engines return items in any order
    items = [items[row] for row in order]
    arrays = {"codes": codes.unpack(packed[order], bits=bits), "ids": np.array([item.id for item in items])}
    names = sorted({label for item in items for label in item.labels})
    if not names:
        return arrays
    number = {name: row for row, name in enumerate(names)}
    if all(len(item.labels) == 1 for item in items):
        labels = np.array([number[item.labels[0]] for item in items])
    else:
        labels = np.zeros((len(items), len(names)), bool)
        for row, item in enumerate(items):
            labels[row, [number[label] for label in item.labels]] = True
    return {**arrays, "labels": labels, "label_names": np.array(names)}


if __name__ == "__main__":
    command_line.run(main)
