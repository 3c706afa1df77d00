"""The files whose families make up the suite; importing them enters the families into the table."""

from tests.attack import (
    crafted_files,
    data_files,
    faults,
    load,
    matgl_files,
    model_files,
    names,
    published_sets,
    structures,
    values,
    wrong_data,
)
from tests.attack.harness import FAMILIES

__all__ = [
    "FAMILIES",
    "crafted_files",
    "data_files",
    "faults",
    "load",
    "matgl_files",
    "model_files",
    "names",
    "published_sets",
    "structures",
    "values",
    "wrong_data",
]
