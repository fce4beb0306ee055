"""Writes settings.md from the dataclass that is the source of every setting. Run it after a change of a setting."""

from pathlib import Path

from hcoatnet.config import DEFAULT_PROTOCOL, GROUPS, PROTOCOLS, Protocol, settings_fields
from hcoatnet.settings import as_flag

PAGE = Path(__file__).with_name("settings.md")


def settings_page() -> str:
    """The page as Markdown: a table a group, with the default and what each protocol says."""
    columns = {}
    for name in PROTOCOLS:
        protocol = Protocol.read(name)
        columns[name] = protocol.settings
        if protocol.pretrained:
            columns[f"{name}, pretrained"] = {**protocol.settings, "init": "pretrained", **protocol.pretrained}
        if protocol.scratch:
            models = " ".join(f"`{pattern}`" for pattern in protocol.scratch_models)
            columns[f"{name}, {models} from scratch"] = {**protocol.settings, **protocol.scratch}
    lines = [
        "# Settings",
        "",
        "Every setting of `hcoatnet train` is a flag and a key of a YAML file under the same name. Defaults are",
        "overlaid by the protocol, that by `--config FILE`, that by flags. A dash: the protocol leaves the default.",
        f"Without `--protocol` the columns of `{DEFAULT_PROTOCOL}` hold.",
        "",
        "This page is made from the code by `python docs/reference/make_settings_page.py`.",
    ]
    for group in GROUPS:
        lines += ["", f"## {group}", "", f"| flag | meaning | default | {' | '.join(columns)} |"]
        lines.append("|---" * (3 + len(columns)) + "|")
        for one, _ in settings_fields():
            if one.metadata["group"] == group:
                told = [_shown(said[one.name]) if one.name in said else "–" for said in columns.values()]
                default = _shown(one.default) if isinstance(one.default, bool | int | float | str) else "–"
                cells = [f"`{as_flag(one.name)}`", one.metadata["help"] + _range(one.metadata), default, *told]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _range(metadata: dict) -> str:
    low, high = metadata["minimum"], metadata["maximum"]
    if low is None:
        return ""
    return f" At least {low:g}." if high is None else f" {low:g} to {high:g}."


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}"


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
