"""A reporting checklist: what a paper should say, filled where files know it and left open where only the author does.

The items are in our own words, grouped under the guideline that asks for something of the kind. They have none of the
guidelines' numbers and do not replace them: a journal wants its own form.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hcoatnet.report.card import MISSING, NOT_ASKED, NOT_FOR, NOT_TESTED, one_line
from hcoatnet.report.facts import Fact

GUIDELINES: tuple[tuple[str, str, tuple[tuple[str, str | None], ...]], ...] = (
    (
        "TRIPOD+AI",
        "prediction models in health",
        (
            ("The clinical question, and why a model is wanted", None),
            ("Who is to use it, and at which point of care", None),
            ("Where and when the data were gathered", None),
            ("Who was eligible, and who was turned away", None),
            ("How the true class was established, and by whom", None),
            ("Whether those who judged knew the model’s answer", None),
            ("Number of photos and of independent groups", "photos"),
            ("Whether that number suffices: smallest difference it could show", "detectable"),
            ("What was left out on the way to the analysis", "left_out"),
            ("What is not recorded of some photos", "recorded"),
            ("Kind of model and its initial weights", "init"),
            ("How data were divided for training, tuning and testing", "split"),
            ("How the final model was chosen", "selection"),
            ("Measures of performance", "metrics"),
            ("Performance with its uncertainty", "performance"),
            ("Calibration, not discrimination alone", "calibration"),
            ("Performance in subgroups, with fairness in mind", "subgroups"),
            ("Funding and conflicts of interest", None),
            ("Part that patients and the public had", None),
        ),
    ),
    (
        "CLAIM",
        "artificial intelligence in medical imaging",
        (
            ("Design: looking back, or planned ahead", None),
            ("Approval of an ethics committee, and consent", None),
            ("How photos were made free of personal data", None),
            ("Cameras and how photos were taken", None),
            ("Preprocessing: size of the photos", "size"),
            ("Augmentation in training", "augmentation"),
            ("Unit that is kept whole between subsets", "split"),
            ("Copies of photos, and what was done about them", "copies"),
            ("Architecture and number of parameters", "models"),
            ("Settings of the training", "settings"),
            ("Software and its versions", "software"),
            ("Comparison with a simple floor", "floor"),
            ("How intervals were computed", "intervals"),
            ("Errors, and what they look like", "failures"),
            ("Test on data of another place", None),
        ),
    ),
    (
        "CLEAR Derm",
        "image-based artificial intelligence in dermatology",
        (
            ("Diagnoses and the number of photos of each", "classes"),
            ("Diagnoses with few photos", "few"),
            ("How diagnoses were confirmed, as by biopsy or genetic test", None),
            ("Skin types, ages and sexes of those photographed", None),
            ("Performance by skin type, age, sex and body site", "subgroups"),
            ("Photos that it cannot judge, and how it says so", None),
            ("Kind of photo: clinical, dermoscopic, by whom", None),
            ("What the model is not to be used for", "not_for"),
            ("Harm that a wrong answer could do to a patient", None),
        ),
    ),
    (
        "NeurIPS reproducibility",
        "machine-learning experiments",
        (
            ("Claims and the experiments that bear them", "design"),
            ("All settings, in a form that can be run again", "again"),
            ("How often the test data were looked at", "openings"),
            ("Seeds", "seeds"),
            ("Error bars and what they stand for", "intervals"),
            ("Hardware", "hardware"),
            ("Time of computing", "time"),
            ("Hashes of data, split, settings and weights", "hashes"),
            ("Where data and weights can be had, and under which licence", None),
            ("Effects on society, also unwanted ones", None),
        ),
    ),
)
"""Guideline, what it is for, and its items with the key of the fact that fills each; None where no file can."""


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        text: What a paper should say.
        value: What is known, or why it is not.
        source: The file that says so; empty where nothing does.
        filled: Whether a file filled it.
    """

    text: str
    value: str
    source: str
    filled: bool


@dataclass(frozen=True)
class Checklist:
    """Items under the guidelines that they serve: name, what it is for, items."""

    guidelines: tuple[tuple[str, str, tuple[Item, ...]], ...]

    @property
    def filled(self) -> int:
        """Number of items that files filled."""
        return sum(item.filled for _, _, items in self.guidelines for item in items)

    @property
    def count(self) -> int:
        """Number of items."""
        return sum(len(items) for _, _, items in self.guidelines)

    def to_markdown(self) -> str:
        """The list as a page of its own."""
        lines = [
            "# Reporting checklist",
            "",
            f"{self.filled} of {self.count} items are filled from files. The items are in our own words and do not "
            "replace the guidelines’ forms.",
            "",
        ]
        for name, subject, items in self.guidelines:
            lines += [f"## {name} ({subject})", ""]
            for item in items:
                source = f" (from `{item.source}`)" if item.source else ""
                lines.append(f"- [{'x' if item.filled else ' '}] {item.text}: {one_line(item.value)}{source}")
            lines.append("")
        return "\n".join(lines)


def checklist_of(facts: Mapping[str, Fact]) -> Checklist:
    """Fill the list; what no file says is marked as missing."""
    known = {**facts, "not_for": NOT_FOR}
    return Checklist(
        tuple(
            (name, subject, tuple(_item(text, key, known) for text, key in items))
            for name, subject, items in GUIDELINES
        )
    )


def _item(text: str, key: str | None, known: Mapping[str, Fact]) -> Item:
    if key is None:
        return Item(text, MISSING, "", filled=False)
    if key not in known:
        return Item(text, NOT_ASKED.get(key, NOT_TESTED), "", filled=False)
    return Item(text, known[key].value, known[key].source, filled=True)
