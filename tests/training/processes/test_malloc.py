"""Memory that a step frees is there for the next one."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# Storages below the size that is mapped anew every time; their sum is above what malloc keeps by default. Only the
# storages come and go, the last one first: small objects between them would keep the top of the heap from growing,
# and malloc hands back nothing else.
CODE = """
import resource, torch
from training.processes.malloc import keep_freed_memory
storages = [torch.empty(0).untyped_storage() for _ in range(60)]
def step():
    for storage in storages: storage.resize_(2**22).fill_(1)
    for storage in reversed(storages): storage.resize_(0)
def faults():
    for _ in range(3): step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3): step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_no_page_faults_once_kept():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True)
    before, kept, after = done.stdout.split()
    # 180 tensors of 4 MB are 180 000 pages.
    assert kept == "True" and int(after) < 10_000 < 100_000 < int(before)
