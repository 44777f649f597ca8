"""Commands besides the stages, one module each: `python -m pipeline COMMAND`.

    >>> from pipeline import runner
    >>> "predict" in runner.usage()
    True

A module with a `run` is a command. Its docstring is its help, `SECTIONS` names the settings to
list in the help, if they are not those of its parameters or its own section, and
`arguments(parser)`, if present, adds options. `run` receives what its
parameters name: `config` (the composed config) or a section of it, `options` (from argparse),
`overrides` (the settings on the command line) or `compose` (to compose later).
"""
