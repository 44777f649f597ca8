"""Commands beside the stages, one module each: `python -m pipeline COMMAND`.

    >>> from pipeline import runner
    >>> "predict" in runner.usage()
    True

A module with a `run` is a command. Its docstring is its help, `SECTIONS` names the settings that
the help lists, and `arguments(parser)`, where there is one, adds options that are no settings.
`run` is given what its parameters name: `config` (the composed config), `options` (as argparse
read them), `overrides` (the settings on the command line) or `compose` (to compose later).
"""
