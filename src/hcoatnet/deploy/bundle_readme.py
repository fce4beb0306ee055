"""``README.md`` of a bundle, as a model's page on a hub has it: metadata, how to use it, the model card."""

from typing import Any

import yaml

from hcoatnet.deploy.bundle_card import NOT_STATED
from hcoatnet.deploy.bundle_source import BundleSource
from hcoatnet.report.card import Card, one_line

HUB_LICENCES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m afl-3.0 artistic-2.0
bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0
gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lppl-1.3c ms-pl mpl-2.0 odc-by odbl osl-3.0 postgresql ofl-1.1 ncsa unlicense
zlib pddl
"""
"""Licences that Hugging Face's hub knows by name; any other is ``other`` there, with its name beside it."""

NOTICE = "Research software, not a diagnostic device. What it says of a photo is not a diagnosis."

USE = """## Use

With the package `hcoatnet` and this folder as `BUNDLE`:

```python
import hcoatnet

classifier = hcoatnet.load_classifier("BUNDLE")
for answer in classifier.predict(["photo.jpg"]):
    print(answer.top_class, answer.confidence, answer.prediction_set, answer.reason)
```

```sh
hcoatnet predict BUNDLE photos/
hcoatnet serve BUNDLE
```
"""
USE_OF_ONE = """timm loads the network alone, which gives logits without calibration:

```python
import timm
import hcoatnet.models

model = timm.create_model("local-dir:BUNDLE", pretrained=True).eval()
```
"""
USE_OF_ONE_VIEW = """Its logits are of the photo as it is; the classifier above averages those of several views.
"""
USE_OF_SEVERAL = """timm cannot load it: `model.safetensors` holds several networks, the tensors of the first under
`0.`, of the second under `1.`, and so on.
"""


def readme(source: BundleSource, licence: str, card: Card) -> str:
    """The page.

    Args:
        source: What the bundle is made of.
        licence: Licence of the weights.
        card: The model card.
    """
    single = len(source.runs) == 1
    metadata: dict[str, Any] = {
        **hub_licence(licence),
        "library_name": "hcoatnet",
        "pipeline_tag": "image-classification",
        "tags": ["hcoatnet", *(["timm"] if single else []), "dermatology"],
    }
    classes = ", ".join(one_line(name) for name in source.classes)
    return "\n".join(
        [
            "---",
            yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True) + "---",
            "",
            f"**{NOTICE}**",
            "",
            f"It tells photos of {len(source.classes)} classes apart: {classes}.",
            "",
            USE,
            USE_OF_ONE if single else USE_OF_SEVERAL,
            *([USE_OF_ONE_VIEW] if single and source.config.views != "one" else []),
            card.to_markdown(),
            "`config.json` and `calibration.json` lie beside this page. The other files in brackets are those of the "
            "training; they are not here.",
            "",
        ]
    )


def hub_licence(licence: str) -> dict[str, str]:
    """A licence in the words of the hub."""
    if licence == NOT_STATED:
        return {"license": "unknown"}
    if licence.lower() in HUB_LICENCES.split():
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence}
