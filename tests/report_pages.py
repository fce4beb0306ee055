"""What tests ask of a page."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest


class Page(HTMLParser):
    """What tests ask of a page: its elements, and its text outside style sheets."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.rows: list[list[str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.text = " ".join("".join(self.pieces).split())
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")
        if tag == "br":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.pieces.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, first: str) -> list[str]:
        found = [row for row in self.rows if row and row[0].startswith(first)]
        assert found, f"no row begins with {first!r}"
        return found[0]


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without drawings, for tests that look at words only: drawing takes most of a page's time."""
    for form in ("svg", "pdf", "png"):
        monkeypatch.setattr(f"hcoatnet.report.page.drawing.{form}", lambda figure, name=form: name.encode())


def check_structure(page: Page) -> None:
    """What holds for every page: well formed, self-contained, readable by a screen reader and from the keyboard."""
    assert not page.open
    assert page.all("html") == [{"lang": "en"}]
    assert not [tag for tag, _ in page.elements if tag in {"script", "link", "iframe", "object"}]
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert all(link["href"].startswith("#") for link in page.all("a"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a}
    references |= {link["href"].removeprefix("#") for link in page.all("a")}
    assert references <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for image in page.all("img"):
        assert re.match(r"data:image/(svg\+xml|jpeg);base64,", image["src"])
        assert len(image["alt"]) > 20
    tables = [tag for tag, _ in page.elements if tag in {"table", "caption"}]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    assert all(region["tabindex"] == "0" for _, region in page.elements if region.get("role") == "region")
