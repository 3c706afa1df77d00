"""An ASE calculator from a user's Python file as a teacher."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from ase.calculators.calculator import BaseCalculator

from asecalc_mlip.digests import sha256_of, word_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.teachers.base import AseTeacher

__all__ = ["from_python_file"]


class _Source(SourceFileLoader):
    """Compiles what the file says now: bytecode beside it may be of another text of this second and of its length."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def from_python_file(path: Path, name: str = "calculator") -> AseTeacher:
    """Run a Python file and take the calculator of that name from it.

    Parameters
    ----------
    path : Path
        Python source. It is executed: take files only of people you trust.
    name : str
        A calculator, or a function without arguments that returns one.

    Raises
    ------
    InputError
        Where the file is not there, fails, or has no such calculator.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; the teacher FILE.py:NAME takes an ASE calculator from a Python file")
    loader = _Source(f"_teacher_{path.stem}", str(path))
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder := str(path.resolve().parent))
    # Where dataclasses look for the names of their annotations, and pickle for its classes.
    sys.modules[spec.name] = module
    try:
        loader.exec_module(module)
        found = getattr(module, name, None)
        calculator = found if found is None or isinstance(found, BaseCalculator) else found()
    except SystemExit as error:
        raise InputError(
            f"{path} ends the process where it is read (SystemExit: {error}); put what it runs as a program under "
            'if __name__ == "__main__":'
        ) from None
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        if folder in sys.path:  # the file may have changed the list
            sys.path.remove(folder)
    if not isinstance(calculator, BaseCalculator):
        there = ", ".join(k for k, v in vars(module).items() if isinstance(v, BaseCalculator)) or "none"
        raise InputError(
            f"{path} has no ASE calculator {name!r} (calculators there: {there}); define {name} = SomeCalculator(…), "
            f"or a function {name}() that returns one"
        )
    recipe = {"teacher_sha256": word_of(sha256_of(path)), "calculator": type(calculator).__name__}
    return AseTeacher(f"{path.name}:{name}", calculator, recipe)
