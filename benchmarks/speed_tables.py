"""The tables of docs/explanation/speed.md, from a file that ``speed.py`` saved."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Parts = Mapping[str, Any]

STEP_WAYS = ("float32", "bf16", "products")
CONTESTANTS = ("ours", "plain script", "timm-style")


def tables(parts: Parts) -> tuple[str, ...]:
    """Steps and training, where they were measured, and the project's targets, as Markdown."""
    made = {"step": _steps, "training": _training}
    return *(table(parts[name]) for name, table in made.items() if name in parts), _targets(parts)


def _steps(part: Parts) -> str:
    times = {one["name"]: one["median"] for one in part["raw"]}
    labels = dict.fromkeys(name.rpartition(" / ")[0] for name in times)
    rows = []
    for label in labels:
        float32, low, products = (times[f"{label} / {way}"] for way in STEP_WAYS)
        rows.append(
            (f"{label}", *(f"{value:.0f} ms" for value in (float32, low, products)), f"{float32 / products:.2f}")
        )
    return _table(("model", "float32", "bf16 by torch", "bf16 by matrix products", "float32 / the last"), rows)


def _training(part: Parts) -> str:
    rates = {one["name"]: one for one in part["raw"]}
    labels = dict.fromkeys(name.split(" / ")[0] for name in rates if " / ours / " in name)
    rows = []
    for label in labels:
        for contestant in CONTESTANTS:
            later, ten = (rates[f"{label} / {contestant} / {what}"] for what in ("epochs 2+", "run of 10 epochs"))
            spread = f"{later['median']:.0f} ({later['min']:.0f}–{later['max']:.0f})"
            rows.append((label, contestant, spread, f"{ten['median']:.0f}"))
    return _table(("model", "", "photos/s, later epochs", "photos/s, run of 10 epochs"), rows)


def _targets(parts: Parts) -> str:
    rows = []
    for part in parts.values():
        for one in part["ratios"]:
            if "target" in one:
                found = statistics.median(one["values"])
                spread = (
                    f"{found:.3g} ({one['min']:.3g}–{one['max']:.3g})" if len(one["values"]) > 1 else f"{found:.3g}"
                )
                sign = "≥" if one["at_least"] else "≤"
                rows.append((one["name"], f"{sign} {one['target']:g}", spread, "met" if one["met"] else "missed"))
    return _table(("ratio", "target", "measured", ""), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
