"""Measure search without labels: is the picture found that a crop was cut from? Beside it, label mAP with and without training.

    python -m benchmarks.methods.unlabelled --images=FOLDER [--workdir=RUN] [--bits=64] [--queries=1500] [--least=0.7]

Indexes the pictures of a folder, and asks with random crops of them, each of `--least` to 1 of the height and of the width.
Prints how often the right picture comes first and among the first ten, expected over random orders of ties: by the cosine of
the trunk's features; by codes of an untrained model and of each trained one; and by these codes with the first 500 ranked again
by features as an index keeps them. Label mAP (all, aware of ties) is that of the codes, by the first folder of each path.
`--out=FILE` keeps the figures.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import adsq_jax
from adsq_jax import retrieval
from adsq_jax.data import gallery, images
from adsq_jax.data.gallery import Gallery
from adsq_jax.inference import untrained
from adsq_jax.inference.hits import RERANK
from adsq_jax.inference.model import Model
from adsq_jax.retrieval import features as compressed
from adsq_jax.run import environment

_BLOCK = 256  # queries compared at a time


class Pictures(NamedTuple):
    """What is indexed and asked."""

    database: list[np.ndarray]  # uint8[h, w, 3] each
    queries: list[np.ndarray]
    source: np.ndarray  # int[n_query], the picture that each query was cut from
    labels: np.ndarray  # of the database, int[n]


def read(folder: str, *, queries: int, least: float, seed: int) -> Pictures:
    """Decode all pictures of a folder, and cut queries out of them; those that can't be read are passed over."""
    found, random, database, names = gallery.read(folder, directory=""), np.random.default_rng(seed), [], []
    for row in range(len(found)):
        try:
            database.append(images.decode(found.source.content(row), shorter_side=0))
            names.append(_label(found, row))
        except images.BadImage:
            continue
    source = random.integers(len(database), size=queries)
    crops = [crop(database[row], least=least, random=random) for row in source]
    return Pictures(database, crops, source, np.unique(names, return_inverse=True)[1])


def _label(found: Gallery, row: int) -> str:
    return " ".join(found.labels(row))


def crop(picture: np.ndarray, *, least: float, random: np.random.Generator) -> np.ndarray:
    """Cut a rectangle out of a picture, uint8[h, w, 3], of `least` to 1 of its height and of its width."""
    height, width = (max(1, round(random.uniform(least, 1) * side)) for side in picture.shape[:2])
    top, left = (random.integers(side - part + 1) for side, part in zip(picture.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def found_among(scores: np.ndarray, source: np.ndarray, *, first: int) -> np.ndarray:
    """Return the chance that the right picture is among the first, over random orders of equal scores.

    Args:
      scores: float[n_query, n], the higher the nearer.
      source: int[n_query], the right picture of each query.
      first: how many.

    Returns:
      float[n_query], 0 to 1.
    """
    right = scores[np.arange(len(scores)), source][:, None]
    better, equal = (scores > right).sum(axis=1), (scores == right).sum(axis=1)
    return np.clip((first - better) / equal, 0, 1)


def by_codes(query: np.ndarray, database: np.ndarray) -> np.ndarray:
    """Return minus the distances of codes in {-1, +1}, float32[n_query, n]."""
    q, d = query.astype(np.float32), database.astype(np.float32)
    return (q @ d.T - q.shape[1]) / 2


def by_features(query: np.ndarray, database: np.ndarray) -> np.ndarray:
    """Return the cosines of features, float32[n_query, n]."""
    return np.stack([compressed.cosines(row, database) for row in query])


def ranked_again(codes: np.ndarray, cosines: np.ndarray, *, count: int = RERANK) -> np.ndarray:
    """Return scores by which the `count` nearest by codes come first, by cosine, and the others behind by distance."""
    count = min(count, codes.shape[1])
    order = np.argsort(-codes, axis=1, kind="stable")[:, :count]  # as an index breaks ties
    scores = codes - codes.shape[1] * 2.0
    np.put_along_axis(scores, order, np.take_along_axis(cosines, order, axis=1), axis=1)
    return scores


def shares(pictures: Pictures, score: Any) -> dict[str, float]:
    """Return how often the right picture comes first and among ten; `score` maps a slice of queries to scores."""
    found = []
    for start in range(0, len(pictures.source), _BLOCK):
        part = slice(start, start + _BLOCK)
        found.append([found_among(score(part), pictures.source[part], first=first) for first in (1, 10)])
    first, ten = np.concatenate(found, axis=1).mean(axis=1)
    return {"first": round(float(first), 4), "among_ten": round(float(ten), 4)}


def measure(model: Model, pictures: Pictures) -> dict[str, dict[str, float]]:
    """Return the figures of a model's features, its codes, and both together."""
    database, query = (model.encode(some) for some in (pictures.database, pictures.queries))
    exact, small = [], []
    for some in (pictures.queries, pictures.database):
        exact.append(model.features(some))
        small.append(compressed.compress(exact[-1]))
    labels = {"query_labels": pictures.labels[pictures.source], "database_labels": pictures.labels}
    return {
        "features": shares(pictures, lambda part: by_features(exact[0][part], exact[1])),
        "codes": {
            **shares(pictures, lambda part: by_codes(query[part], database)),
            "label_map": round(float(retrieval.measure(query, database, **labels).map), 4),
        },
        "ranked again": shares(
            pictures, lambda part: ranked_again(by_codes(query[part], database), by_features(small[0][part], small[1]))
        ),
    }


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the figures as a table of Markdown."""
    lines = ["| model | ranked by | first | among ten | label mAP |", "|---|---|---|---|---|"]
    for name, rows in results.items():
        for kind, figures in rows.items():
            label_map = f"{figures['label_map']:.3f}" if "label_map" in figures else ""
            lines.append(f"| {name} | {kind} | {figures['first']:.3f} | {figures['among_ten']:.3f} | {label_map} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="a folder of pictures, in folders by label")
    parser.add_argument("--workdir", action="append", default=[], help="the run of a trained model; may be repeated")
    parser.add_argument("--bits", type=int, default=untrained.BITS)
    parser.add_argument("--queries", type=int, default=1_500)
    parser.add_argument("--least", type=float, default=0.7, help="the least share of height and width that a crop has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    pictures = read(given.images, queries=given.queries, least=given.least, seed=given.seed)
    rows = np.linspace(0, len(pictures.database) - 1, min(len(pictures.database), untrained.SAMPLE)).round().astype(int)
    fitted = adsq_jax.pretrained_model(bits=given.bits).fit([pictures.database[row] for row in rows])
    models = {"untrained": fitted, **{Path(run).name: adsq_jax.load(run) for run in given.workdir}}
    results = {f"{name}, {model.bits} bits": measure(model, pictures) for name, model in models.items()}
    print(f"{len(pictures.database):,} pictures, {given.queries:,} crops of {given.least:.0%} to 100% of each side\n")
    print(table(results))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {"pictures": len(pictures.database), "queries": given.queries, "least": given.least, "seed": given.seed}
        given.out.write_text(json.dumps({**environment.environment(), **settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
