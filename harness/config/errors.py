"""`RequestError`, and the words its one-line messages are made of."""

import errno
import re
from collections.abc import Sequence
from difflib import get_close_matches

#: What a disk may refuse, by the system's error number.
DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "this place may not be written to",
    errno.EPERM: "this place may not be written to",
    errno.ENOTDIR: "part of this path is a file",
    errno.EEXIST: "a file stands in the way",
    errno.ENOENT: "part of this path is not there",
    errno.ENAMETOOLONG: "this path is too long",
    errno.EISDIR: "a folder stands in the way",
    errno.EIO: "the disk fails",
}


def disk_error(error: BaseException) -> str:
    """Return what the disk refused by this error; empty for an error of another cause.

    safetensors, written in Rust, has the system's number in its message only.

    >>> disk_error(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full'
    """
    number = re.search(r"\(os error (\d+)\)", str(error))
    known = error.errno if isinstance(error, OSError) else int(number[1]) if number else None
    return DISK_ERRORS.get(known or 0, "")


class RequestError(Exception):
    """A wrong request, shown on one line as ``key=value: remedy``; exit code 2 on the command line.

    Not a `ValueError`: those are caught as signs of damaged files.

    >>> import harness
    >>> try:
    ...     harness.Head.parse("5.1")
    ... except harness.RequestError as error:
    ...     print(error)
    heads=5.1: a head is written L5H1 (layer 5, head 1)
    """

    def __init__(self, key: str, value: object, remedy: str):
        self.key, self.value, self.remedy = key, value, remedy
        super().__init__(" ".join(f"{key}={value}: {remedy}".split()))

    def __reduce__(self) -> tuple[type["RequestError"], tuple[str, str, str]]:
        """Rebuild from three texts: the error travels from a worker, and its value may not be picklable."""
        return type(self), (self.key, str(self.value), self.remedy)


def quoted(text: str, at_most: int = 40) -> str:
    """Return a text in quotation marks, as Python writes it; a long one is cut and ends in ``…``."""
    return repr(text if len(text) <= at_most else text[:at_most] + "…")


def is_a_text(value: str) -> bool:
    """Whether a value reads as a text (white space, non-ASCII letters) and not as a name."""
    return any(letter.isspace() for letter in value.strip()) or not value.isascii()


def near(word: object, options: Sequence[str]) -> str:
    """Return ``"did you mean 'x'? "`` if an option is close, followed by all options."""
    close = get_close_matches(str(word), list(options), n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "known: " + ", ".join(options)
