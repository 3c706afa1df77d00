"""Small files in the form of the public data sets, with the frames that they hold in eV and Å."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from ase import units
from ase.io import write

from tests.teacher import as_reference, crystal_frames, molecule_frames

KCAL = units.kcal / units.mol


def _groups(path, layout, missing=0):
    """Two groups of 3 and 4 geometries; layout: names, units, and more arrays of each group."""
    h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")
    frames = molecule_frames(7)
    with h5py.File(path, "w") as file:
        for name, part in (("a", frames[:3]), ("b", frames[3:])):
            group = file.create_group(name)
            energies = np.array([atoms.info["energy"] for atoms in part])
            if missing and name == "b":
                energies[:missing] = np.nan
            group["atomic_numbers"] = part[0].numbers.astype("uint8")
            for key, values in layout(part, energies).items():
                group.create_dataset(key, data=values, compression="gzip" if np.ndim(values) == 3 else None)
            if "conformations" in group:
                subset = {"a": b"SPICE Dipeptides", "b": b"SPICE DES370K"}[name]
                group.create_dataset("subset", data=[subset], dtype=h5py.string_dtype())
    return path, frames


def write_ani(folder, missing=0):
    """ANI-1x: Å, Hartree, Hartree/Å; other levels beside, with NaN."""

    def layout(frames, energies):
        return {
            "coordinates": np.array([atoms.positions for atoms in frames]),
            "wb97x_dz.energy": energies / units.Hartree,
            "wb97x_dz.forces": np.array([atoms.arrays["forces"] for atoms in frames]) / units.Hartree,
            "ccsd(t)_cbs.energy": np.full(len(frames), np.nan),
        }

    return _groups(folder / "ani1x-small.h5", layout, missing)


def write_spice(folder):
    """SPICE: Bohr, Hartree, gradients in Hartree/Bohr, subsets as text."""

    def layout(frames, energies):
        forces = np.array([atoms.arrays["forces"] for atoms in frames])
        return {
            "conformations": np.array([atoms.positions for atoms in frames]) / units.Bohr,
            "dft_total_energy": energies / units.Hartree,
            "dft_total_gradient": -forces * units.Bohr / units.Hartree,
        }

    return _groups(folder / "spice-small.hdf5", layout)


def _npz(frames):
    content = io.BytesIO()
    np.savez(
        content,
        z=frames[0].numbers.astype("uint8"),
        R=np.array([atoms.positions for atoms in frames]),
        E=np.array([[atoms.info["energy"]] for atoms in frames]) / KCAL,
        F=np.array([atoms.arrays["forces"] for atoms in frames]) / KCAL,
        name="x",
        theory="y",
    )
    return content.getvalue()


def write_md22(folder):
    """MD22: an .npz in kcal/mol."""
    frames = molecule_frames(4)
    (folder / "md22.npz").write_bytes(_npz(frames))
    return folder / "md22.npz", frames


def write_ccsd(folder):
    """MD17 at CCSD(T): a zip of two .npz, and what macOS leaves."""
    frames = molecule_frames(5)
    with zipfile.ZipFile(folder / "ethanol_ccsd_t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ethanol_ccsd_t-train.npz", _npz(frames[:3]))
        archive.writestr("__MACOSX/._ethanol_ccsd_t-train.npz", b"\x00\x05")
        archive.writestr("ethanol_ccsd_t-test.npz", _npz(frames[3:]))
    return folder / "ethanol_ccsd_t.zip", frames


def xsf_text(atoms):
    """Return the text of aenet's XSF."""
    lines = [f"# total energy = {atoms.info['energy']:.8f} eV", "", "CRYSTAL", "PRIMVEC"]
    lines += [" ".join(f"{x:15.8f}" for x in row) for row in atoms.cell.array]
    lines += ["PRIMCOORD", f"{len(atoms)} 1"]
    for symbol, r, f in zip(atoms.get_chemical_symbols(), atoms.positions, atoms.arrays["forces"], strict=True):
        lines.append(f"{symbol} " + " ".join(f"{x:15.8f}" for x in (*r, *f)))
    return "\n".join(lines) + "\n"


def write_tar(folder, name="tio2.tar.bz2", inside="TiO2"):
    """An archive of XSF files."""
    frames = crystal_frames(4)
    with tarfile.open(folder / name, "w:bz2") as archive:
        for k, atoms in enumerate(frames):
            content = xsf_text(atoms).encode()
            entry = tarfile.TarInfo(f"{inside}/structure{k:04d}.xsf")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return folder / name, frames


def write_lmnto(folder):
    """LMNTO: its archive holds water as well, which is not read."""
    path, frames = write_tar(folder, "lmnto.tar.bz2", "data/LMNTO-SCAN-train-data")
    other, _ = write_tar(folder, "water.tar.bz2", "data/liquid-64water")
    with tarfile.open(folder / "both.tar.gz", "w:gz") as both:
        for part in (path, other):
            with tarfile.open(part) as archive:
                for entry in archive:
                    both.addfile(entry, archive.extractfile(entry))
    return folder / "both.tar.gz", frames


def write_zeo(folder):
    """Si-ZEO22: an .npz in eV, with cells and symbols."""
    frames = crystal_frames(3)
    np.savez(
        folder / "cha.npz",
        positions=np.array([atoms.positions for atoms in frames]),
        cells=np.array([atoms.cell.array for atoms in frames]),
        forces=np.array([atoms.arrays["forces"] for atoms in frames]),
        energies=np.array([atoms.info["energy"] for atoms in frames]),
        symbols=np.array(frames[0].get_chemical_symbols()),
    )
    return folder / "cha.npz", frames


def write_phosphorus(folder):
    """P-GAP-20: extended XYZ with energy and forces."""
    frames = crystal_frames(3)
    write(folder / "P.xyz", as_reference([atoms.copy() for atoms in frames]))
    return folder / "P.xyz", frames


def write_mptrj(folder):
    """MPtrj: JSON of pymatgen's structures; stress in kbar with VASP's sign; braces within texts."""
    frames, content = crystal_frames(4), {}
    for k, atoms in enumerate(frames):
        atoms.info["stress"] = np.diag([1.0, 2.0, 3.0]) * (k + 1) * 1e-3
        sites = [
            {"species": [{"element": s, "occu": 1}], "abc": list(abc), "label": s, "properties": {}}
            for s, abc in zip(
                atoms.get_chemical_symbols(), atoms.get_scaled_positions(wrap=False).tolist(), strict=True
            )
        ]
        material = f"mp-{k // 2}"
        content.setdefault(material, {})[f"{material}-{k}-0"] = {
            "structure": {
                "@class": "Structure",
                "lattice": {"matrix": atoms.cell.array.tolist(), "note": 'a "brace" } and ] \\'},
                "sites": sites,
            },
            "corrected_total_energy": atoms.info["energy"],
            "uncorrected_total_energy": atoms.info["energy"] + 1.0,
            "energy_per_atom": 0.0,
            "force": atoms.arrays["forces"].tolist(),
            "stress": (-atoms.info["stress"] / (0.1 * units.GPa)).tolist(),
            "magmom": None,
            "mp_id": material,
        }
    (folder / "mptrj.json").write_text(json.dumps(content))
    return folder / "mptrj.json", frames


SAMPLES = {
    "ani1x": write_ani,
    "spice": write_spice,
    "md22": write_md22,
    "md17-ccsd": write_ccsd,
    "tio2": write_tar,
    "lmnto": write_lmnto,
    "zeo22": write_zeo,
    "gap20-phosphorus": write_phosphorus,
    "mptrj": write_mptrj,
}
