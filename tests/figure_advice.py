"""For a figure that nothing accounts for: which lines of ``figures.yaml`` would."""

import json
import re

import figures


def numbers(content, path=""):
    """Each number in a result file, with its path."""
    content = figures.named(content)
    if isinstance(content, int | float):
        yield path, content
    elif isinstance(content, dict | list):
        for key, inside in content.items() if isinstance(content, dict) else enumerate(content):
            yield from numbers(inside, f"{path}/{key}" if path else str(key))


def source(match, page, content):
    """How a place in a file's content is named whose number is shown like a figure of a page, and how well it fits.

    Fitting are places of which the page speaks around the figure: the more steps of their path it has, the better.
    """
    around = re.sub(r"\W+", "_", page.text[max(match.start() - 200, 0) : match.end() + 30].lower())
    sign, scale = page.text[match.start() - 1] in "+-", 100 if page.text.startswith(" %", match.end()) else 1
    form = f"{'+' * sign}{',' * (',' in match[0])}.{len(match[0].partition('.')[2])}"
    shown = page.text[match.start() - sign : match.end()]
    fitting = {
        path: sum(re.sub(r"\W+", "_", step.lower()) in around for step in path.split("/"))
        for path, value in numbers(content)
        if f"{scale * value:{form}f}" == shown
    }
    path = max(fitting, key=fitting.get, default="")
    return f"{{{path}:{form}{'f' if scale == 1 else ' %'}}}", fitting.get(path, 0)


def template(page, run, start, end, content):
    """How well a file's content fits figures of a part of a page, and that part with places instead of them."""
    says, fits = page.text[start:end], 0
    for match in reversed(run):
        place, better = source(match, page, content)
        if better:
            first = match.start() - start - (":+" in place)
            says = (
                says[:first] + place + says[match.end() - start :].removeprefix(" %" if place.endswith(" %}") else "")
            )
            fits += better
    return fits, says


def advice(page, run, declared):
    """What to write into ``figures.yaml`` for figures that stand together, best from files that the page has already."""
    start = page.text.rfind(" ", 0, max(run[0].start() - 20, 0)) + 1
    end = re.compile(r"[^\d|.]{0,20}(?= |$)|").match(page.text, run[-1].end()).end()
    shown = [match[0] for match in run]
    own = [entry["file"] for entry in declared.get("measured", ())]
    files = {path.relative_to(figures.RESULTS).as_posix(): path for path in sorted(figures.RESULTS.rglob("*.json"))}
    if all(len(re.sub(r"\D", "", one).lstrip("0")) < 3 for one in shown):  # such are in many files by chance
        files = {name: path for name, path in files.items() if name in own}
    best, fits, says = "", 0, ""
    for name in sorted(files, key=lambda name: name not in own):
        found, text = template(page, run, start, end, json.loads(files[name].read_text(encoding="utf-8")))
        if found > fits:
            best, fits, says = name, found, text
    lines = [f"{page.name}: no entry of tests/figures.yaml accounts for {', '.join(shown)}. Write under {page.name}"]
    if best:
        lines += ["measured:", f"  - file: {best}", f"    says: {json.dumps(says, ensure_ascii=False)}"]
        lines += ["or, if that is not where it comes from,"]
    lines += ["given:  # no measurement", f"  - {json.dumps(page.text[start:end], ensure_ascii=False)}"]
    return "\n    ".join(lines)
