"""Groups: the units, such as patients, that must never stand in two subsets of a split."""

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import PurePosixPath

import pandas as pd

_PLACEHOLDERS = {"na", "n/a", "nan", "none", "null", "unknown", "?", "-"}


def source_photo(path: str) -> str | None:
    """Name of the photo that a stored copy was made from, or None if the file name does not tell.

    A Roboflow export stores several augmented copies of a photo as ``<source>.rf.<hash>.jpg``.
    """
    source, mark, _ = PurePosixPath(path).name.partition(".rf.")
    return source if mark and source else None


def union_groups(groups: Sequence[str], *links: Sequence[Hashable]) -> list[str]:
    """Join groups whose rows are linked, directly or through further rows.

    Two rows belong together if they agree in ``groups`` or in any of ``links``. The transitive closure of that relation
    does not depend on the order of the rows, and neither does the name of a joined group: the smallest of its members'.

    Args:
        groups: Group of every row.
        links: Further keys of every row, such as its SHA-256; each as long as ``groups``.

    Returns:
        The joined group of every row.
    """
    parents = {group: group for group in groups}

    def root(group: str) -> str:
        while parents[group] != group:
            parents[group] = parents[parents[group]]
            group = parents[group]
        return group

    for link in links:
        first: dict[Hashable, str] = {}
        for group, key in zip(groups, link, strict=True):
            one, other = root(group), root(first.setdefault(key, group))
            parents[max(one, other)] = min(one, other)
    return [root(group) for group in groups]


def group_photos(photos: pd.DataFrame, owners: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Group photos by the widest unit that is known of each: patient, else lesion, else source photo, else itself.

    Byte-for-byte copies share a group whatever their rows say.

    Args:
        photos: Columns ``path``, ``label`` and ``sha256``.
        owners: A row for each photo and a column for each kind of unit, the widest first, or no column at all; an empty
            text is a value that is not recorded.

    Returns:
        The group of every photo, and notes that say how they were found.
    """
    recorded = {str(name): [value.strip() for value in owners[name]] for name in owners.columns}
    widest, *narrower = recorded or [""]
    for name in narrower:
        recorded[widest] = _fill_in(recorded[widest], recorded[name])
    kinds, units = [], []
    for row, (path, label, sha256) in enumerate(zip(photos["path"], photos["label"], photos["sha256"], strict=True)):
        kind = next((name for name, values in recorded.items() if values[row]), None)
        if kind is not None:
            unit = recorded[kind][row] if kind == widest else f"{kind}:{recorded[kind][row]}"
        elif (source := source_photo(path)) is not None:
            # Crawlers number the photos of each class from 1, so equal names under two labels are two photos.
            kind, unit = "source photo", f"source:{label}/{source}"
        else:
            kind, unit = "photo", f"photo:{sha256[:16]}"
        kinds.append(kind)
        units.append(unit)
    groups = union_groups(units, list(photos["sha256"]))
    notes = _basis_notes(Counter(kinds), widest, groups) + _placeholder_notes(recorded)
    if copies := int(photos["sha256"].duplicated().sum()):
        joined = len(set(units)) - len(set(groups))
        notes.append(f"Exact copies of other photos: {copies:,}; groups joined because of them: {joined:,}.")
    return groups, notes


def _fill_in(wider: list[str], narrower: list[str]) -> list[str]:
    """Give rows without a patient the patient of their lesion, where other rows tell of exactly one."""
    pairs = {(lesion, patient) for lesion, patient in zip(narrower, wider, strict=True) if lesion and patient}
    holders = Counter(lesion for lesion, _ in pairs)
    patients = {lesion: patient for lesion, patient in pairs if holders[lesion] == 1}
    return [patient or patients.get(lesion, "") for lesion, patient in zip(narrower, wider, strict=True)]


def _basis_notes(kinds: Counter[str], widest: str, groups: list[str]) -> list[str]:
    said = {"source photo": "by source photo, the file name before '.rf.'", "photo": "each photo by itself"}
    basis = "; ".join(f"{said.get(kind, f'by {kind}')}: {count:,} photos" for kind, count in kinds.most_common())
    notes = [f"{len(set(groups)):,} groups of {len(groups):,} photos ({basis})."]
    if not widest:
        notes.append("No patients are known. If some have several photos, scan a table that has a patient column.")
    elif without := len(groups) - kinds[widest]:
        notes.append(f"Photos without {widest}: {without:,}. They were grouped by the next unit that is known of them.")
    return notes


def _placeholder_notes(recorded: dict[str, list[str]]) -> list[str]:
    """A value that reads like 'unknown' is taken at its word, as it could be a name: that cannot leak, but is told."""
    notes = []
    for name, values in recorded.items():
        counts = Counter(value for value in values if value.casefold() in _PLACEHOLDERS)
        for value, count in sorted(counts.items()):
            notes.append(
                f"Photos whose {name} is '{value}': {count:,}, taken as one group. Leave unknown values empty."
            )
    return notes
