"""The stages, one module each; `STAGES` of `pipeline.storage.outputs` has their order.

    >>> from pipeline.stages import prepare
    >>> prepare.Config().train_fraction
    0.7

A stage module has a `Config`, its section of params.yaml, and `run(config, ..., out) -> metrics`,
which a notebook can call, too. `run` is given what its parameters name: other sections,
`batch_size` of extract_features, the output folders `prepared`, `features`, `trained_head` and
`finetuned` of earlier stages, `out` to write to, and `log` for the metrics of each epoch.
"""
