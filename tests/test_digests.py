"""Digests stand in model files, labels and caches: they must stay what they are."""

import hashlib

import numpy as np
from ase.build import molecule

from asecalc_mlip.digests import digest_of, sha256_of, wrong_checksum
from training.data.digests import fingerprint


def test_parts_are_taken_one_after_another():
    array = np.arange(6.0).reshape(2, 3)
    expected = hashlib.sha256(b"".join([b"", b"a\0", "é".encode(), array.T.tobytes()])).hexdigest()
    assert digest_of(part for part in (b"", b"a\0", "é", array.T)) == expected


def test_of_files(tmp_path):
    path = tmp_path / "any"
    path.write_bytes(b"content")
    assert sha256_of(path) == digest_of(["content"])
    assert wrong_checksum(path, sha256=sha256_of(path)[:10], md5=None) == ""
    assert wrong_checksum(path, sha256=None, md5="0") == "MD5"


def test_of_labelled_structures_as_in_files_of_earlier_versions():
    water = molecule("H2O")
    water.info["energy"], water.arrays["forces"] = -1.5, np.zeros((3, 3))
    assert fingerprint([water], 1).startswith("921744c0ca97122f")
