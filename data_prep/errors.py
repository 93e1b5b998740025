"""What is wrong with what a user gave."""


class DataError(ValueError):
    """A mistake in what the user gave: a flag, a list, a picture; its message is one line."""
