"""Digests: of files, and of bytes, text and arrays, by which equal content is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from os import PathLike

import numpy as np

__all__ = ["digest_of", "sha256_of", "word_of", "wrong_checksum"]


def digest_of(parts: Iterable[bytes | str | np.ndarray]) -> str:
    """Return the SHA-256 of bytes, text (UTF-8) and arrays (their bytes), one after another, in hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else part.tobytes())
    return digest.hexdigest()


def sha256_of(path: str | PathLike) -> str:
    """Return the SHA-256 of the content of a file, in hexadecimal digits."""
    return _of_file(path, "sha256")


def word_of(digest: str) -> str:
    """Return the first 16 digits of a digest as a word for extended XYZ, which no reader takes for a number."""
    return f"x{digest[:16]}"


def wrong_checksum(path: str | PathLike, **wanted: str | None) -> str:
    """Return the name of the first checksum that a file does not have, SHA-256 or MD5; empty where it has all of them.

    Parameters
    ----------
    path : path
    **wanted : str or None
        `sha256` and `md5`, hexadecimal digits or the first of them; None is not looked at.
    """
    for kind, digits in wanted.items():
        if digits is not None and not _of_file(path, kind).startswith(digits):
            return kind.upper().replace("SHA", "SHA-")
    return ""


def _of_file(path: str | PathLike, kind: str) -> str:
    # MD5 tells damage, and no forgery.
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=kind != "md5")).hexdigest()
