"""The files whose families make up the suite; importing them enters the families into the table."""

from tests.attack import model_files, structures
from tests.attack.harness import FAMILIES

__all__ = ["FAMILIES", "model_files", "structures"]
