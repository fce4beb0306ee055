"""What a benchmark found: raw figures with their spread, and ratios that follow from them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, median and largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


@dataclass(frozen=True)
class Raw:
    """One quantity of one contestant, a value a round.

    Attributes:
        name: What was measured, such as ``h_coatnet_atto 128² / ours / epochs 2+``.
        unit: Unit of the values.
        values: One a round.
        processor: Processor time of the whole family of processes in the same rounds, in the unit ``processor_unit``.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    processor: tuple[float, ...] = ()
    processor_unit: str = "s"

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        found = {"name": self.name, "unit": self.unit, "values": list(self.values), **spread(self.values)}
        if self.processor:
            found["processor"] = {"unit": self.processor_unit, "values": list(self.processor), **spread(self.processor)}
        return found


@dataclass(frozen=True)
class Ratio:
    """One raw figure divided by another, round by round.

    Attributes:
        name: What it says.
        over: Name of the raw figure above the line.
        under: Name of the one below.
        values: A quotient a round.
        target: What was aimed at, if anything.
        at_least: Whether the target is a lower bound.
    """

    name: str
    over: str
    under: str
    values: tuple[float, ...]
    target: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        median = statistics.median(self.values)
        return median >= self.target if self.at_least else median <= self.target

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        found: dict[str, Any] = {"name": self.name, "over": self.over, "under": self.under}
        found |= {"values": list(self.values), **spread(self.values)}
        if self.target is not None:
            found |= {"target": self.target, "at_least": self.at_least, "met": self.met}
        return found


def ratio(name: str, over: Raw, under: Raw, target: float | None = None, *, at_least: bool = True) -> Ratio:
    """``over`` divided by ``under``, round by round.

    Raises:
        ValueError: They were not measured in the same rounds.
    """
    values = tuple(one / other for one, other in zip(over.values, under.values, strict=True))
    return Ratio(name, over.name, under.name, values, target, at_least)


@dataclass
class Part:
    """Everything that one part of the suite found.

    Attributes:
        title: What it measured.
        raws: Raw figures.
        ratios: What follows from them.
        checks: What shows that the contestants did the same work: losses, scores, largest differences.
        notes: Settings, and what could not be measured and why.
    """

    title: str
    raws: list[Raw] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    checks: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, *raws: Raw) -> None:
        """Add raw figures."""
        self.raws.extend(raws)

    def compare(self, name: str, over: str, under: str, target: float | None = None, *, at_least: bool = True) -> None:
        """Add a ratio of two raw figures by their names; nothing where one of them was not measured."""
        known = {one.name: one for one in self.raws}
        if over in known and under in known:
            self.ratios.append(ratio(name, known[over], known[under], target, at_least=at_least))

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "title": self.title,
            "raw": [one.to_dict() for one in self.raws],
            "ratios": [one.to_dict() for one in self.ratios],
            "checks": self.checks,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """A table for people."""
        width = max((len(one.name) for one in [*self.raws, *self.ratios]), default=0) + 2
        header = f"{'':{width}}{'min':>11}{'median':>11}{'max':>11}"
        lines = ["", f"== {self.title} ==", header]
        for raw in self.raws:
            extra = ""
            if raw.processor:
                extra = f"   processor {_number(statistics.median(raw.processor))} {raw.processor_unit}"
            lines.append(f"{raw.name:{width}}{_three(raw.values)} {raw.unit}{extra}")
        if self.ratios:
            lines.append("ratios, round by round")
        for one in self.ratios:
            lines.append(f"{one.name:{width}}{_three(one.values)} ×{_judgement(one)}")
        lines += [f"  check: {name}: {value}" for name, value in self.checks.items()]
        return lines + [f"  note: {note}" for note in self.notes]


def _three(values: Sequence[float]) -> str:
    return "".join(f"{_number(value):>11}" for value in spread(values).values())


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _judgement(one: Ratio) -> str:
    if one.target is None:
        return ""
    sign = "≥" if one.at_least else "≤"
    return f"   target {sign} {one.target:g}: {'met' if one.met else 'missed'}"
