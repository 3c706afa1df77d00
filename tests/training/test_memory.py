"""Memory that a step frees is there for the next one."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Tensors below the size that is mapped anew every time; their sum is above what malloc keeps by default.
CODE = """
import resource, torch
from training.memory import keep_freed_memory
if {keep}: assert keep_freed_memory()
def step(): return [torch.ones(2**20) for _ in range(60)]
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_no_page_faults_once_kept():
    faults = [
        int(subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], cwd=REPOSITORY, capture_output=True).stdout)
        for keep in (False, True)
    ]
    # 180 tensors of 4 MB are 180 000 pages.
    assert faults[1] < 1000 < faults[0]
