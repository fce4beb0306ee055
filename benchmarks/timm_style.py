"""Contestant: a loop in the manner of timm's own training script, with its datasets, loader, transforms and optimiser.

    python benchmarks/timm_style.py FOLDER --model convnext_atto --image-size 128 --epochs 3

On a CPU the prefetcher is off, as timm has it there; on a GPU it is on, with bfloat16 autocast and channels_last. As
with timm, photos that fill no batch are left out of an epoch; the rate counts those that were trained on.
"""

import argparse
from contextlib import nullcontext
from typing import Any

from contestant import Pace, Stopwatch, epoch_facts, script_arguments


def loaders(given: argparse.Namespace, device: Any) -> tuple[Any, Any]:
    """Training and validation loader; ``strong`` is timm's RandAugment and random erasing, its usual recipe."""
    from timm.data import create_dataset, create_loader

    strong, gpu = given.augmentation == "strong", device.type == "cuda"
    common = {
        "input_size": (3, given.image_size, given.image_size),
        "batch_size": given.batch_size,
        "use_prefetcher": gpu,
        "num_workers": given.workers,
        "device": device,
        "pin_memory": gpu,
        "persistent_workers": given.workers > 0,
    }
    train = create_loader(
        create_dataset("", root=str(given.folder), split="train", is_training=True),
        is_training=True,
        scale=(0.8, 1.0),
        hflip=0.5,
        vflip=0.5,
        color_jitter=None,
        auto_augment="rand-m9-mstd0.5-inc1" if strong else None,
        re_prob=0.2 if strong else 0.0,
        interpolation="bilinear",
        **common,
    )
    val = create_loader(
        create_dataset("", root=str(given.folder), split="val"),
        is_training=False,
        interpolation="bicubic",
        crop_pct=1.0,
        crop_mode="squash",
        **common,
    )
    return train, val


def precision(device: Any) -> Any:
    """Autocast on a GPU; float32 on a CPU."""
    import torch

    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def train_epoch(model: Any, loader: Any, criterion: Any, optimizer: Any, device: Any) -> tuple[float, int]:
    """One pass; returns the mean loss and how many photos were trained on."""
    from timm.utils import AverageMeter

    model.train()
    meter = AverageMeter()
    for images, labels in loader:
        with precision(device):
            loss = criterion(model(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        meter.update(loss.item(), len(labels))
    return meter.avg, meter.count


def validate(model: Any, loader: Any, criterion: Any, device: Any, classes: int) -> tuple[float, float]:
    """Mean loss and macro F1."""
    import torch
    from sklearn.metrics import f1_score
    from timm.utils import AverageMeter

    model.eval()
    meter, predicted, true = AverageMeter(), [], []
    with torch.no_grad():
        for images, labels in loader:
            with precision(device):
                outputs = model(images.to(device)).float()
            meter.update(criterion(outputs, labels.to(device)).item(), len(labels))
            predicted += outputs.argmax(1).tolist()
            true += labels.tolist()
    return meter.avg, float(f1_score(true, predicted, labels=range(classes), average="macro", zero_division=0))


def main() -> None:
    given = script_arguments(__doc__)
    pace = Pace(given.paced)
    import torch
    from sklearn.metrics import f1_score  # noqa: F401  (what takes time to import is imported before the clock starts)
    from timm import create_model
    from timm.data import create_loader  # noqa: F401
    from timm.optim import create_optimizer_v2
    from timm.utils import random_seed

    import hcoatnet.models  # noqa: F401  (makes its architectures known to timm)

    pace.report(ready=True)
    pace.wait()
    watch = Stopwatch()
    random_seed(given.seed)
    device = torch.device(given.device)
    train, val = loaders(given, device)
    classes = len(train.dataset.reader.class_to_idx)
    model = create_model(given.model, num_classes=classes).to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=given.lr, weight_decay=given.weight_decay)
    criterion = torch.nn.CrossEntropyLoss()
    setup = watch.read()[0]
    for epoch in range(given.epochs):
        if epoch:
            pace.wait()
            watch, setup = Stopwatch(), 0.0
        training = Stopwatch()
        train_loss, photos = train_epoch(model, train, criterion, optimizer, device)
        trained = training.read()
        val_loss, macro_f1 = validate(model, val, criterion, device, classes)
        facts = epoch_facts(epoch + 1, setup, watch.read(), trained, train_loss, val_loss, macro_f1)
        pace.report(**facts, photos=photos)


if __name__ == "__main__":
    main()
