"""How much memory there is, and a refusal of neighbour lists that would not fit.

Linux grants memory that it does not have and ends the process when it is used, so asking is not enough: the need is
estimated beforehand and compared with what is free, limits of containers (cgroups) included.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from asecalc_mlip.errors import NotEnoughMemoryError

__all__ = ["WRONG_UNIT", "available_bytes", "check_list", "gigabytes", "is_out_of_memory"]

# Per edge while a neighbour list is made.
_LIST_BYTES = 200
# Lists of fewer atoms fit anywhere, unless the cell is absurd, which `neighbor_list` refuses.
_FEW_ATOMS = 10_000
# Share of the free memory that an estimate may take up.
_SHARE = 0.8
WRONG_UNIT = "Many edges per atom may also mean a cell or positions in another unit"


def available_bytes(device: torch.device | str) -> float:
    """Memory that is free now without swapping; infinity where it cannot be told."""
    device = torch.device(device)
    if device.type == "cuda":
        # Memory that torch holds in reserve is free for torch.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + reserve)
    return min(_free_in_machine(), _free_in_cgroups(), _free_by_limit())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    words = ("not enough memory", "DefaultCPUAllocator", "out of memory", "alloc_cpu")
    return isinstance(error, RuntimeError) and any(word in text for word in words)


def check_list(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> None:
    """Check before a neighbour list is made whether that of as many atoms, spread evenly, fits into memory.

    Parameters
    ----------
    positions, cell, pbc, cutoff
        As for `asecalc_mlip.neighbors.neighbor_list`.

    Raises
    ------
    NotEnoughMemoryError
        With atoms, edges per atom, the estimate, the free memory, and ways out.
    """
    n_atoms = len(positions)
    if n_atoms < _FEW_ATOMS:
        return
    volume = abs(np.linalg.det(cell)) if np.all(pbc) else np.prod(np.ptp(positions, axis=0) + cutoff)
    per_atom = n_atoms * 4.19 * cutoff**3 / max(volume, 1e-3)
    needed, free = _LIST_BYTES * n_atoms * per_atom, _SHARE * available_bytes("cpu")
    if needed > free:
        raise NotEnoughMemoryError(
            f"the neighbour list of {n_atoms:,} atoms with about {per_atom:.3g} edges per atom within {cutoff:g} Å "
            f"needs about {gigabytes(needed)}; {gigabytes(free)} are free. Take a smaller structure, or a model with "
            f"a shorter cutoff. {WRONG_UNIT}"
        )


def gigabytes(number: float) -> str:
    """Bytes as text."""
    return f"{number / 1e9:.3g} GB"


def _free_in_machine() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return float("inf")


def _free_in_cgroups() -> float:
    """Tightest of the limits that containers and schedulers set, less the memory in use (both versions of cgroups)."""
    free = float("inf")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return free
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers != "" and "memory" not in controllers.split(","):
            continue
        root, names = _CGROUPS["v2" if controllers == "" else "v1"]
        # Every group above limits too. In a container the path may be the host's, of which only the root is mounted.
        parts = Path(path).parts[1:]
        for depth in range(len(parts) + 1):
            free = min(free, _free_in_group(root.joinpath(*parts[:depth]), *names))
    return free


_CGROUPS = {
    "v1": (Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    "v2": (Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")),
}


def _free_in_group(folder: Path, limit: str, usage: str, cache: str) -> float:
    try:
        most = float((folder / limit).read_text())  # "max" where there is none
        used = float((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return float("inf")
    # Cached files count as used, but make room when asked to.
    return max(most - used + float(stat.get(cache, 0)), 0.0)


def _free_by_limit() -> float:
    """Memory that `ulimit -v` leaves."""
    if sys.platform != "linux":
        return float("inf")
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return float("inf")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(float(most - pages * resource.getpagesize()), 0.0)
