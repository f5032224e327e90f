"""List what a data check finds in a data set as published, with sheets of images to inspect a sample by eye.

`python tools/real_faults.py cifar10 --data-dir FOLDER --backbone local-dir:FOLDER --size 96 --out results/cifar10-check`
writes OUT.json with the pairs between splits, how each differs, and the 300 least plausible labels of the test split, as file
names, and two sheets of 100 drawn at random: OUT-pairs.png and OUT-labels.png, each entry numbered as in OUT.json's "sample".
`--effort thorough` judges the labels by fine-tuned networks, too; with `--run RUN` they are judged by the probabilities of a
finished run, too, which did not train on them; `--judges run` takes these alone.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import opened
from PIL import Image, ImageDraw

from thawlab.api import open_run
from thawlab.data.dataset import Dataset
from thawlab.data.decode import decode
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Indices
from thawlab.errors import ThawlabError, UsageError
from thawlab.evaluation.predictions import Predictions
from thawlab.judging.cross_validation import cross_validated
from thawlab.opened import Run
from thawlab.quality.confident_learning import Probabilities
from thawlab.quality.data_check import EFFORTS, DataCheck, Judge, check_data
from thawlab.quality.label_errors import LabelScores, score_labels

SAMPLE, SIDE, COLUMNS, LISTED = 100, 80, 8, 300
_TINY = 1e-6


def sheet(listing: Listing, entries: list[tuple[list[int], str]], path: Path) -> None:
    """Draw numbered entries of one or two images with a line of text, if there are any."""
    wide, high = 2 * SIDE + 24, SIDE + 30
    if not entries:
        return
    canvas = Image.new("RGB", (COLUMNS * wide, -(-len(entries) // COLUMNS) * high), "white")
    pen = ImageDraw.Draw(canvas)
    look = Preprocessing(size=SIDE, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    for number, (images, text) in enumerate(entries):
        left, top = number % COLUMNS * wide, number // COLUMNS * high
        for place, index in enumerate(images):
            canvas.paste(Image.fromarray(decode(listing.images.read(index), look)), (left + place * (SIDE + 4), top))
        pen.text((left, top + SIDE + 2), f"{number}: {text}", fill="black", font_size=13)
    canvas.save(path)


class JudgedLabels(NamedTuple):
    """How plausible labels are, and the indices of the listing that this is about."""

    scores: LabelScores
    labelled: Indices


def tested(run: Run, listing: Listing) -> tuple[Predictions, Indices]:
    """Return the predictions of a run's test split, and where the listing has its images.

    Raises:
        UsageError: if the run was judged on images that the source does not have.
        ThawlabError: if the run is not finished or a file of it is damaged.
    """
    table = run.predictions("test")
    names, places = table.ids.tolist(), {name: place for place, name in enumerate(listing.ids)}
    if missing := [name for name in names if name not in places]:
        raise UsageError(
            f"{run.path}: {missing[0]} of its test split is not in {listing.name}; give the source it was trained on"
        )
    return table, np.array([places[name] for name in names])


def judged_by(run: Run, listing: Listing) -> JudgedLabels:
    """Judge the labels of a run's test split by the probabilities that it gave them."""
    table, places = tested(run, listing)
    return JudgedLabels(score_labels(table.labels, table.probabilities(run.results.test.temperature)), places)


def joined_by(run: Run, listing: Listing, tuned: Judge | None) -> Judge:
    """Return a judge of all images by what a run says of its test split, alone or averaged with what another judge says."""
    table, places = tested(run, listing)
    said_by_run = np.maximum(table.probabilities(run.results.test.temperature), _TINY)

    def judge(dataset: Dataset, preprocessing: Preprocessing, folds: Indices) -> Probabilities:
        images, classes = dataset.splits.train, said_by_run.shape[1]
        said = np.full((len(images), classes), 1 / classes) if tuned is None else tuned(dataset, preprocessing, folds).copy()
        rows = np.searchsorted(images, places)
        assert (images[rows] == places).all(), "an image of the test split cannot be read"
        both = said_by_run * np.maximum(said[rows], _TINY)  # equal ones, where nothing else judges, change nothing
        both = both if tuned is None else np.sqrt(both)
        said[rows] = both / both.sum(axis=1, keepdims=True)
        return said

    return judge


class Finding(NamedTuple):
    """What a document says of pairs or of labels, and for a sheet the images of each entry with a line of text."""

    document: dict[str, Any]
    entries: list[tuple[list[int], str]]


def pairs_found(check: DataCheck) -> Finding:
    """Return the pairs between splits."""
    listing, leaks = check.listing, check.leaks
    rows = [
        {
            "first": pair["first"]["id"],
            "second": pair["second"]["id"],
            "classes": [pair["first"]["class"], pair["second"]["class"]],
            "similarity": pair["similarity"],
            "how": pair["how"],
        }
        for pair in check.as_json(limit=len(leaks))["leaks"]["first"]
    ]
    document = {
        "pairs between splits": len(rows),
        "test images in them": len({index for pair in leaks for index in pair[:2] if listing.splits[index] == "test"}),
        "pairs with different labels": len(check.conflicts()),
        "pairs": rows,
    }
    texts = [f"{'/'.join(row['classes'])} {row['similarity']:.3f}" for row in rows]
    return Finding(document, [([pair[0], pair[1]], text) for pair, text in zip(leaks, texts, strict=True)])


def labels_found(listing: Listing, judged: JudgedLabels, alone: bool) -> Finding:
    """Return the least plausible labels of the test split; judged by a run alone, nothing is known of the other splits."""
    scores, labelled = judged
    of_test = listing.splits[labelled] == "test"
    shown = [place for place in np.argsort(scores.quality, kind="stable").tolist() if of_test[place]][:LISTED]
    rows = [
        {
            "id": listing.ids[labelled[place]],
            "label": listing.classes[listing.labels[labelled[place]]],
            "suggested": listing.classes[scores.suggested[place]],
            "quality": round(float(scores.quality[place]), 6),
            "kind": str(scores.kinds[place]),
        }
        for place in shown
    ]
    document = {
        **({} if alone else {"suspected labels in all": len(scores.suspects)}),
        "suspected labels in the test split": int(of_test[scores.suspects].sum()),
        "labels": rows,
    }
    return Finding(
        document, [([int(labelled[k])], f"{row['label']} / {row['suggested']}") for k, row in zip(shown, rows, strict=True)]
    )


def measure(arguments: argparse.Namespace) -> None:
    """Check the data set, judge its labels, and write the document and the sheets."""
    alone = arguments.judges == "run"
    if alone and not arguments.run:
        raise UsageError("--judges run: needs --run, a folder of a finished run")
    run = open_run(arguments.run) if arguments.run else None
    listing, look = opened(arguments.source, arguments.data_dir, arguments.cache_dir, arguments.backbone, arguments.size)
    if not (listing.splits == "test").any():
        raise UsageError(f"{arguments.source}: has no test split of its own to look for pairs with")
    judged = judged_by(run, listing) if run and alone else None  # before the check, which takes minutes
    tuned = partial(cross_validated, look[0], look[2]) if arguments.effort == "thorough" else None
    started = time.monotonic()
    check = check_data(listing, *look, arguments.effort, joined_by(run, listing, tuned) if run and not alone else tuned)
    seconds = time.monotonic() - started
    if judged is None:
        if check.labels is None:
            raise UsageError(f"{arguments.source}: too few images to judge labels")
        judged = JudgedLabels(check.labels, check.labelled)
    findings = {"pairs": pairs_found(check), "labels": labels_found(listing, judged, alone)}
    rng = np.random.default_rng(0)  # draws from both, so that --only changes neither sample
    sampled = {key: sorted(rng.permutation(len(of.entries))[:SAMPLE].tolist()) for key, of in findings.items()}
    wanted = [key for key in findings if arguments.only in (None, key)]
    document = {
        "source": arguments.source,
        "backbone": Path(arguments.backbone).name,
        "size": look[1].size,
        "effort": arguments.effort,
        **({"run": run.folder.name, "recipe": run.recipe.digest} if run else {}),
        "images": len(listing),
        "seconds": round(seconds, 1),
        "sample": {key: sampled[key] for key in wanted},
    }
    out = Path(arguments.out)
    for key in wanted:
        document |= findings[key].document
        sheet(listing, [findings[key].entries[k] for k in sampled[key]], out.with_name(f"{out.name}-{key}.png"))
    out.with_suffix(".json").write_text(json.dumps(document, indent=0, ensure_ascii=False) + "\n")
    print({key: value for key, value in document.items() if not isinstance(value, list | dict)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--data-dir")
    parser.add_argument("--backbone", default="bundled")
    parser.add_argument("--size", type=int)
    parser.add_argument("--cache-dir")
    parser.add_argument("--effort", choices=EFFORTS, default="normal", help="how the labels are judged")
    parser.add_argument("--only", choices=("pairs", "labels"), help="write one of the two; both if omitted")
    parser.add_argument("--run", help="a folder of a finished run whose probabilities judge the labels")
    parser.add_argument("--judges", choices=("all", "run"), default="all", help="all that judge labels, or the run alone")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    try:
        measure(arguments)
    except UsageError as error:
        parser.error(str(error))
    except ThawlabError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
