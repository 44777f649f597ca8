"""The page at / and /docs of a served model: what it is and how to ask it.

Written out here: the page that FastAPI makes loads its parts from the internet.
"""

import html
from collections.abc import Mapping

from pipeline.networks.model_file import Card
from pipeline.serving.defaults import MAX_IMAGE_MB, MAX_ROWS

_SHOWN = 50


def page(card: Card, limits: Mapping[str, float], with_sets: bool) -> str:
    """The page, complete in itself.

    Args:
        card: Of the model.
        limits: As `defaults.DEFAULTS` names them.
        with_sets: Whether it gives sets of labels.
    """
    sets = (
        f"those that may be true: {limits['coverage']:.0%} of such sets have the true one"
        if with_sets
        else "null: the model was made without calibration images"
    )
    classes = ", ".join(html.escape(name) for name in card.classes[:_SHOWN])
    more = len(card.classes) - _SHOWN
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
<p>It says which of {count} classes an image shows: {classes}.</p>
<h2>Ask</h2>
<p>POST to <code>/invocations</code>, Content-Type <code>application/json</code>: a row for each
image, with the base64 of its file (JPEG, PNG, WebP, TIFF and others; any size, it is brought to
{side} x {side} px here).</p>
<pre>{{"dataframe_records": [{{"image": "/9j/4AAQSkZJRg..."}}]}}</pre>
<pre>python -c "import base64, json, sys
row = {{'image': base64.b64encode(open(sys.argv[1], 'rb').read()).decode()}}
print(json.dumps({{'dataframe_records': [row]}}))" photo.jpg |
curl -H 'Content-Type: application/json' --data @- http://HOST:PORT/invocations</pre>
<h2>Answer</h2>
<p><code>predictions</code> has a row for each, in the same order:</p>
<table>
<tr><td><code>label</code></td><td>the most probable class</td></tr>
<tr><td><code>probability</code></td><td>of that class</td></tr>
<tr><td><code>probabilities</code></td><td>of every class, by name</td></tr>
<tr><td><code>known</code></td><td>whether it knows such images at all: where it says
<code>false</code>, do not rely on the label</td></tr>
<tr><td><code>typicality</code></td><td>the share of ordinary images that are at least as
strange: {unknown} or less is unknown</td></tr>
<tr><td><code>labels</code></td><td>{sets}</td></tr>
<tr><td><code>error</code></td><td>why this image could not be read, else null; the other rows
are answered all the same</td></tr>
</table>
<h2>Limits</h2>
<p>A request may have {rows} rows and {request} MB, an image's file {image} MB. What is larger is
refused with status 413, what is of another form with 400, each with a line in <code>error</code>.
A request that takes too long ends with 504.</p>
<p><a href="/ping">/ping</a> answers 200 while the server works.</p>
</body>
</html>
"""
