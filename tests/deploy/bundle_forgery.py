"""Changing a bundle as its author, or a forger, would: with hashes that fit."""

import json

from hcoatnet.deploy import bundle as layout
from hcoatnet.files import sha256_of_file


def rewrite(folder, name, change):
    """Change the JSON of a file of a bundle, and list the new hash."""
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    change(content)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    relist(folder)


def relist(folder, **also):
    """List the hashes of the files as they are, and further entries."""
    hashes = {name: sha256_of_file(folder / name) for name in layout.LISTED}
    (folder / layout.HASHES).write_text(json.dumps({"format": 1, "sha256": hashes | also}), encoding="utf-8")
