"""Section `prepare`. Imports nothing heavy."""

from dataclasses import dataclass
from enum import StrEnum

from pipeline.data.decoding import Fit
from pipeline.intake.splitting import Shares
from pipeline.settings import AutoInt, automatic, setting


class OnBadImage(StrEnum):
    """What to do with a file that cannot be a picture."""

    quarantine = "quarantine"
    error = "error"


@dataclass
class Config:
    """Section `prepare`."""

    image_size: AutoInt = automatic(
        "Side in px that every picture is brought to. auto goes by the pictures' own size.",
        least=1,
    )
    fit: Fit = setting(Fit.crop, "crop the centre, squash the aspect, or pad with white.")
    train_per_class: int | None = setting(
        None, "Pictures a class in train; null for train_fraction.", least=1
    )
    val_per_class: int | None = setting(
        None, "Pictures a class in val; null for val_fraction.", least=1
    )
    train_fraction: float = setting(
        0.7, "Share of train where the source gives no split.", above=0, below=1
    )
    val_fraction: float = setting(0.15, "Share of val; test has the rest.", above=0, below=1)
    calibration_fraction: float = setting(
        0.0,
        "Share of the training pictures that training never sees: with them, predict --coverage "
        "and serve.coverage give sets of labels with a guarantee.",
        least=0,
        below=1,
    )
    exclude: str | None = setting(
        None,
        "A csv file with a column path: pictures that are not used, such as mislabelled ones "
        "from outputs/evaluate/label_errors.csv.",
    )
    on_bad_image: OnBadImage = setting(
        OnBadImage.quarantine, "quarantine lists a bad file in quarantine.csv, error stops."
    )
    max_bad_fraction: float = setting(
        0.1, "More bad files than this share is an error.", least=0, most=1
    )

    def check(self, section: str) -> None:
        """Check the splits, which depend on two settings each."""
        Shares.of(self)
