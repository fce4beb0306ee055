"""How long commands take to start, beside an empty Python and the import of torch and timm: (e) of the suite."""

from measured import CommandError, hcoatnet, measured, python
from results import Part, Raw
from setting import Setting
from specimen import make_specimen

TITLE = "Start-up time"
EMPTY, TORCH = "python -c pass", "import torch, timm"
HELP, IMPORT = "hcoatnet --help", "import hcoatnet"
PREDICT_RUN, PREDICT_BUNDLE = "hcoatnet predict RUN, one photo", "hcoatnet predict BUNDLE, one photo"


def measure(setting: Setting) -> Part:
    """Every command in turn, several times over; the first turn fills the disk's cache and is dropped."""
    part = Part(TITLE)
    specimen = make_specimen(setting)
    photo = str(next(one.file for one in specimen.collection.photos if one.subset == "test"))
    commands = {
        EMPTY: python("-c", "pass"),
        IMPORT: python("-c", "import hcoatnet"),
        HELP: hcoatnet("--help"),
        TORCH: python("-c", "import torch, timm"),
        PREDICT_RUN: hcoatnet("predict", str(specimen.run), photo, "--format", "csv"),
    }
    if specimen.bundle is None:
        part.notes.append(f"{PREDICT_BUNDLE}: not measured: {specimen.reason}")
    else:
        commands[PREDICT_BUNDLE] = hcoatnet("predict", str(specimen.bundle), photo, "--format", "csv")
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(setting.scale.start_rounds + 1):
        for number, (name, command) in enumerate(commands.items()):
            if name not in taken:
                continue
            try:
                found = measured(command, setting.threads, setting.work / "start" / f"{number}.log")
            except CommandError as error:
                part.notes.append(f"{name}: not measured: {error}")
                del taken[name]
            else:
                taken[name] += [(found.seconds, found.processor)] if turn else []
    for name, times in taken.items():
        part.add(Raw(name, "s", tuple(wall for wall, _ in times), tuple(processor for _, processor in times)))
    part.compare(f"{HELP} to {EMPTY}", HELP, EMPTY)
    part.compare(f"{HELP} to {TORCH}", HELP, TORCH)
    part.compare(f"{PREDICT_BUNDLE} to {TORCH}", PREDICT_BUNDLE, TORCH)
    part.compare(f"{PREDICT_BUNDLE} to {PREDICT_RUN}", PREDICT_BUNDLE, PREDICT_RUN)
    return part


if __name__ == "__main__":
    from speed import main

    main("start")
