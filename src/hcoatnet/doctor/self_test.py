"""A training step and a photo, as small as they come."""

import time
from io import BytesIO

from hcoatnet.doctor.finding import Finding
from hcoatnet.doctor.software import first_line

SIDE = 64
CLASSES = 3


def self_test() -> Finding:
    """Decode one photo and take one training step of a tiny H-CoAtNet with it, on the device that training would take.

    No weights, photos or settings of the user are used, and nothing is written.
    """
    import torch

    from hcoatnet.data.images import open_photo, preprocess
    from hcoatnet.models import registry

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    start = time.perf_counter()
    try:
        photo = torch.from_numpy(preprocess(open_photo(_drawn_photo()), SIDE))
        model = registry.create("h_coatnet", CLASSES, SIDE, backbone="test_convnext").to(device)
        before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        batch = photo.expand(4, -1, -1, -1).to(device)
        loss = torch.nn.functional.cross_entropy(model(batch), torch.tensor([0, 1, 2, 0], device=device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    except Exception as error:  # whatever is broken below us
        advice = "Mend what is named above; if nothing is, install hcoatnet into a new environment."
        return Finding("problem", f"a training step fails on {device}: {first_line(error)}", advice)
    if not torch.isfinite(loss) or not torch.isfinite(after).all() or torch.equal(before, after):
        advice = (
            "Install torch and torchvision again, together; on old processors unset OPENBLAS_* and MKL_* variables."
        )
        return Finding("problem", f"a training step on {device} computes nonsense", advice)
    return Finding(
        "ok", f"a photo decoded and a training step taken on {device} in {time.perf_counter() - start:.1f} s"
    )


def _drawn_photo() -> bytes:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    content = BytesIO()
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()
