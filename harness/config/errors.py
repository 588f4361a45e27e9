"""What is wrong with a request, in one line."""

import errno
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


class RequestError(Exception):
    """The request is wrong: which key, what was given, and what would be right. One line; exit code 2. Not a
    `ValueError`: what cannot be had must never pass for what is damaged.

    Shown as ``key=value: remedy``.
    """

    def __init__(self, key: str, value: object, remedy: str):
        self.key, self.value, self.remedy = key, value, remedy
        super().__init__(" ".join(f"{key}={value}: {remedy}".split()))

    def __reduce__(self) -> tuple[type["RequestError"], tuple[str, str, str]]:
        """As it travels from a worker."""
        return type(self), (self.key, str(self.value), self.remedy)


def quoted(text: str, at_most: int = 40) -> str:
    """A text between quotation marks, as Python writes it; a long one is cut, and says so."""
    return repr(text if len(text) <= at_most else text[:at_most] + "…")


def is_a_text(value: str) -> bool:
    """Whether this is written as text is, and not as a name."""
    return any(letter.isspace() for letter in value.strip()) or not value.isascii()


def near(word: object, options: Sequence[str]) -> str:
    """``"did you mean 'x'? "`` if one of the options is close, and all of them after it."""
    close = get_close_matches(str(word), list(options), n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "known: " + ", ".join(options)
