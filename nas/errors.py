"""The one exception a user of hwnas is meant to read."""


class NasError(Exception):
    """Something the user can mend; the message names place, law, value and remedy."""
