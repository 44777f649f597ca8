"""What a model said of the test pictures, as a run keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data import predictions
from pipeline.data.predictions import Predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient


def download(client: MlflowClient, run_id: str, folder: Path) -> Predictions:
    """Read the predictions among a run's artifacts, those of an earlier version too.

    Args:
        client: Of the tracking store.
        run_id: Of the run.
        folder: To download to.

    Raises:
        OSError: There are none.
        MlflowException: Likewise.
    """
    kept = {one.path for one in client.list_artifacts(run_id)}
    name = predictions.FILE if predictions.FILE in kept else predictions.TABLE
    return predictions.read(Path(client.download_artifacts(run_id, name, str(folder))))
