"""``hcoatnet doctor``: what is wrong with this machine."""

from cyclopts import App

from hcoatnet.terminal import out, say, table

PROBLEMS_FOUND = 1
STYLES = {"ok": None, "warning": "yellow", "problem": "bold red"}


def register(app: App) -> None:
    """Add the command to the command line."""
    app.command(doctor)


def doctor(*, json: bool = False) -> None:
    """Check whether this machine can train and answer, and say how to mend what is wrong. Takes some seconds.

    Python, packages, photo formats, device, threads, memory, disk and folders are looked at, and one training step of a
    tiny model is taken. The working folder is tried with files that are removed again. The exit code is 0 where there
    is no problem, else 1.

    Args:
        json: Print JSON instead of a table.
    """
    from hcoatnet.doctor.examination import as_json, examine

    if json:
        from json import dumps

        found = as_json(examine())
        say(dumps(found, indent=2))
    else:
        with out.status("Looking at this machine"):
            findings = examine()
        found = as_json(findings)
        rows = [[one.status, name, one.found, one.advice] for name, one in findings.items()]
        shown = table("", ("", "check", "found", "what to do"), rows)
        for row, finding in zip(shown.rows, findings.values(), strict=True):
            row.style = STYLES[finding.status]
        out.print(shown)
        say(f"Problems: {found['problems']}. Warnings: {found['warnings']}.")
    if found["problems"]:
        raise SystemExit(PROBLEMS_FOUND)
