"""Checks of what is installed: Python, packages, formats of photos, encodings."""

import locale
import platform
import re
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from io import BytesIO

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from hcoatnet.doctor.finding import Finding

PACKAGE = "hcoatnet"
SHOWN = ("torch", "torchvision", "timm", "numpy", "pillow")
COMPILED = {"onnxruntime": "onnxruntime", "opencv-python-headless": "cv2"}
"""Packages of extras that can be installed and yet fail to load, with the module to try."""

ESSENTIAL = ("JPEG", "PNG")
REPAIR = "Run: pip install --upgrade hcoatnet"


def python() -> Finding:
    """Whether this Python is one that the package supports."""
    allowed = SpecifierSet(str(metadata.metadata(PACKAGE)["Requires-Python"]))
    found = platform.python_version()
    if allowed.contains(found, prereleases=True):
        return Finding("ok", f"Python {found}")
    return Finding("problem", f"Python {found}, not {allowed}", f"Make an environment with a Python {allowed}.")


def dependencies() -> Finding:
    """Whether every package that this one needs is there, in a version that it works with."""
    needed = list(_requirements(""))
    wrong = [fault for one in needed if (fault := _fault(one))]
    if wrong:
        return Finding("problem", "; ".join(wrong), REPAIR)
    shown = ", ".join(f"{one.name} {_version(one.name)}" for one in needed if one.name in SHOWN)
    return Finding("ok", f"all {len(needed)} in the allowed range ({shown})")


def torch_and_torchvision() -> Finding:
    """Whether torch loads, and with the torchvision that was built for it."""
    together = "Install the two again, together: pip install --force-reinstall torch torchvision"
    try:
        torch = import_module("torch")
    except (ImportError, OSError) as error:
        return Finding("problem", f"torch does not load: {first_line(error)}", together)
    built_for = [one for one in _requirements("", "torchvision") if one.name == "torch"]
    pinned = ", ".join(f"it needs torch{one.specifier}" for one in built_for)
    try:
        torchvision = import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        found = f"torchvision {_version('torchvision')} does not load beside torch {torch.__version__}"
        return Finding("problem", f"{found}: {first_line(error)} ({pinned})", together)
    if any(not one.specifier.contains(Version(torch.__version__).public, prereleases=True) for one in built_for):
        found = f"torchvision {torchvision.__version__} beside torch {torch.__version__}: {pinned}"
        return Finding("warning", found, together)
    return Finding("ok", f"torch {torch.__version__} with torchvision {torchvision.__version__}")


def extras() -> Finding:
    """Which extras are there, how to get the others, and whether the compiled ones load."""
    names = [name for name in metadata.metadata(PACKAGE).get_all("Provides-Extra") or [] if name != "dev"]
    needs = {name: list(_requirements(name)) for name in names}
    missing = [name for name in names if any(_version(one.name) is None for one in needs[name])]
    wrong = {fault for name in names if name not in missing for one in needs[name] if (fault := _fault(one))}
    for one in sorted({one.name for name in names for one in needs[name]} & COMPILED.keys()):
        if _version(one) is not None and (reason := _import_failure(COMPILED[one])):
            wrong.add(f"{one} does not load: {reason}")
    present = [name for name in names if name not in missing]
    found = f"present: {', '.join(present) or 'none'}" + (f"; not installed: {', '.join(missing)}" if missing else "")
    if wrong:
        return Finding(
            "warning", f"{'; '.join(sorted(wrong))}", f"Run: pip install --upgrade 'hcoatnet[{_all(names)}]'"
        )
    return Finding("ok", found, f"If you want them: pip install 'hcoatnet[{_all(missing)}]'" if missing else "")


def photo_formats() -> Finding:
    """Which formats of photos can be read: each is written and read once."""
    from PIL import Image, UnidentifiedImageError

    from hcoatnet.data.images import open_photo
    from hcoatnet.errors import DataError

    unreadable = []
    for name in ("JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF"):
        content = BytesIO()
        try:
            Image.new("RGB", (16, 16), "red").save(content, name.upper())
            open_photo(content.getvalue())
        except (OSError, KeyError, UnidentifiedImageError, DataError):
            unreadable.append(name)
    if not unreadable:
        return Finding("ok", "JPEG, PNG, WebP, TIFF, BMP and GIF are read; HEIC is not: export such photos as JPEG")
    found = f"Pillow cannot read {', '.join(unreadable)}"
    advice = "Install Pillow again, from a wheel: pip install --force-reinstall --only-binary :all: pillow"
    return Finding("problem" if set(unreadable) & set(ESSENTIAL) else "warning", found, advice)


def encoding() -> Finding:
    """Whether names of files and printed text can hold every letter."""
    names, text = sys.getfilesystemencoding(), getattr(sys.stdout, "encoding", None) or "none"
    if not _is_unicode(names):
        advice = "Set the variable PYTHONUTF8=1, or a UTF-8 locale such as LC_ALL=C.UTF-8."
        return Finding("problem", f"file names are read as {names}: those with accents may not be found", advice)
    if not _is_unicode(text):
        advice = "Set the variable PYTHONUTF8=1, or choose UTF-8 in the terminal."
        return Finding("warning", f"the terminal takes {text}: other signs are shown as ?", advice)
    return Finding("ok", f"{names} for file names, {text} for the terminal, locale {locale.getlocale()[0] or 'C'}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it says nothing; paths are cut to their last part."""
    lines = str(error).strip().splitlines()
    return re.sub(r"(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+)+[/\\]", "…/", lines[0]) if lines else type(error).__name__


def _requirements(extra: str, package: str = PACKAGE) -> Iterator[Requirement]:
    """What an installed package needs here; with ``extra``, what that adds."""
    for text in metadata.requires(package) or []:
        one = Requirement(text)
        if _applies(one, extra) and (not extra or not _applies(one, "")):
            yield one


def _applies(needed: Requirement, extra: str) -> bool:
    return needed.marker is None or needed.marker.evaluate({"extra": extra})


def _fault(needed: Requirement) -> str:
    found = _version(needed.name)
    if found is None:
        return f"{needed.name} is not installed"
    if not needed.specifier.contains(found, prereleases=True):
        return f"{needed.name} {found} is not {needed.specifier}"
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _import_failure(module: str) -> str:
    import hcoatnet.deploy  # noqa: F401 - switches off what ONNX Runtime reports

    try:
        import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return first_line(error)
    return ""


def _all(names: list[str]) -> str:
    return ",".join(names)


def _is_unicode(name: str) -> bool:
    return name.lower().replace("-", "").replace("_", "") in ("utf8", "utf16", "utf32")
