"""Figures in the documents: found, and compared with the result files that ``figures.yaml`` names for them."""

import importlib
import json
import re
import string
import sys
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
DECLARED = Path(__file__).with_name("figures.yaml")
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*.yaml")])
sys.path.insert(0, str(ROOT / "benchmarks"))

DECIMAL = r"\d+\.\d+(?!\.?\d)"  # a version has more points
THOUSANDS = r"\d{1,3}(?:,\d{3})+"
UNIT = r"%|ms|s|seconds?|minutes?|hours?|kB|[MG]i?B|times|points|photos/s|(?:\w+ )?a second"
FIGURE = re.compile(rf"(?<![\w.,/])(?:{DECIMAL}|{THOUSANDS}|\d+(?=[ -]?(?:{UNIT})(?![\w²])))", re.ASCII)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
CODE_OR_LINK = re.compile(r"`[^`]+`|(?<=\])\([^)]*\)|<[^\s>]+>")
OPEN, CLOSE = "\x02", "\x03"
"""Stand around what comes from a result file."""


class FigureProblem(Exception):
    """A result file does not have what it is said to have."""


def flat(text):
    """On one line and with plain minus signs."""
    return " ".join(text.split()).replace("−", "-")


def text_of(path):
    """What a page says, or the comments of a YAML file; of fenced blocks those without a language: what was printed."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        text = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#"))
    return flat(FENCE.sub(lambda fence: "" if fence[1] else fence[2], text))


def named(content):
    """A list of things that have names as a dictionary of them."""
    if isinstance(content, list) and all(isinstance(one, dict) and "name" in one for one in content):
        return {one["name"]: one for one in content}
    return content


def lookup(content, path):
    """What lies at a path such as ``rows/majority/metrics/macro_f1/bca|percentile/low``; slashes in names have spaces."""
    found = content
    for step in re.split(r"(?<! )/(?! )", path) if path else []:
        found = named(found)
        try:
            if step == "+":
                found = sum(found.values())
            elif isinstance(found, list):
                found = found[int(step)]
            else:
                found = next(found[key] for key in step.split("|") if found.get(key) is not None)
        except (AttributeError, IndexError, StopIteration, ValueError):
            raise FigureProblem(f"has no {path}") from None
    return found


class Template(string.Formatter):
    """Text with places such as ``{server/p50:.0f}``, ``{share:.1 %}`` or ``{difference:+.1 points}``."""

    def __init__(self, content):
        self.content = content

    def get_field(self, field_name, args, kwargs):
        return lookup(self.content, field_name), field_name

    def format_field(self, value, format_spec):
        decimals, hundredths, unit = format_spec.partition(" ")
        shown = f"{100 * value:{decimals}f} {unit}" if hundredths else super().format_field(value, format_spec)
        return f"{OPEN}{shown}{CLOSE}"


def fragments(entry):
    """What an entry says must stand on the page, with what comes from its file marked."""
    file = RESULTS / entry["file"]
    if not file.exists():
        raise FigureProblem("is not there")
    text = file.read_text(encoding="utf-8")
    if "lines" in entry:
        for line in entry["lines"]:
            if line not in flat(text):
                raise FigureProblem(f"does not say “{line}”")
            yield f"{OPEN}{line}{CLOSE}"
        return
    content = json.loads(text)
    if "tables" in entry:
        module, _, function = entry["tables"].partition(".")
        tables = getattr(importlib.import_module(module), function)(lookup(content, entry.get("in", "")))
        whole = any("\n" in table for table in tables)
        yield from (f"{OPEN}{table}{CLOSE}" for table in (tables if whole else ["\n".join(tables)]))
        return
    every = [content]
    if "each" in entry:
        rows = named(lookup(content, entry["each"]))
        called = entry.get("called", {key: key for key in rows if key not in entry.get("but", ())})
        if missing := called.keys() - rows.keys():
            raise FigureProblem(f"has no {', '.join(sorted(missing))}")
        every = [{**rows[key], "key": shown} for key, shown in called.items()]
    says = [entry["says"]] if isinstance(entry["says"], str) else entry["says"]
    yield from (Template(one).format(template) for one in every for template in says)


class Page:
    """A page and the places on it that are accounted for."""

    def __init__(self, name, text):
        self.name = name
        self.text = text
        self.accounted = [match.span() for match in CODE_OR_LINK.finditer(text)]

    def account(self, fragment):
        """Account for what is marked in a fragment, wherever the page has it; says what is wrong if it nowhere does."""
        pieces = re.split(f"[{OPEN}{CLOSE}]", flat(fragment))
        plain = "".join(pieces)
        if not re.search(r"\d", "".join(pieces[1::2])) or (len(pieces) == 3 and not re.search(r"[^\W\d]", plain)):
            return f"has no figure, or no words to know it by: “{plain}”"
        pattern = "".join(f"({re.escape(piece)})" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))
        found = list(re.finditer(pattern, self.text))
        self.accounted += [match.span(group + 1) for match in found for group in range(len(pieces) // 2)]
        return None if found else f"has “{plain}”; {self.name} {self.instead_of(plain)}"

    def instead_of(self, fragment):
        """Where the page begins as a fragment does and goes on otherwise."""
        for length in range(len(fragment) - 1, 7, -1):
            if (start := self.text.find(fragment[:length])) >= 0:
                return f"has “{self.text[start : start + len(fragment)]}”"
        return "has nothing like it"

    def unaccounted(self):
        """Figures that nothing accounts for, those that stand together in one list."""
        runs = []
        for match in FIGURE.finditer(self.text):
            if not any(start <= match.start() and match.end() <= end for start, end in self.accounted):
                if not runs or match.start() - runs[-1][-1].end() > 20:
                    runs.append([])
                runs[-1].append(match)
        return runs


def complaints(page, declared):
    """What is declared about a page and not so."""
    for entry in declared.get("measured", ()):
        try:
            wanted = list(fragments(entry))
        except FigureProblem as error:
            yield f"docs/results/{entry['file']} {error}"
            continue
        yield from (f"docs/results/{entry['file']} {told}" for fragment in wanted if (told := page.account(fragment)))
    tested = declared.get("tested", {})
    for name in tested:
        test = ROOT / "tests" / name
        if not test.exists() or Path(page.name).stem not in test.read_text(encoding="utf-8"):
            yield f"tests/{name} is not there, or is not about {page.name}"
    if "all" in tested.values():
        page.accounted.append((0, len(page.text)))
        return
    for literal in chain(declared.get("given", ()), *tested.values()):
        if told := page.account(f"{OPEN}{literal}{CLOSE}"):
            yield f"tests/figures.yaml {told}"
