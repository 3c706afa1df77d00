"""Memory that a step frees is there for the next one."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Storages below the size that is mapped anew every time; their sum is above what malloc keeps by default. Only the
# storages come and go, the last one first: small objects between them would keep the top of the heap from growing,
# and malloc hands back nothing else.
CODE = """
import resource, torch
from training.malloc import keep_freed_memory
if {keep}: assert keep_freed_memory()
storages = [torch.empty(0).untyped_storage() for _ in range(60)]
def step():
    for storage in storages: storage.resize_(2**22).fill_(1)
    for storage in reversed(storages): storage.resize_(0)
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
    assert faults[1] < 10_000 < 100_000 < faults[0]
