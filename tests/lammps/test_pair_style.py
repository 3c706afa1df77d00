"""pair_style asecalc: the calculator's energies, forces and pressures on one rank and on two, whatever the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.io import read

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import save
from asecalc_mlip.lammps.export import write_plain
from asecalc_mlip.zoo import FOLDER as ZOO
from tests.cases import make_potential
from tests.lammps.runs import PRESSURES, built, header, lmp, single_point

ELEMENTS = ["Si", "O"]
# The sums of the shipped models are a network with a core or an EAM.
FILES = ["painn", "schnet", "tensornet", "tensornet-own", "eam", "sum"]


@pytest.fixture(scope="module", autouse=True)
def needs_plugin():
    built()


def turned(atoms: Atoms) -> Atoms:
    """With the cell as LAMMPS wants it: a along x, b in the xy plane."""
    atoms = atoms.copy()
    q, r = np.linalg.qr(atoms.cell.array.T)
    signs = np.sign(np.diag(r))
    atoms.set_cell((r * signs[:, None]).T, scale_atoms=True)
    return atoms


def skewed() -> Atoms:
    """16 atoms in a triclinic cell smaller than two cutoffs, none where symmetry would put it."""
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0, 0], [0.1, 1.05, 0], [-0.08, 0.12, 0.97]]), scale_atoms=True)
    atoms.rattle(0.12, seed=3)
    return turned(atoms)


def model_of(name: str, folder, dtype: torch.dtype = torch.float64):
    """Model file, and beside it the plain one, which starts LAMMPS without a start of Python."""
    path = folder / f"{name}.pt"
    architecture, _, own = name.partition("-")
    changes = {"messages": "own"} if own else {}
    if architecture in ("painn", "schnet", "tensornet"):
        changes["n_features"] = 16
    save(path, make_potential(architecture, dtype=dtype, **changes), card={"name": "test"})
    write_plain(path, path.with_suffix(".asecalc"), dtype="float32" if dtype == torch.float32 else "float64")
    return path


def compare(run, reference: Atoms, *, dump: str = "forces.dump", at: int = -1, loose: bool = False):
    """Energy per atom, forces and pressure of a run beside those of the structure's calculator."""
    energy, forces, virial = (1e-7, 1e-5, 1e-5) if loose else (1e-9, 1e-8, 1e-6)
    thermo = run.thermo[at]
    assert thermo["PotEng"] == pytest.approx(reference.get_potential_energy(), abs=energy * len(reference))
    np.testing.assert_allclose(run.forces(dump), reference.get_forces(), atol=forces)
    if reference.pbc.all():
        expected = -reference.get_stress() / units.bar
        found = [thermo[name.capitalize()] for name in PRESSURES]
        np.testing.assert_allclose(found, expected, atol=virial * abs(expected).max())


@pytest.fixture(scope="module")
def every_architecture(tmp_path_factory):
    """One run for each number of ranks, in which all models follow one another."""
    folder = tmp_path_factory.mktemp("all")
    script = ""
    for name in FILES:
        dtype = torch.float32 if name == "schnet" else torch.float64
        model = model_of(name, folder, dtype)
        style = "asecalc" if name == "schnet" else "asecalc float64"
        script += "clear\n" + header(skewed(), folder, ELEMENTS)
        script += single_point(model, ELEMENTS, style=style, dump=f"{name}.{{ranks}}.dump")
    return {ranks: lmp(script.replace("{ranks}", str(ranks)), folder, ranks=ranks) for ranks in (1, 2)}


@pytest.mark.parametrize("name", FILES)
def test_every_architecture_on_one_rank_and_on_two(every_architecture, name):
    """Forces of random networks are small; those of the calculator are checked to be none that rounding would hide."""
    single = name == "schnet"
    for ranks, run in every_architecture.items():
        atoms = skewed()
        atoms.calc = PIWSLCalculator.load(run.folder / f"{name}.pt", dtype="float32" if single else "float64")
        assert abs(atoms.get_forces()).max() > 0.01
        compare(run, atoms, dump=f"{name}.{ranks}.dump", at=FILES.index(name), loose=single)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_shipped_silica_in_float32(tmp_path, ranks):
    atoms = turned(read(ZOO / "silica.xyz").repeat((2, 1, 1)))
    atoms.rattle(0.05, seed=1)
    script = header(atoms, tmp_path, ELEMENTS) + single_point("silica.pt", ELEMENTS, style="asecalc")
    run = lmp(script, tmp_path, ranks=ranks)
    atoms.calc = PIWSLCalculator.load("silica.pt")
    compare(run, atoms, loose=True)
    assert "painn + eam, float32, cutoff 5.000" in run.text


def test_a_slab_whose_second_rank_has_no_atoms(tmp_path):
    """Vacuum above, a wall that is not periodic, and the box cut in two across it."""
    atoms = skewed()
    atoms.set_cell(np.diag([9.0, 4.5, 4.5]))
    atoms.rattle(0.1, seed=5)
    atoms.center(vacuum=12.0, axis=2)
    atoms.positions[:, 2] -= 10.0
    atoms.pbc = [True, True, False]
    model = model_of("painn", tmp_path)
    script = "processors 1 1 2\n" + header(atoms, tmp_path, ELEMENTS) + single_point(model, ELEMENTS)
    run = lmp(script, tmp_path, ranks=2)
    atoms.calc = PIWSLCalculator.load(model, dtype="float64")
    compare(run, atoms)
    assert "Nlocal:              8 ave          16 max           0 min" in run.text


def test_energies_and_virials_of_atoms(tmp_path):
    """Those of the atoms are the calculator's, and add up to the total."""
    atoms, model = skewed(), model_of("sum", tmp_path)
    extra = (
        "compute e all pe/atom\ncompute s all stress/atom NULL virial\n"
        "compute t all reduce sum c_s[1] c_s[2] c_s[3] c_s[6] c_s[5] c_s[4]\n"
        "dump 2 all custom 1 atoms.dump id c_e c_e c_e\ndump_modify 2 sort id format float %.12g\n"
    )
    script = header(atoms, tmp_path, ELEMENTS) + extra
    script += single_point(model, ELEMENTS).replace("pxy\n", "pxy vol c_t[*]\n")
    run = lmp(script, tmp_path, ranks=2)
    atoms.calc = PIWSLCalculator.load(model, dtype="float64")
    energies = run.forces("atoms.dump")[:, 0]
    np.testing.assert_allclose(energies, atoms.get_potential_energies(), atol=1e-8)
    thermo = run.thermo[0]
    total = np.array([thermo[f"c_t[{k}]"] for k in range(1, 7)]) / thermo["Volume"]
    np.testing.assert_allclose(total, [-thermo[name.capitalize()] for name in PRESSURES], rtol=1e-9)


def test_hybrid_overlay_adds_another_pair_style(tmp_path):
    atoms, model = skewed(), model_of("painn", tmp_path).with_suffix(".asecalc")
    ours = single_point(model, ELEMENTS, dump="ours.dump")
    other = single_point("0.01", ["2.2"], style="lj/cut 4.0", dump="other.dump")
    both = single_point(
        f"asecalc {model}", ELEMENTS, style="hybrid/overlay asecalc float64 lj/cut 4.0", dump="both.dump"
    )
    both = both.replace("thermo_style", "pair_coeff * * lj/cut 0.01 2.2\nthermo_style")
    start = "clear\n" + header(atoms, tmp_path, ELEMENTS)
    run = lmp(start + ours + start + other + start + both, tmp_path, ranks=2)
    forces = [run.forces(f"{name}.dump") for name in ("ours", "other", "both")]
    np.testing.assert_allclose(forces[2], forces[0] + forces[1], atol=1e-8)
    energies = [thermo["PotEng"] for thermo in run.thermo]
    assert energies[2] == pytest.approx(energies[0] + energies[1], abs=1e-8)


def test_types_of_another_style_are_not_there(tmp_path):
    """With NULL for oxygen the model sees silicon alone."""
    atoms, model = skewed(), model_of("painn", tmp_path)
    style = single_point(
        f"asecalc {model.with_suffix('.asecalc')}", ["Si", "NULL"], style="hybrid asecalc float64 zero 4.0"
    )
    style = style.replace("thermo_style", "pair_coeff * 2 zero\nthermo_style")
    run = lmp(header(atoms, tmp_path, ELEMENTS) + style, tmp_path, ranks=2)
    silicon = atoms[atoms.numbers == 14]
    silicon.calc = PIWSLCalculator.load(model, dtype="float64")
    assert run.thermo[0]["PotEng"] == pytest.approx(silicon.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(run.forces()[atoms.numbers == 14], silicon.get_forces(), atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("units metal", "units real"), "write units metal, not real"),
        (("float64", "float16"), "float16 is not allowed here; expected float32 or float64"),
        (("Si O\n", "Si C\n"), "the model does not know C; it knows"),
        (("Si O\n", "Si\n"), "the element of each of the 2 atom types"),
        (("atom_style atomic", "newton off\natom_style atomic"), "needs newton on"),
        (("silica.asecalc", "nowhere.pt"), "model file 'nowhere.pt' does not exist"),
    ],
)
def test_errors_name_the_next_step(tmp_path, change, message):
    write_plain("silica.pt", tmp_path / "silica.asecalc", dtype="float64")
    script = header(skewed(), tmp_path, ELEMENTS) + single_point("silica.asecalc", ELEMENTS)
    assert change[0] in script
    run = lmp(script.replace(*change), tmp_path, fails=True)
    assert message in " ".join(run.text.split())


def test_an_architecture_without_kernel_is_told_the_bridge(tmp_path):
    save(tmp_path / "et.pt", make_potential("torchmd_et", dtype=torch.float32), card={"name": "test"})
    run = lmp(header(skewed(), tmp_path, ELEMENTS) + single_point("et.pt", ELEMENTS), tmp_path, fails=True)
    assert "On one process, any model runs by a fix external: asecalc lammps et.pt SCRIPT" in " ".join(run.text.split())


def test_a_damaged_export_is_refused(tmp_path):
    write_plain("silica.pt", tmp_path / "silica.asecalc")
    content = bytearray((tmp_path / "silica.asecalc").read_bytes())
    script = header(skewed(), tmp_path, ELEMENTS) + single_point("x.asecalc", ELEMENTS, style="asecalc")
    for change, message in ((lambda c: c[:-100], "it is cut off"), (_flipped, "its checksum does not fit")):
        (tmp_path / "x.asecalc").write_bytes(change(content))
        assert message in lmp(script, tmp_path, fails=True).text
    assert (
        "write pair_style asecalc float32"
        in lmp(
            script.replace("x.asecalc", "silica.asecalc").replace("asecalc\n", "asecalc float64\n"),
            tmp_path,
            fails=True,
        ).text
    )


def _flipped(content: bytearray) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)
