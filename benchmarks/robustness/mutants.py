#!/usr/bin/env python3
"""Put small defects into the package, one at a time, and record which of them the tests catch.

    python -m benchmarks.robustness.mutants --out=after.json [--before=before.json] [--only=12,40] [--workers=2]

benchmarks/robustness/mutants.toml lists the defects by hand, so that each is one that would hurt; generators of mutants change
every operator of a file, and would need days of tests. A defect is put into a copy of the checkout. First the test runs that
caught it before (--before), then the tests of its file and of its folder, until one fails. All defects that survive those go
into one copy, on which the whole suite runs; each test that fails there then runs again with each survivor alone, which gives
the defect that it catches.
"""

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = Path(__file__).with_suffix(".toml")
SECONDS = 900  # that one run of some tests may take: a defect that makes them hang is caught
QUICK = "not slow and not system and not reference and not benchmark"


def read() -> list[dict[str, str]]:
    """Read the defects: `file`, `old` lines, `new` lines and what the `defect` is."""
    mutants = tomllib.loads(MUTANTS.read_text())["mutant"]
    return [{name: text.strip("\n") for name, text in mutant.items()} for mutant in mutants]


def mutate(content: str, mutant: dict[str, str]) -> str:
    """Return a file's content with the defect; raise ValueError where its lines aren't there exactly once."""
    times = f"\n{content}".count(f"\n{mutant['old']}\n")
    if times != 1:
        raise ValueError(f"{mutant['file']} has these lines {times} times, expected once: {mutant['old']}")
    return f"\n{content}".replace(f"\n{mutant['old']}\n", f"\n{mutant['new']}\n")[1:]


def copy_checkout(folder: Path) -> Path:
    """Copy what git tracks, and files that are new, into a folder; the Milvus server's environment is linked."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT / ".venv-milvus").exists():
        (folder / ".venv-milvus").symlink_to(ROOT / ".venv-milvus")
    return folder


@contextlib.contextmanager
def applied(folder: Path, mutants: list[dict[str, str]]):
    """Put defects into a copy, and take them out again."""
    for mutant in mutants:
        path = folder / mutant["file"]
        path.write_text(mutate(path.read_text(), mutant))
    try:
        yield
    finally:
        for mutant in mutants:
            shutil.copy2(ROOT / mutant["file"], folder / mutant["file"])


def run_tests(folder: Path, *arguments: str, seconds: float = SECONDS) -> list[str]:
    """Run pytest in a copy; return the tests that failed, or what else ended it."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [f"no end within {seconds:.0f} s"]
    lines = [line.split(" - ")[0] for line in done.stdout.splitlines()]
    failed = [line.split(" ", 1)[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return failed or ([] if done.returncode in (0, 5) else [f"pytest ends with status {done.returncode}"])


def nearby_tests(file: str) -> list[list[str]]:
    """Return the tests to try first for a file of the package: its own, then its folder's."""
    path = Path(file).relative_to("adsq_jax")
    folder, top = ROOT / "tests" / path.parent, ROOT / "tests" / f"test_{path.parent}.py"
    own = [test for test in folder.glob("test_*.py") if path.stem.startswith(test.stem.removeprefix("test_"))]
    others = sorted(set(folder.rglob("test_*.py")) - set(own)) if path.parent != Path() else []
    stages = own, others, [top] if top.is_file() else []
    return [[str(test.relative_to(ROOT)) for test in stage] for stage in stages if stage]


def try_nearby(mutant: dict[str, str], copies: "queue.Queue[Path]", *, caught_before: dict[str, str]) -> dict[str, object]:
    """Run the test that caught one defect before, then those near it; return its record."""
    folder, began, failed = copies.get(), time.monotonic(), []
    try:
        with applied(folder, [mutant]):
            test = caught_before.get(mutant["defect"])
            if test and test in run_tests(folder, "-n0", test):  # else it may be gone
                failed = [test]
            for tests in [] if failed else nearby_tests(mutant["file"]):
                failed = run_tests(folder, "-x", "-n0", "-m", QUICK, *tests)
                if failed:
                    break
    finally:
        copies.put(folder)
    print(f"{mutant['file']}: {mutant['defect']}: {failed or 'not caught nearby'}", file=sys.stderr, flush=True)
    return {**mutant, "caught_by": failed[0] if failed else None, "seconds": round(time.monotonic() - began, 1)}


def try_everything(survivors: list[dict[str, object]], folder: Path) -> None:
    """Run the whole suite with all survivors together, and what failed with each alone; fill in `caught_by`."""
    with applied(folder, survivors):
        failed = run_tests(folder, "-n2", "--dist=worksteal", seconds=5_400)
    print(f"with all survivors together: {failed}", file=sys.stderr, flush=True)
    healthy = run_tests(folder, "-n2", *failed) if failed else []  # tests that fail without any defect say nothing
    failed = [test for test in failed if test not in healthy]
    for survivor in survivors if failed else []:
        with applied(folder, [survivor]):
            survivor["caught_by"] = next(iter(run_tests(folder, "-x", "-n0", *failed)), None)


def main() -> None:
    """Read the flags, try all defects, and write and print what was caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file: each defect and the test that caught it")
    parser.add_argument("--before", type=Path, help="an earlier FILE of --out")
    parser.add_argument("--only", default="", help="numbers of defects, from 0; default: all")
    parser.add_argument("--workers", type=int, default=2, help="defects tried at once")
    flags = parser.parse_args()
    mutants = read()
    if flags.only:
        mutants = [mutants[int(number)] for number in flags.only.split(",")]
    before = [] if flags.before is None else json.loads(flags.before.read_text())
    caught_before = {record["defect"]: record["caught_by"] for record in before if "::" in (record["caught_by"] or "")}
    with tempfile.TemporaryDirectory(prefix="mutants_") as temporary:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(flags.workers):
            copies.put(copy_checkout(Path(temporary) / str(number)))
        with ThreadPoolExecutor(flags.workers) as pool:
            records = list(pool.map(lambda mutant: try_nearby(mutant, copies, caught_before=caught_before), mutants))
        flags.out.write_text(json.dumps(records, indent=1) + "\n")
        survivors = [record for record in records if record["caught_by"] is None]
        if survivors:
            try_everything(survivors, copies.get())
    flags.out.write_text(json.dumps(records, indent=1) + "\n")
    for record in records:
        if record["caught_by"] is None:
            print(f"not caught: {record['file']}: {record['defect']}")
    print(f"{sum(record['caught_by'] is not None for record in records)} of {len(records)} defects are caught")


if __name__ == "__main__":
    main()
