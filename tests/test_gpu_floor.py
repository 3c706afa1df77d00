"""The table of least times in the docs is what the script prints, and its arithmetic is right where it is easy."""

from pathlib import Path

from benchmarks.speed.gpu_floor import MODELS, TRAINING, Kernel, rows, training_rows


def test_the_page_has_the_table():
    page = (Path(__file__).resolve().parents[1] / "docs" / "development" / "gpu.md").read_text()
    assert "\n".join(rows()) in page and "\n".join(training_rows()) in page


def test_a_kernel_by_hand():
    kernel = Kernel("messages", parts=3, gathered=6, streamed=11, adds=10, slopes=False, times=2)
    # Eighteen numbers of a table and six of a neighbour, 25 multiply-adds, for each of 128 channels.
    assert kernel.cached(1, 128) == 4 * 128 * 24
    assert kernel.operations(1, 128) == 2 * 128 * 25
    assert kernel.bytes(1000, 0, 128) == 4 * 128 * (11 * 1000 + 2 * 3 * 300)


def test_three_blocks_of_painn_are_six_passes():
    assert sum(kernel.times for kernel in MODELS["PaiNN, 128 × 3"].kernels) == 6


def test_a_training_step_by_hand():
    """Three blocks of PaiNN stream 20 + 2 × 30 numbers an edge and channel; forward, twice back, along, second."""
    kernels = TRAINING["PaiNN, 128 × 3"].kernels
    assert sum(kernel.times * kernel.along for kernel in kernels) == (2 + 8 + 4 + 6) + 2 * (3 + 12 + 6 + 9)
    assert sum(kernel.times for kernel in kernels) == 15
    assert kernels[0].bytes(0, 1, 128) == 4 * 128 * 2 + 32
