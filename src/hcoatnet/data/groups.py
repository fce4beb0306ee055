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
    owners = owners.apply(lambda values: values.str.strip())
    names = [str(name) for name in owners.columns]
    for narrower in names[1:]:
        owners[names[0]] = _fill_in(owners[names[0]], owners[narrower])
    kinds, units = [], []
    recorded = owners.to_dict("records")
    for owner, path, label, sha256 in zip(recorded, photos["path"], photos["label"], photos["sha256"], strict=True):
        kind = next((name for name in names if owner[name]), None)
        if kind is not None:
            unit = owner[kind] if kind == names[0] else f"{kind}:{owner[kind]}"
        elif (source := source_photo(path)) is not None:
            # Crawlers number the photos of each class from 1, so equal names under two labels are two photos.
            kind, unit = "source photo", f"source:{label}/{source}"
        else:
            kind, unit = "photo", f"photo:{sha256[:16]}"
        kinds.append(kind)
        units.append(unit)
    groups = union_groups(units, list(photos["sha256"]))
    return groups, _notes(names, Counter(kinds), units, groups, photos, owners)


def _fill_in(wider: pd.Series, narrower: pd.Series) -> pd.Series:
    """Give rows without a patient the patient of their lesion, where other rows tell of exactly one."""
    pairs = {pair for pair in zip(narrower, wider, strict=True) if all(pair)}
    holders = Counter(lesion for lesion, _ in pairs)
    patients = {lesion: patient for lesion, patient in pairs if holders[lesion] == 1}
    return pd.Series(
        [own or patients.get(lesion, "") for own, lesion in zip(wider, narrower, strict=True)], wider.index
    )


def _notes(
    names: list[str],
    kinds: Counter[str],
    units: list[str],
    groups: list[str],
    photos: pd.DataFrame,
    owners: pd.DataFrame,
) -> list[str]:
    """Say what the groups are, how many photos had to fall back, and what was joined."""
    said = {"source photo": "by source photo (the file name before '.rf.')", "photo": "each photo by itself"}
    counts = "; ".join(f"{said.get(kind, f'by {kind}')}: {count:,} photos" for kind, count in kinds.most_common())
    notes = [f"{len(set(groups)):,} groups of {len(groups):,} photos ({counts})."]
    if names and kinds[names[0]] < len(groups):
        notes.append(
            f"{len(groups) - kinds[names[0]]:,} photos have no {names[0]}; the next unit known of them was used."
        )
    if not names:
        notes.append("No patients are known: if some have several photos, give a table with a patient column.")
    for name in names:
        values = Counter(value for value in owners[name] if value.casefold() in _PLACEHOLDERS)
        notes += [
            f"{count:,} photos have {name} '{value}', taken as one group." for value, count in sorted(values.items())
        ]
    copies = int(photos["sha256"].duplicated().sum())
    if copies:
        joined = len(set(units)) - len(set(groups))
        notes.append(f"{copies:,} photos are exact copies of others; {joined:,} groups were joined because of them.")
    return notes
