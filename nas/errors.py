"""The one exception a user of hwnas is meant to read."""


class NasError(ValueError):
    """Something the user can mend; the message names place, law, value and remedy.

    A ValueError, so that whatever validates a config can gather it among other faults.
    """
