"""Write outputs/certificate.json: the result, and everything that it depends on.

Records code, environment, settings, images, splits and the digests of all outputs, so that anyone
with the same data can repeat and check the result with `verify`. certificate.html is a page for
people.

    python -m pipeline certify
"""

from pathlib import Path

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.evaluation import summary
from pipeline.release import candidate, certificate
from pipeline.storage import tables
from pipeline.storage.outputs import ROOT, replacing_file, write_page

SECTIONS = ("tracking",)


def run(config: Config) -> None:
    """Write the certificate and its page.

    Raises:
        InputError: The outputs are not those recorded in dvc.lock.
    """
    from pipeline.networks import runtime
    from pipeline.tracking import runs

    candidate.locked("certified")
    runtime.configure(config.seed, config.threads)
    seconds = runs.seconds(config)
    minutes = round(seconds / 60, 2) if seconds else None
    made = certificate.make(config.flat(), runtime.versions()["processor"], minutes)
    headline = summary.headline(ROOT / "evaluate", Manifest(ROOT / "prepare"))
    write_page(
        certificate.PATH.with_suffix(".html"),
        Path(__file__).with_name("templates") / "certificate.html",
        certificate=made,
        title=config.data.title,
        headline=headline,
        leaks=certificate.leaks(made),
    )
    with replacing_file(certificate.PATH) as aside:
        tables.write_json(aside, made)
    print(headline)
    for leak in certificate.leaks(made):
        print(f"warning: {leak}; if they belong together, set data.group")
    if "with changes" in made["commit"]:
        print(
            "warning: the code has uncommitted changes, so nobody else can repeat this: commit them"
        )
    print(f"certificate: {certificate.PATH} ({made['sha256'][:12]})")
    print(f"next: in a clone with the same data, python -m pipeline verify {certificate.PATH.name}")
