"""The tables of least times in the docs are what the script prints, and its arithmetic is right where it is easy."""

import re
from pathlib import Path

from benchmarks.speed.gpu_floor import GPUS, MODELS, TRAINING, Kernel, rows, training_rows

H100 = GPUS["h100"]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "development" / "gpu.md"


def test_the_page_has_the_tables():
    page = PAGE.read_text()
    assert "\n".join(rows(H100)) in page and "\n".join(training_rows(H100)) in page
    # Of the other GPU the page tells some of the sums.
    told = re.findall(r"PaiNN ([\d.]+) ms, SchNet ([\d.]+) ms and TensorNet ([\d.]+) ms", page)
    sums = [[cell.strip() for cell in row.split("|")][7] for row in rows(GPUS["h200"]) if "quartz 20 250" in row]
    assert told == [tuple(f"{float(number) / 1e3:.3g}" for number in sums)]


def test_a_kernel_by_hand():
    kernel = Kernel("messages", 2, streamed=11, parts=3, table=18, gathered=6, work=46, edge=24, sums=4)
    # Eighteen numbers of a table and six of a neighbour, for each of 128 channels.
    assert kernel.cached(1, 128) == 4 * 128 * 24
    assert kernel.operations(1, 128) == 128 * 46
    assert kernel.bytes(1000, 0, 128) == 4 * 128 * (11 * 1000 + 2 * 3 * 300)
    # Of four blocks of channels.
    assert kernel.bytes(0, 1000, 128) - kernel.bytes(0, 0, 128) == 1000 * (24 + 4 * 4 * 4)
    assert kernel.least(H100, 0, 10**6, 128) == 2e6 * 128 * 46 * 10**6 / 60e12


def test_three_blocks_of_painn_are_six_passes():
    assert sum(kernel.times for kernel in MODELS["PaiNN, 128 × 3"].kernels if "convolve" in kernel.name) == 6


def test_a_training_step_by_hand():
    """Three blocks of PaiNN stream 19 + 2 × 29 numbers an edge and channel; forward, twice back, along, second."""
    kernels = TRAINING["PaiNN, 128 × 3"].kernels
    assert sum(kernel.times * kernel.along for kernel in kernels) == (2 + 8 + 4 + 5) + 2 * (3 + 12 + 6 + 8)
    assert sum(kernel.times for kernel in kernels) == 15
    assert kernels[0].bytes(0, 1, 128) == 4 * 128 * 2 + 32
