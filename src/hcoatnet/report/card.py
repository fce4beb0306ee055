"""The model card: what is known of a model, and what only its author can say (after Mitchell et al. 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass

from hcoatnet.report.facts import Fact

MISSING = "missing: only the author knows"

LAYOUT: tuple[tuple[str, tuple[tuple[str, str | None], ...]], ...] = (
    (
        "Model",
        (
            ("Models", "models"),
            ("Initial weights", "init"),
            ("Software", "software"),
            ("Author and contact", None),
            ("Licence of the weights", None),
            ("How to cite", None),
        ),
    ),
    (
        "Intended use",
        (
            ("Not for", "not_for"),
            ("Question that it answers", None),
            ("Who is to use it, and where", None),
            ("People that it is meant for", None),
        ),
    ),
    (
        "Data",
        (
            ("Photos", "photos"),
            ("Classes", "classes"),
            ("Copies", "copies"),
            ("Left out", "left_out"),
            ("Split", "split"),
            ("Recorded of each photo", "recorded"),
            ("Source of the photos and their licence", None),
            ("Who made the diagnoses, and how", None),
            ("Consent and ethics approval", None),
        ),
    ),
    (
        "Training",
        (
            ("Settings", "settings"),
            ("Image size", "size"),
            ("Augmentation", "augmentation"),
            ("Checkpoint", "selection"),
            ("Seeds", "seeds"),
            ("Hardware", "hardware"),
            ("Time", "time"),
        ),
    ),
    (
        "Evaluation",
        (
            ("Design", "design"),
            ("Macro F1", "performance"),
            ("Intervals", "intervals"),
            ("Calibration", "calibration"),
            ("Classes with few photos", "few"),
            ("Subgroups", "subgroups"),
            ("Openings of the test photos", "openings"),
            ("Test on photos of another place", None),
        ),
    ),
    (
        "Risks",
        (
            ("What is known to go wrong", "failures"),
            ("Harm that a wrong answer could do", None),
            ("Who looks after the model, and until when", None),
        ),
    ),
)
"""Sections, their entries, and the key of the fact that fills each; None where no file can."""

NOT_FOR = Fact("Diagnosis or treatment of a person. Research software, not a diagnostic device.", "README.md")
NOT_ASKED = {"subgroups": "not computed: give columns with --by", "recorded": "nothing beyond the class and the group"}
NOT_TESTED = "not measured: no test photos were evaluated"


@dataclass(frozen=True)
class Entry:
    """One line of the card.

    Attributes:
        name: What it is about.
        value: What is known, or why it is not.
        source: The file that says so; empty where nothing does.
        missing: Whether only the author can fill it.
    """

    name: str
    value: str
    source: str
    missing: bool


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        title: Its heading.
        sections: Headings with their entries.
    """

    title: str
    sections: tuple[tuple[str, tuple[Entry, ...]], ...]

    def to_markdown(self) -> str:
        """The card as a page of its own."""
        lines = [f"# Model card: {one_line(self.title)}", ""]
        for heading, entries in self.sections:
            lines += [f"## {heading}", ""]
            for entry in entries:
                source = f" (from `{entry.source}`)" if entry.source else ""
                lines.append(f"- **{entry.name}**: {one_line(entry.value)}{source}")
            lines.append("")
        return "\n".join(lines)


def card_of(title: str, facts: Mapping[str, Fact]) -> Card:
    """Fill the card; what no file says is marked as missing."""
    known = {**facts, "not_for": NOT_FOR}
    return Card(
        title=title,
        sections=tuple(
            (heading, tuple(_entry(name, key, known) for name, key in entries)) for heading, entries in LAYOUT
        ),
    )


def one_line(text: str) -> str:
    """Text for Markdown: on one line, and without anything that would be read as HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def _entry(name: str, key: str | None, known: Mapping[str, Fact]) -> Entry:
    if key is None:
        return Entry(name, MISSING, "", missing=True)
    if key not in known:
        return Entry(name, NOT_ASKED.get(key, NOT_TESTED), "", missing=False)
    return Entry(name, known[key].value, known[key].source, missing=False)
