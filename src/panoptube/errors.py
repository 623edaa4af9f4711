"""The one error that a user can cause."""


class UserError(Exception):
    """A mistake in what was given: names the thing and the remedy, in one line.

    The command line prints it without a traceback and ends with exit code 2.
    """
