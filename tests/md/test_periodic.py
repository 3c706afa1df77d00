"""Periodic systems: g(r) against a reference, its window, references by file, the shipped structure and temperature."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from asecalc_mlip.analysis import MoleculeReference, PeriodicReference, load_reference
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.monitor import Monitor
from asecalc_mlip.md.resolving import Resolved
from asecalc_mlip.md.settings import MDSettings, make_settings
from asecalc_mlip.md.summary import summary_text
from tests.md import toys
from tests.md.commands import call
from tests.md.restarts import assert_same_run, go_on, killed_at


def cell():
    return bulk("Cu", cubic=True) * 2


def rattled(spread=0.08, n=30):
    """Frames of a crystal that vibrates."""
    rng = np.random.default_rng(0)
    frames = [cell() for _ in range(n)]
    for frame in frames:
        frame.positions += spread * rng.standard_normal((len(frame), 3))
    return frames


def melt(atoms, forces):
    """Draw every second layer aside, gently: order is lost, but no two atoms come too close."""
    goal = cell().positions
    goal[np.round(goal[:, 2] / 1.805) % 2 == 1, 0] += 0.9
    return 0.3 * (goal - atoms.positions) - 0.02 * atoms.get_momenta()


class Planted(toys.EMT):
    """EMT whose forces change at a given call."""

    def __init__(self, start, change):
        super().__init__()
        self.start, self.change, self.count = start, change, 0

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.count += 1
        if self.count >= self.start:
            self.results["forces"] = self.change(self.atoms, self.results["forces"])


def reference_at_300K(**options):
    """Of conditions like those of a run at 300 K."""
    return PeriodicReference.from_frames(rattled(), temperatures_K=(300.0, 300.0), **options)


def monitor(reference, frame_fs=50.0):
    return Monitor(cell(), temperature_K=300.0, ndof=93, reference=reference, frame_fs=frame_fs)


def test_g_of_r_is_judged_when_the_window_is_full_and_not_before():
    watch = monitor(reference_at_300K()).rdf
    assert watch.frames == 20
    broken = rattled(0.6, 20)
    assert all(watch.check(frame, *pairs(frame)) is None for frame in broken[:19])
    failure = watch.check(broken[19], *pairs(broken[19]))
    assert failure.kind == "rdf" and failure.value > failure.limit == 1.0 and "20 frames" in failure.message


def pairs(atoms):
    from asecalc_mlip.neighbors.pairs import pairs_within

    return pairs_within(atoms, 6.0)


def test_a_vibrating_crystal_stays_and_the_window_slides():
    watch = monitor(reference_at_300K(), frame_fs=100.0)
    frames = rattled()
    assert [watch.check(frame) for frame in frames] == [None] * 30
    late = [watch.rdf.check(frame, *pairs(frame)) for frame in rattled(0.6, 10)]
    assert late[0] is None and late[-1].kind == "rdf"  # the old frames hold it below the limit for a while


def test_a_liquid_may_differ_more_and_rare_frames_are_not_judged_alone():
    reference = PeriodicReference.from_frames(rattled(), kind="liquid")
    assert reference.threshold == 3.0
    assert monitor(reference, frame_fs=5000.0).window_frames == 10


def test_a_melting_run_stops_within_a_window_and_keeps_the_frame(tmp_path):
    atoms = cell()
    atoms.calc = Planted(205, melt)
    # The planted forces do not repel, so atoms come nearer than those of any crystal: the limit is the covalent one.
    reference = replace(reference_at_300K(), closest={})
    settings = MDSettings(ensemble="nve", temperature_K=300.0, timestep_fs=2.0, steps=1500, interval=10, seed=1)
    summary = run_md(atoms, settings, tmp_path / "run", reference=reference).summary
    failure = summary["failure"]
    assert failure["kind"] == "rdf" and 205 < failure["step"] <= 205 + 2 * 500
    assert len(read(tmp_path / "run" / "unstable.extxyz")) == 32
    assert summary["rdf_errors"]["Cu-Cu"]["error_percent"] > 0.0
    assert summary["extremes"]["closest_pair"].startswith("Cu") and summary["energy_range_eV_per_atom"] > 0.0
    free = cell()
    free.calc = Planted(205, melt)
    again = MDSettings(**{**settings.to_dict(), "rdf_rule": False, "steps": failure["step"]})
    assert run_md(free, again, tmp_path / "free", reference=reference).stable


def test_restart_keeps_the_window(tmp_path):
    reference = reference_at_300K()
    settings = MDSettings(ensemble="nve", temperature_K=300.0, steps=400, interval=20)

    def start(directory):
        atoms = cell()
        atoms.calc = toys.EMT()
        return run_md(atoms, settings, directory, reference=reference).summary

    whole = start(tmp_path / "whole")
    with killed_at(390):
        start(tmp_path / "cut")
    summary = go_on(toys.EMT(), settings, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert summary["rdf_errors"] == whole["rdf_errors"] and summary["extremes"] == whole["extremes"]


def test_large_forces_are_counted_and_are_no_failure(tmp_path):
    atoms = cell()
    atoms.calc = toys.EMT()
    atoms.calc.card = {"training_forces": {"mean": 0.0, "std": 1e-3}}
    settings = MDSettings(ensemble="nve", temperature_K=300.0, steps=100, interval=10)
    summary = run_md(atoms, settings, tmp_path / "run").summary
    assert summary["stable"] and summary["extremes"]["force_limit"] == 5e-3
    assert summary["extremes"]["force_frames"] == 10  # not the perfect lattice at the start
    assert "in 10 of 11 frames" in summary_text(summary, "run")


def test_volume_out_of_proportion():
    watch = monitor(None)
    squeezed = cell()
    squeezed.set_cell(squeezed.cell * 0.6, scale_atoms=True)
    assert watch.check(squeezed).kind == "volume"


def test_reference_comes_back_from_its_file(tmp_path):
    frames = rattled()
    for frame in frames:
        frame.arrays["REF_forces"] = np.ones((len(frame), 3))
        frame.info["phase"] = "a" if frame is frames[0] else "b"
    made = PeriodicReference.from_frames(frames, "made up", group_by="phase", temperature_K=700.0, protocol="eam-mptrj")
    made.save(tmp_path / "cu.reference.json")
    read_back = PeriodicReference.load(tmp_path / "cu.reference.json")
    assert read_back.rdfs_for(frames[0])["Cu-Cu"].n_frames == 1 and read_back.rdfs_for(cell())["all"].n_frames == 30
    np.testing.assert_allclose(read_back.rdfs["all"].g, made.rdfs["all"].g, rtol=1e-5)
    assert read_back.force_limit == pytest.approx(3**0.5) and read_back.closest["Cu-Cu"] < 2.5
    assert "2 groups by phase" in repr(read_back) and read_back.temperature_K == 700.0


def test_bad_references_are_named(tmp_path):
    with pytest.raises(InputError, match="solid, liquid"):
        PeriodicReference.from_frames(rattled(), kind="gas")
    with pytest.raises(InputError, match="leave group_by out"):
        PeriodicReference.from_frames(rattled(), group_by="topology")
    with pytest.raises(InputError, match="not periodic"):
        PeriodicReference.from_frames(toys.ethanol())
    (tmp_path / "r.json").write_text('{"format": "asecalc-mlip periodic reference", "version": 9}')
    with pytest.raises(InputError, match="version 1"):
        load_reference(tmp_path / "r.json")


def test_the_reference_file_names_structure_temperature_and_protocol(tmp_path, monkeypatch):
    """What `asecalc nvt silica.pt` does, with copper for silica."""
    monkeypatch.chdir(tmp_path)
    from tests.md.models import random_model

    random_model(tmp_path / "copper.pt", {29: -10.0})
    write("copper.xyz", cell(), format="extxyz")
    PeriodicReference.from_frames(rattled(), "made up", temperature_K=900.0, protocol="eam-mptrj").save(
        "copper.reference.json"
    )
    monkeypatch.setattr(Resolved, "calculator", lambda *arguments, **options: toys.EMT())
    result = call("nvt", "copper.pt", "--steps", "40", "--output", "a")
    assert result.exit_code == 0
    settings = json.loads(Path("a/summary.json").read_text())["settings"]
    assert (settings["protocol"], settings["temperature_K"], settings["thermostat"]) == (
        "eam-mptrj",
        1000.0,
        "langevin",
    )
    assert (settings["timestep_fs"], settings["interval"], settings["steps"]) == (1.0, 10, 40)
    assert "Cu-Cu" in result.stdout
    assert call("nvt", "copper.pt", "--steps", "10", "--temperature", "400", "--output", "b").exit_code == 0
    settings = json.loads(Path("b/summary.json").read_text())["settings"]
    assert (settings["protocol"], settings["temperature_K"]) == (None, 400.0)


def test_a_temperature_outside_the_data_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("copper.xyz", cell(), format="extxyz")
    PeriodicReference.from_frames(rattled(), temperatures_K=(490.0, 510.0), threshold_A=1.7).save("r.json")
    common = ["--structure", "copper.xyz", "--reference", "r.json", "--steps", "0"]
    assert PeriodicReference.load("r.json").threshold == 1.7
    result = call("nvt", *common, "--temperature", "500", "--output", "a", calculator=toys.EMT())
    assert result.exit_code == 0 and "Warning" not in result.stderr
    result = call("nvt", *common, "--temperature", "2000", "--output", "b", calculator=toys.EMT())
    assert result.exit_code == 0 and "of 490 to 510 K and the run is at 2000 K" in result.stderr


def test_frames_that_state_no_temperature_are_doubted_as_a_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("copper.xyz", cell(), format="extxyz")
    write("frames.xyz", rattled(), format="extxyz")
    common = ["--structure", "copper.xyz", "--reference", "frames.xyz", "--steps", "0"]
    result = call("nvt", *common, "--output", "a", calculator=toys.EMT())
    assert result.exit_code == 0 and "state no temperature" in result.stderr
    result = call("nvt", *common, "--no-rdf-rule", "--output", "b", calculator=toys.EMT())
    assert result.exit_code == 0 and "state no temperature" not in result.stderr


def test_what_a_box_of_molecules_lacks_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    boxed = toys.ethanol()
    second = toys.ethanol()
    second.positions += [0.0, 0.0, 8.0]
    boxed += second
    boxed.set_cell([20.0, 20.0, 20.0])
    boxed.pbc = True
    write("boxed.xyz", boxed, format="extxyz")
    springs = toys.Springs(boxed)
    result = call("nvt", "--structure", "boxed.xyz", "--steps", "10", "--output", "a", calculator=springs)
    assert result.exit_code == 0 and "neither coordination nor g(r) are watched" in result.stderr
    assert "Not watched: " in result.stdout and "coordination and g(r) (no reference" in result.stdout
    loose = ["--no-bond-rule", "--no-rdf-rule"]
    result = call("nvt", "--structure", "boxed.xyz", "--steps", "10", "--output", "b", *loose, calculator=springs)
    assert result.exit_code == 0 and "watched" not in result.stderr
    assert "bonds (switched off)" in result.stdout


def test_a_reference_of_another_kind_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("copper.xyz", cell(), format="extxyz")
    MoleculeReference.from_frames(toys.ethanol()).save("molecule.json")
    result = call("nvt", "--structure", "copper.xyz", "--reference", "molecule.json", calculator=toys.EMT())
    assert result.exit_code == 2
    assert "it is for a molecule" in result.stderr


@pytest.mark.parametrize(
    "name, temperature, timestep",
    [("eam-silica", 2000.0, 2.0), ("eam-phosphorus", 1250.0, 1.0), ("eam-mptrj", 1000.0, 1.0)],
)
def test_eam_protocols_have_the_published_numbers(name, temperature, timestep):
    settings = make_settings("nvt", {"protocol": name})
    assert (settings.temperature_K, settings.timestep_fs, settings.steps) == (temperature, timestep, 5000)
    assert settings.thermostat == "langevin"


def test_a_slab_without_a_third_vector_moves_as_one_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slab = cell()
    slab.pbc = (True, True, False)
    write("with.extxyz", slab)
    slab.cell[2] = 0.0
    write("without.extxyz", slab)
    for name in ("with", "without"):
        given = ("--structure", f"{name}.extxyz", "--steps", 4, "--interval", 2, "--temperature", 300, "-o", name)
        result = call("nvt", *given, calculator=toys.EMT())
        assert result.exit_code == 0, result.stderr
    assert Path("with/log.csv").read_bytes() == Path("without/log.csv").read_bytes()
