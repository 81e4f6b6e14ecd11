"""Trained models on the Hugging Face Hub: `hf://user/name`. Two files are taken from there, JSON and safetensors, no code."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError, is_out_of_memory, is_system_error, last_line, printable, remedy
from adsq_jax.inference import model_files
from adsq_jax.run import workdir

_PREFIX = "hf://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.+-]*(/[\w.+-]+)*", re.ASCII)  # a branch, a tag, a commit, refs/pr/1
_LONGEST_REVISION = 200
_LOG_IN = "hf auth login, or the environment variable HF_TOKEN"
_CARD = "README.md"


def is_address(place: Any) -> bool:
    """Return whether a text is the address of a repository of the Hub."""
    return isinstance(place, str) and place.startswith(_PREFIX)


def fetch(address: str, *, description: str, weights: str) -> Path:
    """Download a model's two files, or find them in the Hub's cache on this machine, also without a network.

    The size of each is known and checked before it is downloaded. What is in them is checked by whoever loads them.

    Args:
      address: `hf://user/name`, or with a branch, a tag or a commit `hf://user/name@revision`.
      description: the path of `model.json` in the repository.
      weights: the path of `weights.safetensors`, in the same folder.

    Returns:
      The folder on this machine that has both at these paths.

    Raises:
      InputError: the address is wrong, huggingface_hub isn't installed, there is no such repository or revision, it holds no
        model, it can't be reached, or a file is larger than any such model's.
    """
    name, _, revision = address.removeprefix(_PREFIX).partition("@")
    if not _is_repository(name) or ("@" in address and not _is_revision(revision)):
        raise InputError(f"{address!r:.200} is no address of a model; fix: give hf://user/name or hf://user/name@revision")
    hub = _import()
    with _errors(address, hub):
        _check_size(hub, name, description, revision or None, most=model_files.MAX_DESCRIPTION)
        path = Path(hub.hf_hub_download(name, description, revision=revision or None))
        folder = path.parents[description.count("/")]
        if path.stat().st_size > model_files.MAX_DESCRIPTION:  # another one than a moment ago
            raise InputError(f"{description} has {path.stat().st_size:,} bytes")
        content = workdir.read_json(path)
        model_files.check_description(content)
        image_size = content["view"]["image_size"]
        expected = model_files.Expected(model_files.build(content), image_size=image_size)
        size = _check_size(hub, name, weights, folder.name)  # of the same commit
        expected.check_size(size)
        hub.hf_hub_download(name, weights, revision=folder.name)
    return folder


def _check_size(hub: Any, name: str, path: str, revision: str | None, *, most: int | None = None) -> int:
    """Return the bytes of a file of a repository, which isn't downloaded."""
    size = hub.hf_hub_download(name, path, revision=revision, dry_run=True).file_size
    if not isinstance(size, int) or (most is not None and size > most):
        said = f"has {size:,} bytes" if isinstance(size, int) else "has an unknown size"
        raise InputError(f"{path} {said}, expected {'a known one' if most is None else f'at most {most:,}'}")
    return size


def push(
    name: str,
    files: Mapping[str, bytes],
    *,
    card: str,
    private: bool | None,
    revision: str | None,
    replace_card: bool,
    token: str | None,
) -> str:
    """Upload a model's files in one commit, into a repository that is made if it isn't there.

    Args:
      name: `user/name`, also with `hf://` before it.
      files: the content of each file by its path.
      card: the model card, `README.md`.
      private: of a new repository; None: as the account has it.
      revision: a branch that is there; None: main.
      replace_card: whether to replace a README.md that is there.
      token: None: the one of `hf auth login`, or HF_TOKEN.

    Returns:
      The address of the commit.

    Raises:
      InputError: the name is wrong, huggingface_hub isn't installed, there is no token or it may not write there, or the Hub
        can't be reached.
    """
    name = name.removeprefix(_PREFIX)
    if not _is_repository(name) or (revision is not None and not _is_revision(revision)):
        raise InputError(f"{name!r:.200}, revision={revision!r:.100}: expected user/name and a branch; fix: give such names")
    hub = _import()
    if token is None and hub.get_token() is None:
        raise InputError(f"{_PREFIX}{name} needs a token that may write; fix: {_LOG_IN}")
    with _errors(f"{_PREFIX}{name}", hub):
        api = hub.HfApi(token=token)
        api.create_repo(name, private=private, exist_ok=True)
        content = dict(files)
        if replace_card or not api.file_exists(name, _CARD, revision=revision):
            content[_CARD] = card.encode()
        operations = [hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in content.items()]
        return str(api.create_commit(name, operations, commit_message="A model of adsq_jax", revision=revision).commit_url)


def _is_repository(name: str) -> bool:
    return _REPOSITORY.fullmatch(name) is not None and not re.search(r"\.\.|--|[.-](/|$)|\.git$", name)


def _is_revision(revision: str) -> bool:
    return len(revision) <= _LONGEST_REVISION and _REVISION.fullmatch(revision) is not None and ".." not in revision


def _import() -> Any:
    try:
        import huggingface_hub.errors  # the package itself loads it only when it needs it
    except ImportError as error:
        raise InputError(f"hf:// needs huggingface_hub ({error.name} is missing); fix: pip install 'adsq_jax[hub]'") from error
    return huggingface_hub


@contextlib.contextmanager
def _errors(address: str, hub: Any) -> Iterator[None]:
    """Turn what the Hub's library raises into an InputError of one line."""
    kinds = hub.errors
    try:
        yield
    except InputError as error:
        problem = str(error).partition("; fix:")[0]
        raise InputError(
            f"{address} holds no model that can be loaded ({problem}); fix: give another, or push it again"
        ) from error
    except kinds.GatedRepoError as error:
        raise InputError(f"{address} is gated; fix: ask for access on its page, and log in: {_LOG_IN}") from error
    except kinds.RepositoryNotFoundError as error:
        raise InputError(
            f"{address} isn't there, or is private; fix: check the name, or log in with a token that may use it: {_LOG_IN}"
        ) from error
    except kinds.RevisionNotFoundError as error:
        raise InputError(f"{address}: the repository has no such revision; fix: give a branch, a tag or a commit") from error
    except kinds.LocalEntryNotFoundError as error:
        reason = _reason(error.__cause__ or error)
        raise InputError(
            f"{address} can't be reached, and isn't in the cache of this machine ({reason}); fix: connect to the network, or "
            "give a folder"
        ) from error
    except kinds.EntryNotFoundError as error:
        raise InputError(f"{address} holds no model of adsq_jax; fix: give a repository that push_to_hub made") from error
    except Exception as error:  # of httpx, of the system, of what a server answered
        if is_out_of_memory(error):
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise InputError(f"{address} refuses the token; fix: log in with one that may do this: {_LOG_IN}") from error
        fix = remedy(error) if is_system_error(error) else "check the network and HF_ENDPOINT, and try again"
        raise InputError(f"{address} can't be used ({_reason(error)}); fix: {fix}") from error


def _reason(error: BaseException) -> str:
    return printable(last_line(error)[:200], keep="")


def read_result(run: str | Path | None, *, bits: int, model_sha256: str, must_exist: bool) -> dict[str, Any] | None:
    """Return the content of a run's `result.json`; None where there is none and none must be.

    Raises:
      InputError: it must be there and isn't, can't be read, or is of another model, as far as it says of which.
    """
    path = None if run is None else storage.path(str(run)) / "result.json"
    try:
        if path is None or not (must_exist or storage.is_file(path)):
            return None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); fix: give another run, or repair that") from error
    result = workdir.read_json(path)
    if not isinstance(result, dict) or result.get("bits") != bits:
        raise InputError(f"{path} is not a result of this model, which has {bits} bits; fix: give the run that made it")
    if result.get("model_sha256", model_sha256) != model_sha256:  # results of before don't say
        raise InputError(
            f"{path} is the result of another model; fix: if training was interrupted, run the training command again and load "
            "the model again; else leave out run=, or give the run whose last model this is"
        )
    return result


def model_card(description: Mapping[str, Any], *, name: str, result: Mapping[str, Any] | None) -> str:
    """Return a model card: how to load the model, what it is, how it was trained and measured. The licence is left out.

    Args:
      description: the content of `model.json`.
      name: of the repository, `user/name`.
      result: the content of `result.json`; None: the card has no measures.

    Returns:
      Markdown with YAML before it.
    """
    network = description["network"]["backbone"]
    rows = {
        "method": description["method"],
        "bits of a hash code": description["bits"],
        "backbone, pixels a side": f"{network}, {description['view']['image_size']}",
        "queries and database by": description["query_net"],
    }
    if result is not None:
        rows |= _measures(result)
    table = "\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items())
    return f"""---
library_name: adsq_jax
pipeline_tag: image-feature-extraction
tags:
- image-retrieval
- hashing
---

# {name.rpartition("/")[2]}

Binary hash codes of {description["bits"]} bits for images: similar images get codes at a small Hamming distance.

```python
import adsq_jax

model = adsq_jax.load("hf://{name}")
codes = model.encode(["cat.jpg", "dog.jpg"])  # int8[2, {description["bits"]}] in {{-1, +1}}
```

| | |
|---|---|
{table}

mAP averages over the order of items at the same distance. The licence of this model, which depends on its data and on the
weights that it started from, is not stated: its owner adds it above as `license:`.
"""


def _measures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of a card that say how a model was trained and measured; none where a result lacks what they need."""
    try:
        config = result["config"]
        cutoff = result["map_at"]
        rows = {
            "data set, protocol": f"{config['data']['name']}, {result['protocol']}",
            "queries / training images / database": f"{result['n_query']:,} / {result['n_train']:,} / {result['n_database']:,}",
            "split": f"sha256 {result['split_sha256'][:12]}",
            f"mAP@{cutoff}": f"{result['map']:.4f}",
            "mAP@all": f"{result['metrics']['all']['map']:.4f}",
            **_by_chance(result),
            "pretrained weights": _start(result),
            "seed, date": f"{result['seed']}, {result['date']}",
            "adsq_jax": result["versions"]["adsq_jax"],
        }
    except (LookupError, TypeError, ValueError, AttributeError):
        return {}
    if result.get("validation"):
        rows["measured on"] = "held-out training images, not on the queries of the protocol"
    return rows


def _by_chance(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of mAP in random order; of a result that has none, the share of relevant items, which is near it."""
    if "map_by_chance" in result:
        return {f"mAP@{result['map_at']} by chance": f"{result['map_by_chance']:.4f}"}
    share = result["precision_recall"]["precision"][-1]
    return {"mAP@all by chance": f"about {share:.4f}, the share of the database that is relevant to a query"}


def _start(result: Mapping[str, Any]) -> str:
    """Return from which weights a run started, without a path of the machine that trained."""
    if result.get("from"):
        return f"those of another run, sha256 {str(result['from']['sha256'])[:12]}"
    if not result["pretrained"]:
        return "none"
    source = str(result["pretrained"]["source"])
    return source if source.startswith("pypi:") else storage.path(source).name


def _cell(value: Any) -> str:
    """Return a text that stays in one cell of a Markdown table."""
    return re.sub(r"[|<>`\[\]\\]", lambda match: f"&#{ord(match[0])};", printable(str(value)[:200], keep=""))
