"""Photos whose file names say that one was made from the other. A hint only: it proposes pairs and confirms none."""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import PurePosixPath

LARGEST_FAMILY = 20
"""Photos that may share a stem; numbering such as ``photo (1)`` to ``photo (500)`` says nothing."""

_CHANGES = (
    "aug|augmented|augmentation|flip|flipped|hflip|vflip|mirror|mirrored|rot|rotate|rotated|rotation|crop|cropped|zoom|"
    "blur|blurred|noise|bright|brightness|contrast|colou?r|jitter|resized?|scaled?|small|thumb|thumbnail|edit|edited|"
    "copy|kopie|copie|copia|duplicate|dup"
)
_MARKS = (
    re.compile(r"(?:_(?:jpe?g|png|webp|bmp|tiff?))?\.rf\.[0-9a-z]+$"),
    re.compile(r"^(?:copy|kopie|copie|copia) (?:\(\d+\) )?(?:of|von|de|di) "),
    re.compile(r"\s*\(\d{1,3}\)$"),
    re.compile(rf"[ _.\-]+(?:{_CHANGES})(?:[ _.\-]*[+-]?\d{{1,4}})?$"),
)


def stem_of(path: str) -> tuple[str, bool]:
    """File name without its suffix and without marks of copying or augmentation, and whether it bore any.

    ``IMG_7_aug1.jpg``, ``Copy of IMG_7.jpg``, ``IMG_7 (1).png`` and ``IMG_7_jpg.rf.0a1b.jpg`` all have the stem
    ``img_7``.
    """
    stem = whole = PurePosixPath(path).stem.casefold()
    while True:
        shorter = stem
        for mark in _MARKS:
            shorter = mark.sub("", shorter) or shorter
        if shorter == stem:
            return stem, stem != whole
        stem = shorter


def name_pairs(paths: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs with one stem and one label, of which at least one bears a mark; indices, the lower first, sorted.

    Crawlers number the photos of each class from 1, so equal names under two labels are two photos.
    """
    families = defaultdict(list)
    for place, (path, label) in enumerate(zip(paths, labels, strict=True)):
        stem, marked = stem_of(path)
        families[label, stem].append((place, marked))
    pairs = []
    for family in families.values():
        if 2 <= len(family) <= LARGEST_FAMILY:
            pairs += [(one, other) for (one, a), (other, b) in combinations(family, 2) if a or b]
    return sorted(pairs)
