"""The recipe: what to do, as an immutable value."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from thawlab.errors import UsageError, nearest

_TRAIN = re.compile(r"head|all|last:[1-9]\d*|stages:[1-9]\d*")


class Part(BaseModel):
    """What all parts of a recipe share: frozen, strict types, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# What is kept on the disk: decoded images, or copies of remote shards; it changes no result.
Caching = Literal["auto", "decoded", "encoded", "none"]


class Data(Part):
    """Which images, how many, and how they are brought to the network's input."""

    source: str = Field(min_length=1)
    train_size: int | None = Field(default=None, ge=2)
    val: float = Field(default=0.1, ge=0.0, lt=1.0)
    test: float = Field(default=0.2, gt=0.0, lt=1.0)
    image_size: int | None = Field(default=None, ge=4, le=4096)
    resize: Literal["upsample", "pad", "crop"] = "upsample"
    normalize: Literal["weights", "unit", "symmetric"] = "weights"
    exclude: str | None = Field(default=None, min_length=1)
    corrections: str | None = Field(default=None, min_length=1)
    group: str | None = Field(default=None, min_length=1)
    layout: str | None = None
    path_column: str | None = Field(default=None, min_length=1)
    label_column: str | None = Field(default=None, min_length=1)
    long_tail: float | None = Field(default=None, ge=1.0)
    cache: Caching = "auto"
    shuffle_buffer: int | None = Field(default=None, ge=2)

    @field_validator("layout")
    @classmethod
    def _check_layout(cls, value: str | None) -> str | None:
        roles = [] if value is None else value.split("/")
        named = [role for role in roles if role != "*"]
        below = roles[roles.index("class") + 1 :] if "class" in roles else roles
        is_one = set(named) <= {"class", "split", "group"} and len(set(named)) == len(named) and "class" in named
        if roles and not (is_one and len(below) < 2):
            raise ValueError(
                'must give the role of each level of folders from the top, e.g. "split/class": "class" once, "split" and '
                '"group" at most once and at most one of them below "class", and "*" for a level that means nothing'
            )
        return value

    @field_validator("cache", mode="before")
    @classmethod
    def _read_none(cls, value: Any) -> Any:
        return "none" if value is None else value  # `data.cache=none` on the command line is nothing at all

    @model_validator(mode="after")
    def _check_long_tail(self) -> Self:
        if self.long_tail is not None and self.train_size is not None:
            raise ValueError("long_tail: already says how many images of each class to use; leave out data.train_size")
        return self


class Model(Part):
    """The backbone and the head on top of it."""

    backbone: str = Field(min_length=1)
    pretrained: bool = True
    revision: int | None = Field(default=None, ge=1)
    head: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        if any(width < 1 for width in self.head):
            raise ValueError("head: every hidden width must be at least 1")
        if any(not 0 <= rate < 1 for rate in self.dropout):
            raise ValueError("dropout: every rate must be in [0, 1)")
        wanted = max(len(self.head), 1)
        if self.dropout and len(self.dropout) != wanted:
            raise ValueError(f"dropout: give one rate per hidden layer ({wanted}), or a single rate for a linear head")
        return self


class Phase(Part):
    """One stretch of training: what trains, for how long, and how."""

    name: str = Field(default="train", pattern=r"^[\w.-]+$")
    train: str = "all"
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int | Literal["auto"] = Field(default=64)
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = "adam"
    lr: float | Literal["auto"] = Field(default=1e-3)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    schedule: Literal["constant", "linear", "cosine", "one-cycle", "plateau"] = "constant"
    plateau_factor: float = Field(default=0.1, gt=0.0, lt=1.0)
    plateau_patience: int = Field(default=10, ge=1)
    min_lr: float = Field(default=0.0, ge=0.0)
    warmup: float = Field(default=0.0, ge=0.0)
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    head_lr: float = Field(default=1.0, gt=0.0)
    bias_lr: float = Field(default=1.0, gt=0.0)
    l2_head: float = Field(default=0.0, ge=0.0)
    l2_backbone: float = Field(default=0.0, ge=0.0)
    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    focal_gamma: float = Field(default=2.0, ge=0.0)
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    logit_adjustment: float = Field(default=0.0, ge=0.0)
    clip: float | None = Field(default=None, gt=0.0)
    accumulate: int = Field(default=1, ge=1)
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    batch_norm: Literal["eval", "train", "sync"] | None = None
    augment: tuple[str, ...] = ()
    views: int | None = Field(default=None, ge=1, le=1000)
    sizes: tuple[int, ...] = ()
    patience: int | None = Field(default=None, ge=1)
    monitor: Literal["accuracy", "loss", "balanced_accuracy", "macro_f1"] = "accuracy"

    @field_validator("lr", mode="wrap")
    @classmethod
    def _check_lr(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise ValueError('must be a number greater than 0, or "auto"')
        return read(value)

    @field_validator("batch_size", mode="wrap")
    @classmethod
    def _check_batch_size(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not value > 0):
            raise ValueError('must be a whole number of at least 1, or "auto"')
        return read(value)

    @field_validator("class_weights", mode="wrap")
    @classmethod
    def _check_class_weights(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        numbers = value if isinstance(value, list | tuple) else ()
        positive = all(isinstance(one, int | float) and not isinstance(one, bool) and one > 0 for one in numbers)
        if value not in (None, "balanced") and not (numbers and positive):
            raise ValueError('must be "balanced", or a list of one number above 0 for each class')
        return read(tuple(value) if numbers else value)  # a strict tuple is no list

    @model_validator(mode="after")
    def _check_keys_that_need_another(self) -> Self:
        fields = type(self).model_fields
        for key, needed, value in (
            ("plateau_factor", "schedule", "plateau"),
            ("plateau_patience", "schedule", "plateau"),
            ("min_lr", "schedule", "plateau"),
            ("focal_gamma", "loss", "focal"),
        ):
            if getattr(self, key) != fields[key].default and getattr(self, needed) != value:
                raise ValueError(f'{key}: has no effect without {needed} = "{value}"')
        if self.batch_norm == "sync" and (self.batch_size == "auto" or self.accumulate != 1):
            raise ValueError(
                'batch_norm: "sync" takes the statistics of whole batches; accumulate, or batch_size = "auto", parts them'
            )
        if self.batch_size == "auto" and self.accumulate != 1:
            raise ValueError('accumulate: is found by batch_size = "auto"; leave one of the two out')
        if self.l2_backbone and self.train == "head":
            raise ValueError('l2_backbone: has no effect with train = "head", which trains no layer of the backbone')
        if not isinstance(self.lr, str) and self.min_lr > self.lr:
            raise ValueError(f"min_lr: {self.min_lr} is above lr = {self.lr}, which it must not exceed")
        return self

    @model_validator(mode="after")
    def _check_imbalance(self) -> Self:
        settings = {
            'class_weights = "balanced"': self.class_weights == "balanced",
            'sampling = "balanced"': self.sampling == "balanced",
            f"logit_adjustment = {self.logit_adjustment}": self.logit_adjustment > 0,
        }
        chosen = [name for name, is_set in settings.items() if is_set]
        if len(chosen) > 1:
            key, _, rest = chosen[0].partition(" = ")
            raise ValueError(f"{key}: {rest} and {chosen[1]} would even out the classes twice; keep one of them")
        return self

    @model_validator(mode="after")
    def _check_train(self) -> Self:
        if not _TRAIN.fullmatch(self.train):
            word = self.train.split(":")[0]
            hint = nearest(word, ["head", "all", "last", "stages"])
            raise ValueError(f"train: '{self.train}' is none of 'head', 'all', 'last:N' and 'stages:N'{hint}")
        if self.views is not None and not self.augment:
            raise ValueError("views needs augment: without augmentation all views are identical")
        if any(size < 8 for size in self.sizes):
            raise ValueError("sizes: every side must be at least 8 px")
        if len(self.sizes) > self.epochs:
            raise ValueError(f"sizes: {len(self.sizes)} sizes do not fit into {self.epochs} epochs")
        if self.sizes and self.train != "all":
            raise ValueError("sizes: only a phase that trains all layers sees images of other sizes")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: {self.warmup} epochs of warm-up leave nothing of the {self.epochs} epochs")
        return self


class Evaluation(Part):
    """How the trained classifier is judged."""

    calibrate: bool = True
    ece_bins: int = Field(default=15, ge=1, le=1000)
    tta: Literal["flip", "flip-shift"] | None = None
    ood: bool = False


class System(Part):
    """What must not change a result; left out of the digest, and recorded in the run."""

    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    workers: int | None = Field(default=None, ge=1)
    data_dir: str | None = None
    cache_dir: str | None = None
    # Where relative paths are looked for that are not found here, and in the folders above them: the recipe's, the run's.
    base_dirs: tuple[str, ...] = ()


class Recipe(Part):
    """Everything that determines a run; `digest` names it."""

    name: str = Field(default="run", pattern=r"^[\w.-]+$", max_length=120)
    seed: int = Field(default=0, ge=0)
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    data: Data
    model: Model
    phases: tuple[Phase, ...] = Field(min_length=1)
    evaluation: Evaluation = Evaluation()
    system: System = System()

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.data.shuffle_buffer is not None and any(phase.sampling == "balanced" for phase in self.phases):
            raise ValueError('data.shuffle_buffer: sampling = "balanced" draws from all images at once; leave out one of the two')
        return self

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the canonical JSON of everything but `[system]` and `data.cache`.

        Values that equal their defaults are left out, so that a key added later does not rename the runs made before it.
        The defaults therefore never change; a test pins them.
        """
        settings = self.model_dump(mode="json", exclude={"system": True, "data": {"cache"}}, exclude_defaults=True)
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self) -> str:
        """Return the recipe as TOML that `read_recipe` reads back to an equal value."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


P = TypeVar("P", bound=Part)
# The parts of a recipe that are tables.
PARTS: dict[str, type[Part]] = {"data": Data, "model": Model, "phases": Phase, "evaluation": Evaluation, "system": System}


def parse_recipe(table: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Turn nested tables into a recipe.

    Args:
        table: as read from TOML; paths and numbers of NumPy count as text and numbers.
        origin: the file's name, for messages.

    Raises:
        UsageError: for an unknown key or a wrong value; one line with the place and the nearest valid spelling.
    """
    return parse_part(Recipe, table, origin)


def parse_part(kind: type[P], table: Mapping[str, Any], origin: str) -> P:
    """Turn tables into a part of a recipe, as `parse_recipe` does."""
    try:
        # JSON mode keeps the types strict and still reads a list into a tuple.
        text = json.dumps(table, default=_plain, ensure_ascii=False)
        text.encode("utf-8")
        return kind.model_validate_json(text)
    except TypeError as error:
        raise UsageError(f"{origin}: {error}") from None
    except UnicodeEncodeError as error:
        place = ascii(text[max(error.start - 40, 0) : error.end + 40])
        raise UsageError(
            f"{origin}: {place} holds a name that is not UTF-8; rename it, or go into that folder and give '.'"
        ) from None
    except ValidationError as error:
        raise UsageError(f"{origin}: {_explain(error, kind)}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):  # a number of NumPy
        return value.item()
    raise TypeError(f"dates and times have no place in a recipe, nor has {value!r}; write text in quotes")


def _explain(error: ValidationError, whole: type[Part]) -> str:
    """Return the first problem of a validation error of a part in words."""
    first: Any = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "recipe"
    kind, value = first["type"], first.get("input")
    if kind == "extra_forbidden":
        keys = (PARTS.get(str(first["loc"][0]), Recipe) if len(first["loc"]) > 1 else whole).model_fields
        return f"{place} is not a key{nearest(str(first['loc'][-1]), keys) or ' (known here: ' + ', '.join(keys) + ')'}"
    if kind == "missing":
        return f"{place} is missing"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return f"{place} = {value!r} must be one of {', '.join(choices)}{nearest(str(value), choices)}"
    message: str = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message  # about keys of several parts, which the message names
    if kind == "value_error" and (isinstance(first["loc"][-1], int) or first["loc"][-1] in PARTS):
        return f"{place}.{message}"  # about a whole part: the message begins with the key
    return f"{place} = {value!r}: {message[0].lower()}{message[1:]}"
