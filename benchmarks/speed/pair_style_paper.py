"""Messages, bytes and efficiency of pair_style asecalc on paper, from measured compute, latency and bandwidth.

python benchmarks/speed/pair_style_paper.py --ping            # measure latency and bandwidth between two ranks
python benchmarks/speed/pair_style_paper.py                   # tables for docs/howto/lammps-mpi.md
python benchmarks/speed/pair_style_paper.py --latency 1.5 --bandwidth 12     # of a network: µs and GB/s

A rank is a cube of N atoms, of side a = (N/ρ)^⅓. Its ghosts fill a shell of thickness h around it, ρ((a + 2h)³ − a³),
with h one cutoff and the skin of the neighbour lists. A step takes

    c N + messages · latency + ghosts · bytes / bandwidth

with c from benchmarks/results/lammps.json. Positions and forces of ghosts are in the bytes and messages. A model whose
ghosts are L cutoffs deep instead computes on L − 1 of them as well.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asecalc_mlip.files import write_json

RESULT = Path(__file__).parents[1] / "results" / "lammps.json"
DENSITY = 0.0796  # atoms/Å³ of quartz
CUTOFF, SKIN = 5.0, 1.0
FLOAT, SWAPS, COORDINATES = 4, 6, 48
CORES = (10, 100, 1_000, 10_000)
ATOMS = (10**6, 10**7, 10**8, 10**9)
PING = """
#include <mpi.h>
#include <cstdio>
#include <vector>
int main(int c, char** v) {
  MPI_Init(&c, &v);
  int me;
  MPI_Comm_rank(MPI_COMM_WORLD, &me);
  for (int n = 8; n <= (1 << 21); n *= 512) {
    std::vector<char> b(n);
    double best = 1e9;
    for (int r = 0; r < 200; ++r) {
      MPI_Barrier(MPI_COMM_WORLD);
      const double t = MPI_Wtime();
      for (int k = 0; k < 4; ++k)
        for (int from = 0; from < 2; ++from)
          if (me == from) MPI_Send(b.data(), n, MPI_CHAR, 1 - me, 0, MPI_COMM_WORLD);
          else MPI_Recv(b.data(), n, MPI_CHAR, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      const double d = (MPI_Wtime() - t) / 8;
      if (d < best) best = d;
    }
    if (me == 0) std::printf("%d %g\\n", n, best);
  }
  MPI_Finalize();
}
"""


@dataclass(frozen=True)
class Network:
    """Numbers that ghosts get in a step, and in how many exchanges."""

    name: str
    layers: int
    exchanges: int
    numbers: int

    @property
    def bytes(self) -> int:
        """For a ghost, with its position and force."""
        return FLOAT * self.numbers + COORDINATES

    @property
    def messages(self) -> int:
        """Of a rank, one to each of six neighbours for every exchange."""
        return SWAPS * (self.exchanges + 2)


# x and μ, 6 F, before each block but the first, gq and gm, 4 F, behind each but the first; Y and gm, 9 F, each block.
NETWORKS = [Network("painn-64", 3, 4, 2 * 6 * 64 + 2 * 4 * 64), Network("tensornet-64", 2, 4, 4 * 9 * 64)]


def ghosts(atoms: float, depth: float) -> float:
    """Of a cube of atoms."""
    side = (atoms / DENSITY) ** (1.0 / 3.0)
    return DENSITY * ((side + 2 * depth) ** 3 - side**3)


def efficiency(net: Network, atoms: float, compute_us: float, latency_us: float, bandwidth: float) -> float:
    """Share of a step that a rank with so many atoms computes."""
    work = compute_us * atoms
    talk = net.messages * latency_us + ghosts(atoms, CUTOFF + SKIN) * net.bytes / (bandwidth * 1e3)
    return work / (work + talk)


def with_deep_ghosts(net: Network, atoms: float) -> float:
    """Share of the work that is not done on ghosts, where no features are exchanged."""
    return atoms / (atoms + ghosts(atoms, (net.layers - 1) * CUTOFF))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ping", action="store_true", help="measure between two ranks of this machine")
    parser.add_argument("--latency", type=float, help="µs; default: as measured")
    parser.add_argument("--bandwidth", type=float, help="GB/s; default: as measured")
    chosen = parser.parse_args()
    stored = json.loads(RESULT.read_text())
    if chosen.ping:
        stored["ping"] = ping()
        write_json(RESULT, stored)
    latency = chosen.latency or stored["ping"]["latency_us"]
    bandwidth = chosen.bandwidth or stored["ping"]["bandwidth_GB_s"]
    print(f"latency {latency:.2f} µs, bandwidth {bandwidth:.1f} GB/s\n")
    _shell()
    for net in NETWORKS:
        keys = (f"{net.name} {n} pair 1" for n in (15552, 2025, 576))
        row = next((stored["rows"][key] for key in keys if key in stored["rows"]), None)
        if row is None:
            print(f"\n{net.name}: not measured")
            continue
        _table(net, row["us_per_atom"], latency, bandwidth)
        _check(net, stored["rows"], row["us_per_atom"], latency, bandwidth)


def _shell() -> None:
    print("| atoms of a rank | ghosts, 1 layer | 2 layers | 3 layers |\n|---|---|---|---|")
    for atoms in (10**3, 10**4, 10**5, 10**6):
        found = [ghosts(atoms, layers * CUTOFF + SKIN) / atoms for layers in (1, 2, 3)]
        print(f"| {atoms:,} | " + " | ".join(f"{ratio:.2f}" for ratio in found) + " |")


def _table(net: Network, compute: float, latency: float, bandwidth: float) -> None:
    print(f"\n{net.name}: {net.messages} messages a step, {net.bytes} bytes for a ghost, {compute:.1f} µs/atom")
    print("| atoms | cores | atoms of a rank | MB a step and rank | efficiency | with ghosts of all layers |")
    print("|---|---|---|---|---|---|")
    for total in ATOMS:
        for cores in CORES:
            atoms = total / cores
            volume = ghosts(atoms, CUTOFF + SKIN) * net.bytes * 1e-6
            share = efficiency(net, atoms, compute, latency, bandwidth)
            deep = with_deep_ghosts(net, atoms)
            print(f"| {total:,} | {cores:,} | {atoms:,.0f} | {volume:.2f} | {100 * share:.0f} % | {100 * deep:.0f} % |")


def _check(net: Network, rows: dict, compute: float, latency: float, bandwidth: float) -> None:
    for n in (2025, 15552, 104976):
        keys = [f"{net.name} {n} pair {ranks}" for ranks in (1, 2)]
        if all(key in rows for key in keys):
            measured = rows[keys[0]]["ms_per_step"] / rows[keys[1]]["ms_per_step"]
            # One rank has ghosts as well, images of its own atoms, which only need copying.
            expected = 2 * efficiency(net, n / 2, compute, latency, bandwidth)
            print(f"{net.name}, {n} atoms: 2 ranks {measured:.2f} × 1 rank, {expected:.2f} × on paper")


def ping() -> dict[str, float]:
    """Latency of 8 bytes and bandwidth of 2 MB between two ranks: the best of many."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ping.cpp").write_text(PING)
        bin_ = Path(sys.prefix) / "bin"
        subprocess.run([bin_ / "mpicxx", "-O2", "ping.cpp", "-o", "ping"], cwd=folder, check=True)
        done = subprocess.run(
            [bin_ / "mpirun", "-n", "2", "./ping"], cwd=folder, check=True, capture_output=True, text=True
        )
    times = {int(n): float(t) for n, t in re.findall(r"^(\d+) (\S+)$", done.stdout, re.MULTILINE)}
    largest = max(times)
    return {"latency_us": 1e6 * times[8], "bandwidth_GB_s": 1e-9 * largest / times[largest]}


if __name__ == "__main__":
    main()
