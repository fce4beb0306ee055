"""Training photos that start small and grow, as in Tan and Le 2021, "EfficientNetV2", section 4.1 (sides alone)."""

import math

from hcoatnet.config import STEP, TrainConfig


def training_sides(config: TrainConfig) -> list[int]:
    """Side of the training photos in every epoch, in pixels.

    From ``start_size`` it grows evenly to ``image_size``, by 32 pixels at a time and at last by what is left; where the
    epochs are too few for that, sizes in between are left out. The last third of the epochs has the full size.
    """
    if not config.start_size:
        return [config.image_size] * config.epochs
    sizes = [*range(config.start_size, config.image_size, STEP), config.image_size]
    full = math.ceil(config.epochs / 3)
    growing = config.epochs - full
    return [sizes[epoch * (len(sizes) - 1) // growing] for epoch in range(growing)] + [config.image_size] * full
