"""Whether it pays to keep the activations below a cut, and why.

sizes + costs -> a decision in words. Knows nothing of models.
"""

from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.finetuning.settings import Cache


@dataclass(frozen=True)
class Decision:
    """Whether to cache; `why` is a sentence for the user."""

    cached: bool
    why: str


def decide(
    mode: Cache,
    *,
    needed_bytes: int,
    free_bytes: int,
    max_bytes: int,
    memory_bytes: int,
    flops_below: float,
    epochs: int,
    views: int = 1,
    fresh: bool = False,
) -> Decision:
    """Decide by disk, by memory and by the time that training would take.

    Args:
        mode: What the user asked for.
        needed_bytes: Of the activations of all pictures in train and val.
        free_bytes: Left on the disk.
        max_bytes: What the store may take.
        memory_bytes: Left in memory.
        flops_below: Share of the forward operations below the cut.
        epochs: Of the training, at most.
        views: Of each training picture, one of which an epoch sees.
        fresh: Whether every epoch sees pictures that were never there before.

    Raises:
        InputError: `always`, and they do not fit or change with every epoch.
    """
    above = 1 - flops_below
    # In forward passes of the whole network; a backward pass counts as two.
    cached, plain = flops_below * views + 3 * above * epochs, (1 + 2 * above) * epochs
    size = f"{needed_bytes / 1e9:.2f} GB"
    fits = needed_bytes <= min(max_bytes, int(0.9 * free_bytes))
    room = f"{min(max_bytes, free_bytes) / 1e9:.2f} GB"
    if mode == Cache.never:
        return Decision(False, "finetune.cache=never")
    if fresh and mode == Cache.always:
        raise InputError(
            "finetune.cache=always needs pictures that come again, got augment.views=0: give "
            "augment.views a number, or set finetune.cache=auto"
        )
    if fresh:
        return Decision(False, "augment.views=0 makes new pictures in every epoch")
    if not fits and mode == Cache.always:
        raise InputError(
            f"finetune.cache=always needs {size} and {room} may be used: free some disk, raise "
            "activations.max_gb, cut deeper, or set finetune.cache=auto"
        )
    if not fits:
        return Decision(False, f"they need {size} and {room} may be used")
    if mode == Cache.auto and cached >= plain:
        return Decision(False, f"{flops_below:.0%} of the work is below the cut: nothing to save")
    where = "" if needed_bytes < memory_bytes else ", read from disk: more than memory holds"
    gain = f"up to {plain / cached:.1f} times faster" if cached < 0.95 * plain else "hardly faster"
    return Decision(True, f"{size}{where}; {gain}")
