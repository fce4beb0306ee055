"""A set of drawn photos with everything in it that an audit should find."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageEnhance

from hcoatnet.data.synthetic import draw_synthetic

PATIENTS = 115
_LETTERS = {"exact": "e", "flip": "f", "crop": "c", "chain": "h"}


@dataclass
class Planted:
    """Paths below the folder, of what was planted: copies as (original, copy), files by the rule they break."""

    folder: Path
    copies: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    logo_class: str = ""


def chain(photo, rng):
    """Flip, turn by up to 12°, brightness, and another JPEG: as augmented copies are stored."""
    made = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    return ImageEnhance.Brightness(made).enhance(rng.uniform(0.8, 1.2))


def crop(photo, rng):
    """A random 85 % of each side."""
    width, height = round(0.85 * photo.width), round(0.85 * photo.height)
    left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
    return photo.crop((left, top, left + width, top + height))


def flip(photo, rng):
    """One of the seven flips and right-angle rotations."""
    return photo.transpose(list(Image.Transpose)[rng.integers(7)])


def plant(folder: Path, seed: int = 0) -> Planted:
    """Draw photos into ``folder / train, valid, test`` with a folder a class, and plant what an audit should find."""
    rng = np.random.default_rng(seed)
    drawn = draw_synthetic(folder / "drawn", patients=PATIENTS, photos_per_patient=1, size=128, seed=seed)
    planted = Planted(folder / "photos")
    planted.logo_class = drawn.classes[0]
    photos = []
    for number, (path, label) in enumerate(zip(drawn.table["path"], drawn.table["label"], strict=True)):
        photo = Image.open(drawn.folder / path).convert("RGB")
        if label == planted.logo_class:
            pen = ImageDraw.Draw(photo)
            pen.rectangle([84, 106, 124, 124], fill="white")
            pen.text((88, 109), "CLINIC", fill=(20, 20, 150))
        subset = ("train", "train", "valid", "test")[number % 4]
        photos.append((subset, label, save(planted.folder, f"{subset}/{label}/{number:04}.jpg", photo)))
    plain = [entry for entry in photos if entry[1] != planted.logo_class]
    sources = iter(plain[3:])
    for kind, change in (("exact", None), ("flip", flip), ("crop", crop), ("chain", chain)):
        for number in range(6):
            subset, label, path = next(sources)
            other = "test" if subset != "test" else "train"
            copy = f"{other}/{label}/{_LETTERS[kind]}{number}.jpg"
            if change is None:
                (planted.folder / copy).write_bytes((planted.folder / path).read_bytes())
            else:
                save(planted.folder, copy, change(Image.open(planted.folder / path), rng))
            planted.copies.setdefault(kind, []).append((path, copy))
    for number in range(3):
        subset, label, path = next(sources)
        other = next(name for name in drawn.classes[1:] if name != label)
        copy = save(planted.folder, f"{subset}/{other}/swapped{number}.jpg", Image.open(planted.folder / path))
        planted.conflicts.append((path, copy))
    spoil(planted, [next(sources) for _ in range(7)], drawn.classes[1])
    return planted


def spoil(planted: Planted, photos, label: str) -> None:
    """Damaged and odd files."""

    def replace(rule, path, content):
        (planted.folder / path).write_bytes(content)
        planted.files.setdefault(rule, []).append(path)

    paths = [path for _, _, path in photos]
    whole = {path: (planted.folder / path).read_bytes() for path in paths}
    replace("truncated", paths[0], whole[paths[0]][: len(whole[paths[0]]) // 2])
    replace("maybe cut", paths[1], whole[paths[1]][: len(whole[paths[1]]) // 2] + b"\xff\xd9")
    replace("empty", paths[2], b"")
    replace("not an image", paths[3], b"this is no photo")
    private = Image.Exif()
    private.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    private[ExifTags.Base.Artist] = "Erika Mustermann"
    Image.open(planted.folder / paths[4]).save(planted.folder / paths[4], exif=private)
    planted.files["place in metadata"] = planted.files["name or text in metadata"] = [paths[4]]
    Image.open(planted.folder / paths[5]).convert("L").save(planted.folder / paths[5])
    planted.files["grayscale"] = [paths[5]]
    png = (planted.folder / paths[6]).with_suffix(".tmp.png")
    Image.open(planted.folder / paths[6]).save(png)
    png.replace(planted.folder / paths[6])
    planted.files["wrong suffix"] = [paths[6]]
    for rule, name, image in (
        ("tiny", "tiny", Image.open(planted.folder / paths[6]).resize((40, 40))),
        ("extreme aspect", "wide", Image.open(planted.folder / paths[6]).resize((400, 100))),
        ("constant", "flat", Image.new("RGB", (128, 128), (90, 60, 50))),
    ):
        planted.files[rule] = [save(planted.folder, f"train/{label}/{name}.jpg", image)]


def save(folder: Path, path: str, photo) -> str:
    """Save a JPEG and return its path below the folder."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    photo.save(folder / path, quality=90)
    return path
