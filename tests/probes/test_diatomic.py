"""Diatomic curves: closed forms, one flag for each thing that is broken and none for what is good."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from asecalc_mlip import EAMCalculator, PIWSLCalculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.plots.diatomic import diatomic_figure
from asecalc_mlip.probes import (
    attractive_hole,
    attractive_holes,
    diatomic_curve,
    diatomic_curves,
    diatomic_flags,
    diatomic_metrics,
    diatomic_report,
    shortest_distances,
    wall_distance_error,
)
from asecalc_mlip.probes.diatomic import all_pairs, arena_range
from tests.cases import DIRECT, make_potential, model_file
from tests.commands import asecalc
from tests.probes.toys import BOND, DEPTH, STIFFNESS, Batched, Pair, cut, lennard_jones, morse, with_bump


def curve(function, pair=("Si", "O"), grid="full", **options):
    wrong = options.pop("wrong_force", 0.0)
    return diatomic_curve(Pair(function, wrong_force=wrong), *pair, grid=grid, **options)


def test_arena_grid():
    start, end = arena_range("Si", "O")
    assert start == pytest.approx(0.9 * 0.5 * (1.11 + 0.66)) and end == pytest.approx(3.1 * 0.5 * (2.19 + 1.5))
    assert arena_range("H", "H")[0] == pytest.approx(0.9 * 0.31)
    found = curve(morse, grid="arena")
    assert found.distances_A[0] == pytest.approx(start) and 0 <= end - found.distances_A[-1] < 0.01
    np.testing.assert_allclose(np.diff(found.distances_A), 0.01)
    full = curve(morse, cutoff_A=6.0)
    assert 0.3 <= full.distances_A[0] < 0.31 and full.distances_A[-1] > 6.05
    # The arena grid is a part of the full one.
    assert diatomic_metrics(full).grid == diatomic_metrics(found).grid
    assert diatomic_metrics(full).tortuosity == pytest.approx(diatomic_metrics(found).tortuosity)


def test_metrics_of_morse_in_closed_form():
    found = curve(morse, grid="arena")
    m = diatomic_metrics(found)
    assert m.tortuosity == pytest.approx(1.0, abs=1e-6) and m.force_flips == 1
    assert m.spearman_repulsive == pytest.approx(-1.0) and m.spearman_attractive == pytest.approx(1.0)
    assert m.minimum_A == pytest.approx(BOND, abs=0.005)
    far = found.distances_A[-1]
    assert m.well_depth_eV == pytest.approx(morse(far)[0] + DEPTH, abs=1e-3)
    # The only sign change of ΔE is at the minimum, between the steps beside it that are larger than 1 meV.
    steps = np.diff(found.energies_eV)
    steps = steps[np.abs(steps) >= 1e-3]
    turn = int(np.flatnonzero(np.diff(np.sign(steps)))[0])
    assert m.energy_jump_eV == pytest.approx(abs(steps[turn]) + abs(steps[turn + 1]))
    # dE/dr by differences over h is off by h²/6 E''' inside, so the mean deviation is its integral over the grid.
    r = found.distances_A[1:-1]
    e = np.exp(-STIFFNESS * (r - BOND))
    third = 2 * DEPTH * STIFFNESS**3 * (e - 4 * e**2)
    inside = np.abs(third).sum() * 0.01**2 / 6
    ends = sum(abs(found.forces_eV_per_A[k] + (found.energies_eV[i] - found.energies_eV[j]) / 0.01)
               for k, i, j in ((0, 1, 0), (-1, -1, -2)))  # fmt: skip
    assert m.conservation_deviation_eV_per_A == pytest.approx((inside + ends) / (len(r) + 2), rel=1e-3)
    assert f"{len(found.distances_A)} points" in m.grid


def test_two_wells_in_closed_form():
    r = np.linspace(1.0, 5.0, 401)

    def wave(x):
        return np.cos(2 * np.pi * (x - 1.0) / 2.0), -np.pi * np.sin(np.pi * (x - 1.0))

    found = diatomic_curve(Pair(wave), "Si", "O", distances_A=r)
    m = diatomic_metrics(found, window="all")  # from top to top over two wells of depth 2
    assert m.tortuosity == pytest.approx(8.0 / 4.0) and m.force_flips == 3
    with pytest.raises(InputError, match="window='all'"):
        diatomic_metrics(diatomic_curve(Pair(wave), "Si", "O", distances_A=[0.1, 0.2, 0.3]))


def test_wall_distance_error():
    moved = curve(lambda r: morse(r - 0.05))
    error = wall_distance_error(moved, curve(morse), levels_eV=(1.0, 5.0, 10.0, 50.0, 1e9))
    assert error.mean_A == pytest.approx(0.05, abs=1e-4) and error.not_reached_eV == (1e9,)
    assert wall_distance_error(moved, moved).mean_A == 0.0
    with pytest.raises(InputError, match="compare like with like"):
        wall_distance_error(moved, curve(morse, ("O", "O")))


GOOD = {
    "morse": (morse, {}),
    "lennard-jones": (lennard_jones, {}),
    "repulsive": (lambda r: (np.exp(-3 * r), -3 * np.exp(-3 * r)), {}),
    "shallow": (lambda r: (0.01 * morse(r)[0], 0.01 * morse(r)[1]), {}),
    "cut smoothly": (lambda r: (max(5.0 - r, 0.0) ** 3, -3 * max(5.0 - r, 0.0) ** 2), {"cutoff_A": 5.0}),
}
BROKEN = {
    "attractive hole": (with_bump(morse, -900.0, 0.4, 0.12), {}),
    "spurious minimum": (with_bump(morse, -0.5, 3.2, 0.2), {}),
    "jump or kink at cutoff": (cut(morse, 2.8, shift=False), {"cutoff_A": 2.8}),
    "jump or kink": (cut(morse, 2.8, shift=True), {}),
    "non-conservative force": (morse, {"wrong_force": 0.3}),
    "not finite": (lambda r: morse(r) if r > 0.5 else (np.nan, np.nan), {}),
}


@pytest.mark.parametrize("name", GOOD)
def test_no_flags_on_good_curves(name):
    function, options = GOOD[name]
    assert diatomic_flags(curve(function, **options)) == []


@pytest.mark.parametrize("name", BROKEN)
def test_each_flag_fires_once(name):
    function, options = BROKEN[name]
    assert [flag.name for flag in diatomic_flags(curve(function, **options))] == [name]


def test_kink_at_the_cutoff_of_ases_lennard_jones():
    options = {"sigma": 2.0, "epsilon": 1.0, "rc": 3.0}
    for smooth, expected in ((False, ["jump or kink at cutoff"]), (True, [])):
        found = diatomic_curve(LennardJones(**options, ro=2.5, smooth=smooth), "Ar", "Ar", grid="full", cutoff_A=3.0)
        assert [flag.name for flag in diatomic_flags(found)] == expected
    # ASE shifts the energy: the force is what jumps, by 24 ε/σ (2 x¹³ − x⁷) with x = σ/r_c.
    found = diatomic_curve(LennardJones(**options), "Ar", "Ar", grid="full", cutoff_A=3.0)
    x = 2.0 / 3.0
    assert diatomic_flags(found)[0].size == pytest.approx(abs(12.0 * (2 * x**13 - x**7)), rel=0.05)


def test_hole_in_numbers():
    function = with_bump(lambda r: (10.0 - r, -1.0), -3.0, 0.8, 0.05)
    found = diatomic_curve(Pair(function), "Si", "O", distances_A=np.arange(0.5, 3.0, 0.01))
    hole = attractive_hole(found, 1.2)
    r = found.distances_A
    top = r[(r > 0.8) & (r < 1.2)][np.argmax(found.energies_eV[(r > 0.8) & (r < 1.2)])]
    assert hole.bottom_A == pytest.approx(0.8, abs=0.02) and hole.top_A == pytest.approx(top)
    assert hole.depth_eV == pytest.approx(3.0 - (top - 0.8), abs=0.02)
    assert attractive_hole(found, 0.75) is None
    with pytest.raises(InputError, match="grid='full'"):
        attractive_hole(found, 0.5)


def test_holes_below_the_training_distances():
    frames = [Atoms("SiOO", [[0, 0, 0], [1.6, 0, 0], [0, 2.0, 0]]), bulk("Si", a=5.4)]
    shortest = shortest_distances(frames)
    assert shortest["O", "Si"] == pytest.approx(1.6) and shortest["Si", "Si"] == pytest.approx(5.4 * 3**0.5 / 4)
    curves = diatomic_curves(Pair(with_bump(morse, -80.0, 1.1, 0.05)), ["Si-O", "Si-Si"], grid="full")
    holes = attractive_holes(curves, shortest)
    assert holes["Si-O"].below_A == pytest.approx(0.8 * 1.6) and holes["Si-Si"] is not None
    assert attractive_holes(diatomic_curves(Pair(morse), ["Si-O"], grid="full"), shortest) == {"Si-O": None}


def test_batched_where_the_calculator_can():
    calc = Batched(morse)
    found = diatomic_curve(calc, "Si", "O")
    assert calc.calls == 1 and found.cutoff_A == 5.0
    np.testing.assert_array_equal(found.energies_eV, diatomic_curve(Pair(morse), "Si", "O").energies_eV)


def test_report_and_figure_of_two_models(tmp_path):
    good = diatomic_report(Pair(morse), ["Si-O", "O-O"], name="good")
    bad = diatomic_report(Pair(BROKEN["attractive hole"][0]), ["Si-O", "O-O"], name="bad")
    assert good.holes == {"Si-O": None, "O-O": None} and bad.holes["Si-O"] is not None
    assert "attractive hole" in repr(bad) and "none" in repr(good)
    assert "numbers on the grid of MLIP Arena, from 0.9 covalent radii on; flags on all distances" in repr(good)
    assert json.loads(json.dumps(bad.to_dict()))["pairs"][0]["flags"][0]["name"] == "attractive hole"
    diatomic_figure([good, bad], path=tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size > 10_000


def test_models(tmp_path):
    eam = EAMCalculator.load(model_file(tmp_path, "eam"), dtype="float64")
    found = diatomic_curve(eam, "Si", "O", grid="full")
    parts = found.components_eV
    np.testing.assert_allclose(sum(parts.values()), found.energies_eV + found.far_energy_eV, atol=1e-9)
    assert len(all_pairs(eam)) == 10  # of its four elements
    painn = PIWSLCalculator.load(model_file(tmp_path, "painn"))
    names = [flag.name for flag in diatomic_flags(diatomic_curve(painn, "C", "O", grid="full"))]
    assert "non-conservative force" not in names
    direct = tmp_path / "direct"
    direct.mkdir()
    calc = PIWSLCalculator.load(model_file(direct, DIRECT))
    names = [flag.name for flag in diatomic_flags(diatomic_curve(calc, "C", "O", grid="full"))]
    assert "non-conservative force" in names
    assert make_potential(DIRECT).direct_forces


def test_bad_input_is_refused():
    for call, match in (
        (lambda: diatomic_curve(Pair(morse), "Xx", "O"), "no element"),
        (lambda: diatomic_curve(Pair(morse), "Si", "O", grid="fine"), "allowed: arena, full"),
        (lambda: diatomic_curve(Pair(morse), "Si", "O", distances_A=[2.0, 1.0, 3.0]), "ascending"),
        (lambda: diatomic_curve(Pair(lambda r: (np.nan, 0.0)), "Si", "O"), "no curve"),
        (lambda: diatomic_curve("aspirin.pt", "Si", "O"), "no ASE calculator"),
        (lambda: diatomic_curves(Pair(morse)), "give pairs"),
        (lambda: diatomic_curves(Pair(morse), ["SiO"]), "write it as Si-O"),
        (lambda: diatomic_metrics(curve(lambda r: (0.0, 0.0))), "flat"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_a_well_that_may_be_a_bond_is_no_hole():
    """With distances of training data that lack the pair as a bond: O-H in a molecule without hydroxyl."""
    bond, hole = curve(morse, cutoff_A=6.0), curve(with_bump(morse, -900.0, 0.4, 0.12), cutoff_A=6.0)
    (flag,) = diatomic_flags(bond, below_A=BOND + 1.0)
    assert flag.name == "well without data" and flag.distance_A == pytest.approx(BOND, abs=0.01)
    assert f"{DEPTH:.1f}"[:2] in flag.text and attractive_hole(bond, BOND + 1.0) is not None
    names = [flag.name for flag in diatomic_flags(hole, below_A=BOND + 1.0)]
    assert "attractive hole" in names and "well without data" not in names


@pytest.mark.parametrize(("position", "depth", "right"), [(0.77, 4.5, True), (0.77, 2.5, False), (1.0, 4.5, False)])
def test_a_well_that_dft_has_too_is_right_without_data(position, depth, right):
    """H-H in the data of a molecule without such a bond, as in aspirin.pt with its part for isolated dimers."""

    def well(r):
        x = np.exp(-2.0 * (r - position))
        return depth * ((1.0 - x) ** 2 - 1.0), 4.0 * depth * (1.0 - x) * x

    flags = diatomic_flags(curve(well, ("H", "H"), cutoff_A=6.0), below_A=1.4)
    assert [flag.name for flag in flags] == ([] if right else ["well without data"])
    behind = diatomic_flags(curve(with_bump(well, 10.0, 1.9, 0.15), ("H", "H"), cutoff_A=6.0), below_A=1.4)
    assert "well without data" in [flag.name for flag in behind]


def test_figure_of_a_wall_has_a_smooth_scale_and_names_its_band(tmp_path, monkeypatch):
    """A scale that switches at some energy draws a kink where the curve has none."""
    drawn = []
    monkeypatch.setattr("asecalc_mlip.plots.diatomic.save_figure", lambda figure, path: drawn.append(figure))
    wall = lambda r: (1e3 * np.exp(-3 * r), -3e3 * np.exp(-3 * r))  # noqa: E731
    report = diatomic_report(Pair(wall), ["Si-O"], cutoff_A=6.0)
    known = diatomic_report(Pair(wall), ["Si-O"], cutoff_A=6.0, shortest_A={("O", "Si"): 1.5})
    for one, band in ((report, "closer than any bond"), (known, "below 0.8 × the shortest in the data")):
        diatomic_figure([one], path=tmp_path / "d.png")
        figure = drawn.pop()
        assert {axes.get_yscale() for axes in figure.axes} == {"asinh"}
        assert band in [text.get_text() for text in figure.legends[0].get_texts()]


def test_command(tmp_path):
    model = str(model_file(tmp_path, "eam"))
    files = ["-o", str(tmp_path / "d.json"), "--figure", str(tmp_path / "d.png")]
    result = asecalc("diatomic", model, "--pairs", "Si-O", "--against", model, "--names", "one", "two", *files)
    assert result.exit_code == 0, result.stderr
    written = json.loads((tmp_path / "d.json").read_text())
    assert [one["model"] for one in written] == ["one", "two"] and (tmp_path / "d.png").is_file()
    assert asecalc("diatomic", model, "--pairs", "Si-O", "O-O").stdout.count("Si-O") == 1
    result = asecalc("diatomic", model, "--pairs", "Si-Xx")
    assert result.exit_code == 2 and "no element" in result.stderr
    assert asecalc("diatomic", model, "--names", "a", "b").exit_code == 2
    assert asecalc("diatomic", model, "--figure", "/nowhere/d.png").exit_code == 2
