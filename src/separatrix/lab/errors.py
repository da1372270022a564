"""The two ways in which the lab says no: the request cannot be carried out, or the disk cannot."""


class UsageError(ValueError):
    """A request that cannot be carried out; its text is one sentence, the command line exits with code 2."""


class StoreError(RuntimeError):
    """A run folder could not be written; its text is one sentence, the command line exits with code 1."""
