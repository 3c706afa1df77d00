"""MSD and VDOS: random walk, free flight, harmonic oscillators; ASE and SciPy (and freud, where it is) agree."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.analysis import DiffusionCoefficient
from scipy.signal import welch
from scipy.stats import wasserstein_distance

from asecalc_mlip.analysis import msd, vdos
from asecalc_mlip.errors import InputError


def walk(n_frames=1500, n_atoms=40, step=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return np.cumsum(step * rng.standard_normal((n_frames, n_atoms, 3)), axis=0)


def gas_frames(positions, symbols=None, length=None):
    symbols = symbols or f"Ar{positions.shape[1]}"
    cell = None if length is None else [length] * 3
    return [Atoms(symbols, p, cell=cell, pbc=length is not None) for p in positions]


def oscillators(frequencies_THz, n_frames=4096, dt_fs=2.0, seed=0):
    """Velocities of independent oscillators, one per atom, with random phases."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (len(frequencies_THz), 3))
    t = np.arange(n_frames) * dt_fs * 1e-3
    return np.cos(2 * np.pi * np.asarray(frequencies_THz)[:, None] * t[:, None, None] + phases)


def test_random_walk_has_its_diffusion_coefficient_within_its_error():
    """Steps of σ = 0.1 Å every 10 fs: D = σ²/(2 dt) = 0.5 Å²/ps, less 1/N because the centre of mass is removed."""
    found = [msd(walk(seed=s), dt_fs=10.0, max_lag=100).diffusion() for s in range(10)]
    expected = 0.5 * (1 - 1 / 40)
    errors = np.array([f.error for f in found])
    deviations = (np.array([f.D for f in found]) - expected) / errors
    assert np.abs(deviations).max() < 4.5 and 0.4 < np.sqrt(np.mean(deviations**2)) < 2.0
    assert errors.mean() < 0.05 * expected and abs(found[0].exponent - 1) < 0.1
    assert "cm²/s" in repr(found[0]) and found[0].D_cm2_s == pytest.approx(0.49e-4, rel=0.1)


def test_every_time_origin_counts():
    positions = walk(40, 3)
    result = msd(positions, dt_fs=1.0, max_lag=12)
    moved = positions - positions.mean(axis=1, keepdims=True)
    for k, lag in enumerate(range(1, 13)):
        expected = np.mean(np.sum((moved[lag:] - moved[:-lag]) ** 2, axis=-1))
        assert result.values[k] == pytest.approx(expected, rel=1e-12)


def test_streaming_needs_only_the_frames_of_the_longest_lag_and_gives_the_same():
    positions = walk(200, 5)
    np.testing.assert_array_equal(
        msd((p for p in positions), dt_fs=1.0, max_lag=50).values, msd(positions, dt_fs=1.0).values
    )


def test_free_flight_grows_as_the_square_and_drift_of_all_does_not_count():
    velocities = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    t = np.arange(100)[:, None, None] * 0.01
    result = msd(t * velocities + 50.0 * t, dt_fs=10.0, max_lag=20)
    np.testing.assert_allclose(result.values, result.time_ps**2, rtol=1e-9)
    assert result.diffusion().exponent == pytest.approx(2.0) and "not diffusion" in repr(result.diffusion())


def test_harmonic_crystal_ends_at_twice_the_thermal_spread():
    """Independent Einstein oscillators with <u²> = 3 σ²: MSD → 6 σ² once they have forgotten."""
    rng = np.random.default_rng(0)
    positions = 0.05 * rng.standard_normal((2000, 50, 3))
    assert msd(positions, dt_fs=1.0, max_lag=20).values[-1] == pytest.approx(6 * 0.05**2 * (1 - 1 / 50), rel=0.01)


def test_wrapped_positions_are_unwrapped_for_atoms_and_arrays():
    positions = walk(300, 20)
    wrapped = positions % 7.0
    free = msd(positions, dt_fs=1.0)
    np.testing.assert_allclose(msd(gas_frames(wrapped, length=7.0), dt_fs=1.0).values, free.values, rtol=1e-9)
    np.testing.assert_allclose(msd(wrapped, dt_fs=1.0, cell=7.0 * np.eye(3)).values, free.values, rtol=1e-9)


def test_elements_apart_with_the_centre_of_mass_of_all():
    positions = walk(400, 30)
    positions[:, 20:] *= 3.0
    frames = gas_frames(positions, "H20O10")
    fast, slow = (msd(frames, dt_fs=1.0, select=s).diffusion().D for s in ("O", "H"))
    assert fast / slow > 2.0
    with pytest.raises(InputError, match="elements are H, O"):
        msd(frames, dt_fs=1.0, select="Si")


def test_diffusion_agrees_with_ase():
    """ASE counts one origin and no drift of the centre of mass, so the two agree within errors."""
    frames = gas_frames(walk(500, 300))
    ase = DiffusionCoefficient(frames, timestep=10.0 * units.fs)
    ase.calculate()
    expected = ase.get_diffusion_coefficients()[0][0] * (1e3 * units.fs)  # Å²/ps
    found = msd(frames, dt_fs=10.0, max_lag=100).diffusion()
    assert found.D == pytest.approx(expected, rel=0.1) and found.D == pytest.approx(0.5, rel=0.05)


def test_msd_agrees_with_freud():
    freud = pytest.importorskip("freud")
    positions = walk(60, 8)
    moved = positions - positions.mean(axis=1, keepdims=True)
    expected = freud.msd.MSD(mode="window").compute(positions=moved).msd
    np.testing.assert_allclose(msd(positions, dt_fs=1.0, max_lag=30).values, expected[1:31], rtol=1e-4)


def test_vdos_shows_the_frequencies_of_oscillators_with_their_weights():
    spectrum = vdos(oscillators([10.0, 10.0, 10.0, 30.0]), dt_fs=2.0)
    step = spectrum.frequency_THz[1]
    assert spectrum.density.sum() * step == pytest.approx(1.0)
    near = [spectrum.density[np.abs(spectrum.frequency_THz - f) < 2.0].sum() * step for f in (10.0, 30.0)]
    assert near == pytest.approx([0.75, 0.25], abs=0.01)
    assert spectrum.mean_THz == pytest.approx(15.0, abs=0.1) and "326 1/cm" in repr(spectrum)


@pytest.mark.parametrize("window", [256, 255])
def test_vdos_agrees_with_scipy(window):
    velocities = np.random.default_rng(1).standard_normal((2000, 4, 3))
    masses = np.array([1.0, 2.0, 3.0, 16.0])
    spectrum = vdos(velocities, dt_fs=1.0, masses=masses, window=window)
    frequency, power = welch(
        velocities, fs=1e3, window="hann", nperseg=window, noverlap=window - window // 2, detrend=False, axis=0
    )
    expected = np.einsum("fij,i->f", power, masses)
    np.testing.assert_allclose(spectrum.frequency_THz, frequency)
    np.testing.assert_allclose(spectrum.density, expected / (expected.sum() * frequency[1]), rtol=1e-9)


def test_vdos_of_an_ase_trajectory_is_that_of_its_velocities():
    velocities = oscillators([5.0, 12.0], 512)
    frames = []
    for v in velocities:
        frames.append(Atoms("HO"))
        frames[-1].set_velocities(v)
    mine = vdos(frames, dt_fs=2.0, window=128)
    np.testing.assert_allclose(
        mine.density, vdos(velocities, dt_fs=2.0, window=128, masses=frames[0].get_masses()).density
    )


def test_vdos_error_is_the_wasserstein_distance_over_the_width():
    a, b = (vdos(oscillators(f), dt_fs=2.0) for f in ([10.0, 20.0, 30.0], [12.0, 22.0, 32.0]))
    expected = wasserstein_distance(a.frequency_THz, b.frequency_THz, a.density, b.density)
    assert a.distance_THz(b) == pytest.approx(expected, rel=1e-2) and expected == pytest.approx(2.0, abs=0.05)
    assert b.error_percent(a) == pytest.approx(100 * 2.0 / a.std_THz, rel=0.02) and a.error_percent(a) == 0.0


def test_vdos_of_unlike_grids_compare_without_a_shift():
    rng = np.random.default_rng(3)
    short, long = (vdos(rng.standard_normal((n, 40, 3)), dt_fs=1.0, window=w) for n, w in ((4000, 50), (4000, 1000)))
    # Half a bin of the coarse grid is 10 THz.
    assert short.distance_THz(long) < 1.5
    assert short.distance_THz(long) == pytest.approx(long.distance_THz(short))
    a = vdos(oscillators([10.0, 20.0, 30.0]), dt_fs=2.0)
    coarse = vdos(oscillators([10.0, 20.0, 30.0]), dt_fs=2.0, window=500)
    assert coarse.error_percent(a) < 5.0


def test_bad_input_is_named():
    with pytest.raises(InputError, match="dt_fs"):
        msd(walk(10, 2), dt_fs=0.0)
    with pytest.raises(InputError, match="needs more than 50, not 20"):
        msd(walk(20, 2), dt_fs=1.0, max_lag=50)
    with pytest.raises(InputError, match="frame 3"):
        broken = walk(20, 2)
        broken[3] = np.nan
        msd(broken, dt_fs=1.0)
    with pytest.raises(InputError, match="frame 20 has 2 atoms and the first 3"):
        vdos([*walk(20, 3), *walk(20, 2)], dt_fs=1.0)
    with pytest.raises(InputError, match=r"frame 0 has no velocities.*\(n_atoms, 3\)"):
        vdos(walk(20, 3)[:, :, :2], dt_fs=1.0)
    with pytest.raises(InputError, match="velocities are zero"):
        vdos(gas_frames(walk(50, 3)), dt_fs=1.0)
    with pytest.raises(InputError, match="fewer frames than the window"):
        vdos(walk(50, 3), dt_fs=1.0, window=64)
    with pytest.raises(InputError, match=r"frame 0 has the shape \(\); \(n_atoms, 3\)"):
        msd(np.zeros(20), dt_fs=1.0)
    for flat in (np.zeros((3, 3)), np.ones(3)):
        with pytest.raises(InputError, match="the cell is .* lattice vector for each periodic direction"):
            msd(walk(20, 3), dt_fs=1.0, cell=flat)
    with pytest.raises(InputError, match="the cell is"):
        msd([Atoms("Ar", cell=[0, 0, 0], pbc=True)] * 20, dt_fs=1.0)
    with pytest.raises(InputError, match="the frames have no atoms"):
        msd(walk(20, 0), dt_fs=1.0)
