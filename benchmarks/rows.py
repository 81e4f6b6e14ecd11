"""Make every page of results from benchmarks/results/: `python -m benchmarks.rows [--write]`.

Without --write it prints the tables. With it, each table goes between the two comments with its name wherever a page of PAGES
has them, `<!-- index -->` and `<!-- /index -->` for instance, and `benchmarks/methods/report.py` writes the pages of the
comparison.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import linear_regression, mean
from typing import Any

from benchmarks.methods import report, scores, standings

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TARGET = 0.8  # the mAP of the table of minutes


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Write a table in Markdown; cells may be of any type."""
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in (head, ["---"] * len(head), *lines))


def made(results: Iterable[dict[str, Any]]) -> str:
    """Write the splits, machines and days of results on a line."""
    results = list(results)
    splits, days = (sorted({result[key] for result in results}) for key in ("split_sha256", "date"))
    machines = standings.listed(sorted({standings.machine_text(result["machine"]) for result in results}))
    name = "Split" if len(splits) == 1 else "Splits"
    return f"\n{name} {', '.join(f'`{split[:12]}`' for split in splits)}; {machines}; {standings.listed(days)}.\n"


def by_seed(group: list[dict[str, Any]]) -> list[str]:
    """Return the mean mAP of runs in bold, and their mAP and seconds by seed."""
    group = sorted(group, key=lambda result: result["seed"])
    return [
        f"**{mean(result['map'] for result in group):.4f}**",
        ", ".join(f"{result['map']:.4f}" for result in group),
        ", ".join(f"{result['seconds']:.0f}" for result in group),
    ]


def rows(folder: Path = RESULTS) -> str:
    """Make the table of Fashion-MNIST: a row for each code length, over the seeds."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    groups: dict[int, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["bits"], []).append(result)
    lines = []
    for bits, group in sorted(groups.items()):
        average, maps, seconds = by_seed(group)
        alone = mean(result["map_by_query_net"]["ff"] for result in group)
        lines.append([bits, average, maps, f"{alone:.4f}", seconds])
    head = ("bits", "mAP@all, mean", "seeds 0, 1, 2", "network f alone", "seconds per run")
    return table(head, lines) + made(results)


def evaluator_rows(folder: Path = RESULTS / "evaluator") -> str:
    """Make the table of the evaluator's speed, and a line on a large database."""
    speed, scale = (json.loads((folder / f"{name}.json").read_text()) for name in ("speed", "scale"))
    lines = [
        [
            case["case"],
            f"{case['seconds']:.3f}",
            f"{case['over_faiss']:.2f}",
            f"{case['times_faster_than_sort']:.0f} ({case['times_faster_than_sort_float32']:.0f})",
            f"{case['distances_a_second']:.1e}",
            f"{case['share_of_bare_pass']:.0%}",
        ]
        for case in speed["cases"]
    ]
    head = (
        "queries x database",
        "seconds",
        "seconds, relative to faiss for the nearest 100",
        "times as fast as NumPy's sort (float32 labels)",
        "distances per second",
        "speed, relative to a bare XOR and popcount",
    )
    large, (machine, scale_machine) = scale["scale"], (standings.machine_text(x["machine"]) for x in (speed, scale))
    return (
        table(head, lines)
        + f"\n{machine}, {speed['date']}. From a mapped file, {large['case']}: {large['seconds']:.0f} s and at most "
        + f"{large['most_memory_gib']:.2f} GiB of memory ({scale_machine}, {scale['date']}). Extrapolated from this and a "
        + f"quarter of it, 1e9 items would take {large['seconds_for_1e9_items_extrapolated'] / 3600:.1f} hours.\n"
    )


def pair_rows(folder: Path, *, names: dict[str, str]) -> str:
    """Make a table of two networks on the same data, each over the seeds.

    Args:
      folder: the folder of the files NAME_seedN.json.
      names: NAME -> what the table calls it.
    """
    lines, results = [], []
    for net, name in names.items():
        group = [json.loads(path.read_text()) for path in folder.glob(f"{net}_seed*.json")]
        chance = {f"{result['precision_recall']['precision'][-1]:.4f}" for result in group}
        average, maps, seconds = by_seed(group)
        lines.append([name, average, maps, ", ".join(sorted(chance)), seconds])
        results += group
    head = ("network", "mAP@all, mean", "seeds 0, 1, 2", "chance", "seconds per run")
    return table(head, lines) + made(results)


def emoji_rows() -> str:
    """Make the table of the emoji example: the trained network, and one with a random backbone."""
    names = {"trained": "trained", "frozen": "hash layers on a random backbone"}
    return pair_rows(RESULTS / "emoji", names=names)


def stamps_rows() -> str:
    """Make the table of the stamps: hash layers on a frozen backbone with pretrained weights, and with random ones."""
    names = {"pretrained": "hash layers on a frozen EfficientNet-Lite0", "random": "the same with random weights"}
    return pair_rows(RESULTS / "stamps", names=names)


def input_rows(path: Path = RESULTS / "input" / "input.json") -> str:
    """Make the table of the input's speed, and a line on long lists."""
    content = json.loads(path.read_text())
    lines = [
        f"| {name} | {row['images_per_second']:,.0f} | {row['adsq_jax_times_as_fast']:.2f} |\n"
        for name, row in content["readers"].items()
    ]
    lists, machine = content["list"], standings.machine_text(content["machine"])
    alone, *workers = (f"{row['images_per_second']:,.0f}" for row in content["workers"].values())
    counts = " and ".join([f"{count} {speed}" for count, speed in zip(("one", "two"), workers, strict=True)])
    return (
        "| reader | images per second | adsq_jax, times as fast |\n|---|---|---|\n"
        + "".join(lines)
        + f"\n{machine}, {content['date']}. One thread alone reads {alone} images per second; worker processes "
        + f"of one thread (`data.workers`): {counts}. A list of {lists['lines']:,} lines of 21 labels is read in "
        + f"{lists['seconds']:.1f} s and then takes {lists['bytes_per_image']:.0f} bytes per image.\n"
    )


def backbone_rows(path: Path = RESULTS / "backbones" / "speed.json") -> str:
    """Make the table of the backbones' speed beside torch."""
    content = json.loads(path.read_text())
    head = "| on a CPU | images per second | torch, the better layout | adsq_jax, times as fast | by CPU seconds |\n"
    lines = [
        f"| {case['case']}, batch {case['batch']} | {case['images_per_second']['adsq_jax']:.0f} "
        f"| {case['images_per_second'][case['best_of_torch']]:.0f} | {case['adsq_jax_times_as_fast']:.2f} "
        f"| {case['adsq_jax_times_as_fast_by_cpu_seconds']:.2f} |\n"
        for case in content["cases"]
    ]
    return (
        head
        + "|---|---|---|---|---|\n"
        + "".join(lines)
        + f"\n{standings.machine_text(content['machine'])}, {content['date']}.\n"
    )


def scaling_rows(path: Path = RESULTS / "scaling" / "scaling.json") -> str:
    """Make the tables of what an update costs each device and of what it sends; what depends on n has a figure for each n."""
    content = json.loads(path.read_text())
    by_devices: dict[int, list] = {}
    for row in content["rows"]:
        by_devices.setdefault(row["devices"], []).append(row)
    costs, traffic = [], []
    for devices, group in sorted(by_devices.items()):
        row, sent = group[-1], group[-1]["bytes"]  # the larger training set allows every batch; the bytes sent are the same
        network = sum(row["operations"][part] for part in ("backbone", "heads"))
        parts = ("pair terms", "guidance", "similarity")
        pairs = " / ".join(f"{sum(x['operations'][part] for part in parts) / 1e9:.1f}" for x in group)
        kept = " / ".join(f"{x['bank_bytes'] / 1e6:.3g}" for x in group)
        compiled = "yes" if "bytes" in group[0].get("program", {}) else "no"
        costs.append([f"{devices:,}", f"{row['batch']:,}", f"{network / 1e9:.0f}", pairs, kept, compiled])
        norms, codes, small = (
            sum(sent.get(name, 0) for name in names) / 1e6
            for names in (
                ("BatchNorm, forward", "BatchNorm, backward"),
                ("codes", "gradient of the codes"),
                ("indices", "label sets"),
            )
        )
        gradients = f"{sent.get('gradients and loss terms', 0) / 1e6:.1f}"
        traffic.append([f"{devices:,}", gradients, f"{row['ring_all_reduce']:.3g}", f"{norms:.2f}", f"{codes:.2f}"])
        traffic[-1] += [f"{small:.3f}", f"{row['share_of_codes']:.2%}"]
    net, names = content["network"], " / ".join(dict.fromkeys(row["case"] for row in content["rows"]))
    return (
        table(("devices", "batch", "GFLOP: network", "GFLOP: pair terms", "banks and codes kept, MB", "compiled"), costs)
        + "\nSent by each device, in MB:\n\n"
        + table(
            (
                *("devices", "gradients", "times, in a ring", "BatchNorm", "codes and their gradient"),
                *("indices and label sets", "share of the codes"),
            ),
            traffic,
        )
        + f"\nTraining set: {names} (the first has too few images for the largest batches). {net['backbone']} at {net['side']}x"
        + f"{net['side']}, {net['bits']} bits, {net['batch_a_device']} images per device; "
        + f"{standings.machine_text(content['machine'])}, {content['date']}.\n"
    )


def label_sets_rows(path: Path = RESULTS / "label_sets" / "label_sets.json") -> str:
    """Make the table of what many label sets cost."""
    content = json.loads(path.read_text())
    lines = [
        f"| {row['sets']:,} | {row['core_seconds']['LabelNet']:.1f} "
        f"| {row['core_seconds']['LabelNet'] * 1e8 / row['sets'] ** 2:.1f} | {row['core_seconds']['B-step']:.1f} "
        f"| {row['core_seconds']['ImgNet']:.2f} | {max(row['peak_gib'].values()):.2f} |\n"
        for row in content["rows"]
    ]
    columns = (
        "label sets",
        "update of LabelNet, core-seconds",
        "core-seconds for 1e8 pairs",
        "one B-step, core-seconds",
        "update of an ImgNet, core-seconds",
        "peak of the process, GiB",
    )
    return (
        f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
        + "".join(lines)
        + f"\n{content['hidden']:,} and {content['features']} units of LabelNet, {content['bits']} bits, batch "
        + f"{content['batch']}, "
        + f"{content['labels_an_image']} of {content['labels']} labels per image "
        + f"({standings.machine_text(content['machine'])}, {content['date']}).\n"
    )


def unlabelled_rows(folder: Path = RESULTS / "unlabelled") -> str:
    """Make the table of search without labels, by benchmarks/methods/unlabelled.py: a row for each model and data set."""
    names = {"stamps": "Tux Paint's stamps", "cifar10_test": "CIFAR-10's test part, JPEG copy"}
    columns = ("pictures", "model", "codes", "ranked again", "all features", "label mAP of codes")
    text = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    last: dict = {}
    for name, title in names.items():
        last = json.loads((folder / f"{name}.json").read_text())
        for model, figures in last["results"].items():
            shares = [f"{100 * row['first']:.0f} / {100 * row['among_ten']:.0f} %" for row in figures.values()]
            features, codes, again = shares
            text += f"| {title}, {last['pictures']:,} | {model} | {codes} | {again} | {features} | "
            text += f"{figures['codes']['label_map']:.3f} |\n"
    return (
        f"{text}\nHow often a picture is first / among the first ten if the query is a random crop of "
        f"{100 * last['least']:.0f} to 100 % of each side ({last['queries']:,} crops, seed {last['seed']}, {last['date']}).\n"
    )


def index_rows(folder: Path = RESULTS / "index") -> str:
    """Make the table of the index's speed, of ranking again, of encoding, and of kills."""
    names = ("search", "rerank", "encode", "kills")
    search, rerank, encode, kills = (json.loads((folder / f"{name}.json").read_text()) for name in names)
    large, per_second = search["large"], search["queries_a_second"]
    network, encoding = (encode["images_a_second"][name] for name in ("network", "encode"))
    rows_ = {
        "codes added, each batch saved": f"{search['codes_added_a_second']:,.0f} per second",
        "opening, until the first answer": f"{search['seconds_to_open']:.2f} s",
        f"nearest {search['k']}": f"{per_second['index']:,.0f} queries per second, {search['ratio']:.2f} of bare faiss",
        f"{rerank['codes']:,} codes with features ({rerank['date']})": f"{rerank['bytes_an_item']:.0f} bytes per item; "
        f"opening, until the first hits: {rerank['seconds_to_open']:.1f} s, after a write "
        f"{rerank['seconds_to_open_first']:.1f} s",
        f"one query, {rerank['k']} hits": f"{rerank['ms_by_codes']:.0f} ms; with {rerank['reranked']} ranked again "
        f"{rerank['ms_ranked_again']:.0f} ms",
        f"{large['codes']:,} codes": f"{large['codes_added_a_second']:,.0f} added per second, opened in "
        f"{large['seconds_to_open']:.1f} s, at most {large['times_the_codes']:.1f} times the codes in memory",
        f"{encode['images']} pictures encoded, {encode['backbone']}, {encode['image_size']}x{encode['image_size']}": (
            f"{encoding:.0f} per second, {encode['ratio']:.2f} of the bare network ({network:.0f})"
        ),
        f"{len(kills['kills'])} times `kill -9` while adding": "nothing lost, nothing twice",
    }
    return (
        f"| {search['codes']:,} codes of {search['bits']} bits | {search['machine']}, {search['date']} |\n|---|---|\n"
        + "".join(f"| {name} | {text} |\n" for name, text in rows_.items())
    )


def milvus_rows(folder: Path = RESULTS / "milvus") -> str:
    """Make the table of an index on a Milvus server."""
    speed, kills = (json.loads((folder / f"{name}.json").read_text()) for name in ("milvus", "kills"))
    (size,) = (size for size in speed["sizes"] if "alternating" in size)
    both, one, lists = size["alternating"], size["one_query_seconds"], size["lists"]
    rows_ = {
        "codes added, each batch saved": f"{size['codes_added_a_second']:,.0f} per second",
        f"nearest {speed['k']} and their items, many queries at a time": f"{both['server']:,.0f} queries per second "
        f"(in a folder, without their items, {both['folder']:,.0f}: {both['folder'] / both['server']:.1f} times as many); the "
        "distances are the same",
        "one query by itself": f"{1000 * one['bounded']:.0f} ms; {1000 * one['strong']:.0f} ms if it must see everything that "
        "was saved, with a server tick of 50 ms (default: 200)",
        f"with lists, nlist {lists['nlist']}, nprobe {lists['nprobe']}": f"{lists['queries_a_second']:,.0f} queries per second",
        "copied into a folder, and back, every item compared": f"{size['seconds_to_copy_out']:.0f} s and "
        f"{size['copied_back']['seconds']:.0f} s",
        f"{len(kills['kills'])} times `kill -9` of the server while codes were added": "nothing lost, nothing twice; the "
        f"client continued by itself after at most {max(kill['waited'] or 0 for kill in kills['kills']):.0f} s",
        "the same, if the server isn't started again": f"an error in one line after {kills['left_alone']['seconds']:.0f} s",
    }
    return (
        f"| {size['codes']:,} codes of {speed['bits']} bits, {speed['server']} | {speed['machine']}, {speed['date']} |\n"
        + "|---|---|\n"
        + "".join(f"| {name} | {text} |\n" for name, text in rows_.items())
    )


def recall_rows(path: Path = RESULTS / "milvus" / "milvus.json") -> str:
    """Make the table of the recall of BIN_IVF_FLAT."""
    content = json.loads(path.read_text())
    recall = content["recall"]
    lines = [f"| {row['nprobe']} | {row['recall']:.4f} | {row['queries_a_second']:,.0f} |\n" for row in recall["by_nprobe"]]
    return (
        f"| nprobe, of {recall['nlist']} lists | recall of the nearest {content['k']} | queries per second |\n|---|---|---|\n"
        + "".join(lines)
        + f"\n{recall['items']:,} items, {recall['distinct_codes']:,} different codes of {recall['bits']} bits "
        f"({standings.machine_text(content['machine'])}, {content['date']}); "
        f"recall counts items no farther than the true {content['k']}th.\n"
    )


def sizing_rows(path: Path = RESULTS / "milvus" / "milvus.json") -> str:
    """Make the table of what larger indexes need, extrapolated from those measured."""
    speed = json.loads(path.read_text())
    counts = [size["codes"] for size in speed["sizes"]]
    memory, work = (
        linear_regression(counts, [size[name] for size in speed["sizes"]]).slope for name in ("bytes", "core_seconds_a_query")
    )
    (lists,) = (size["lists"] for size in speed["sizes"] if "lists" in size)
    share = lists["nprobe"] / lists["nlist"]
    lines = [
        f"| {count:.0e} | {count * memory / 1e9:,.0f} GB | {count * speed['bits'] / 8e9:,.1f} GB | {count * work:,.2f} "
        f"| {count * work * share:,.3f} |\n"
        for count in (1e8, 1e9, 1e10)
    ]
    return (
        "| codes | memory | memory for codes alone | core-seconds per query, BIN_FLAT | BIN_IVF_FLAT, nprobe / nlist = "
        f"{lists['nprobe']} / {lists['nlist']} |\n|---|---|---|---|---|\n"
        + "".join(lines)
        + f"\nExtrapolated from {counts[0]:,} to {counts[-1]:,} codes of {speed['bits']} bits, with ids of 29 characters, a "
        f"label and a hash ({speed['server']}, {speed['machine']}, {speed['date']}): {memory:.0f} bytes of memory a code, "
        f"{1e9 * work:.2f} core-seconds per query for 1e9 codes; for BIN_IVF_FLAT that times the share of the lists that is "
        "searched, without the time to choose them. Each process needs some memory of its own besides.\n"
    )


def gpu_rows(folder: Path = RESULTS / "gpu") -> str:
    """Make the table of what was measured on a GPU."""
    speed, evaluator = (json.loads((folder / f"{name}.json").read_text()) for name in ("gpu", "evaluator"))
    digits, pictures = speed["digits"], speed["pictures"]
    rows_ = {
        "`configs/digits.py` twice, and killed and resumed": f"{digits['bits_that_differ_in_a_second_run']} and "
        f"{digits['bits_that_differ_after_a_kill']} of {digits['bits']:,} bits differ; without the flag "
        f"{digits['bits_that_differ_without_the_flag']}",
        "`configs/stamps.py`": f"mAP@all {pictures['map']:.4f} in {pictures['seconds']:.0f} s",
        "its exported encoder, on CUDA": f"{pictures['bits_of_the_exported_encoder_that_differ']} of {pictures['bits']:,} bits "
        "differ from the model's",
    }
    ends = ", float32: images a second"
    for name in (name.removesuffix(ends) for name in speed if name.endswith(ends)):
        single, half = (speed[f"{name}, {dtype}: images a second"] for dtype in ("float32", "bfloat16"))
        rows_[f"{name}, 224x224"] = f"{single:,.0f} images per second; bfloat16 {half:,.0f}"
    for case in evaluator["cases"]:
        rows_[f"evaluator, {case['case']}"] = f"{case['seconds']:.3f} s"
    head = f"| on a GPU | {speed['machine']}, jax {speed['versions']['jax']}, {speed['date']} |\n|---|---|\n"
    return head + "".join(f"| {name} | {text} |\n" for name, text in rows_.items())


def time_to_map_rows(path: Path = RESULTS / "time_to_map" / "fashion_mnist_24bits.json", *, target: float = TARGET) -> str:
    """Make the table of the minutes of training until a mAP, by CPU minutes."""
    lines = []
    for run in json.loads(path.read_text())["runs"]:
        best = max(point["map"] for point in run["curve"])
        point = next((point for point in run["curve"] if point["map"] >= target), None)
        taken = [f"{point[kind] / 60:.1f}" for kind in ("cpu_seconds", "seconds")] if point else ["not reached", "-"]
        passes = (point or run["curve"][-1])["passes"]
        order = point["cpu_seconds"] if point else float("inf")
        lines.append((order, f"| {run['name']} | {' | '.join(taken)} | {passes} | {best:.4f} | {run['date']} |\n"))
    head = (
        f"| method, schedule | CPU minutes to mAP {target} | minutes | passes | best mAP | date |\n|---|---|---|---|---|---|\n"
    )
    return head + "".join(line for _, line in sorted(lines))


def means_rows(folder: Path = report.FOLDER) -> str:
    """Make the table of the comparison's means."""
    return standings.means_table(scores.read(folder))


TABLES = {
    "means": means_rows,
    "time_to_map": time_to_map_rows,
    "index": index_rows,
    "unlabelled": unlabelled_rows,
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
    "label_sets": label_sets_rows,
}
PAGES = (
    ROOT / "README.md",
    ROOT / "launch" / "milvus" / "README.md",
    *(report.PAGES / f"{name}.md" for name in ("speed", "training", "search")),
)


def with_rows(page: str) -> str:
    """Return a page's text with its tables replaced."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        if re.search(pattern, page, re.DOTALL):
            text = make()
            page = re.sub(pattern, lambda match, text=text: match[1] + text + match[2], page, flags=re.DOTALL)
    return page


def draw() -> None:
    """Draw the plots of speed.md and training.md from their results' files."""
    from benchmarks.speed import evaluator, time_to_map

    evaluator.plot(json.loads((RESULTS / "evaluator" / "speed.json").read_text())["linear"], report.PAGES / "evaluator.png")
    runs = json.loads((RESULTS / "time_to_map" / "fashion_mnist_24bits.json").read_text())["runs"]
    time_to_map.plot(runs, report.PAGES / "time_to_map.png", target=TARGET)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; with --write, write all pages of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the pages")
    if not parser.parse_args(arguments).write:
        print(*(make() for make in TABLES.values()), sep="\n", end="")
        return
    for path in PAGES:
        path.write_text(with_rows(path.read_text(encoding="utf-8")), encoding="utf-8")
    draw()
    sets = scores.read(report.FOLDER)
    report.write(sets, report.pages(sets, folder=report.FOLDER.relative_to(ROOT)), report.PAGES)


if __name__ == "__main__":
    main()
