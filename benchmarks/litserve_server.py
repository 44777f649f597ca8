"""The champion, served by LitServe, for comparison: python -m benchmarks.litserve_server PORT.

The same classifier, decoding and answers; LitServe's batching, as its guide recommends.
"""

import sys
from typing import Any

import litserve
from fastapi import Request

from pipeline import config
from pipeline.release import registry
from pipeline.serving.classifier import Classifier
from pipeline.serving.pyfunc import Service, stacked


class Api(litserve.LitAPI):
    """Classify the files of a multipart form."""

    def setup(self, device: str) -> None:
        """Load the model in LitServe's worker."""
        composed = config.compose()
        uri = registry.champion_uri(composed.promote.name)
        file = registry.download(uri, composed.tracking)
        self._service = Service(Classifier(file, True), 25_000_000)

    def decode_request(self, request: Request) -> list[bytes]:
        """Return the contents of the files; LitServe has parsed the form by now."""
        return [part.file.read() for _, part in request.multi_items()]  # type: ignore[attr-defined]

    def predict(self, requests: list[list[bytes]]) -> list[Any]:
        """Classify the images of several requests in one forward pass."""
        decoded = [[self._service.decode(item) for item in request] for request in requests]
        images = stacked([item for request in decoded for item in request])
        answers = self._service.answers(images)
        rows, start = [], 0
        for request in decoded:
            count = sum(not isinstance(item, str) for item in request)
            own = answers and answers.of(slice(start, start + count))
            rows.append({"predictions": self._service.rows(request, own)})
            start += count
        return rows

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Keep the requests of a batch apart."""
        return inputs

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Return one answer per request."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=16, batch_timeout=0.005), accelerator="cpu")
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
