"""Group images that splits must not separate: of one patient, one place, one recording.

rows -> group of each image; groups -> split of each, by scikit-learn's StratifiedGroupKFold.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import Row
from pipeline.errors import InputError

Names = NDArray[np.str_]


def joined(copies: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """Find the group of each image, merging groups that share an image.

    Args:
        copies: Pixel digest -> its rows.

    Returns:
        Pixel digest -> name of its group; ungrouped images are absent.
    """
    pairs = [(key, row.group) for key, rows in copies.items() for row in rows if row.group]
    if not pairs:
        return {}
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    keys, places = np.unique([key for key, _ in pairs], return_inverse=True)
    groups, members = np.unique([group for _, group in pairs], return_inverse=True)
    size = len(keys) + len(groups)
    links = coo_matrix((np.ones(len(pairs)), (places, members + len(keys))), (size, size))
    _, parts = connected_components(links, directed=False)
    names: dict[int, str] = {}
    for group, part in zip(groups, parts[len(keys) :], strict=True):
        names.setdefault(int(part), str(group))
    return {str(key): names[int(part)] for key, part in zip(keys, parts, strict=False)}


def draw(
    labels: Mapping[str, str], groups: Mapping[str, str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Assign a split to each group, with about the same share of every class in each split.

    Args:
        labels: Pixel digest -> label.
        groups: Pixel digest -> group; an absent image is a group of its own.
        shares: Split -> fraction of the images; the last split gets the rest.
        seed: Seed of the draw.

    Returns:
        Pixel digest -> split.

    Raises:
        InputError: There are fewer groups than splits.
    """
    keys = sorted(labels)
    of = np.array([groups.get(key, key) for key in keys])
    if len(set(of)) < len(shares):
        raise InputError(
            f"data.group needs at least one group for each of {', '.join(shares)}, got "
            f"{len(set(of))}: add images of other groups, name splits in a column split, or leave "
            "data.group out"
        )
    classes = np.array([labels[key] for key in keys])
    *drawn, rest = shares
    chosen = np.full(len(keys), rest, dtype=object)
    left = np.arange(len(keys))
    remaining = 1.0
    for split in drawn:
        taken = left[_part(classes[left], of[left], shares[split] / remaining, seed)]
        chosen[taken] = split
        left = np.setdiff1d(left, taken)
        remaining -= shares[split]
    return dict(zip(keys, chosen.tolist(), strict=True))


def _part(classes: Names, groups: Names, share: float, seed: int) -> list[int]:
    """Choose whole groups with about that share of the images; returns their positions.

    Most images are never among them: they are needed for training, whatever classes they have.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(max(2, round(1 / share)), len(set(groups)))
    kinds = np.unique(classes, return_inverse=True)[1]
    folds = max(2, min(folds, int(np.bincount(kinds).max())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes smaller than the folds
        folder = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        parts = [test for _, test in folder.split(kinds, kinds, groups)]
    wanted = share * len(kinds)

    def order(part: NDArray[np.int64]) -> tuple[bool, int, float]:
        missing = len(set(kinds)) - len(set(kinds[part]))
        return 2 * len(part) > len(kinds), missing, abs(len(part) - wanted)

    return [int(place) for place in min(parts, key=order)]
