"""Section `cluster`, which no result depends on. Imports nothing heavy."""

from dataclasses import dataclass

from pipeline.settings import setting


@dataclass
class Config:
    """Section `cluster`."""

    use: str = setting("none", "What spreads the work over machines.", group="cluster")
    address: str = setting(
        "local",
        "HOST:6379 of a Ray cluster that was started with `ray start`; local starts one on this "
        "machine, for as long as the command runs.",
    )
    workers: int | None = setting(
        None, "Processes in all; null for one per `threads` processors of the cluster.", least=1
    )

    @property
    def on(self) -> bool:
        """Whether a cluster carries the work."""
        return self.use != "none"
