"""Pictures of what a model that prunes tokens kept of a photo. Needs NumPy and Pillow alone, as a server does."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hcoatnet.deploy.answers import TokenStage, TokenTrace

Colour = tuple[int, int, int]

ANCHORS: tuple[Colour, ...] = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Viridis' colours (Smith and van der Walt 2015, CC0) at 0, 1/4, 1/2, 3/4, 1: lightness rises all along, so that the
order survives any colour vision and print, and no skin has blue, green or bright yellow."""

LIGHTEST_SCORE = 1e-30
DIMMED_TO = 0.3
"""Share of its brightness that a left out part of the photo keeps."""


def draw_kept(photo: Image.Image, trace: TokenTrace, stage: int) -> Image.Image:
    """A photo with what stands after a cut: left out tokens grey and dark, kept ones framed by their importance.

    The tokens cover the whole photo, as the model sees the whole photo squeezed into a square. The colour of a frame is
    ``shades`` of the cut on the scale of :data:`ANCHORS`.

    Args:
        photo: Any RGB photo, upright.
        trace: What the model kept of it.
        stage: 0 for all tokens, with a plain grid; i for what stands after cut i.

    Returns:
        A new RGB picture of the photo's size.

    Raises:
        IndexError: There is no such cut.
    """
    if not 0 <= stage <= len(trace.stages):
        raise IndexError(f"The trace has {len(trace.stages)} cuts. Got stage {stage} instead.")
    columns, rows = _edges(photo.width, trace.columns), _edges(photo.height, trace.rows)
    if stage == 0:
        drawn = photo.convert("RGB")
        colours: dict[int, Colour] = dict.fromkeys(range(trace.rows * trace.columns), (255, 255, 255))
        thickness = 1
    else:
        cut = trace.stages[stage - 1]
        drawn = _dim(photo, kept_map(trace, stage), columns, rows)
        shade = dict(zip(cut.positions, shades(cut).tolist(), strict=True))
        colours = {position: colour_of(shade[position]) for position in cut.kept}
        thickness = max(2, round(min(photo.width / trace.columns, photo.height / trace.rows) / 16))
    pen = ImageDraw.Draw(drawn)
    for position, colour in colours.items():
        row, column = divmod(position, trace.columns)
        box = (columns[column], rows[row], columns[column + 1] - 1, rows[row + 1] - 1)
        if box[0] <= box[2] and box[1] <= box[3]:  # a photo narrower than its tokens has empty ones
            pen.rectangle(box, outline=colour, width=thickness)
    return drawn


def kept_map(trace: TokenTrace, stage: int) -> NDArray[np.bool_]:
    """Which tokens (rows, columns) stand after cut ``stage``; all of them for 0."""
    flat = np.ones(trace.rows * trace.columns, dtype=bool)
    if stage > 0:
        flat[:] = False
        flat[list(trace.stages[stage - 1].kept)] = True
    return flat.reshape(trace.rows, trace.columns)


def shades(cut: TokenStage) -> NDArray[np.float64]:
    """Importance of the scored tokens from 0 (lowest of this cut) to 1 (highest), on a logarithmic scale.

    Scores are a softmax of standardised numbers, so the logarithm is those numbers again. Equal scores are all 0.5.
    """
    logarithms = np.log(np.maximum(cut.scores, LIGHTEST_SCORE))
    reach = logarithms.max() - logarithms.min()
    if reach < 1e-6:
        return np.full(len(logarithms), 0.5)
    scaled: NDArray[np.float64] = (logarithms - logarithms.min()) / reach
    return scaled


def colour_of(shade: float) -> Colour:
    """The colour of a shade in [0, 1]."""
    places = np.linspace(0, 1, len(ANCHORS))
    red, green, blue = (round(float(np.interp(shade, places, channel))) for channel in zip(*ANCHORS, strict=True))
    return red, green, blue


def describe_kept(trace: TokenTrace, stage: int) -> str:
    """What :func:`draw_kept` shows, in words."""
    total = trace.rows * trace.columns
    if stage == 0:
        return (
            f"The photo under its {total} tokens, {trace.rows} rows by {trace.columns} columns; none is left out yet."
        )
    cut = trace.stages[stage - 1]
    best = int(np.argmax(cut.scores))
    row, column = divmod(cut.positions[best], trace.columns)
    return (
        f"After cut {stage} of {len(trace.stages)}, {len(cut.kept)} of {total} tokens are kept; the others are dark. "
        f"The most important of {len(cut.positions)} stands in row {row + 1} of {trace.rows}, column {column + 1} of "
        f"{trace.columns}, with {cut.scores[best] * len(cut.scores):.1f} times an even share of the importance."
    )


def _edges(length: int, cells: int) -> list[int]:
    """Pixel borders of ``cells`` even cells along ``length`` pixels."""
    return [round(length * cell / cells) for cell in range(cells + 1)]


def _dim(photo: Image.Image, kept: NDArray[np.bool_], columns: list[int], rows: list[int]) -> Image.Image:
    dark = photo.convert("L").point([round(value * DIMMED_TO) for value in range(256)]).convert("RGB")
    per_pixel = kept.repeat(np.diff(rows), axis=0).repeat(np.diff(columns), axis=1)
    return Image.composite(photo.convert("RGB"), dark, Image.fromarray(per_pixel.astype(np.uint8) * 255))
