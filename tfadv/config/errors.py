"""The error for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake that the user can mend: shown as one line, exit code 2, never a traceback."""
