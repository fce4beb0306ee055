"""Random changes to training photos, with torchvision's v2 transforms."""

import torch
from torchvision.transforms import InterpolationMode, v2

from hcoatnet.config import TrainConfig
from hcoatnet.data.images import MEAN, STD

ERASED_AREA = (0.02, 0.2)


def build_augmentation(config: TrainConfig) -> v2.Transform:
    """The chain from a uint8 photo (3, H, W) to a normalised float32 input (3, S, S).

    Random resized crop, flips, rotation, TrivialAugmentWide (Müller and Hutter 2021), normalisation, random erasing
    (Zhong et al. 2020). Corners that a rotation leaves bare, and erased rectangles, hold the ImageNet mean. It draws
    from torch's CPU generator only.
    """
    fill = [round(float(value) * 255) for value in MEAN]
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(config.image_size, scale=(config.crop_scale, 1.0), antialias=True),
        v2.RandomHorizontalFlip(config.horizontal_flip),
        v2.RandomVerticalFlip(config.vertical_flip),
    ]
    if config.rotation > 0:
        steps.append(v2.RandomRotation(config.rotation, InterpolationMode.BILINEAR, fill=fill))
    if config.trivial_augment:
        steps.append(v2.TrivialAugmentWide(fill=fill))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN.tolist(), STD.tolist())]
    if config.random_erasing > 0:
        steps.append(v2.RandomErasing(config.random_erasing, scale=ERASED_AREA))
    return v2.Compose(steps)
