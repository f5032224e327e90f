"""How people call the splits of their data; one vocabulary for folders, archives, Parquet files and columns of a table."""

import re
import unicodedata
from typing import NamedTuple

from thawlab.data.types import Split

_WORDS: dict[str, Split] = {word: "train" for word in ("train", "training", "trn", "tr", "trainval", "trainvalid")}
_WORDS |= {word: "val" for word in ("val", "valid", "validation", "validate", "validating", "vld", "dev", "eval", "evaluation")}
_WORDS |= {word: "test" for word in ("test", "testing", "tests", "tst", "holdout", "heldout")}
# Words that say nothing of their own beside one of a split: "training_set", "imgs-valid", "Test Images 2017".
_FILLER_WORDS = """
set sets data dataset ds images image imgs img pics pictures picture photos photo samples sample examples split splits files file
folder dir subset partition part x y raw original orig final new full all the of for
"""
_FILLERS = frozenset(_FILLER_WORDS.split())
_FOLD = re.compile(r"(?:k[-_ ]?)?(?:fold|cv|split|part|partition|batch|shard|chunk)s?(?:[-_ ]*\d+|[-_ ]+[a-z])", re.IGNORECASE)
_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


class SplitName(NamedTuple):
    """What a name says of a split.

    Attributes:
        split: the one it names.
        rest: its other words that mean something: `("seg",)` of "seg_train", none of "Training Set".
    """

    split: Split
    rest: tuple[str, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the name says nothing but the split."""
        return not self.rest


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case, numbers apart: "SegTrain_2017" is seg, train, 2017."""
    text = _BOUNDARY.sub(" ", unicodedata.normalize("NFKC", name))
    return re.findall(r"\d+|[^\W\d_]+", text.lower())


def split_name(name: str) -> SplitName | None:
    """Return which split a name speaks of; None where it speaks of none, or of several.

    "trainval", and train and val together, are what is trained on, as in PASCAL VOC.
    """
    found: set[Split] = set()
    rest: list[str] = []
    for word in words_of(name):
        split = _split_of_word(word)
        if split is not None:
            found.add(split)
        elif word not in _FILLERS and not word.isdigit():
            rest.append(word)
    if found == {"train", "val"}:
        found = {"train"}
    return SplitName(found.pop(), tuple(rest)) if len(found) == 1 else None


def _split_of_word(word: str) -> Split | None:
    """Return the split of a word, also where a word that says nothing is written together with it: "testset", "xtrain"."""
    if word in _WORDS:
        return _WORDS[word]
    for known, split in _WORDS.items():
        if len(known) > 2 and (
            (word.startswith(known) and word[len(known) :] in _FILLERS)
            or (word.endswith(known) and word[: -len(known)] in _FILLERS)
        ):
            return split
    return None


def is_fold(name: str) -> bool:
    """Return whether a name numbers the parts of a data set: "fold0", "Fold 3", "cv_1", "split-2", "part_a"."""
    return _FOLD.fullmatch(name.strip()) is not None


def is_filler(name: str) -> bool:
    """Return whether a name says nothing of what it holds: "images", "data set"."""
    words = words_of(name)
    return bool(words) and all(word in _FILLERS for word in words)
