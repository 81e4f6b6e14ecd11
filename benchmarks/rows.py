"""README's tables, from benchmarks/results/: `python benchmarks/rows.py`.

With --write it puts them into README, and that of launch/milvus, each between the comments of its name.
"""

import argparse
import json
import re
from pathlib import Path
from statistics import linear_regression, mean

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


EVALUATOR_HEAD = (
    "| queries x database | seconds | over faiss, top 100 | times as fast as NumPy's sort (float32 labels) "
    "| distances a second | of a bare XOR-popcount pass | machine | date |\n|---|---|---|---|---|---|---|---|\n"
)


def evaluator_rows(folder: Path = ROOT / "benchmarks" / "results" / "evaluator") -> str:
    """The table of the evaluator's speed, and a line on its scale."""
    speed, scale = (json.loads((folder / f"{name}.json").read_text()) for name in ("speed", "scale"))
    lines = [
        f"| {case['case']} | {case['seconds']:.3f} | {case['over_faiss']:.2f} | {case['times_faster_than_sort']:.0f} "
        f"({case['times_faster_than_sort_float32']:.0f}) "
        f"| {case['distances_a_second']:.1e} | {case['share_of_bare_pass']:.0%} | {speed['machine']} | {speed['date']} |\n"
        for case in speed["cases"]
    ]
    large = scale["scale"]
    return (
        EVALUATOR_HEAD
        + "".join(lines)
        + f"\nFrom a mapped file, {large['case']}: {large['seconds']:.0f} s, {large['most_memory_gib']:.2f} GiB of memory at "
        + f"most ({scale['machine']}, {scale['date']}); by the slope from a quarter of it, a database of 1e9 would take "
        + f"{large['seconds_for_1e9_items_extrapolated'] / 3600:.1f} hours (extrapolated).\n"
    )


PAIR_HEAD = (
    "| network | mAP@all, mean | by seed | chance level | split | seconds a run | machine | date |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def pair_rows(folder: Path, *, names: dict[str, str]) -> str:
    """A table of two networks on the same data, each over the seeds.

    Args:
      folder: of NAME_seedN.json.
      names: what README calls each NAME.

    Returns:
      Markdown.
    """
    lines = []
    for net, name in names.items():
        group = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{net}_seed*.json"))]
        by_seed = ", ".join(f"{result['seed']}: {result['map']:.4f}" for result in group)
        seconds = " ".join(f"{result['seconds']:.0f}" for result in group)
        lot = {f"{result['precision_recall']['precision'][-1]:.4f}" for result in group}
        machines, splits, dates = (
            ", ".join(sorted({result[key][:length] for result in group}))
            for key, length in (("machine", None), ("split_sha256", 12), ("date", None))
        )
        lines.append(
            f"| {name} | **{mean(result['map'] for result in group):.4f}** | {by_seed} | {', '.join(sorted(lot))} "
            f"| `{splits}` | {seconds} | {machines} | {dates} |\n"
        )
    return PAIR_HEAD + "".join(lines)


def emoji_rows() -> str:
    """The table of the emoji example: the trained network and the one whose backbone stays random."""
    names = {"trained": "trained", "frozen": "heads on a random backbone"}
    return pair_rows(ROOT / "benchmarks" / "results" / "emoji", names=names)


def stamps_rows() -> str:
    """The table of the stamps: heads on a frozen trunk with pretrained weights, and with random ones."""
    names = {"pretrained": "heads on a frozen EfficientNet-Lite0", "random": "the same with random weights"}
    return pair_rows(ROOT / "benchmarks" / "results" / "stamps", names=names)


def input_rows(path: Path = ROOT / "benchmarks" / "results" / "input" / "input.json") -> str:
    """The table of the input's speed, and a line on long lists."""
    found = json.loads(path.read_text())
    lines = [
        f"| {name} | {row['images_per_second']:,.0f} | {row['adsq_jax_times_as_fast']:.2f} |\n"
        for name, row in found["readers"].items()
    ]
    lists = found["list"]
    return (
        "| reader | images a second | adsq_jax, times as fast |\n|---|---|---|\n"
        + "".join(lines)
        + f"\n{found['machine']}, {found['date']}. A list of {lists['lines']:,} lines of 21 labels is read in "
        + f"{lists['seconds']:.1f} s and then takes {lists['bytes_per_image']:.0f} bytes an image.\n"
    )


def backbone_rows(path: Path = ROOT / "benchmarks" / "results" / "backbones" / "speed.json") -> str:
    """The table of the backbones' speed beside torch."""
    found = json.loads(path.read_text())
    head = "| on a CPU | images a second | torch, the better layout | adsq_jax, times as fast | by seconds of the CPU |\n"
    lines = [
        f"| {case['case']}, batch {case['batch']} | {case['images_per_second']['adsq_jax']:.0f} "
        f"| {case['images_per_second'][case['best_of_torch']]:.0f} | {case['adsq_jax_times_as_fast']:.2f} "
        f"| {case['adsq_jax_times_as_fast_by_cpu_seconds']:.2f} |\n"
        for case in found["cases"]
    ]
    return head + "|---|---|---|---|---|\n" + "".join(lines) + f"\n{found['machine']}, {found['date']}.\n"


SCALING_HEAD = (
    "| devices | batch | GFLOP: network | GFLOP: pair terms | gradients, MB | ring's factor | BatchNorm, MB "
    "| batch's codes and their gradient, MB | indices and label sets, MB | codes, of all that is sent "
    "| banks and codes kept, MB | compiled |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def scaling_rows(path: Path = ROOT / "benchmarks" / "results" / "scaling" / "scaling.json") -> str:
    """What an update costs each device and what it sends, by the number of devices; what n changes once for each n."""
    found = json.loads(path.read_text())
    by_devices: dict[int, list] = {}
    for row in found["rows"]:
        by_devices.setdefault(row["devices"], []).append(row)
    lines = []
    for devices, group in sorted(by_devices.items()):
        row, sent = group[-1], group[-1]["bytes"]  # the larger training set allows every batch; what is sent is the same
        network = sum(row["operations"][part] for part in ("backbone", "heads"))
        pairs = " / ".join(f"{(x['operations']['pair terms'] + x['operations']['guidance']) / 1e9:.1f}" for x in group)
        norms, codes, small = (
            sum(sent.get(name, 0) for name in names) / 1e6
            for names in (
                ("BatchNorm, forward", "BatchNorm, backward"),
                ("codes", "gradient of the codes"),
                ("indices", "label sets"),
            )
        )
        compiled = "yes" if "bytes" in group[0].get("program", {}) else "no"
        kept = " / ".join(f"{x['bank_bytes'] / 1e6:.3g}" for x in group)
        lines.append(
            f"| {devices:,} | {row['batch']:,} | {network / 1e9:.0f} | {pairs} "
            f"| {sent.get('gradients and loss terms', 0) / 1e6:.1f} | {row['ring_all_reduce']:.3g} | {norms:.2f} | {codes:.2f} "
            f"| {small:.3f} | {row['share_of_codes']:.2%} | {kept} | {compiled} |\n"
        )
    net, names = found["network"], " / ".join(dict.fromkeys(row["case"] for row in found["rows"]))
    return (
        SCALING_HEAD
        + "".join(lines)
        + f"\nTraining set: {names} (the first has too few images for the largest batches). {net['backbone']} at {net['side']}x"
        + f"{net['side']}, {net['bits']} bits, {net['batch_a_device']} images a device; {found['machine']}, {found['date']}.\n"
    )


def index_rows(folder: Path = ROOT / "benchmarks" / "results" / "index") -> str:
    """The table of the index's speed, of encoding, and of kills."""
    search, encode, kills = (json.loads((folder / f"{name}.json").read_text()) for name in ("search", "encode", "kills"))
    large, per_second = search["large"], search["queries_a_second"]
    network, encoding = (encode["images_a_second"][name] for name in ("network", "encode"))
    rows_ = {
        "codes added, each batch kept": f"{search['codes_added_a_second']:,.0f} a second",
        "opened, to the first answer": f"{search['seconds_to_open']:.2f} s",
        f"nearest {search['k']}": f"{per_second['index']:,.0f} queries a second, {search['ratio']:.2f} of bare faiss",
        f"{large['codes']:,} codes": f"{large['codes_added_a_second']:,.0f} added a second, opened in "
        f"{large['seconds_to_open']:.1f} s, memory {large['times_the_codes']:.1f} times the codes at most",
        f"{encode['images']} pictures encoded, {encode['backbone']}, {encode['image_size']}x{encode['image_size']}": (
            f"{encoding:.0f} a second, {encode['ratio']:.2f} of the bare network ({network:.0f})"
        ),
        f"{len(kills['kills'])} times `kill -9` while adding": "nothing lost, nothing twice",
    }
    return (
        f"| {search['codes']:,} codes of {search['bits']} bits | {search['machine']}, {search['date']} |\n|---|---|\n"
        + "".join(f"| {name} | {text} |\n" for name, text in rows_.items())
        + "\nMade by `benchmarks/speed/search.py`, `benchmarks/speed/encode.py` and `benchmarks/robustness/index_kills.py`.\n"
    )


def milvus_rows(folder: Path = ROOT / "benchmarks" / "results" / "milvus") -> str:
    """The table of an index on a Milvus server."""
    found, kills = (json.loads((folder / f"{name}.json").read_text()) for name in ("milvus", "kills"))
    (size,) = (size for size in found["sizes"] if "alternating" in size)
    both, one, lists = size["alternating"], size["one_query_seconds"], size["lists"]
    rows_ = {
        "codes added, each batch kept": f"{size['codes_added_a_second']:,.0f} a second",
        f"nearest {found['k']} and their items, many queries at a time": f"{both['server']:,.0f} queries a second "
        f"(in a folder, without their items, {both['folder']:,.0f}: {both['folder'] / both['server']:.1f} times as many); the "
        "same distances",
        "one query by itself": f"{1000 * one['bounded']:.0f} ms; {1000 * one['strong']:.0f} ms if it must see all that is "
        "kept, by a server that ticks each 50 ms (200 by default)",
        f"with lists, nlist {lists['nlist']}, nprobe {lists['nprobe']}": f"{lists['queries_a_second']:,.0f} queries a second",
        "copied into a folder, and back, every item compared": f"{size['seconds_to_copy_out']:.0f} s and "
        f"{size['copied_back']['seconds']:.0f} s",
        f"{len(kills['kills'])} times `kill -9` of the server while codes were added": "nothing lost, nothing twice; the "
        f"client went on by itself after {max(kill['waited'] or 0 for kill in kills['kills']):.0f} s at most",
        "the same, and it stayed away": f"one line after {kills['left_alone']['seconds']:.0f} s",
    }
    return (
        f"| {size['codes']:,} codes of {found['bits']} bits, {found['server']} | {found['machine']}, {found['date']} |\n"
        + "|---|---|\n"
        + "".join(f"| {name} | {text} |\n" for name, text in rows_.items())
        + "\nMade by `python -m benchmarks.speed.milvus` and `python -m benchmarks.robustness.milvus_kills`, client and server "
        "on one machine.\n"
    )


def recall_rows(path: Path = ROOT / "benchmarks" / "results" / "milvus" / "milvus.json") -> str:
    """The table of what BIN_IVF_FLAT finds."""
    all_ = json.loads(path.read_text())
    found = all_["recall"]
    lines = [f"| {row['nprobe']} | {row['recall']:.4f} | {row['queries_a_second']:,.0f} |\n" for row in found["by_nprobe"]]
    return (
        f"| nprobe, of {found['nlist']} lists | recall of the nearest {all_['k']} | queries a second |\n|---|---|---|\n"
        + "".join(lines)
        + f"\n{found['items']:,} items, {found['distinct_codes']:,} different codes of {found['bits']} bits "
        f"({all_['machine']}, {all_['date']}); recall counts what lies no farther than the true {all_['k']}th.\n"
    )


def sizing_rows(path: Path = ROOT / "benchmarks" / "results" / "milvus" / "milvus.json") -> str:
    """What larger indexes ask for, by the slopes that were measured."""
    found = json.loads(path.read_text())
    counts = [size["codes"] for size in found["sizes"]]
    memory, work = (
        linear_regression(counts, [size[name] for size in found["sizes"]]).slope for name in ("bytes", "core_seconds_a_query")
    )
    (lists,) = (size["lists"] for size in found["sizes"] if "lists" in size)
    share = lists["nprobe"] / lists["nlist"]
    lines = [
        f"| {count:.0e} | {count * memory / 1e9:,.0f} GB | {count * found['bits'] / 8e9:,.1f} GB | {count * work:,.2f} "
        f"| {count * work * share:,.3f} |\n"
        for count in (1e8, 1e9, 1e10)
    ]
    return (
        "| codes | memory, all in it | of that codes | core-seconds a query, BIN_FLAT | BIN_IVF_FLAT, nprobe / nlist = "
        f"{lists['nprobe']} / {lists['nlist']} |\n|---|---|---|---|---|\n"
        + "".join(lines)
        + f"\nExtrapolated from {counts[0]:,} to {counts[-1]:,} codes of {found['bits']} bits, with ids of 29 characters, a "
        f"label and a hash ({found['server']}, {found['machine']}, {found['date']}): {memory:.0f} bytes of memory a code, "
        f"{1e9 * work:.2f} core-seconds a query for 1e9 codes; for BIN_IVF_FLAT that times the share of the lists that is "
        "looked through, without what choosing them takes. The memory of each process by itself comes on top.\n"
    )


def gpu_rows(folder: Path = ROOT / "benchmarks" / "results" / "gpu") -> str:
    """The table of what a GPU has shown."""
    found, evaluator = (json.loads((folder / f"{name}.json").read_text()) for name in ("gpu", "evaluator"))
    digits, pictures = found["digits"], found["pictures"]
    rows_ = {
        "`configs/digits.py` twice, and killed and resumed": f"{digits['bits_that_differ_in_a_second_run']} and "
        f"{digits['bits_that_differ_after_a_kill']} of {digits['bits']:,} bits differ; without the flag "
        f"{digits['bits_that_differ_without_the_flag']}",
        "`configs/stamps.py`": f"mAP@all {pictures['map']:.4f} in {pictures['seconds']:.0f} s",
        "its exported encoder, as CUDA": f"{pictures['bits_of_the_exported_encoder_that_differ']} of {pictures['bits']:,} bits "
        "differ from the model's",
    }
    ends = ", float32: images a second"
    for name in (name.removesuffix(ends) for name in found if name.endswith(ends)):
        single, half = (found[f"{name}, {dtype}: images a second"] for dtype in ("float32", "bfloat16"))
        rows_[f"{name}, 224x224"] = f"{single:,.0f} images a second; bfloat16 {half:,.0f}"
    for case in evaluator["cases"]:
        rows_[f"evaluator, {case['case']}"] = f"{case['seconds']:.3f} s"
    head = f"| on a GPU | {found['machine']}, jax {found['versions']['jax']}, {found['date']} |\n|---|---|\n"
    return head + "".join(f"| {name} | {text} |\n" for name, text in rows_.items())


TABLES = {
    "index": index_rows,
    "milvus": milvus_rows,
    "recall": recall_rows,
    "sizing": sizing_rows,
    "gpu": gpu_rows,
    "backbones": backbone_rows,
    "results": rows,
    "emoji": emoji_rows,
    "stamps": stamps_rows,
    "evaluator": evaluator_rows,
    "input": input_rows,
    "scaling": scaling_rows,
}


PAGES = (ROOT / "README.md", ROOT / "launch" / "milvus" / "README.md")


def with_rows(readme: str) -> str:
    """A page's text with its tables put in."""
    for name, table in TABLES.items():
        text = table()
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        readme = re.sub(pattern, lambda found, text=text: found[1] + text + found[2], readme, flags=re.DOTALL)
    return readme


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    if parser.parse_args().write:
        for path in PAGES:
            path.write_text(with_rows(path.read_text()))
    print(*(table() for table in TABLES.values()), sep="\n", end="")
