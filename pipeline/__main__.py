"""The only runner: command and overrides -> config -> seed -> tracker -> stage.

python -m pipeline COMMAND [key=value ...]
"""

import errno
import importlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import outputs
from pipeline.errors import InputError
from pipeline.stages import STAGES

Log = Callable[[dict[str, float], int], None]

_OTHERS = {
    "cache": "list the stored activations, least recently used first; cache clear removes them",
    "cuts": "list where a backbone can be cut, and at what cost (cuts use.backbone=resnet50)",
    "demo": "a page to drop pictures on (demo demo.port=7860; needs Gradio)",
    "export": "write the model for other runtimes, checked (export onnx tflite; export --help)",
    "predict": "classify pictures: predict PATH ... [--json | --csv] (predict --help)",
    "pretrain": "regenerate the weights of glyph_cnn, bit for bit",
    "promote": "make the present model the champion, if the gate holds (promote --dry-run)",
    "report": "write outputs/report.html of the present outputs, as evaluate does",
    "rollback": "give the champion's place back to the champion before",
    "serve": "answer over HTTP with the champion (serve serve.port=5001)",
    "sweep": "search the cut and the learning rate (sweep sweep.n_trials=20)",
    "ui": "compare runs in the MLflow UI (ui tracking.port=5000)",
}


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is told shows at once in pipes, too
    # So that a stage that is asked to stop can say so to the tracker.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _command(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _TOLD:
            raise
        print(f"error: {_TOLD[error.errno]}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


_TOLD = {
    errno.ENOSPC: "no space left on the disk; what was there is kept; free some and run again",
    errno.EDQUOT: "the disk quota is used up; what was there is kept; free some and run again",
    errno.EROFS: "cannot write, the file system is read-only; make it writable or run elsewhere",
    errno.EACCES: "not permitted; change the permissions or run as another user",
    errno.EPERM: "not permitted; change the permissions or run as another user",
    errno.EEXIST: "a file is where a folder should be; move it away",
    errno.ENOTDIR: "a file is where a folder should be; move it away",
}


def _command(arguments: list[str]) -> int:
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        print(_usage())
        return 0
    if command not in (*STAGES, *_OTHERS):
        raise InputError(
            f"the command must be one of {', '.join((*STAGES, *_OTHERS))}, got {command!r}"
        )
    if command == "cache":
        return _cache(rest)
    if command == "export":
        from pipeline import export

        return export.main(rest, _model_file)
    if command == "predict":
        from pipeline import predict

        return predict.main(rest, _model_file)
    from pipeline import config

    def sweep(composed: Any) -> None:
        from pipeline.sweep import supervisor

        supervisor.run(composed, rest, config.compose)

    tasks = {
        "cuts": _cuts,
        "demo": _demo,
        "pretrain": _pretrain,
        "promote": _promote,
        "report": _report,
        "rollback": _rollback,
        "serve": _serve,
        "sweep": sweep,
        "ui": _ui,
    }
    if command == "promote":
        rest = ["promote.dry_run=true" if word == "--dry-run" else word for word in rest]
    task = tasks.get(command, lambda composed: _run_stage(command, composed))
    summary = _OTHERS.get(command) or _summary(command)
    config.application(command, rest, task, f"{command}: {summary}")
    return 0


def _run_stage(stage: str, config: Any) -> None:
    """Run one stage: locked, tracked, its output put in place at the very end."""
    from pipeline import runtime, tracking

    out = outputs.ROOT / stage
    with outputs.locked(out), tracking.stage_run(stage, config) as run:
        if stage != "prepare":  # which needs no TensorFlow
            runtime.configure(config.seed, config.threads)
        with outputs.replacing(out) as aside:
            metrics = _call(stage, config, aside, run.log)
        run.finish(metrics, out)
        if stage == STAGES[-1]:
            from pipeline import report

            path = report.write(config, run.timings())
            run.attach(path)
            print(f"report: {path}")


def _call(stage: str, c: Any, out: Path, log: Log) -> dict[str, float]:
    """Hand a stage the sections it reads; dvc.yaml lists the same, a test compares them."""
    run = importlib.import_module(f"pipeline.stages.{stage}").run
    prepared, features, head, finetuned = (outputs.ROOT / name for name in STAGES[:-1])
    match stage:
        case "prepare":
            metrics = run(c.prepare, seed=c.seed, data=c.data, out=out)
        case "extract_features":
            metrics = run(
                c.extract_features,
                seed=c.seed,
                threads=c.threads,
                backbone=c.backbone,
                augment=c.augment,
                cache=c.activations,
                prepared=prepared,
                out=out,
            )
        case "train_head":
            metrics = run(
                c.train_head,
                seed=c.seed,
                threads=c.threads,
                head=c.head,
                prepared=prepared,
                features=features,
                out=out,
                log=log,
            )
        case "finetune":
            metrics = run(
                c.finetune,
                seed=c.seed,
                threads=c.threads,
                backbone=c.backbone,
                batch_size=c.extract_features.batch_size,
                augment=c.augment,
                cache=c.activations,
                prepared=prepared,
                head=head,
                out=out,
                log=log,
            )
        case "evaluate":
            metrics = run(
                c.evaluate,
                seed=c.seed,
                threads=c.threads,
                backbone=c.backbone,
                prepared=prepared,
                features=features,
                head=head,
                finetuned=finetuned,
                out=out,
            )
    return dict(metrics)


def _model_file(name: str) -> Path:
    """The file that --model names: a path, or in the registry."""
    from pipeline import registry

    if not registry.is_uri(name):
        return Path(name)
    from pipeline import config

    return registry.download(name, config.compose().tracking)


def _cache(rest: list[str]) -> int:
    from pipeline.activations import Config, Store

    if rest not in ([], ["clear"]):
        raise InputError(f"cache takes nothing or the word clear, got {' '.join(rest)!r}")
    store = Store(Config())
    if rest:
        store.clear()
    entries = store.entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        name = f"{entry.key['backbone']} at {entry.key['cut']}, {entry.key['image_size']} px"
        print(f"{entry.size / 1e6:10.1f} MB  {used}  {name}")
    print(f"{sum(entry.size for entry in entries) / 1e6:10.1f} MB  in {store.root}")
    return 0


def _cuts(config: Any) -> None:
    from pipeline import runtime

    runtime.configure(config.seed, config.threads)
    from pipeline import cut_table

    cut_table.show(config.backbone, config.prepare.image_size, config.seed)


def _pretrain(config: Any) -> None:
    from pipeline import pretrain, runtime

    runtime.configure(config.seed, config.threads)
    pretrain.run(config.pretrain, seed=config.seed)


def _demo(config: Any) -> None:
    from pipeline import demo

    demo.run(config)


def _promote(config: Any) -> None:
    from pipeline import promotion

    promotion.promote(config)


def _rollback(config: Any) -> None:
    from pipeline import promotion

    promotion.rollback(config)


def _serve(config: Any) -> None:
    from pipeline import server

    server.serve(config)


def _report(config: Any) -> None:
    from pipeline import report, tracking

    print(report.write(config, tracking.timings(config)))


def _ui(config: Any) -> None:
    from pipeline import tracking_store

    tracking_store.serve_ui(config.tracking)


def _usage() -> str:
    lines = ["python -m pipeline COMMAND [section.key=value ...]", "", "Stages, run by dvc repro:"]
    lines += [f"  {stage:18}{_summary(stage)}" for stage in STAGES]
    lines += ["", "Others:"]
    lines += [f"  {name:18}{summary}" for name, summary in _OTHERS.items()]
    lines += ["", "COMMAND --help lists choices and settings, COMMAND --cfg job prints the config."]
    return "\n".join(lines)


def _summary(stage: str) -> str:
    document = importlib.import_module(f"pipeline.stages.{stage}").__doc__ or ""
    return document.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
