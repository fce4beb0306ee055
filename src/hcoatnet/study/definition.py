"""What a study is: rows (a model, or a variant of one) × initial weights × seeds × folds, from a YAML file or flags.

A study file holds the keys of :data:`STUDY_KEYS` and any setting of ``hcoatnet train``, which holds for all cells::

    models: [cnn, {name: small-lr, model: cnn, lr: 1e-4}]
    inits: [scratch]
    seeds: [42, 43]
    data: manifest.csv
    split: folds.csv
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hcoatnet.config import TrainConfig, check_settings, naming, read_yaml, resolve_config
from hcoatnet.errors import ConfigError
from hcoatnet.settings import rebased, relative_to

STUDY_KEYS = ("models", "inits", "seeds", "repeats", "folds")

PLACED = ("model", "init", "seed", "repeat", "fold", "out", "resume")
"""Settings of a training that the study gives each cell itself."""

COMMON = ("data", "split", "val_share", "test_share", "split_seed", "device", "workers", "evaluate_test")
"""Settings that hold for all rows: with other photos or splits rows could not be compared."""

DEFAULT_INIT = "scratch"
DEFAULT_SEED = 42

_Value = TypeVar("_Value")
_ROW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class Variant:
    """One row of a study.

    Attributes:
        name: The row's name; part of file names.
        settings: Settings of its own, over the study's: ``model``, perhaps ``init`` and any of the recipe.
    """

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class StudyConfig:
    """A study, checked.

    Attributes:
        variants: The rows.
        inits: Initial weights that each row is trained from, unless it has its own.
        seeds: Seeds that each is trained with.
        repeats: Repeats of the split file; None for all.
        folds: Folds of the split file; None for all.
        settings: Settings of ``train`` for all cells, paths as seen from the working directory.
    """

    variants: tuple[Variant, ...]
    inits: tuple[str, ...] = (DEFAULT_INIT,)
    seeds: tuple[int, ...] = (DEFAULT_SEED,)
    repeats: tuple[int, ...] | None = None
    folds: tuple[int, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def inits_of(self, variant: Variant) -> tuple[str, ...]:
        """Initial weights that a row is trained from."""
        return (variant.settings["init"],) if "init" in variant.settings else self.inits

    def train_config(
        self, variant: Variant, init: str, seed: int = DEFAULT_SEED, repeat: int = 0, fold: int = 0
    ) -> TrainConfig:
        """The settings of one training; where it is to lie is left open."""
        place = {"init": init, "seed": seed, "repeat": repeat, "fold": fold}
        return resolve_config({**self.settings, **variant.settings, **place})

    def variant(self, name: str) -> Variant:
        """The row of that name."""
        return next(one for one in self.variants if one.name == name)


def read_study(path: Path) -> StudyConfig:
    """Read a study file; its paths are relative to it.

    Raises:
        ConfigError: No such file, no YAML mapping, an unknown key, or a wrong value.
    """
    with naming(path):
        return _study_of(read_yaml(path), path)


def _study_of(content: Mapping[str, Any], path: Path) -> StudyConfig:
    values = {name: content[name] for name in STUDY_KEYS if name in content}
    settings = {name: value for name, value in content.items() if name not in values}
    checked = check_settings(settings, f"key in {path}", leave_out=PLACED, also=STUDY_KEYS, command="study run")
    if "models" not in values:
        raise ConfigError(f"{path} names no models. Add a line such as `models: [h_coatnet_atto, cnn]`.")
    variants = tuple(_variant(item, path) for item in _listed("models", values["models"]))
    inits = tuple(rebased({"init": one}, path.parent)["init"] for one in _inits(values.get("inits", DEFAULT_INIT)))
    return _checked(
        StudyConfig(
            variants=variants,
            inits=inits,
            seeds=_numbers("seeds", values.get("seeds", DEFAULT_SEED)),
            repeats=_optional_numbers("repeats", values.get("repeats")),
            folds=_optional_numbers("folds", values.get("folds")),
            settings=rebased(checked, path.parent),
        )
    )


def overlay(
    base: StudyConfig | None,
    *,
    models: Sequence[str] | None = None,
    inits: Sequence[str] | None = None,
    seeds: Sequence[str] | None = None,
    repeats: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> StudyConfig:
    """Lay flags over a study file, or over nothing.

    Args:
        base: The study of the file.
        models: Rows of the file by name, or models.
        inits: Initial weights.
        seeds: Whole numbers, as text; so are ``repeats`` and ``folds``.
        repeats: Repeats of the split file.
        folds: Folds of the split file.
        settings: Settings of ``train``. What a row sets itself stays.

    Raises:
        ConfigError: No models are named, or a value is wrong.
    """
    given = check_settings(settings or {}, "flag", leave_out=PLACED, also=STUDY_KEYS, command="study run")
    if base is None and not models:
        raise ConfigError("No models are named. Give --models h_coatnet_atto,cnn or a study file with --config.")
    known = {one.name: one for one in base.variants} if base else {}
    variants = tuple(known.values())
    if models:
        variants = tuple(known.get(name, Variant(name, {"model": name})) for name in split_list(models))
    old = base or StudyConfig(variants)
    return _checked(
        StudyConfig(
            variants=variants,
            inits=_inits(split_list(inits)) if inits else old.inits,
            seeds=_numbers("seeds", split_list(seeds)) if seeds else old.seeds,
            repeats=_numbers("repeats", split_list(repeats)) if repeats else old.repeats,
            folds=_numbers("folds", split_list(folds)) if folds else old.folds,
            settings={**old.settings, **given},
        )
    )


def study_yaml(study: StudyConfig, folder: Path) -> str:
    """The study as YAML for a file in ``folder``, its paths relative to that, so that it holds no absolute one."""
    import yaml

    def seen(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: relative_to(value, folder) for name, value in values.items()}

    content: dict[str, Any] = {
        "models": [{"name": one.name, **seen(one.settings)} for one in study.variants],
        "inits": [relative_to(init, folder) for init in study.inits],
        "seeds": list(study.seeds),
    }
    for name, numbers in (("repeats", study.repeats), ("folds", study.folds)):
        if numbers is not None:
            content[name] = list(numbers)
    return yaml.safe_dump({**content, **seen(study.settings)}, sort_keys=False, allow_unicode=True)


def joined(old: StudyConfig | None, new: StudyConfig) -> StudyConfig:
    """A study grown by another: the rows, inits, seeds, repeats and folds of both, and the settings of the newer."""
    if old is None:
        return new
    rows = {one.name: one for one in (*old.variants, *new.variants)}

    def both(mine: tuple[int, ...] | None, theirs: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if mine is None or theirs is None else tuple(dict.fromkeys((*mine, *theirs)))

    return StudyConfig(
        variants=tuple(rows.values()),
        inits=tuple(dict.fromkeys((*old.inits, *new.inits))),
        seeds=tuple(dict.fromkeys((*old.seeds, *new.seeds))),
        repeats=both(old.repeats, new.repeats),
        folds=both(old.folds, new.folds),
        settings=new.settings,
    )


def split_list(values: Sequence[str]) -> list[str]:
    """Items of a flag that may be repeated, or hold several with commas between them."""
    return [item.strip() for value in values for item in str(value).split(",") if item.strip()]


def _variant(item: Any, path: Path) -> Variant:
    if isinstance(item, str):
        return Variant(item, {"model": item})
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str) or "model" not in item:
        raise ConfigError(
            f"{path}: each of `models` must be a model, or a mapping such as {{name: mine, model: cnn, lr: 0.1}}. "
            f"Got {item!r}."
        )
    own = {name: value for name, value in item.items() if name != "name"}
    leave_out = [name for name in (*PLACED, *COMMON) if name not in ("model", "init")]
    checked = check_settings(own, f"key of the model '{item['name']}' in {path}", leave_out=leave_out, command="train")
    return Variant(item["name"], rebased(checked, path.parent))


def _checked(study: StudyConfig) -> StudyConfig:
    folded: dict[str, str] = {}
    for variant in study.variants:
        if not _ROW_NAME.fullmatch(variant.name):
            raise ConfigError(
                f"The row {variant.name!r} cannot be part of a file name. Use letters, digits and . _ + - only; name a "
                "model otherwise in a study file: {name: mine, model: …}."
            )
        if (twice := folded.setdefault(variant.name.casefold(), variant.name)) != variant.name:
            raise ConfigError(f"The rows {twice} and {variant.name} differ in capitals only. Rename one.")
    if again := _repeated(variant.name for variant in study.variants):
        raise ConfigError(f"The row {again[0]} stands twice. Give each variant of a model a name of its own.")
    if kinds := _repeated(init.partition(":")[0] for init in study.inits):
        raise ConfigError(
            f"`inits` names {kinds[0]} twice. Give each weights file to a row of its own in a study "
            "file: {name: mine, model: …, init: pretrained:FILE}."
        )
    recipes: dict[tuple[str, str], str] = {}
    for variant in study.variants:
        for init in study.inits_of(variant):
            recipe = (study.train_config(variant, init).sha256, init)  # the digest has a weights file's name alone
            same = recipes.setdefault(recipe, variant.name)
            if same != variant.name:
                raise ConfigError(f"The rows {same} and {variant.name} are the same configuration. Leave one out.")
    return study


def _listed(name: str, value: Any) -> list[Any]:
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items:
        raise ConfigError(f"`{name}` is empty. Name at least one.")
    return items


def _inits(value: Any) -> tuple[str, ...]:
    return tuple(str(check_settings({"init": one}, "flag")["init"]) for one in _listed("inits", value))


def _optional_numbers(name: str, value: Any) -> tuple[int, ...] | None:
    return None if value is None else _numbers(name, value)


def _numbers(name: str, value: Any) -> tuple[int, ...]:
    numbers = []
    for item in _listed(name, value):
        if isinstance(item, bool) or not re.fullmatch("[0-9]+", str(item)):
            raise ConfigError(f"`{name}` must be whole numbers from 0. Got {item!r} instead.")
        numbers.append(int(item))
    if again := _repeated(numbers):
        raise ConfigError(f"`{name}` names {again[0]} twice. Name each once.")
    return tuple(numbers)


def _repeated(values: Iterable[_Value]) -> list[_Value]:
    """Values that stand there more than once."""
    return [value for value, count in Counter(values).items() if count > 1]
