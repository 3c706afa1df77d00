"""Collect the wheels that a GPU machine without network needs to run `make gpu-check`, and check that they fit.

    python tools/collect_wheels.py               # into .whl: what a machine with PyTorch lacks, for Python 3.12
    python tools/collect_wheels.py --check       # look at the folder again: tags, missing requirements, size
    python tools/collect_wheels.py --peers       # MACE and torch-sim as well, to compare with

The machine is expected to have torch, triton, numpy, scipy, matplotlib, click, PyYAML, tqdm and pytest; --have names
more. Versions are those of constraints.txt. At the end comes the command for the machine. The kernels of cuEquivariance
take 73 MB and Warp, which torch-sim needs from 0.4 on, 149 MB: they do not fit.
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
WANTED = ("ase", "matscipy", "vesin")
THERE = (
    *("torch", "triton", "numpy", "scipy", "matplotlib", "click", "pyyaml", "tqdm", "pytest", "packaging"),
    "typing_extensions",
)
# What MACE and torch-sim need. MACE wants an e3nn of its own.
_MACE = (
    "mace-torch==0.3.16",
    "e3nn==0.4.4",
    "torch-ema",
    "prettytable",
    "wcwidth",
    "configargparse",
)
_MACE_TOO = ("GitPython", "gitdb", "smmap", "lmdb", "orjson")
_TORCH_SIM = (
    "torch-sim-atomistic==0.3.0",
    "vesin-torch==0.6.2",
    "tables",
    "blosc2==2.7.1",
    "ndindex",
    "numexpr",
    "msgpack",
)
# Of plain Python, without a wheel on PyPI: built here.
BUILT = ("python-hostlist",)
PEERS = (*_MACE, *_MACE_TOO, *_TORCH_SIM, "py-cpuinfo")
THERE_FOR_PEERS = ("h5py", "torchmetrics", "pandas", "opt_einsum", "opt_einsum_fx", "sympy", "rich", "httpx")
PYTHON = "3.12"
GLIBC = (5, 12, 17, 24, 27, 28)  # of manylinux_2_N, which pip matches exactly
MOST_MB = 60.0


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / ".whl", help="Where to; default: .whl.")
@click.option("--also", multiple=True, help="Package to carry as well, with ==VERSION if it is to be a certain one.")
@click.option("--peers", is_flag=True, help="Carry MACE and torch-sim as well.")
@click.option("--have", multiple=True, help="Package that the machine has.")
@click.option("--results", default="gpu_results", show_default=True, help="Folder of the results there.")
@click.option("--check", "only_check", is_flag=True, help="Download nothing.")
def main(
    folder: Path, also: Sequence[str], peers: bool, have: Sequence[str], results: str, only_check: bool
) -> None:  # fmt: skip
    """Download, check, and say how to go on."""
    if not only_check:
        download(folder, [*map(pinned, WANTED), *also, *(PEERS if peers else ())])
        for requirement in BUILT if peers else ():
            pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "-w", str(folder), requirement], check=True)
    wheels = sorted(folder.glob("*.whl"))
    problems = [*lacking(wheels, have), *bad_tags(wheels), *missing(wheels, (*THERE, *THERE_FOR_PEERS, *have))]
    size, tree = (sum(path.stat().st_size for path in paths) / 1e6 for paths in (wheels, tracked()))
    click.echo("\n".join(f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}" for path in wheels))
    click.echo(f"{size:8.2f} MB  wheels\n{tree:8.2f} MB  files of the repository\n{size + tree:8.2f} MB  in all")
    if size + tree > MOST_MB:
        problems.append(f"{size + tree:.1f} MB are more than {MOST_MB:g}: leave something out")
    if problems:
        raise click.ClickException("; ".join(problems))
    click.echo(f"On the machine, in the repository:\n{command(folder.name, results)}")
    click.echo(f"It goes on with the files in {results}: bring them back, and have them there when it is given again.")


def pinned(name: str) -> str:
    """Return a requirement with the version of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.strip() for line in lines if line.startswith(f"{name}=="))


def download(folder: Path, requirements: Iterable[str]) -> None:
    """Fetch wheels for the machine, without what they require."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"--platform=manylinux_2_{number}_x86_64" for number in GLIBC] + ["--platform=manylinux2014_x86_64"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    options = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    for requirement in requirements:
        name = canonicalize_name(Requirement(requirement).name)
        for old in folder.glob("*.whl"):  # two versions of one stop the whole install
            if parse_wheel_filename(old.name)[0] == name:
                old.unlink()
        subprocess.run([*pip, *options, "-d", str(folder), requirement], check=True)


def lacking(wheels: Iterable[Path], have: Iterable[str]) -> list[str]:
    """Name what is wanted and neither among the wheels nor on the machine."""
    known = {canonicalize_name(name) for name in have} | {parse_wheel_filename(path.name)[0] for path in wheels}
    return [f"there is no wheel of {name}" for name in WANTED if name not in known]


def bad_tags(wheels: Iterable[Path]) -> list[str]:
    """Name wheels that pip would refuse on the machine."""
    version = tuple(map(int, PYTHON.split(".")))
    platforms = [f"manylinux_2_{number}_x86_64" for number in GLIBC] + ["manylinux2014_x86_64", "linux_x86_64"]
    allowed = {*cpython_tags(version, platforms=platforms), *compatible_tags(version, "cp312", platforms)}
    return [f"{path.name} is not for Python {PYTHON}" for path in wheels
            if not allowed & parse_wheel_filename(path.name)[3]]  # fmt: skip


def missing(wheels: Sequence[Path], have: Iterable[str]) -> list[str]:
    """Name requirements of the wheels that are neither among them nor on the machine."""
    known = {canonicalize_name(name) for name in have} | {parse_wheel_filename(path.name)[0] for path in wheels}
    environment: Any = {
        **default_environment(),
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "extra": "",
    }
    absent = []
    for path in wheels:
        for requirement in requirements_of(path):
            needed = requirement.marker is None or requirement.marker.evaluate(environment)
            if needed and canonicalize_name(requirement.name) not in known:
                absent.append(f"{path.name} needs {requirement}")
    return absent


def requirements_of(wheel: Path) -> list[Requirement]:
    """Return what a wheel requires, as its METADATA says."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = email.message_from_bytes(archive.read(name))
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


def tracked() -> list[Path]:
    """Return the files of the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def command(folder: str, results: str) -> str:
    """Return what is to be run there."""
    return (
        "python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site "
        f"{folder}/*.whl && PYTHONPATH=/tmp/site python3 benchmarks/speed/gpu.py --all --results {results}"
    )


if __name__ == "__main__":
    main()
