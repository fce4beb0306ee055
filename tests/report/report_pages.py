"""What tests ask of a page."""

from html.parser import HTMLParser
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
    monkeypatch.setattr("hcoatnet.report.page.drawing.svg", lambda figure: b"<svg xmlns='http://www.w3.org/2000/svg'/>")
