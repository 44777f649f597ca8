"""The stages, one module each; `STAGES` in `pipeline.storage.outputs` has their order.

    >>> from pipeline.stages import prepare
    >>> prepare.Config().train_fraction
    0.7

A stage module has a `Config`, its section of params.yaml, and `run(config, ..., folders) ->
metrics`, which a notebook can call, too. `run` receives what its parameters name: other sections
or settings, `frozen` for the forward pass below the cut, `folders` with its own output and those of
earlier stages, and `log` for the metrics of each epoch.
"""
