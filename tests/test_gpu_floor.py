"""The table of least times in the docs is what the script prints, and its arithmetic is right where it is easy."""

from pathlib import Path

from benchmarks.speed.gpu_floor import MODELS, Kernel, rows


def test_the_page_has_the_table():
    page = (Path(__file__).resolve().parents[1] / "docs" / "howto" / "gpu.md").read_text()
    assert "\n".join(rows()) in page


def test_a_kernel_by_hand():
    kernel = Kernel("messages", parts=3, gathered=6, streamed=11, adds=10, slopes=False, times=2)
    # Eighteen numbers of a table and six of a neighbour, 28 multiply-adds, for each of 128 channels.
    assert kernel.cached(1, 128) == 4 * 128 * 24
    assert kernel.operations(1, 128) == 2 * 128 * 28
    assert kernel.bytes(1000, 0, 128) == 4 * 128 * (11 * 1000 + 3 * 300)


def test_three_blocks_of_painn_are_six_passes():
    assert sum(kernel.times for kernel in MODELS["PaiNN, 128 × 3"].kernels) == 6
