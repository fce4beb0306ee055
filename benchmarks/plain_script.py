"""Contestant: an ordinary training script, as papers on small sets of photos publish them.

    python benchmarks/plain_script.py FOLDER --model convnext_atto --image-size 128 --epochs 3

FOLDER has ``train/CLASS/`` and ``val/CLASS/``. torchvision's ImageFolder and transforms on PIL photos, a DataLoader
with two workers, float32, AdamW at a constant rate, cross-entropy. Nothing is done wrong in it, and nothing for speed.
"""

from pathlib import Path
from typing import Any

from contestant import Pace, Stopwatch, epoch_facts, script_arguments

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo_changes(image_size: int, augmentation: str) -> tuple[Any, Any]:
    """Transforms for training and for validation."""
    from torchvision import transforms

    changes = [
        transforms.RandomResizedCrop(image_size, scale=(0.8, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
    ]
    finish = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    evaluation = transforms.Compose([transforms.Resize((image_size, image_size)), *finish])
    if augmentation == "strong":
        changes += [transforms.RandomRotation(15), transforms.TrivialAugmentWide()]
        finish.append(transforms.RandomErasing(0.2, scale=(0.02, 0.2)))
    return transforms.Compose([*changes, *finish]), evaluation


def loaders(folder: Path, image_size: int, batch_size: int, augmentation: str, workers: int) -> tuple[Any, Any]:
    """Training and validation loader."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    train_changes, val_changes = photo_changes(image_size, augmentation)
    train_set, val_set = ImageFolder(folder / "train", train_changes), ImageFolder(folder / "val", val_changes)
    train = DataLoader(train_set, batch_size=batch_size, shuffle=True, num_workers=workers)
    return train, DataLoader(val_set, batch_size=batch_size, num_workers=workers)


def train_epoch(model: Any, loader: Any, criterion: Any, optimizer: Any, device: str) -> float:
    """One pass; returns the mean loss."""
    model.train()
    total = 0.0
    for batch in loader:
        images, labels = (one.to(device) for one in batch)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total / len(loader.dataset)


def validate(model: Any, loader: Any, criterion: Any, device: str) -> tuple[float, float]:
    """Mean loss and macro F1."""
    import torch
    from sklearn.metrics import f1_score

    model.eval()
    total, predicted, true = 0.0, [], []
    with torch.no_grad():
        for images, labels in loader:
            outputs = model(images.to(device)).cpu()
            total += criterion(outputs, labels).item() * len(labels)
            predicted += outputs.argmax(1).tolist()
            true += labels.tolist()
    classes = range(len(loader.dataset.classes))
    return total / len(true), float(f1_score(true, predicted, labels=classes, average="macro", zero_division=0))


def main() -> None:
    given = script_arguments(__doc__)
    pace = Pace(given.paced)
    import timm
    import torch
    import torchvision  # noqa: F401  (what takes time to import is imported before the clock starts)
    from sklearn.metrics import f1_score  # noqa: F401
    from torch import nn

    import hcoatnet.models  # noqa: F401  (makes its architectures known to timm)

    pace.report(ready=True)
    pace.wait()
    watch = Stopwatch()
    torch.manual_seed(given.seed)
    train, val = loaders(given.folder, given.image_size, given.batch_size, given.augmentation, given.workers)
    model = timm.create_model(given.model, num_classes=len(train.dataset.classes)).to(given.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, weight_decay=given.weight_decay)
    setup = watch.read()[0]
    for epoch in range(given.epochs):
        if epoch:
            pace.wait()
            watch, setup = Stopwatch(), 0.0
        training = Stopwatch()
        train_loss = train_epoch(model, train, criterion, optimizer, given.device)
        trained = training.read()
        val_loss, macro_f1 = validate(model, val, criterion, given.device)
        pace.report(**epoch_facts(epoch + 1, setup, watch.read(), trained, train_loss, val_loss, macro_f1))


if __name__ == "__main__":
    main()
