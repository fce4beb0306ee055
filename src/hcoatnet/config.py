"""Settings of a training run: one dataclass is the source of the flags, the YAML keys and their documentation.

Precedence: defaults < protocol < ``--config`` file < flags. Paths in a YAML file are relative to that file.
"""

import difflib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_type_hints

from hcoatnet.documents import DocumentError, parse_yaml
from hcoatnet.errors import ConfigError
from hcoatnet.settings import Scalar, as_flag, converted, in_range, rebased, relative_to, setting, wrong

Device = Literal["auto", "cpu", "cuda", "mps"]
Views = Literal["one", "flips", "dihedral"]

PROTOCOLS = ("paper", "strict", "quick")
DEFAULT_PROTOCOL = "strict"

LARGEST_SIDE = 1024
"""Pixels; of photos as a model takes them."""

STEP = 32
"""Pixels by which the side of training photos grows, where it does."""

DATA, MODEL, OPTIMISATION = "Data", "Model", "Optimisation"
REGULARISATION, AUGMENTATION, EXECUTION = "Regularisation", "Augmentation", "Execution"
GROUPS = (MODEL, DATA, OPTIMISATION, REGULARISATION, AUGMENTATION, EXECUTION)


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of ``hcoatnet train``. Build one with :func:`resolve_config`, which checks it."""

    protocol: Literal["paper", "strict", "quick"] = setting(DEFAULT_PROTOCOL, "Settings to start from.", MODEL)
    model: str = setting("h_coatnet_tiny", "Architecture; `hcoatnet models` lists them.", MODEL)
    model_options: dict[str, Scalar] = setting(
        {}, "Options of the architecture, each as key=value.", MODEL, example="importance=norm"
    )
    init: str = setting("scratch", "scratch, pretrained, or pretrained:FILE (.safetensors or .pth).", MODEL)

    initialisation: Literal["published", "fan_in"] = setting(
        "published",
        "How random weights start: as the model's authors have it, or scaled to each layer's inputs.",
        MODEL,
        later=True,
    )
    probe: bool = setting(
        False, "Linear probe: the network stays as it began, a logistic regression is fitted on its features.", MODEL
    )

    data: Path | None = setting(
        None, "Folder of photos, a manifest, or `synthetic` for the drawn set.", DATA, recipe=False
    )
    split: Path | None = setting(None, "Split file; without it one is made.", DATA, recipe=False)
    repeat: int = setting(0, "Repeat to use of a cross-validation split file.", DATA, minimum=0)
    fold: int = setting(0, "Fold to test on of a cross-validation split file.", DATA, minimum=0)
    val_share: float = setting(
        0.15, "Share of photos for validation where a split is made.", DATA, minimum=0.01, maximum=0.6
    )
    test_share: float = setting(
        0.15, "Share of photos for the test where a split is made.", DATA, minimum=0.01, maximum=0.6
    )
    split_seed: int = setting(42, "Seed of the split where one is made.", DATA, minimum=0)
    image_size: int = setting(224, "Side of the square model input, in pixels.", DATA, minimum=16, maximum=LARGEST_SIDE)
    start_size: int = setting(
        0, "Side with which training starts, to grow to --image-size by 32 pixels at a time; 0 for no growth.",
        DATA, minimum=0, maximum=LARGEST_SIDE, later=True,
    )  # fmt: skip

    epochs: int = setting(30, "Passes over the training photos.", OPTIMISATION, minimum=1)
    batch_size: int = setting(24, "Photos a step (a micro-batch, with accumulation).", OPTIMISATION, minimum=1)
    accumulation: int = setting(1, "Micro-batches an optimiser step.", OPTIMISATION, minimum=1)
    optimizer: Literal["adamw", "adam", "sgd"] = setting("adamw", "Optimiser.", OPTIMISATION)
    lr: float = setting(5e-5, "Peak learning rate.", OPTIMISATION, minimum=0)
    momentum: float = setting(0.9, "Momentum of SGD.", OPTIMISATION, minimum=0, maximum=0.999)
    weight_decay: float = setting(
        0.01, "Weight decay, not on biases and norms: decoupled with adamw, an L2 penalty with adam and sgd.",
        OPTIMISATION, minimum=0,
    )  # fmt: skip
    schedule: Literal["cosine", "poly", "step", "constant"] = setting(
        "cosine", "Course of the learning rate after the warm-up.", OPTIMISATION
    )
    layer_decay: float = setting(
        1.0, "Factor on the learning rate from each layer with pretrained weights to the one before it; 1 for none.",
        OPTIMISATION, minimum=0.01, maximum=1, later=True,
    )  # fmt: skip
    frozen_epochs: int = setting(
        0, "First epochs in which only what starts random learns.", OPTIMISATION, minimum=0, later=True
    )
    warmup_epochs: float = setting(0, "Epochs of linear warm-up.", OPTIMISATION, minimum=0)
    min_lr: float = setting(0.0, "Learning rate at the schedule's end.", OPTIMISATION, minimum=0)
    clip_grad: float = setting(0.0, "Largest gradient norm; 0 clips nothing.", OPTIMISATION, minimum=0)
    ema: float = setting(
        0.0, "Decay of an exponential moving average of the weights, which is then what is evaluated; 0 for none.",
        OPTIMISATION, minimum=0, maximum=0.99999,
    )  # fmt: skip
    monitor: Literal["macro_f1", "balanced_accuracy", "accuracy", "loss"] = setting(
        "macro_f1", "Validation figure that chooses the checkpoint.", OPTIMISATION
    )
    seed: int = setting(42, "Seed of the weights, the order and the augmentation.", OPTIMISATION, minimum=0)

    class_weights: Literal["none", "inverse", "sqrt", "effective"] = setting(
        "inverse", "Weights of the classes in the loss.", REGULARISATION
    )
    sampler: Literal["shuffle", "weighted"] = setting(
        "shuffle", "Order of photos: each once, or classes drawn equally often.", REGULARISATION
    )
    label_smoothing: float = setting(0.1, "Label smoothing.", REGULARISATION, minimum=0, maximum=0.9)
    dropout: float = setting(0.2, "Dropout before the classifier.", REGULARISATION, minimum=0, maximum=0.95)
    drop_path: float = setting(
        0.0,
        "Stochastic depth, largest rate; no effect without residual branches.",
        REGULARISATION,
        minimum=0,
        maximum=0.9,
    )
    mixup: float = setting(0.0, "Alpha of mixup; 0 for none.", REGULARISATION, minimum=0)
    cutmix: float = setting(0.0, "Alpha of CutMix; 0 for none.", REGULARISATION, minimum=0)

    crop_scale: float = setting(
        0.8, "Smallest share of the area in a random crop.", AUGMENTATION, minimum=0.05, maximum=1
    )
    horizontal_flip: float = setting(0.5, "Probability of a horizontal flip.", AUGMENTATION, minimum=0, maximum=1)
    vertical_flip: float = setting(0.0, "Probability of a vertical flip.", AUGMENTATION, minimum=0, maximum=1)
    rotation: float = setting(15.0, "Largest rotation, in degrees.", AUGMENTATION, minimum=0, maximum=180)
    trivial_augment: bool = setting(True, "TrivialAugmentWide.", AUGMENTATION)
    random_erasing: float = setting(0.2, "Probability of erasing a rectangle.", AUGMENTATION, minimum=0, maximum=1)

    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "Arithmetic in training; auto is bf16 on GPUs and CPUs with instructions for it, else fp32.", EXECUTION
    )
    channels_last: bool = setting(True, "Channels-last memory layout.", EXECUTION)
    compile: Literal["auto", "true", "false"] = setting(
        "auto",
        "torch.compile the model; auto does on a CPU where the epochs are worth the wait.",
        EXECUTION,
        recipe=False,
    )
    deterministic: bool = setting(False, "Only algorithms that give the same bits twice.", EXECUTION)
    views: Views = setting(
        "one",
        "How a trained model sees a photo: as it is, or as the mean over 4 flips, or all 8 flips and quarter turns.",
        EXECUTION,
        later=True,
    )
    device: Device = setting("auto", "Where to train.", EXECUTION, recipe=False)
    workers: int = setting(-1, "Loader processes; -1 decides by device.", EXECUTION, minimum=-1, recipe=False)
    cache: bool = setting(True, "Decode each photo once, into a cache.", EXECUTION, recipe=False)
    cache_folder: Path | None = setting(
        None, "Where decoded photos are kept; without it beside the photos.", EXECUTION, recipe=False
    )
    cache_limit: float = setting(
        20.0, "Most gigabytes that decoded photos may take; the oldest leave.", EXECUTION, minimum=0, recipe=False
    )
    evaluate_test: bool = setting(True, "Open the test set once at the end.", EXECUTION, recipe=False)
    out: Path | None = setting(None, "Run directory; without it runs/MODEL-INIT-sSEED.", EXECUTION, recipe=False)
    resume: str = setting(
        "never",
        "never, auto (continue OUT if it was started), or a run directory to continue.",
        EXECUTION,
        recipe=False,
    )

    @property
    def init_kind(self) -> str:
        """``scratch`` or ``pretrained``: the part of ``init`` that identifies a result."""
        return self.init.partition(":")[0]

    @property
    def init_file(self) -> Path | None:
        """The weights file named in ``init``, if any."""
        _, colon, name = self.init.partition(":")
        return Path(name) if colon else None

    def recipe(self) -> dict[str, Any]:
        """The settings that identify a configuration: no paths, no device, no seed, no fold."""
        values = asdict(self)
        chosen = {one.name: values[one.name] for one in fields(self) if one.metadata["recipe"]}
        for replicate in ("seed", "repeat", "fold"):
            del chosen[replicate]
        file = self.init_file
        chosen["init"] = self.init_kind if file is None else f"{self.init_kind}:{file.name}"
        return chosen

    @property
    def sha256(self) -> str:
        """Digest of :meth:`recipe`: equal for runs that differ in seed, fold, place or device only.

        It is of the form that it had for the first runs: with ``compile``, then off, and without later settings that
        are off.
        """
        recipe = {**self.recipe(), "compile": False}
        for one in fields(self):
            if one.metadata["later"] and recipe[one.name] == one.default:
                del recipe[one.name]
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    def differences(self, stored: "TrainConfig") -> list[str]:
        """What identifies a run and differs from ``stored``, one phrase a setting."""
        mine = {**self.recipe(), "seed": self.seed, "repeat": self.repeat, "fold": self.fold}
        theirs = {**stored.recipe(), "seed": stored.seed, "repeat": stored.repeat, "fold": stored.fold}
        return [f"{as_flag(name)} is {mine[name]}, was {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def resolve_config(overrides: Mapping[str, Any], file: Path | None = None) -> TrainConfig:
    """Lay ``overrides`` (flags, or keyword settings in Python) over ``file`` over its protocol over the defaults.

    Raises:
        ConfigError: An unknown key (the nearest is named), or a value of the wrong type or out of range.
    """
    from_file = read_settings(file) if file else {}
    given = {**from_file, **check_settings(overrides, "flag")}
    protocol = Protocol.read(given.get("protocol", DEFAULT_PROTOCOL))
    config = TrainConfig(**{**protocol.settings, **given})
    config = TrainConfig(**{**protocol.settings, **protocol.otherwise(config), **given})
    _check_together(config)
    return config


def stored_settings(file: Path) -> dict[str, Any]:
    """Settings of the ``config.yaml`` of a run, which holds all that there were when it was written.

    What came later is at its default, whatever the run's protocol says of it now.

    Raises:
        ConfigError: As :func:`read_settings`.
    """
    later = {one.name: one.default for one in fields(TrainConfig) if one.metadata["later"]}
    return {**later, **read_settings(file)}


@dataclass(frozen=True)
class Protocol:
    """A file of ``configs/``.

    Attributes:
        settings: What it says.
        pretrained: What it says otherwise for runs that begin with pretrained weights: its key ``pretrained``.
        scratch: What it says otherwise for some models that begin with random ones: its key ``scratch``.
        scratch_models: Patterns of their names, such as ``vit_*``: the key ``models`` of that.
    """

    settings: Mapping[str, Any]
    pretrained: Mapping[str, Any]
    scratch: Mapping[str, Any]
    scratch_models: tuple[str, ...]

    @classmethod
    def read(cls, name: str) -> "Protocol":
        """The protocol of this name.

        Raises:
            ConfigError: No such protocol, or a mistake in its file.
        """
        path = protocol_file(name)
        content = read_yaml(path)
        parts = {key: content.pop(key, {}) for key in ("pretrained", "scratch")}
        for key, part in parts.items():
            if not isinstance(part, dict):
                raise ConfigError(f"{path}: '{key}' must hold `key: value` lines. Got {part!r}.")
        scratch = dict(parts["scratch"])
        models = scratch.pop("models", [])
        if not isinstance(models, list) or bool(models) != bool(scratch):
            message = "'scratch' must hold settings, and under 'models' a list of the models that they are for."
            raise ConfigError(f"{path}: {message} Got {parts['scratch']!r}.")
        what = f"key in {path}"
        return cls(
            settings=check_settings(content, what),
            pretrained=check_settings(parts["pretrained"], what),
            scratch=check_settings(scratch, what),
            scratch_models=tuple(map(str, models)),
        )

    def otherwise(self, config: TrainConfig) -> Mapping[str, Any]:
        """What it says otherwise for the model and the initial weights of ``config``."""
        if config.init_kind == "pretrained":
            return self.pretrained
        return self.scratch if any(fnmatchcase(config.model, one) for one in self.scratch_models) else {}


def protocol_file(name: str) -> Path:
    """The YAML file of a protocol: in the package where it was installed, in ``configs/`` of a checkout."""
    if name not in PROTOCOLS:
        raise ConfigError(f"Unknown protocol '{name}'. Choose one of {', '.join(PROTOCOLS)}.")
    installed = Path(__file__).parent / "configs"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "configs"
    return folder / f"{name}.yaml"


def read_settings(path: Path) -> dict[str, Any]:
    """Checked settings of a YAML file, with its paths made relative to the working directory.

    Raises:
        ConfigError: No such file, not a YAML mapping, an unknown key, or a wrong value.
    """
    with naming(path):
        return rebased(check_settings(read_yaml(path), f"key in {path}"), path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the messages of all errors inside name the file that they are about."""
    try:
        yield
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigError: No such file, or not a YAML mapping.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the config file {path}: {error.strerror}.") from error
    except (DocumentError, UnicodeDecodeError) as error:
        why = error if isinstance(error, DocumentError) else "is not valid YAML"
        raise ConfigError(f"{path} {why}. Write one `key: value` a line.") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines. Got a {type(content).__name__}.")
    return content


def write_settings(config: TrainConfig, path: Path) -> None:
    """Write ``config`` as YAML that ``--config`` takes again; its paths become relative to the file's folder."""
    import yaml

    from hcoatnet.files import write_text

    values = {name: relative_to(value, path.parent) for name, value in asdict(config).items()}
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def settings_fields() -> tuple[tuple[Field[Any], Any], ...]:
    """Every field of :class:`TrainConfig` with its resolved type, in order."""
    hints = get_type_hints(TrainConfig)
    return tuple((one, hints[one.name]) for one in fields(TrainConfig))


def check_settings(
    values: Mapping[str, Any],
    what: str,
    *,
    leave_out: Collection[str] = (),
    also: Collection[str] = (),
    command: str = "train",
) -> dict[str, Any]:
    """``values`` in the types of :class:`TrainConfig`.

    Args:
        values: Settings as YAML or flags give them.
        what: What an unknown one is called in a message, such as ``flag``.
        leave_out: Settings that are not known in this place.
        also: Further names that are known in this place, to be suggested where a name is nearly theirs.
        command: The command whose help lists what is known.

    Raises:
        ConfigError: An unknown name (the nearest is named), or a value of the wrong type or out of range.
    """
    known = {one.name: (one, kind) for one, kind in settings_fields() if one.name not in leave_out}
    checked = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), [*also, *known], n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" `hcoatnet {command} --help` lists the settings."
            raise ConfigError(f"Unknown {what}: '{name}'.{hint}")
        one, kind = known[name]
        checked[name] = in_range(one, converted(name, value, kind))
    return checked


def _check_together(config: TrainConfig) -> None:
    """Refuse settings that contradict each other."""
    if config.val_share + config.test_share > 0.8:
        raise ConfigError(
            f"val_share + test_share leave {1 - config.val_share - config.test_share:.0%} of the photos for training. "
            "Give shares that sum to at most 0.8."
        )
    spares = {"frozen_epochs": config.frozen_epochs > 0, "layer_decay": config.layer_decay < 1}
    if config.init_kind == "scratch" and any(spares.values()):
        name = next(name for name, on in spares.items() if on)
        raise ConfigError(
            f"The setting '{name}' ({as_flag(name)}) spares pretrained weights, and --init scratch has none. "
            f"Add --init pretrained, or leave {as_flag(name)} out."
        )
    if config.frozen_epochs >= config.epochs:
        raise wrong("frozen_epochs", f"fewer than the {config.epochs} epochs", config.frozen_epochs)
    if config.start_size and (config.start_size % STEP or config.start_size >= config.image_size):
        raise wrong(
            "start_size", f"0, or a multiple of {STEP} below the image size of {config.image_size}", config.start_size
        )
