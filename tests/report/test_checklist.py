"""Card and checklist: what files know is filled and names its file; what only the author knows is never invented."""

import re

import pytest

from hcoatnet.report.card import LAYOUT, MISSING, card_of
from hcoatnet.report.checklist import GUIDELINES, checklist_of
from hcoatnet.report.facts import Fact

FACTS = {
    "photos": Fact("1,015 photos of 765 groups", "split.csv"),
    "models": Fact("a <b>, 3 parameters", "metrics.json"),
}
AUTHOR = ("consent", "ethics", "diagnoses were confirmed", "Who is to use", "licence", "Funding", "Harm", "Skin types")


def test_the_card_is_filled_from_facts_and_from_nothing_else() -> None:
    entries = {entry.name: entry for _, entries in card_of("t", FACTS).sections for entry in entries}
    assert entries["Photos"].value == "1,015 photos of 765 groups"
    assert entries["Photos"].source == "split.csv"
    assert entries["Consent and ethics approval"].missing
    assert entries["Consent and ethics approval"].value == MISSING
    assert not entries["Seeds"].missing
    assert entries["Seeds"].value == "not measured: no test photos were evaluated"
    assert entries["Subgroups"].value == "not computed: give columns with --by"
    keys = [key for _, entries in LAYOUT for _, key in entries]
    assert sum(entry.missing for entry in entries.values()) == keys.count(None) >= 10


def test_every_item_is_filled_or_missing() -> None:
    checklist = checklist_of(FACTS)
    items = [item for _, _, items in checklist.guidelines for item in items]
    assert len(items) == checklist.count >= 45
    for item in items:
        assert item.filled == bool(item.source)
        assert item.value
    assert {item.text for item in items if item.filled} == {
        "Number of photos and of independent groups",
        "Architecture and number of parameters",
        "What the model is not to be used for",
    }
    assert checklist.filled == 3


def test_what_only_the_author_knows_is_never_filled() -> None:
    everything = {key: Fact("known", "file") for _, _, items in GUIDELINES for _, key in items if key}
    everything |= {key: Fact("known", "file") for _, entries in LAYOUT for _, key in entries if key}
    checklist = checklist_of(everything)
    open_items = [item.text for _, _, items in checklist.guidelines for item in items if not item.filled]
    assert len(open_items) >= 20
    for word in AUTHOR:
        assert any(word in text for text in open_items), word
    assert all(item.value == MISSING for _, _, items in checklist.guidelines for item in items if not item.filled)


def test_guidelines_are_named_without_their_numbers() -> None:
    assert [name for name, _, _ in GUIDELINES] == ["TRIPOD+AI", "CLAIM", "CLEAR Derm", "NeurIPS reproducibility"]
    texts = [text for _, _, items in GUIDELINES for text, _ in items]
    assert not [text for text in texts if re.search(r"\d", text)]
    for _, _, items in GUIDELINES:
        assert len({text for text, _ in items}) == len(items)


@pytest.mark.parametrize("text", [card_of("a <i>", FACTS).to_markdown(), checklist_of(FACTS).to_markdown()])
def test_markdown_lets_no_html_through(text: str) -> None:
    assert "<" not in text
    assert "a &lt;b>, 3 parameters (from `metrics.json`)" in text
    assert text.startswith("# ")


def test_markdown_marks_what_is_filled() -> None:
    text = checklist_of(FACTS).to_markdown()
    assert "- [x] Number of photos and of independent groups: 1,015 photos of 765 groups (from `split.csv`)" in text
    assert f"- [ ] Approval of an ethics committee, and consent: {MISSING}" in text
