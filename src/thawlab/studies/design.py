"""The design of a study: its question, and the variants and seeds that are to answer it, read from TOML or a command line."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thawlab.comparison.settings import differing, settings, short_keys, shown
from thawlab.errors import UsageError, listed, nearest
from thawlab.files import user_path
from thawlab.plan.resolve import Plan, plan_of, resolve
from thawlab.recipe import Recipe, parse_recipe
from thawlab.recipe_text import SHORT, parse_overrides, read_toml, with_overrides
from thawlab.studies.ranges import Search, parse_search
from thawlab.training.phase_data import trains_on_features

_KEYS = ("name", "question", "base", "seeds", "vary", "variants", "search")
_WAYS = ("vary", "variants", "search")
# The seeds of a study that names none: many where a run is cheap (features are cached), few where everything is fine-tuned.
_SEEDS_CACHED, _SEEDS, _SEEDS_FINE_TUNED = 6, 5, 3
_NAME = re.compile(r"\w[\w.-]*")  # ".." would be another folder


class Variant(NamedTuple):
    """What is tried: a name, and the settings that it changes, by dotted key."""

    name: str
    changes: dict[str, Any]


class Cell(NamedTuple):
    """One run of a study: a variant with a seed, and its closed recipe."""

    variant: str
    seed: int
    recipe: Recipe

    @property
    def run(self) -> str:
        """The name of the run's folder."""
        return f"{self.recipe.name}-{self.recipe.digest[:12]}"


class Design(NamedTuple):
    """What a study is made of.

    Attributes:
        name: of the study and its folder.
        question: that it is to answer.
        base: makes the plan of the base recipe with some settings changed.
        variants: at least one; only the base itself where `search` looks for others.
        seeds: the same for every variant.
        search: ranges to look for the best settings in; None where the variants are given.
    """

    name: str
    question: str
    base: Callable[[Mapping[str, Any]], Plan]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    search: Search | None = None

    def cell(self, variant: Variant, seed: int) -> Cell:
        """Return a cell of the study.

        Raises:
            UsageError: if a key or a value is wrong; the message names the variant.
        """
        try:
            plan = self.base({**variant.changes, "seed": seed, "name": slug(variant.name)})
        except UsageError as error:
            raise UsageError(f"{self.name}: variant '{variant.name}': {error}") from None
        return Cell(variant.name, seed, plan.recipe)

    def cells(self) -> list[Cell]:
        """Return all cells, variant by variant, after checking that no two variants are the same recipe."""
        firsts = [self.cell(variant, self.seeds[0]) for variant in self.variants]
        for one, other in itertools.combinations(firsts, 2):
            if not differing(settings(one.recipe), settings(other.recipe)):
                raise UsageError(
                    f"{self.name}: variants '{one.variant}' and '{other.variant}' are the same recipe; leave one out"
                )
        rest = [[self.cell(variant, seed) for seed in self.seeds[1:]] for variant in self.variants]
        return [cell for first, others in zip(firsts, rest, strict=True) for cell in (first, *others)]


def slug(name: str) -> str:
    """Return a name that a folder may have."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or "base"


def read_design(
    source: str | Path,
    *,
    vary: Sequence[str] | Mapping[str, Sequence[Any]] = (),
    seeds: int | Sequence[int] | str | None = None,
    question: str | None = None,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Design:
    """Read a study from a study file, or from a recipe or images and what is varied.

    Args:
        source: a study file or a recipe (.toml), or images by name or path.
        vary: values by dotted key, or texts of the form `dotted.key=value,value,…`; replaces what a study file varies.
        seeds: a number of seeds, or which; as text, separated by commas.
        question: replaces the file's.
        name: of the study; the file's, or that of the file itself, if omitted.
        overrides: settings of every variant, by dotted key.

    Raises:
        UsageError: if a key or a value is wrong; one line that names it.
    """
    text, table = str(source), {}
    if text.endswith(".toml"):
        table = read_toml(user_path(text))
    changes = dict(overrides or {})
    if table and not {"data", "model", "phases"} & table.keys():
        _check_keys(table, text)
        base = _base(table, user_path(text), changes)
    else:
        table, base = {}, lambda values: plan_of(source, {**changes, **values})
    origin = text
    if vary:
        table = {key: value for key, value in table.items() if key not in _WAYS} | {"vary": _parse_vary(vary)}
        origin = "--vary"
    variants, search = _ways(table, origin)
    stem = Path(text).stem if text.endswith(".toml") else slug(Path(text).name)
    design = Design(
        name=_checked_name(name or table.get("name") or (stem if not vary else f"{stem}-study"), text),
        question=str(question if question is not None else table.get("question", "")),
        base=base,
        variants=variants,
        seeds=(0,),
        search=search,
    )
    return design._replace(seeds=_seeds(seeds if seeds is not None else table.get("seeds"), design, text))


def demo_design() -> Design:
    """Return the study of the demonstration, demo.toml beside this file."""
    return read_design(Path(__file__).with_name("demo.toml"))


def _checked_name(name: Any, origin: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{origin}: name = {name!r} must be made of letters, digits, '.', '_' and '-', and begin with a letter or digit"
        )
    return name


def _check_keys(table: Mapping[str, Any], origin: str) -> None:
    for key in table:
        if key not in _KEYS:
            raise UsageError(f"{origin}: {key} is not a key of a study{nearest(key, _KEYS) or f' (known: {listed(_KEYS)})'}")
    if "base" not in table:
        raise UsageError(f"{origin}: base is missing; name a recipe file, or write the recipe as [base]")


def _base(table: Mapping[str, Any], file: Path, changes: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Plan]:
    base = table["base"]
    if isinstance(base, str):
        beside = file.parent / user_path(base)
        source: str | Path = beside if base.endswith(".toml") and beside.is_file() else base
        return lambda values: plan_of(str(source), {**changes, **values})
    if not isinstance(base, Mapping):
        raise UsageError(f"{file}: base = {base!r} must be a recipe file, images, or a table")

    def closed(values: Mapping[str, Any]) -> Plan:
        dotted = {SHORT.get(key, key): value for key, value in {**changes, **values}.items()}
        return resolve(parse_recipe(with_overrides({"name": "base", **base}, dotted), f"{file}: base"))

    return closed


def _ways(table: Mapping[str, Any], origin: str) -> tuple[tuple[Variant, ...], Search | None]:
    """Return the variants of a study, or the base alone and the ranges of a search."""
    given = [way for way in _WAYS if way in table]
    if len(given) != 1:
        found = f"has {' and '.join(given)}" if given else "has none of them"
        raise UsageError(f"{origin}: a study needs one of [vary], [[variants]] and [search], and {found}")
    if "vary" in table:
        return _grid(_flat(table["vary"], origin), origin), None
    if "variants" in table:
        return _named(table["variants"], origin), None
    return (Variant("base", {}),), parse_search(_flat_ranges(table["search"]), origin)


def _flat(table: Any, origin: str, prefix: str = "") -> dict[str, list[Any]]:
    """Return the lists of a [vary] table by dotted key, however its keys were quoted."""
    if not isinstance(table, Mapping):
        raise UsageError(f"{origin}: vary = {table!r} must be a table of lists")
    found: dict[str, list[Any]] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, origin, f"{name}.")
        elif isinstance(value, list) and len(value) > 0:
            found[SHORT.get(name, name)] = [None if entry == "none" else entry for entry in value]
        else:
            raise UsageError(f"{origin}: vary.{name} = {value!r} must be a list of at least one value")
    return found


def _flat_ranges(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return the entries of a [search] table by dotted key; a table with `low` or `choices` is a range."""
    found: dict[str, Any] = {}
    for key, value in table.items() if isinstance(table, Mapping) else ():
        inner = isinstance(value, Mapping) and not {"low", "high", "choices"} & value.keys()
        found |= _flat_ranges(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _grid(vary: Mapping[str, list[Any]], origin: str) -> tuple[Variant, ...]:
    if "seed" in vary:
        raise UsageError(f"{origin}: seed is not varied; a study repeats every variant with `seeds`")
    for key, values in vary.items():
        twice = [value for index, value in enumerate(values) if value in values[:index]]
        if twice:
            raise UsageError(f"{origin}: {key} has {shown(twice[0])} twice: two variants would be the same recipe")
    short = short_keys(list(vary))
    return tuple(
        Variant(
            ", ".join(f"{short[key]} {shown(value)}" for key, value in zip(vary, values, strict=True)),
            dict(zip(vary, values, strict=True)),
        )
        for values in itertools.product(*vary.values())
    )


def _named(tables: Any, origin: str) -> tuple[Variant, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables) or not tables:
        raise UsageError(f"{origin}: variants must be tables, each under [[variants]]")
    variants: list[Variant] = []
    for number, table in enumerate(tables):
        changes = {key: value for key, value in table.items() if key != "name"}
        dotted = {SHORT.get(key, key): None if value == "none" else value for key, value in _leaves(changes).items()}
        name = table.get("name") or ", ".join(f"{key} {shown(value)}" for key, value in dotted.items()) or "base"
        if any(name == other.name for other in variants):
            raise UsageError(f"{origin}: variants.{number}.name: two variants are called '{name}'; give each a name of its own")
        variants.append(Variant(str(name), dotted))
    return tuple(variants)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _parse_vary(texts: Sequence[str] | Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Read `dotted.key=value,value,…`; a comma within brackets or quotes belongs to the value."""
    if isinstance(texts, Mapping):
        return {key: list(values) for key, values in texts.items()}
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, separator, values = (part.strip() for part in text.partition("="))
        if not separator or not key or not values:
            raise UsageError(f"--vary {text}: write key=value,value,…, for example --vary data.train_size=1000,5000")
        parts = re.findall(r"""(?:[^,\[\]"']|\[[^\]]*\]|"[^"]*"|'[^']*')+""", values)
        found[SHORT.get(key, key)] = [parse_overrides([f"{SHORT.get(key, key)}={part}"])[SHORT.get(key, key)] for part in parts]
    return found


def _seeds(given: Any, design: Design, origin: str) -> tuple[int, ...]:
    """Return the seeds: a number of them, a list, or as many as suit what a cell costs."""
    if isinstance(given, str):
        parts = given.split(",")
        if not all(part.strip().isdecimal() for part in parts):
            raise UsageError(f"--seeds {given}: give a number of seeds, or seeds separated by commas")
        given = int(parts[0]) if len(parts) == 1 else [int(part) for part in parts]
    if given is None:
        given = _usual_seeds(design.cell(design.variants[0], 0).recipe)
    seeds = tuple(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    whole = isinstance(seeds, list | tuple) and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not whole or len(set(seeds)) != len(seeds):
        raise UsageError(f"{origin}: seeds = {given!r} must be a number of seeds, or a list of different numbers from 0")
    if len(seeds) < 2:
        raise UsageError(
            f"{origin}: seeds = {given!r}: with one seed a difference cannot be told from luck; give at least 2, better 5 or more"
        )
    return tuple(seeds)


def _usual_seeds(recipe: Recipe) -> int:
    if all(trains_on_features(phase) for phase in recipe.phases):
        return _SEEDS_CACHED
    return _SEEDS_FINE_TUNED if recipe.model.pretrained and any(phase.train == "all" for phase in recipe.phases) else _SEEDS
