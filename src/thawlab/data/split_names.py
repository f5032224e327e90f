"""How people call the splits of their data; one vocabulary for folders, archives, Parquet files and columns of a table."""

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from thawlab.data.types import Split

# English first; then Spanish, French, German, Italian, Portuguese, Dutch, Polish, Swedish, Turkish, Indonesian, Russian, Chinese,
# Japanese and Korean, where their words are no names of things that one photographs.
_TRAIN = """
train training trn tr trainval trainvalid entrenamiento entraînement apprentissage trainingsdaten addestramento allenamento treino
treinamento treinar trainings treningowy treningowe trening träning eğitim pelatihan latih обучение обучающая обучающий тренировка
тренировочный трейн 训练 訓練 学習 훈련 학습
"""
_VAL = """
val valid validation validate validating vld dev eval evaluation validación validierung validazione convalida validação validatie
walidacja walidacyjny validering doğrulama validasi валидация валидационный 验证 驗證 検証 검증
"""
_TEST = """
test testing tests tst holdout heldout prueba pruebas testen testdaten teste testes testowy testowe uji pengujian тест тестовый
тестовая тестирование 测试 測試 テスト 테스트
"""


def _folded(text: str) -> str:
    """Return a text in lower case without accents, full width as half width."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(letter for letter in apart if not unicodedata.combining(letter)))


_VOCABULARIES: dict[Split, str] = {"train": _TRAIN, "val": _VAL, "test": _TEST}
_WORDS = {_folded(word): split for split, words in _VOCABULARIES.items() for word in words.split()}
# Words that say nothing of their own beside one of a split: "training_set", "imgs-valid", "Test Images 2017".
_FILLER_WORDS = """
set sets data dataset ds images image imgs img pics pictures picture photos photo samples sample examples split splits files file
folder dir subset partition part x y raw original orig final new full all the of for
de du des le la les der die das von und del di do da el 集 数据 数据集 資料 图片 图像 データ 画像 セット 用 세트 데이터 이미지
"""
_FILLERS = frozenset(_FILLER_WORDS.split())
_WRITTEN_TOGETHER = frozenset(word for word in _FILLERS if len(word) > 2 or word in "xy" or not word.isascii())
_FOLD = re.compile(r"(?:k[-_ ]?)?(?:fold|cv|split|part|partition|batch|shard|chunk)s?(?:[-_ ]*\d+|[-_ ]+[a-z])", re.IGNORECASE)
_OUT = re.compile(r"\b(hold|held)[\W_]+out\b")
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
    return re.findall(r"\d+|[^\W\d_]+", _OUT.sub(r"\1out", _folded(text)))


@functools.lru_cache(4096)
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


def split_names(names: Iterable[str]) -> dict[str, SplitName]:
    """Return which splits names side by side speak of, without those that speak of none.

    Beside each other, names may also write a split's word together with another, where they differ in it alone: "asltrain" and
    "asltest" are splits, while "strain" and "contest" are not.
    """
    names = list(names)
    found = {name: said for name in names if (said := split_name(name)) is not None}
    joined = {name: said for name in names if name not in found and (said := _joined(name)) is not None}
    splits: dict[tuple[str, ...], set[Split]] = {}
    for said in (*joined.values(), *found.values()):
        splits.setdefault(said.rest, set()).add(said.split)
    found |= {name: said for name, said in joined.items() if splits[said.rest] != {said.split}}
    return {name: found[name] for name in names if name in found}


def split_of_path(parts: Sequence[str]) -> Split | None:
    """Return the split that a path speaks of: the name of the file before those of its folders, the nearest first."""
    return next((said.split for part in reversed(parts) if (said := split_name(part)) is not None), None)


@functools.lru_cache(4096)
def _joined(name: str) -> SplitName | None:
    """Return which split a name speaks of in a part of a word; the rest of the word is what else it says."""
    words = words_of(name)
    for place, word in enumerate(words):
        for split, part in _written_together(word):
            rest = [part, *(other for k, other in enumerate(words) if k != place)]
            return SplitName(split, tuple(other for other in rest if other not in _FILLERS and not other.isdigit()))
    return None


@functools.lru_cache(4096)
def _split_of_word(word: str) -> Split | None:
    """Return the split of a word, also where a word that says nothing is written together with it: "testset", "xtrain"."""
    if word in _WORDS:
        return _WORDS[word]
    return next((split for split, part in _written_together(word) if part in _WRITTEN_TOGETHER), None)


def _written_together(word: str) -> Iterator[tuple[Split, str]]:
    """Yield the splits whose words a longer word begins or ends with, and what else it says."""
    for known, split in _WORDS.items():
        if known != word and (len(known) > 2 or not known.isascii()):
            if word.startswith(known):
                yield split, word[len(known) :]
            if word.endswith(known):
                yield split, word[: -len(known)]


def is_fold(name: str) -> bool:
    """Return whether a name numbers the parts of a data set: "fold0", "Fold 3", "cv_1", "split-2", "part_a"."""
    return _FOLD.fullmatch(name.strip()) is not None


def is_filler(name: str) -> bool:
    """Return whether a name says nothing of what it holds: "images", "data set"."""
    words = words_of(name)
    return bool(words) and all(word in _FILLERS for word in words)
