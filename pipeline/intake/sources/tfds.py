"""A dataset of the tensorflow-datasets catalogue, by name. Needs the extra `tfds`.

name -> images, as the encoded bytes that the dataset stores.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.intake.layout import split_of
from pipeline.intake.sources import Sample, SourceConfig
from pipeline.settings import REQUIRED, setting


@dataclass
class Config(SourceConfig):
    """A dataset of the catalogue: `name`."""

    kind: str = "tfds"
    name: str = setting(
        REQUIRED, "Name in the catalogue, if needed with a version: cats_vs_dogs:4.0.1."
    )
    splits: dict[str, str] = setting(
        {},
        "Dataset split -> train, val or test; by default, the names it has. A single split is "
        "divided.",
    )


def images(config: Config) -> Iterator[Sample]:
    """Yield the images of a tensorflow-datasets dataset.

    Raises:
        InputError: tensorflow-datasets is not installed, or the dataset has no `image` and
            `label`.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"dataset {config.name} needs tensorflow-datasets: pip install tensorflow-datasets"
        ) from error
    builder = tfds.builder(config.name)
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()):
        raise InputError(
            f"a tfds dataset must have the features image and label, {config.name} has "
            f"{sorted(features or ())}: choose another dataset"
        )
    builder.download_and_prepare()
    single = len(builder.info.splits) == 1
    for name in builder.info.splits:
        split = config.splits.get(name) or (None if single else split_of(name))
        if split is None and not single:
            for index in range(builder.info.splits[name].num_examples):
                yield Sample(f"{name}/{index:07d}", "", left_out="in no split of data.splits")
            continue  # such as `unlabelled`
        examples = builder.as_dataset(
            split=name, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
        )
        for index, example in enumerate(examples):
            label = features["label"].int2str(int(example["label"]))
            content = bytes(example["image"].numpy())
            yield Sample(f"{name}/{index:07d}", label, split, content=content)
