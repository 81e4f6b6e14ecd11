"""README's table of results, from benchmarks/results/*.json: `python benchmarks/rows.py`.

With --write it puts the table into README, between the two `results` comments.
"""

import argparse
import json
import re
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parent.parent
HEAD = (
    "| protocol | bits | mAP@all, mean | by seed | f alone, mean | split | seconds a run | machine | date |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def rows(folder: Path = ROOT / "benchmarks" / "results") -> str:
    """The table: one row for each protocol and code length, over the seeds."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    groups: dict[tuple, list] = {}
    for result in results:
        groups.setdefault((result["protocol"], result["bits"], result["split_sha256"]), []).append(result)
    lines = []
    for (protocol, bits, split), group in sorted(groups.items()):
        group = sorted(group, key=lambda result: result["seed"])
        by_seed = ", ".join(f"{result['seed']}: {result['map']:.4f}" for result in group)
        alone = mean(result["map_by_query_net"]["ff"] for result in group)
        seconds = " ".join(f"{result['seconds']:.0f}" for result in group)
        machines = ", ".join(sorted({result["machine"] for result in group}))
        dates = ", ".join(sorted({result["date"] for result in group}))
        lines.append(
            f"| {protocol} | {bits} | **{mean(result['map'] for result in group):.4f}** | {by_seed} | {alone:.4f} "
            f"| `{split[:12]}` | {seconds} | {machines} | {dates} |\n"
        )
    return HEAD + "".join(lines)


def with_rows(readme: str) -> str:
    """README's text with the table put in."""
    return re.sub(
        r"(<!-- results -->\n).*?(<!-- /results -->)", lambda found: found[1] + rows() + found[2], readme, flags=re.DOTALL
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    if parser.parse_args().write:
        path = ROOT / "README.md"
        path.write_text(with_rows(path.read_text()))
    print(rows(), end="")
