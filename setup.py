"""Packaging of asecalc-mlip.

``pip install .`` installs what running a model needs. Training (extra ``train``) is built on SchNetPack, which from
2.2 on works with current PyTorch and declares Python 3.12 or newer: on 3.11 pip refuses the extra and says why.
SchNetPack runs on 3.11 all the same; ``make`` installs it there, past what it declares.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent


def read(name: str) -> str:
    """Return a text file beside this one, or nothing if it is not there."""
    path = HERE / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def version() -> str:
    """Read the version without importing the package, whose requirements may not be installed yet."""
    match = re.search(r'__version__ = "([^"]+)"', read("asecalc_mlip/_version.py"))
    if match is None:
        raise RuntimeError("asecalc_mlip/_version.py holds no version")
    return match.group(1)


INFERENCE = [
    "numpy>=2.0",
    "scipy>=1.13",
    "ase>=3.26",
    "torch>=2.6",
    "matscipy>=1.1",
    "vesin>=0.5.8",
    "click>=8.1",
    "pyyaml>=6.0",
    "tqdm>=4.66",
    "matplotlib>=3.8",
]

LIGHTNING = ["pytorch_lightning>=2.4", "tensorboard>=2.17.1"]

# What SchNetPack 2.2 imports: where make installs it on Python 3.11, pip does not look at its requirements.
SCHNETPACK_IMPORTS = [
    "sympy>=1.13",
    "h5py>=3.10",
    "hydra-core>=1.3",
    "hydra-colorlog>=1.2",
    "torchmetrics>=1.4",
    "rich>=13",
    "fasteners>=0.19",
    "dirsync>=2.2.5",
    "torch-ema>=0.3",
    "tensorboardX>=2.6.2.2",
    "progressbar>=2.5",
]

# Message passing in C++, loaded by ctypes: no torch is needed to build it, and without a compiler the package falls
# back to plain torch. No -ffast-math: linking with it would change the arithmetic of the whole process. No symbols for
# debuggers, which Python's own flags ask for: with them the compiler takes a third longer for a far larger library.
KERNEL_FLAGS = ["-O3", "-std=c++17", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-Wno-psabi"]
KERNEL_FLAGS.append("-g0")
KERNELS = Extension(
    "asecalc_mlip.kernels._native",
    sorted(path.relative_to(HERE).as_posix() for path in HERE.glob("asecalc_mlip/kernels/*.cpp")),
    language="c++",
    extra_compile_args=[] if os.name == "nt" else KERNEL_FLAGS,
    extra_link_args=[] if os.name == "nt" else ["-pthread"],
    depends=sorted(path.relative_to(HERE).as_posix() for path in HERE.glob("asecalc_mlip/kernels/*.h")),
    optional=True,
)


class ParallelBuild(build_ext):
    """Compiles the sources of an extension side by side: setuptools does so for whole extensions only."""

    def build_extension(self, extension):
        """Build one extension, a compiler per processor."""
        compile_all = self.compiler.compile

        def compile_each(sources, *args, **options):
            # Those that take long first, else the last of them is compiled alone.
            sources = sorted(sources, key=os.path.getsize, reverse=True)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda source: compile_all([source], *args, **options), sources))
            return [path for paths in objects for path in paths]

        self.compiler.compile = compile_each
        super().build_extension(extension)


class AnyPythonWheel(bdist_wheel):
    """A wheel for one platform and any Python 3: the kernels are a plain library that knows nothing of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Say so in the name of the wheel."""
        return ("py3", "none", super().get_tag()[2])


setup(
    name="asecalc-mlip",
    version=version(),
    description="Machine-learned interatomic potentials that stay physical in dynamics, as ASE calculators",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    author="asecalc-mlip contributors",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["asecalc_mlip*", "training*", "md_protocols*"]),
    package_data={
        "asecalc_mlip": [
            "zoo/*.pt",
            "zoo/*.xyz",
            "zoo/*.json",
            "kernels/*.cpp",
            "kernels/*.h",
            "lammps/pair/*",
            "md/*.yaml",
            "probes/*.json",
            "py.typed",
        ],
        "training": ["defaults.yaml"],
    },
    ext_modules=[KERNELS],
    cmdclass={"bdist_wheel": AnyPythonWheel, "build_ext": ParallelBuild},
    install_requires=INFERENCE,
    extras_require={
        # No marker for the version of Python: what cannot train must not install in silence.
        "train": [*LIGHTNING, "schnetpack>=2.2"],
        "train-python311": [*LIGHTNING, *SCHNETPACK_IMPORTS],  # for make only
        "tune": ["optuna>=4.0,<6"],
        "xtb": ["tblite>=0.4"],
        "pyscf": ["pyscf>=2.6"],
        "phonons": ["phonopy>=2.38", "spglib>=2.5"],
        "torch-sim": ["torch-sim-atomistic>=0.3"],
        "cluster": ["distributed>=2024.1"],
        "lammps": ["lammps[mpi]>=2024.8.29"],
        "hdf5": ["h5py>=3.10"],
        "docs": ["sphinx>=8.1", "furo>=2024.8.6", "myst-parser>=4.0"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "pytest-cov>=6",
            "ruff>=0.9",
            "mypy>=1.13",
            "pre-commit>=4",
            "torch-geometric>=2.6",
        ],
    },
    entry_points={
        "console_scripts": ["asecalc = asecalc_mlip.cli:main"],
        "lammps.plugins": ["asecalc = asecalc_mlip.lammps.plugin:folder"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C++",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Chemistry",
        "Topic :: Scientific/Engineering :: Physics",
        "Typing :: Typed",
    ],
)
