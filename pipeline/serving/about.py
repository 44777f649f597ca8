"""The page at / and /docs of a served model: what it is and how to use it.

Written by hand: FastAPI's own page loads its parts from the internet.
"""

import html
from collections.abc import Mapping

from pipeline.networks.model_file import Card
from pipeline.serving.defaults import MAX_IMAGE_MB, MAX_ROWS

_MAX_CLASSES = 50


def page(card: Card, limits: Mapping[str, float], with_sets: bool) -> str:
    """Render the self-contained page.

    Args:
        card: Card of the model.
        limits: Values named as in `defaults.DEFAULTS`.
        with_sets: True if answers have prediction sets.
    """
    sets = (
        f"prediction set: contains the true label for {limits['coverage']:.0%} of images"
        if with_sets
        else "null: the model has no calibration images"
    )
    classes = ", ".join(html.escape(name) for name in card.classes[:_MAX_CLASSES])
    more = len(card.classes) - _MAX_CLASSES
    classes += f" and {more} more" if more > 0 else ""
    return _PAGE.format(
        count=len(card.classes),
        classes=classes,
        rows=MAX_ROWS,
        request=f"{limits['max_request_mb']:g}",
        image=MAX_IMAGE_MB,
        side=card.image_size,
        unknown=f"{limits['unknown']:g}",
        sets=sets,
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Image classifier</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 44rem;
  padding: 0 1rem; }}
pre {{ background: #f4f4f4; padding: .8rem; overflow-x: auto; }}
td, th {{ text-align: left; padding-right: 1rem; vertical-align: top; }}
</style>
</head>
<body>
<h1>Image classifier</h1>
<p>It assigns an image to one of {count} classes: {classes}.</p>
<h2>Request</h2>
<p>POST to <code>/invocations</code> with Content-Type <code>application/json</code>: one row per
image, with the base64 of its file (JPEG, PNG, WebP, TIFF and others; images of any size are resized
to {side} x {side} px).</p>
<pre>{{"dataframe_records": [{{"image": "/9j/4AAQSkZJRg..."}}]}}</pre>
<pre>python -c "import base64, json, sys
row = {{'image': base64.b64encode(open(sys.argv[1], 'rb').read()).decode()}}
print(json.dumps({{'dataframe_records': [row]}}))" photo.jpg |
curl -H 'Content-Type: application/json' --data @- http://HOST:PORT/invocations</pre>
<h2>Response</h2>
<p><code>predictions</code> has one row per image, in the same order:</p>
<table>
<tr><td><code>prediction</code></td><td>most probable class</td></tr>
<tr><td><code>probability</code></td><td>its probability</td></tr>
<tr><td><code>probabilities</code></td><td>probability of every class, by name</td></tr>
<tr><td><code>known</code></td><td><code>false</code> if the image is unlike the training data: do
not rely on the prediction</td></tr>
<tr><td><code>typicality</code></td><td>fraction of validation images that are at least as unusual;
{unknown} or less counts as unknown</td></tr>
<tr><td><code>labels</code></td><td>{sets}</td></tr>
<tr><td><code>error</code></td><td>why this image could not be read, else null; other rows are not
affected</td></tr>
</table>
<h2>Limits</h2>
<p>A request may have up to {rows} rows and {request} MB, an image file {image} MB. Larger ones get
status 413, malformed ones 400, each with a line in <code>error</code>. A request that takes too
long gets 504.</p>
<p><a href="/ping">/ping</a> answers 200 while the server works.</p>
</body>
</html>
"""
