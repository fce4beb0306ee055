"""Pictures of an explanation as they stand on a page: small JPEGs with their words."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from hcoatnet.explain.explanation import Explanation
from hcoatnet.explain.overlays import OPACITY, describe_activation, draw_activation
from hcoatnet.explain.token_maps import ANCHORS, describe_kept, draw_kept


@dataclass(frozen=True)
class Tile:
    """A picture on a page.

    Attributes:
        source: An image element's source.
        title: A few words below it.
        text: The picture in words, for who cannot see it.
    """

    source: str
    title: str
    text: str


def scales() -> dict[str, str]:
    """The colour scales as CSS backgrounds: of ``frames``, and of ``maps`` as they look over a photo of middle grey."""
    over_grey = [[round(OPACITY * channel + (1 - OPACITY) * 128) for channel in colour] for colour in ANCHORS]
    return {"frames": _gradient(ANCHORS), "maps": _gradient(over_grey)}


def tiles(one: Explanation, photo: Image.Image, side: int, *, whole_trace: bool = True) -> list[Tile]:
    """The photo, its class-activation map, and what each cut kept.

    Args:
        one: The explanation.
        photo: Its photo, RGB and upright.
        side: Pixels of the longer side of each picture.
        whole_trace: Whether to show every cut, or only the last. Of several members, it is the first one's.
    """
    small = photo.copy()
    small.thumbnail((side, side))
    answer = one.answer
    shown = [Tile(_jpeg(small), "Photo", f"The photo {answer.name}, which the model names {answer.top_class}")]
    text = describe_activation(one.shares, one.label)
    if one.empty:
        shown.append(Tile(_jpeg(small.convert("L")), f"No place speaks for {one.label}", text))
    else:
        shown.append(Tile(_jpeg(draw_activation(small, one.shares)), f"What speaks for {one.label}", text))
    for trace in answer.traces[:1]:
        last = len(trace.stages)
        for stage in range(0 if whole_trace else last, last + 1):
            kept = len(trace.stages[stage - 1].kept) if stage else trace.rows * trace.columns
            title = f"After cut {stage}: {kept} tokens kept" if stage else f"All {kept} tokens"
            shown.append(Tile(_jpeg(draw_kept(small, trace, stage)), title, describe_kept(trace, stage)))
    return shown


def _gradient(colours: Sequence[Sequence[int]]) -> str:
    return f"linear-gradient(to right, {', '.join('#{:02x}{:02x}{:02x}'.format(*colour) for colour in colours)})"


def _jpeg(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
