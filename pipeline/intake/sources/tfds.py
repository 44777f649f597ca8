"""A data set of the tensorflow-datasets catalogue, by name. Needs the extra `tfds`.

name -> pictures, as the encoded bytes that the data set stores.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.errors import InputError
from pipeline.sources import Picture
from pipeline.sources.folder import SPLIT_NAMES


@dataclass
class Config:
    """Which data set.

    Attributes:
        name: Name in the catalogue, with a version where it matters: `cats_vs_dogs:4.0.1`.
        data_dir: Where tensorflow-datasets keeps its files; its own default if null.
        splits: Split of the data set -> train, val or test; null uses the names
            it has, and a single split is divided here.
    """

    kind: str = "tfds"
    name: str = "???"
    data_dir: str | None = None
    splits: dict[str, str] = field(default_factory=dict)


def pictures(config: Config) -> Iterator[Picture]:
    """Yield the pictures of a tensorflow-datasets data set.

    Raises:
        InputError: tensorflow-datasets is not installed, or the data set has no
            `image` and `label`.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"data set {config.name} needs tensorflow-datasets, which is not installed: "
            "pip install tensorflow-datasets"
        ) from error
    builder = tfds.builder(config.name, data_dir=config.data_dir)
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()):
        raise InputError(
            f"tfds data must have the features image and label, {config.name} has "
            f"{sorted(features or ())}: choose another data set"
        )
    builder.download_and_prepare()
    single = len(builder.info.splits) == 1
    for name in builder.info.splits:
        split = config.splits.get(name) or (None if single else SPLIT_NAMES.get(name))
        if split is None and not single:
            continue  # such as `unlabelled`
        examples = builder.as_dataset(
            split=name, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
        )
        for index, example in enumerate(examples):
            label = features["label"].int2str(int(example["label"]))
            content = bytes(example["image"].numpy())
            yield Picture(f"{name}/{index:07d}", label, split, content=content)
