"""The one exception that users are meant to read."""


class InputError(ValueError):
    """Bad input or configuration.

    The message is one line: the rule, the value received, the remedy. The
    runner prints it without a traceback and exits with 1.
    """


class Stopped(Exception):
    """A training that was ended for good while it ran, such as a pruned trial's."""
