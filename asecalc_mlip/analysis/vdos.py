"""Vibrational density of states from velocities.

    S(ν) = Σ_i m_i |∫ v_i(t) e^(−2πiνt) dt|²,  normalised to ∫ S dν = 1     (the transform of the velocity
    autocorrelation, Wiener-Khinchin; averaged over overlapping windows, Welch)

Two spectra are compared by their Wasserstein-1 distance, ∫ |C(ν) − C_ref(ν)| dν of the cumulated spectra, over the
standard deviation of the reference: 0 when equal, and 100 % when the spectrum lies off by as much as it is wide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from asecalc_mlip.analysis.frames import Select, as_list, masses_of, selection
from asecalc_mlip.errors import InputError

CM1_PER_THZ = 33.35641


@dataclass(frozen=True, repr=False)
class VDOS:
    """Vibrational density of states.

    Attributes
    ----------
    frequency_THz : (n,) array
        Equally spaced from 0.
    density : (n,) array
        1/THz; its integral is 1.
    n_windows : int
        Number of windows averaged over.
    """

    frequency_THz: np.ndarray
    density: np.ndarray
    n_windows: int

    @property
    def frequency_cm1(self) -> np.ndarray:
        """Wavenumbers in 1/cm."""
        return self.frequency_THz * CM1_PER_THZ

    @property
    def mean_THz(self) -> float:
        """Mean frequency."""
        return float(np.sum(self.frequency_THz * self._weights))

    @property
    def std_THz(self) -> float:
        """Width: the standard deviation of the frequency."""
        return float(np.sqrt(np.sum((self.frequency_THz - self.mean_THz) ** 2 * self._weights)))

    @property
    def _weights(self) -> np.ndarray:
        return self.density / self.density.sum()

    def distance_THz(self, reference: VDOS) -> float:
        """Return the Wasserstein-1 distance of the two spectra; their grids may differ."""
        points = np.union1d(_edges(self), _edges(reference))
        difference = np.abs(_cumulated(self, points) - _cumulated(reference, points))
        return float(np.sum(0.5 * (difference[1:] + difference[:-1]) * np.diff(points)))

    def error_percent(self, reference: VDOS) -> float:
        """Return 100 · Wasserstein-1 distance / width of the reference."""
        if reference.std_THz == 0.0:
            raise InputError("the reference spectrum is one single line without width: use distance_THz")
        return 100.0 * self.distance_THz(reference) / reference.std_THz

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON."""
        return {
            "frequency_THz": self.frequency_THz.tolist(),
            "density_per_THz": self.density.tolist(),
            "n_windows": self.n_windows,
        }

    def __repr__(self) -> str:
        peak = self.frequency_THz[np.argmax(self.density)]
        return (
            f"VDOS(0 to {self.frequency_THz[-1]:.4g} THz in steps of {self.frequency_THz[1]:.3g}, {self.n_windows} "
            f"windows, highest peak at {peak:.4g} THz = {peak * CM1_PER_THZ:.0f} 1/cm)"
        )


def vdos(
    frames: np.ndarray | Iterable,
    *,
    dt_fs: float,
    masses: np.ndarray | None = None,
    select: Select = None,
    window: int | None = None,
) -> VDOS:
    """Take the vibrational density of states.

    Parameters
    ----------
    frames : array or iterable
        Velocities, an (n_frames, n_atoms, 3) array in any unit, or an iterable of such frames or of `ase.Atoms` with
        momenta. With `window` given they are read one by one and two windows are kept; otherwise all.
    dt_fs : float
        Time between two *frames* in fs; vibrations faster than 1/(2 dt) appear at wrong frequencies, so at most 4 fs
        for hydrogen.
    masses : (n_atoms,) array
        In u; default: those of the atoms, equal ones for plain arrays.
    select : str or sequence of int, optional
        An element ("O") or indices of atoms; None: all.
    window : int, optional
        Frames of a window, which decides the resolution 1/(window · dt); default: a quarter of the frames.

    Raises
    ------
    InputError
        Fewer frames than a window, no velocities, NaN.

    Source: Dickey and Paskin, Phys. Rev. 188, 1407 (1969); Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967).
    """
    if not dt_fs > 0:
        raise InputError(f"dt_fs is the time between two frames in fs and must be positive, not {dt_fs}")
    frames = as_list(frames)
    if window is None:
        frames = list(frames)
        window = max(8, len(frames) // 4)
    if window < 8:
        raise InputError(f"a window of {window} frames has no spectrum to speak of: take at least 8")
    power, n_windows = _power(frames, window, masses, select)
    if n_windows == 0:
        raise InputError(f"there are fewer frames than the window of {window}: give more, or a smaller window")
    frequency = np.fft.rfftfreq(window, dt_fs * 1e-3)
    total = power.sum() * frequency[1]
    if total == 0.0:
        raise InputError("all velocities are zero: the frames have no momenta. Write them with the trajectory")
    return VDOS(frequency, power / total, n_windows)


def _power(frames, window: int, masses, select) -> tuple[np.ndarray, int]:
    """Sum of the power spectra of half-overlapping Hann windows, (window // 2 + 1,), and their number."""
    hann = np.hanning(window + 1)[:window, None, None]
    power, n_windows = np.zeros(window // 2 + 1), 0
    buffer: list[np.ndarray] = []
    index, scale, n_atoms = np.zeros(0, dtype=int), np.zeros(0), 0
    for number, frame in enumerate(frames):
        velocities = _velocities(frame, number)
        if number == 0:
            index = selection(frame, select)
            scale, n_atoms = np.sqrt(masses_of(frame, masses)[index])[:, None], len(frame)
        if len(velocities) != n_atoms:
            raise InputError(
                f"frame {number} has {len(velocities)} atoms and the first {n_atoms}: give those of one run"
            )
        buffer.append(velocities[index] * scale)
        if len(buffer) == window:
            spectrum = np.fft.rfft(np.array(buffer) * hann, axis=0)
            power += np.sum(np.abs(spectrum) ** 2, axis=(1, 2))
            n_windows += 1
            buffer = buffer[window // 2 :]
    power[1:-1] *= 2.0  # the other half of the transform
    if window % 2:
        power[-1] *= 2.0
    return power, n_windows


def _velocities(frame, number: int) -> np.ndarray:
    velocities = frame.get_velocities() * (1e3 * units.fs) if isinstance(frame, Atoms) else np.asarray(frame, float)
    if velocities is None or velocities.ndim != 2 or velocities.shape[1] != 3 or not np.isfinite(velocities).all():
        raise InputError(f"frame {number} has no velocities, or some that are not finite; (n_atoms, 3) is expected")
    return velocities


def _edges(spectrum: VDOS) -> np.ndarray:
    """Where the bins around the frequencies end."""
    half = 0.5 * spectrum.frequency_THz[1]
    return np.concatenate([[-half], spectrum.frequency_THz + half])


def _cumulated(spectrum: VDOS, points: np.ndarray) -> np.ndarray:
    # At the edges of the bins: at their centres it would be shifted by half a bin, which differs from grid to grid.
    return np.interp(points, _edges(spectrum), np.concatenate([[0.0], np.cumsum(spectrum._weights)]))
