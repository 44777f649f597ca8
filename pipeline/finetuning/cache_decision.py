"""Decide if caching the activations below a cut pays off.

sizes + costs -> a decision with its reason. Independent of models.
"""

from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.finetuning.settings import Cache


@dataclass(frozen=True)
class Costs:
    """Costs and savings of caching activations.

    Attributes:
        needed_bytes: Size of the activations of all images in train and val.
        free_bytes: Free disk.
        max_bytes: Size limit of the cache.
        memory_bytes: Free memory.
        flops_below: Fraction of the forward operations below the cut.
        epochs: Maximum number of epochs.
        views: Views of each training image, one of which each epoch uses.
        fresh: True if every epoch draws new views.
    """

    needed_bytes: int
    free_bytes: int
    max_bytes: int
    memory_bytes: int
    flops_below: float
    epochs: int
    views: int = 1
    fresh: bool = False


def decide(mode: Cache, costs: Costs) -> tuple[bool, str]:
    """Decide by disk, memory and training time; returns the decision and the reason.

    Raises:
        InputError: `always`, but the activations do not fit or change with every epoch.
    """
    above, epochs = 1 - costs.flops_below, costs.epochs
    # In forward passes of the whole network; a backward pass counts as two.
    cached = costs.flops_below * costs.views + 3 * above * epochs
    plain = (1 + 2 * above) * epochs
    size = f"{costs.needed_bytes / 1e9:.2f} GB"
    fits = costs.needed_bytes <= min(costs.max_bytes, int(0.9 * costs.free_bytes))
    room = f"{min(costs.max_bytes, costs.free_bytes) / 1e9:.2f} GB"
    if mode == Cache.never:
        return False, "finetune.cache=never"
    if costs.fresh and mode == Cache.always:
        raise InputError(
            "finetune.cache=always needs images that repeat, got augment.views=0: set "
            "augment.views to a number, or finetune.cache=auto"
        )
    if costs.fresh:
        return False, "augment.views=0 creates new images in every epoch"
    if not fits and mode == Cache.always:
        raise InputError(
            f"finetune.cache=always needs {size}, but {room} are available: free some disk, raise "
            "activations.max_gb, cut deeper, or set finetune.cache=auto"
        )
    if not fits:
        return False, f"they need {size}, but {room} are available"
    if mode == Cache.auto and cached >= plain:
        return False, f"only {costs.flops_below:.0%} of the work is below the cut: nothing to save"
    where = (
        ""
        if costs.needed_bytes < costs.memory_bytes
        else ", read from disk because memory is too small"
    )
    ratio = plain / cached
    gain = f"epochs up to {ratio:.1f}x faster" if cached < 0.95 * plain else "about as fast"
    return True, f"{size}{where}, {gain}"
