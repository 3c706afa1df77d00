"""Far-field training: what counts as far, what is made and labelled, and on which level its energies are."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io import write

from asecalc_mlip.additions.dimers import read_table
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import DataError, InputError
from tests import teacher
from tests.training.levels import files, tiny

pytest.importorskip("schnetpack")
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.teachers import open_teacher  # noqa: E402
from training import train as training  # noqa: E402
from training.config import load_config  # noqa: E402
from training.far.distance import Nearest, weight  # noqa: E402
from training.far.level import open_level  # noqa: E402
from training.far.make import _of_file  # noqa: E402
from training.far.sources import make_structures  # noqa: E402
from training.learn.loop import _Loop  # noqa: E402
from training.settings import SECTIONS, FarConfig  # noqa: E402
from training.start.reference_energies import reference_energies  # noqa: E402

# The level of the data, and another one: energies of the atoms are others, and every bond is weaker.
SAME = "from tests.teacher import Teacher\ncalculator = Teacher()\n"
OTHER = """from tests.teacher import Teacher
class Other(Teacher):
    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        numbers = self.atoms.numbers
        self.results["energy"] += 5.0 * (numbers == 11).sum() - 2.0 * (numbers == 17).sum()
calculator = Other()
"""
# Atoms of the same level, but bonds of two thirds.
WEAK = """from tests.teacher import Teacher, ATOM_ENERGY
class Weak(Teacher):
    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        atoms = sum(ATOM_ENERGY[z] for z in self.atoms.numbers)
        self.results["energy"] = atoms + (self.results["energy"] - atoms) * 2.0 / 3.0
        self.results["forces"] = self.results["forces"] * 2.0 / 3.0
calculator = Weak()
"""
MISSING = """from tests.teacher import Teacher
class Missing(Teacher):
    def calculate(self, *arguments, **options):
        raise OSError("no vasp")
calculator = Missing()
"""
# By PySCF before heavy elements had core potentials.
CORELESS = {"teacher": "PBE/def2-SVP", "pyscf": "v2.9.0"}
FAR = ("far.sources=[dimers,bonds,two_step]", "far.n=6", "far.dimers=4", "far.share=0.25")


def far_run(folder, code, *overrides, output="run"):
    data, _ = files(folder)
    (folder / "level.py").write_text(code)
    return tiny(folder, data, f"far.teacher={folder / 'level.py'}:calculator", *FAR, *overrides, output=output)


def test_distance_from_the_data():
    frames = teacher.molecule_frames(20)
    nearest = Nearest(frames, 4.0)
    assert all(nearest.excess(atoms) == 0.0 for atoms in frames)
    squeezed = frames[0].copy()
    i, j = 0, int(np.argsort(squeezed.get_all_distances()[0])[1])
    before = squeezed.get_distance(i, j)
    squeezed.set_distance(i, j, 0.5 * before, fix=0)
    assert nearest.excess(squeezed) > 0.3 * before
    z = [int(z) for z in frames[0].numbers[[i, j]]]
    # Alone, at whatever distance the data have: each atom lacks its other neighbours.
    assert nearest.excess(Atoms(z, [[0, 0, 0], [0, 0, before]])) > 0.5
    assert nearest.excess(Atoms("Au")) == float("inf")
    assert weight(0.0, 0.2) == 0.0 and weight(0.1, 0.2) == pytest.approx(0.5) and weight(5.0, 0.2) == 1.0


@pytest.mark.parametrize(("code", "shift"), [(SAME, {"Na": 0.0, "Cl": 0.0}), (OTHER, {"Na": -5.0, "Cl": 2.0})])
def test_a_teacher_of_one_composition_gives_e0_and_the_shift(code, shift, tmp_path):
    run = training.prepare(far_run(tmp_path, code))
    found = run.far.card["e0_shift_eV"]
    # One composition fixes the sum over a formula unit alone.
    assert sum(found.values()) == pytest.approx(sum(shift.values()), abs=1e-5)
    assert sum(run.e0.values.values()) == pytest.approx(-4.2 - 6.1, abs=1e-5)
    assert run.e0.source == "isolated atoms by level.py:calculator, shifted to the data"
    # Dimers at the cutoff are two atoms.
    ends = [a for a in run.far.frames if len(a) == 2 and a.get_distance(0, 1) > 3.9]
    assert len(ends) == 3
    for atoms in ends:
        assert atoms.info["energy"] == pytest.approx(run.e0.total(atoms.numbers), abs=1e-4)


def test_isolated_atoms_of_the_data_fix_the_shift_of_each_element(tmp_path):
    atoms = [Atoms([z], info={"REF_energy": teacher.ATOM_ENERGY[z]}) for z in (11, 17)]
    write(tmp_path / "atoms.xyz", atoms, format="extxyz")
    run = training.prepare(far_run(tmp_path, OTHER, f"model.isolated_atoms={tmp_path / 'atoms.xyz'}"))
    assert run.far.card["e0_shift_eV"] == pytest.approx({"Na": -5.0, "Cl": 2.0}, abs=1e-5)
    assert run.e0.values == pytest.approx({11: -4.2, 17: -6.1}) and run.e0.method == "isolated"


def test_a_teacher_has_the_binding_energy_of_the_data_where_atoms_have_their_neighbours(tmp_path):
    atoms = [Atoms([z], info={"REF_energy": teacher.ATOM_ENERGY[z]}) for z in (11, 17)]
    write(tmp_path / "atoms.xyz", atoms, format="extxyz")
    isolated = f"model.isolated_atoms={tmp_path / 'atoms.xyz'}"
    sources = ("far.sources=[dimers,two_step]", "far.strength=0.4", "far.width=0.05")
    run = training.prepare(far_run(tmp_path, WEAK, isolated, *sources))
    data = np.mean([run.e0.total(a.numbers) - a.info["energy"] for a in run.training]) / len(run.training[0])
    near, dimers = 0, 0
    for atoms in run.far.frames:
        bound = (run.e0.total(atoms.numbers) - atoms.info["energy"]) / len(atoms)
        exact = atoms.copy()
        exact.calc = teacher.Teacher()
        true = (run.e0.total(atoms.numbers) - exact.get_potential_energy()) / len(atoms)
        if len(atoms) == 2 and 2.0 < atoms.get_distance(0, 1) < 3.0:
            assert bound == pytest.approx(2.0 / 3.0 * true, abs=1e-4)
            dimers += 1
        if len(atoms) > 2 and abs(true - data) < 0.1:
            assert bound == pytest.approx(true, abs=0.05)
            near += 1
    assert dimers and near
    # The network is left with next to nothing of it.
    from asecalc_mlip.models import parts_of

    assert [part.architecture for part in parts_of(run.potential)] == ["painn", "cohesion"]
    assert data > 0.5


def test_an_element_of_one_frame_counts_for_level_and_distance(tmp_path, monkeypatch):
    """Frames that are looked at are spread evenly, and those of rare elements come on top."""
    frames = teacher.crystal_frames(30)
    rare = frames[1].copy()
    rare.numbers[0] = 1
    frames[1] = teacher.labelled(rare)
    level = open_level(far_run(tmp_path, OTHER), frames, tmp_path / "run")
    assert set(level._by_least_squares()) == {1, 11, 17}
    monkeypatch.setattr("training.far.distance.MOST", 5)
    assert Nearest(frames, 4.0).excess(frames[1]) < 0.5


def test_two_elements_that_meet_in_few_frames_alone_are_near_the_data(monkeypatch):
    monkeypatch.setattr("training.far.distance.MOST", 6)
    apart = [Atoms([8 if k % 2 else 6, 1], [[0, 0, 0], [0, 0, 1.0]]) for k in range(60)]
    met = [Atoms([6, 8], [[0, 0, 0], [0, 0, d]]) for d in (1.1, 1.3)]
    nearest = Nearest([apart[0], *met, *apart], 4.0)
    assert nearest.excess(met[0]) == nearest.excess(met[1]) == 0.0
    assert nearest.excess(Atoms([6, 8], [[0, 0, 0], [0, 0, 0.9]])) == pytest.approx(0.2)


MANY = """
import numpy as np
from ase.calculators.calculator import Calculator

class Many(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=None, system_changes=()):
        self.results = {"energy": float(atoms.numbers.sum()), "forces": np.zeros((len(atoms), 3))}

calculator = Many()
"""


def test_the_level_of_many_elements_is_that_of_each(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Atoms(rng.integers(3, 33, size=4), 2.0 * np.eye(4, 3)) for _ in range(300)]
    for atoms in frames:
        atoms.info["energy"] = float((atoms.numbers.astype(float) ** 2).sum())
    level = open_level(far_run(tmp_path, MANY), frames, tmp_path / "run")
    assert level._by_least_squares() == pytest.approx({z: z**2 - z for z in range(3, 33)}, abs=1e-6)


def test_a_teacher_that_labels_nothing_ends_the_run_and_is_asked_again(tmp_path):
    frames = teacher.crystal_frames(4)
    with pytest.raises(InputError, match="neither an isolated atom nor one of 4 training frames: OSError: no vasp"):
        open_level(far_run(tmp_path, MISSING), frames, tmp_path / "run")
    level = open_level(far_run(tmp_path, SAME), frames, tmp_path / "run")
    assert sorted(level.atoms) == [11, 17] and len(level.compared) == 4


def test_structures_are_kept_and_the_share_is_theirs(tmp_path):
    settings = far_run(tmp_path, SAME, "run.steps_per_epoch=8")
    run = training.prepare(settings)
    assert set(run.far.card["structures"]) == {"far_dimers", "far_bonds", "far_two_step"}
    assert all(0 < w <= 0.1 for w in run.far.weights)
    made = [tmp_path / "run" / name for name in ("far_structures.xyz", "far.xyz")]
    before = [path.stat().st_mtime_ns for path in made]
    whole = training.prepare(far_run(tmp_path, SAME, "far.weight=1")).far.weights
    assert 0.5 < max(whole) <= 1 and whole == pytest.approx([10 * w for w in run.far.weights])
    training.train(settings)
    again = training.prepare(settings)
    assert [path.stat().st_mtime_ns for path in made] == before
    assert again.far.weights == run.far.weights
    card = load(tmp_path / "run" / "model.pt").card
    assert card["far"]["share"] == 0.25 and card["far"]["teacher"]["teacher"] == "level.py:calculator"
    run.data.setup()
    order = [i for batch in run.data.train_dataloader().batch_sampler for i in batch]
    assert sum(i >= len(run.split.train) for i in order) == 8


def test_structures_of_a_file_are_labelled_where_the_data_are_far(tmp_path):
    """Those at which runs broke: no source makes them."""
    data, _ = files(tmp_path)
    near, broken, lost = (read_frames(data)[k].copy() for k in range(3))
    broken.positions[1] = broken.positions[0] + [0, 0, 1.6]
    lost.positions[0] = np.nan
    write(tmp_path / "broken.xyz", [near, broken, lost], format="extxyz")
    given = f"far.structures={tmp_path / 'broken.xyz'}"
    run = training.prepare(far_run(tmp_path, SAME, given, "far.sources=[dimers]"))
    assert run.far.card["structures"]["far_structures"] == 1
    (atoms,) = (a for a in run.far.frames if a.info["config_type"] == "far_structures")
    assert np.allclose(atoms.positions, broken.positions, atol=1e-6)
    broken.calc = teacher.Teacher()
    assert np.allclose(atoms.arrays["forces"], broken.get_forces(), atol=1e-4)
    with pytest.raises(InputError, match="far.structures are for a teacher to label, and there is none"):
        training.prepare(tiny(tmp_path, data, given, output="none"))
    write(tmp_path / "gold.xyz", Atoms("Au"), format="extxyz")
    with pytest.raises(InputError, match="gold.xyz has Au, which the data lack"):
        training.prepare(far_run(tmp_path, SAME, f"far.structures={tmp_path / 'gold.xyz'}", output="gold"))


@pytest.mark.parametrize("name", ["eam.pt", "level.py:calculator"])
def test_a_run_goes_on_from_its_own_settings_in_another_folder(name, tmp_path, monkeypatch):
    """These have the whole paths of files that the first command named as they lay there."""
    data, _ = files(tmp_path)
    (tmp_path / "level.py").write_text(SAME)
    monkeypatch.chdir(tmp_path)
    first = training.prepare(tiny(tmp_path, data.name, f"far.teacher={name}", *FAR))
    monkeypatch.chdir(tmp_path.parent)
    again = training.prepare(load_config([tmp_path / "run" / "config.yaml"]))
    assert again.far.weights == first.far.weights


def test_labels_near_the_data_are_those_of_the_data(tmp_path):
    """A structure of the training set, labelled otherwise, has no weight."""
    data, _ = files(tmp_path)
    frames = read_frames(data)
    wrong = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=True) for a in frames]
    for atoms in wrong:
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = 0.0, np.zeros((len(atoms), 3))
    write(tmp_path / "wrong.xyz", wrong, format="extxyz")
    used = ("data.n_train=10", "data.n_val=4", f"far.data={tmp_path / 'wrong.xyz'}", "far.width=1.0", "far.weight=1")
    try:
        run = training.prepare(tiny(tmp_path, data, *used))
    except InputError as error:
        assert "no structure is far from the data" in str(error)
    else:
        assert max(run.far.weights) < 0.05


def test_stress_of_a_molecule_in_a_box(tmp_path):
    run = training.prepare(far_run(tmp_path, SAME, "loss.stress_weight=1", "far.sources=[dimers]"))
    for atoms in run.far.frames:
        assert atoms.pbc.all() and atoms.cell.lengths().min() > 19.0
        pulled = atoms.copy()
        strain = np.diag([1.0, 1.0, 1.0 + 1e-5])
        pulled.set_cell(atoms.cell @ strain, scale_atoms=True)
        pulled.calc, at = teacher.Teacher(), atoms.copy()
        at.calc = teacher.Teacher()
        slope = (pulled.get_potential_energy() - at.get_potential_energy()) / 1e-5 / atoms.get_volume()
        assert atoms.info["stress"][2, 2] == pytest.approx(slope, rel=1e-2, abs=1e-6)


def test_what_cannot_be_is_named(tmp_path):
    data, _ = files(tmp_path)
    with pytest.raises(InputError, match="far.teacher is base, but the run has none"):
        training.prepare(tiny(tmp_path, data, "far.teacher=base"))
    with pytest.raises(InputError, match=r"far\.sources is .*; expected some of dimers"):
        tiny(tmp_path, data, "far.sources=[nowhere]")
    with pytest.raises(InputError, match="leave nothing of a batch"):
        training.prepare(tiny(tmp_path, data, "far.teacher=xtb", "far.share=0.6", "finetune.replay=0.5"))
    pair = Atoms([11, 17], [[0, 0, 0], [0, 0, 1.5]], info={"REF_energy": np.nan})
    pair.arrays["REF_forces"] = np.zeros((2, 3))
    write(tmp_path / "nan.xyz", pair, format="extxyz")
    with pytest.raises(InputError, match=r"far.data: labels of frame 0 of nan.xyz are NaN"):
        training.prepare(tiny(tmp_path, data, f"far.data={tmp_path / 'nan.xyz'}"))
    assert SECTIONS["far"]().teacher is None


def test_the_base_of_a_fine_tuning_keeps_what_it_knows(tmp_path):
    data, eam = files(tmp_path)
    base = training.train(tiny(tmp_path, data, "run.max_epochs=1", output="base")).model
    frames = read_frames(data)
    for atoms in frames:
        atoms.info["REF_energy"] = atoms.info["energy"] + 3.0 * (atoms.numbers == 11).sum()
        atoms.arrays["REF_forces"] = atoms.arrays["forces"]
    write(tmp_path / "new.xyz", frames, format="extxyz")
    run = training.prepare(
        tiny(tmp_path, tmp_path / "new.xyz", f"finetune.base={base}", "far.teacher=base", *FAR, output="fine")
    )
    assert run.far.shift == run.start.shift
    assert sum(run.far.shift.values()) == pytest.approx(3.0, abs=0.5)
    # So the model, before its first step, agrees with these labels.
    from asecalc_mlip.graph import graph_from_atoms

    some = [(a, w) for a, w in zip(run.far.frames, run.far.weights, strict=True) if w > 0.03][:6]
    assert some
    for atoms, _ in some:
        energy = float(run.potential.eval()(graph_from_atoms(atoms, run.potential.cutoff)).detach().sum())
        assert energy == pytest.approx(atoms.info["energy"], abs=1e-2, rel=1e-5)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_hot_dynamics_of_the_teacher_heat_the_structures_of_the_data(tmp_path):
    (tmp_path / "level.py").write_text(SAME)
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    settings = FarConfig(sources=["dynamics"], n=20, temperature=3000.0)
    made = make_structures([crystal], settings, 4.0, open_teacher(f"{tmp_path / 'level.py'}:calculator"))
    assert len(made) == 20 and all(atoms.info == {"config_type": "far_dynamics"} for atoms in made)
    labelled = [teacher.labelled(atoms) for atoms in (crystal, *made)]
    energies = np.array([atoms.info["energy"] for atoms in labelled]) / len(crystal)
    # In the end 3/2 kT for each atom are potential energy; half comes at once from the velocities.
    assert energies[1:].min() > energies[0]
    assert 0.3 < (energies[-5:].mean() - energies[0]) / (1.5 * units.kB * 3000.0) < 1.2


def test_labels_without_core_potentials_are_refused(tmp_path):
    atoms = Atoms("HI", [[0, 0, 0], [0, 0, 1.6]], info={"REF_energy": -1.0, **CORELESS})
    atoms.arrays["REF_forces"] = np.zeros((2, 3))
    write(tmp_path / "far.xyz", atoms)
    config = load_config([], [f"far.data={tmp_path / 'far.xyz'}"])
    with pytest.raises(DataError, match="without core potentials of I, and wrong: frame 0 of far.xyz"):
        _of_file(config, None)
    with pytest.raises(DataError, match="without core potentials of I"):
        _Loop._take_given(SimpleNamespace(folder=SimpleNamespace(path=tmp_path)), str(tmp_path / "far.xyz"))
    alone = Atoms("I", info={"energy": -1.0, **CORELESS})
    with pytest.raises(DataError, match="without core potentials of I"):
        read_table([alone])
    for options in ({"method": "fit", "atoms": [alone]}, {"method": "isolated", "isolated": [alone]},
                    {"method": "fit", "isolated": [alone]}):  # fmt: skip
        with pytest.raises(DataError, match="without core potentials of I"):
            reference_energies([Atoms("I2", info={"energy": -2.0})], **options)
