"""What is wrong with a source of images: files, duplicates, leaks between splits, outliers and labels."""

import csv
import io
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, final, get_args

import numpy as np
import numpy.typing as npt

from thawlab import progress
from thawlab.data.content import Scan
from thawlab.data.dataset import Dataset, decode_all
from thawlab.data.decoded import ready_rows
from thawlab.data.depth import with_grey_range
from thawlab.data.listing import Listing
from thawlab.data.overview import left_out
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.rowstore import RowStore
from thawlab.data.types import SPLITS, Indices
from thawlab.files import cache_folder
from thawlab.inference.feature_cache import cached_rows, frozen_backbone
from thawlab.models.catalog import BackboneSpec
from thawlab.quality.candidates import PASSES, Neighbours, nearest_features
from thawlab.quality.confident_learning import Probabilities
from thawlab.quality.duplicates import Pair, near_duplicates, same_content
from thawlab.quality.folds import fewest_parts, folds_of
from thawlab.quality.label_errors import LabelScores, agreed, held_out_probabilities, neighbour_probabilities, score_labels
from thawlab.quality.scan import Files, scan_files, wrong_extensions
from thawlab.recipe import System

# A side of fewer pixels than this holds little; an image longer than this many times its width loses most when cropped.
_SMALL, _LONG = 16, 3.0
_OUTLIERS, _NEAREST = 50, 5
# The parts of the data that are held out in turn, from heads and from networks that are fine-tuned.
_FOLDS, _TUNED_FOLDS = 5, 3
Effort = Literal["quick", "normal", "thorough"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
# The effort "normal" looks at mirrored images, too, of at most so many.
_FEW = 20_000
# Gives class probabilities of the images of a data set's train split, each from a network that its fold was held out from.
Judge = Callable[[Dataset, Preprocessing, Indices], Probabilities]
# Of duplicates between splits the one in the split named first is kept.
_KEPT_FIRST = {"test": 0, "val": 1, "train": 2}


@final
@dataclass(frozen=True)
class DataCheck:
    """What a check of all images of a source found; indices are those of the listing.

    Attributes:
        listing: the images.
        files: what they are.
        identical: groups of files with the same bytes.
        near: pairs of near-duplicates that are not identical.
        outliers: the images farthest from all others in feature space, the farthest first, with their distances.
        labels: how plausible the labels are; None where there are too few images to tell.
        labelled: the indices that `labels` is about.
        backbone: whose features were used.
        effort: how many judges the labels had.
    """

    listing: Listing
    files: Files
    identical: tuple[tuple[int, ...], ...]
    near: tuple[Pair, ...]
    outliers: tuple[tuple[int, float], ...]
    labels: LabelScores | None
    labelled: Indices
    backbone: str
    effort: Effort = "normal"

    @cached_property
    def leaks(self) -> list[tuple[int, int, float]]:
        """The pairs of duplicates in different splits; of identical files each with one of another split, test first."""
        splits = self.listing.splits
        same: dict[tuple[int, int], None] = {}
        for group in self.identical:
            firsts = [*{splits[k]: k for k in self._by_split(group)[::-1]}.values()][::-1]  # one image of each split
            for one in group:
                other = next((k for k in firsts if splits[k] != splits[one]), one)
                if other != one:
                    same[min(one, other), max(one, other)] = None
        crossing = [(one, other, 1.0) for one, other in same]
        return crossing + [p[:3] for p in self.near if splits[p.first] != splits[p.second]]

    def _by_split(self, group: Sequence[int]) -> list[int]:
        """Return indices ordered by split, those to be kept first."""
        return sorted(group, key=lambda k: (_KEPT_FIRST[str(self.listing.splits[k])], k))

    def conflicts(self) -> list[tuple[int, int, float]]:
        """Return the pairs of duplicates with different labels and their similarity, identical files first."""
        labels = self.listing.labels
        same = [(group[0], other, 1.0) for group in self.identical for other in group[1:]]
        return [pair for pair in (*same, *(near[:3] for near in self.near)) if labels[pair[0]] != labels[pair[1]]]

    def as_json(self, limit: int = 1000) -> dict[str, Any]:
        """Return the findings as JSON values; long lists are cut to `limit` entries, counts never are."""
        listing, files = self.listing, self.files
        counts = np.bincount(listing.labels, minlength=len(listing.classes))
        wrong = wrong_extensions(listing.ids, files.formats)
        shorter, longer = files.sizes.min(axis=1), files.sizes.max(axis=1)
        sides = files.sizes[shorter > 0]
        odd = {
            name: [{"id": listing.ids[k], "size": files.sizes[k].tolist()} for k in np.flatnonzero((shorter > 0) & mask).tolist()]
            for name, mask in (("small", shorter < _SMALL), ("long", longer > _LONG * shorter))
        }
        suspects = [
            {
                **self._image(int(self.labelled[place])),
                "suggested": listing.classes[scores.suggested[place]],
                "quality": round(float(scores.quality[place]), 4),
                "kind": scores.kinds[place],
            }
            for scores in ([] if self.labels is None else [self.labels])
            for place in scores.suspects.tolist()
        ]
        return {
            "schema": 1,
            "name": listing.name,
            "n": len(listing),
            "backbone": self.backbone,
            "effort": self.effort,
            "splits": {split: int((listing.splits == split).sum()) for split in SPLITS if (listing.splits == split).any()},
            "classes": [{"class": name, "n": int(counts[k])} for k, name in enumerate(listing.classes)],
            "imbalance": float(counts.max() / max(counts.min(), 1)),
            "sizes": {
                name: [int(value) for value in np.percentile(sides[:, axis], [0, 50, 100])] if len(sides) else []
                for axis, name in enumerate(("width", "height"))
            },
            "unreadable": _listed([{"id": listing.ids[k], "reason": reason} for k, reason in files.reasons.items()], limit),
            "ignored": _listed([{"id": path, "reason": reason} for path, reason in listing.ignored], limit),
            "left_out": left_out(listing.ignored),
            "blank": _listed([self._image(k) for k in files.blank], limit),
            "unended": _listed([{"id": listing.ids[k]} for k in files.unended], limit),
            "wrong_extensions": _listed([{"id": listing.ids[k], "is": kind} for k, kind in wrong], limit),
            **{name: _listed(entries, limit) for name, entries in odd.items()},
            "identical": _listed([{"ids": [listing.ids[k] for k in group]} for group in self.identical], limit),
            "near_duplicates": _listed([self._pair(*pair[:3]) for pair in self.near], limit),
            "leaks": _listed([self._pair(*pair) for pair in self.leaks], limit),
            "conflicts": _listed([self._pair(*pair) for pair in self.conflicts()], limit),
            "outliers": _listed([{**self._image(k), "distance": distance} for k, distance in self.outliers], limit),
            "labels_judged": self.labels is not None,
            "label_suspects": _listed(suspects, limit),
        }

    def _image(self, index: int) -> dict[str, Any]:
        listing = self.listing
        label = listing.classes[listing.labels[index]]
        return {"id": listing.ids[index], "class": label, "split": str(listing.splits[index])}

    def _pair(self, first: int, second: int, similarity: float) -> dict[str, Any]:
        how = self._how.get((first, second), "the same file" if similarity == 1 else "")
        return {"first": self._image(first), "second": self._image(second), "similarity": round(similarity, 4), "how": how}

    @cached_property
    def _how(self) -> dict[tuple[int, int], str]:
        return {(pair.first, pair.second): pair.how for pair in self.near}


def _listed(entries: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    return {"count": len(entries), "first": entries[:limit]}


def check_data(
    listing: Listing,
    spec: BackboneSpec,
    preprocessing: Preprocessing,
    system: System,
    effort: Effort = "normal",
    tuned: Judge | None = None,
) -> DataCheck:
    """Check every image of a listing; a pretrained backbone's features find outliers, labels and further duplicates.

    Args:
        listing: the images.
        spec: the backbone.
        preprocessing: of its input.
        system: says where caches are.
        effort: how many judges the labels have: a head on the features and the nearest neighbours; another head, on those of
            mirrored images, unless they are many; and `tuned`.
        tuned: gives the probabilities of networks that are fine-tuned; the effort "thorough" needs it.

    Raises:
        ThawlabError: if the weights cannot be had, or half of the images cannot be read.
    """
    assert effort != "thorough" or tuned is not None, "the effort thorough is that of fine-tuned networks"
    preprocessing = with_grey_range(preprocessing, listing)
    network = frozen_backbone(spec, preprocessing)
    files, dataset = _scanned(listing, preprocessing, system)
    readable = dataset.splits.train
    views = [
        cached_rows(network, dataset, readable, cache_folder(system.cache_dir, "features"), mirrored)[readable]
        for mirrored in ((False,) if effort == "quick" or (effort == "normal" and len(readable) > _FEW) else (False, True))
    ]
    with progress.task("comparing", (1 + PASSES) * len(readable)) as advance:
        neighbours = nearest_features(views[0], advance)
        pairs = near_duplicates(files.thumbnails[readable], neighbours, advance)
    same = same_content([files.digests[k] for k in readable.tolist()])
    copies = [*(pair[:2] for pair in pairs), *((group[0], other) for group in same for other in group[1:])]
    judge = partial(tuned, dataset, preprocessing) if tuned is not None else None
    identical = tuple(tuple(int(readable[k]) for k in group) for group in same)
    together = {index: number for number, group in enumerate(identical) for index in group}
    near = [pair._replace(first=int(readable[pair.first]), second=int(readable[pair.second])) for pair in pairs]
    return DataCheck(
        listing=listing,
        files=files,
        identical=identical,
        near=tuple(pair for pair in near if together.get(pair.first, -1) != together.get(pair.second, -2)),
        outliers=_outliers(neighbours, readable),
        labels=_label_scores(views, neighbours, readable, listing, copies, judge),
        labelled=readable,
        backbone=spec.name,
        effort=effort,
    )


def _scanned(listing: Listing, preprocessing: Preprocessing, system: System) -> tuple[Files, Dataset]:
    """Read each file once: for what it is, and for the decoded images of the network."""
    folder = cache_folder(system.cache_dir, "decoded") / f"scan-{os.getpid()}-{threading.get_ident()}"
    shape = (preprocessing.size, preprocessing.size, 3)
    try:
        store = RowStore(folder, len(listing), shape, np.uint8) if ready_rows(listing, preprocessing) is None else None
        files = scan_files(listing, system.workers, preprocessing, store)
        scan = Scan(files.digests, files.reasons, store and store.array())
        return files, decode_all(listing, preprocessing, system, scan=scan)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _label_scores(
    views: Sequence[npt.NDArray[np.float32]],
    neighbours: Neighbours,
    readable: Indices,
    listing: Listing,
    copies: Sequence[tuple[int, int]],
    judge: Callable[[Indices], Probabilities] | None,
) -> LabelScores | None:
    """Score the labels by what heads on each view of the features, neighbours, and fine-tuned networks say of them."""
    labels = listing.labels[readable]
    groups = None if listing.groups is None else listing.groups[readable]
    if len(np.unique(labels)) < 2 or (fewest := fewest_parts(labels, groups)) < 2:
        progress.say(f"the labels are not judged: every class would need two {'images' if groups is None else 'groups'}")
        return None
    progress.say("scoring the labels")
    folds = folds_of(labels, groups, copies, min(_FOLDS, fewest))
    said = [held_out_probabilities(features, labels, folds) for features in views]
    said.append(neighbour_probabilities(neighbours, labels, folds))
    if judge is not None:
        said.append(judge(folds_of(labels, groups, copies, min(_TUNED_FOLDS, fewest), seed=1)))
    conflicting = {place for pair in copies if labels[pair[0]] != labels[pair[1]] for place in pair}
    return score_labels(labels, agreed(said, labels), conflicting)


def _outliers(neighbours: Neighbours, readable: Indices) -> tuple[tuple[int, float], ...]:
    """Return the images whose nearest neighbours in feature space are farthest (Sun et al. 2022)."""
    if neighbours.similarity.shape[1] <= _NEAREST:
        return ()
    distance = 1 - neighbours.similarity[:, _NEAREST]
    far = np.argsort(-distance, kind="stable")[:_OUTLIERS]
    return tuple((int(readable[k]), round(float(distance[k]), 4)) for k in far.tolist())


def clean_list(check: DataCheck) -> list[dict[str, str]]:
    """Return which images to keep, with the reason for each that is not: a row per image.

    Left out are unreadable files; further copies of one file; and of duplicates between splits the ones in the training
    split, so that the test split stays as it is. Of copies with different labels none is kept, unless the suspected labels leave
    one label alone. Other suspected labels are for people to judge, and stay.
    """
    listing = check.listing
    reasons = dict(check.files.reasons)
    for group in check.identical:
        if len(set(listing.labels[list(group)].tolist())) > 1:
            reasons |= {k: reason for k, reason in _conflicting(check, group).items() if k not in reasons}
            continue
        ordered = check._by_split(group)
        for index in ordered[1:]:
            if listing.splits[index] == "train" or listing.splits[index] == listing.splits[ordered[0]]:
                reasons.setdefault(index, f"the same file as {listing.ids[ordered[0]]}")
    for first, second, _ in check.leaks:
        kept, dropped = check._by_split((first, second))
        if kept in reasons:
            continue  # what is left out itself is no reason to leave out another
        reasons.setdefault(dropped, f"nearly the same image as {listing.ids[kept]} of the {listing.splits[kept]} split")
    return [
        {
            "path": identifier,
            "label": listing.classes[label],
            "split": str(split),
            "keep": "no" if index in reasons else "yes",
            "reason": reasons.get(index, ""),
        }
        for index, (identifier, label, split) in enumerate(zip(listing.ids, listing.labels, listing.splits, strict=True))
    ]


def _conflicting(check: DataCheck, group: Sequence[int]) -> dict[int, str]:
    """Return which of some copies of one file that have different labels are left out, and why."""
    listing, labels = check.listing, check.listing.labels
    suspects = set() if check.labels is None else {int(check.labelled[place]) for place in check.labels.suspects.tolist()}
    trusted = [k for k in check._by_split(group) if k not in suspects]
    decided = len(trusted) < len(group) and len({int(labels[k]) for k in trusted}) == 1
    reasons = {}
    for index in group:
        other = next(k for k in group if labels[k] != labels[index])
        same = f"the same file as {listing.ids[other]}, which is labelled '{listing.classes[labels[other]]}'"
        if not decided:
            reasons[index] = f"{same}; nothing tells which label is right"
        elif index in suspects:
            reasons[index] = f"{same}; its own label is suspected to be wrong"
        elif index != trusted[0]:
            reasons[index] = f"the same file as {listing.ids[trusted[0]]}"
    return reasons


def write_rows(rows: Sequence[dict[str, str]]) -> str:
    """Return rows as CSV text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
