"""Table of the public data sets that `asecalc data NAME` fetches: address, size, checksum, licence, level, reader.

Checksums and sizes are those that the archives publish (figshare and Zenodo: MD5), or that a public loader records.
None stands where none is known to us; then the checksum of what was read is told, and nothing is compared. No row was
fetched when it was written, as the network was not there: addresses are those of the public loader that stands beside
each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PUBLISHED", "DataSet", "File", "Reader"]

Reader = Literal["frames", "ani", "spice", "mptrj", "xsf", "zeo", "zip of npz"]
GIGA = 10**9
GDML = "http://www.quantum-machine.org/gdml/"


@dataclass(frozen=True)
class File:
    """A file of a data set.

    Attributes
    ----------
    name : str
        Under which it is kept.
    url : str or None
        None where it has no address of its own, and people fetch it from the page of the set.
    size : int or None
        Bytes, where the archive publishes them.
    md5 : str or None
        Where the archive publishes it.
    sha256 : str or None
        The whole or its beginning, where a public loader records it.
    """

    name: str
    url: str | None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One public data set.

    Attributes
    ----------
    title : str
        As people call it.
    about : str
        What it holds, in one sentence.
    level : str
        Level of theory of the labels.
    licence : str
    cite : str
        Publication, with its DOI.
    page : str
        Where people find it.
    reader : Reader
        Format; see `asecalc_mlip.data.published_files`.
    file : File or None
        None where each part is a file of its own.
    parts : mapping of str to File
        Parts that are chosen by name, such as molecules. None of them where the one file holds all.
    levels : mapping of str to str
        Levels of the parts, where they differ.
    pattern : str or None
        Address of any part, with ``{part}`` in it, where parts are not listed.
    most : int
        Bytes that neither the download nor what is unpacked from it may exceed.
    """

    title: str
    about: str
    level: str
    licence: str
    cite: str
    page: str
    reader: Reader
    file: File | None = None
    parts: dict[str, File] | None = None
    levels: dict[str, str] | None = None
    pattern: str | None = None
    most: int = 4 * GIGA


def _npz(name: str) -> File:
    # As SchNetPack 2.2 has them (schnetpack/datasets/md22.py).
    return File(name, f"{GDML}repo/datasets/{name}")


def _ccsd(name: str) -> File:
    # As torch-geometric 2.8 has them (torch_geometric/datasets/md17.py).
    return File(name, f"{GDML}data/npz/{name}")


PUBLISHED: dict[str, DataSet] = {
    "ani1x": DataSet(
        title="ANI-1x",
        about="5 million geometries of organic molecules of H, C, N and O, by active learning.",
        level="ωB97X/6-31G(d)",
        licence="CC0",
        cite="Smith et al., Sci. Data 7 (2020) 134, doi 10.1038/s41597-020-0473-z",
        page="https://doi.org/10.6084/m9.figshare.10047041",
        reader="ani",
        file=File(
            "ani1x-release.h5",
            "https://springernature.figshare.com/ndownloader/files/18112775",
            5590846027,
            "98090dd6679106da861f52bed825ffb7",
        ),
        most=6 * GIGA,
    ),
    "spice": DataSet(
        title="SPICE 2.0.1",
        about="2 million geometries of drug-like molecules, peptides, dimers and ions; subsets are its parts.",
        level="ωB97M-D3(BJ)/def2-TZVPPD",
        licence="CC0",
        cite="Eastman et al., J. Chem. Theory Comput. 20 (2024) 8583, doi 10.1021/acs.jctc.4c00794",
        page="https://doi.org/10.5281/zenodo.10975225",
        reader="spice",
        file=File(
            "SPICE-2.0.1.hdf5",
            "https://zenodo.org/records/10975225/files/SPICE-2.0.1.hdf5",
            37479271148,
            "bfba2224b6540e1390a579569b475510",
        ),
        most=40 * GIGA,
    ),
    "md22": DataSet(
        title="MD22",
        about="Dynamics of seven large molecules of 42 to 370 atoms; each is a part.",
        level="PBE+MBD",
        licence="not stated by its page",
        cite="Chmiela et al., Sci. Adv. 9 (2023) eadf0873, doi 10.1126/sciadv.adf0873",
        page="http://www.sgdml.org/#datasets",
        reader="frames",
        parts={
            "Ac-Ala3-NHMe": _npz("md22_Ac-Ala3-NHMe.npz"),
            "DHA": _npz("md22_DHA.npz"),
            "stachyose": _npz("md22_stachyose.npz"),
            "AT-AT": _npz("md22_AT-AT.npz"),
            "AT-AT-CG-CG": _npz("md22_AT-AT-CG-CG.npz"),
            "buckyball-catcher": _npz("md22_buckyball-catcher.npz"),
            "double-walled_nanotube": _npz("md22_double-walled_nanotube.npz"),
        },
    ),
    "md17-ccsd": DataSet(
        title="MD17 at coupled cluster",
        about="Five molecules of MD17 at coupled cluster, each a part, each with its train and test frames.",
        level="CCSD(T)/cc-pVDZ",
        licence="not stated by its page",
        cite="Chmiela et al., Nat. Commun. 9 (2018) 3887, doi 10.1038/s41467-018-06169-2",
        page="http://www.sgdml.org/#datasets",
        reader="zip of npz",
        parts={
            "aspirin": _ccsd("aspirin_ccsd.zip"),
            "benzene": _ccsd("benzene_ccsd_t.zip"),
            "ethanol": _ccsd("ethanol_ccsd_t.zip"),
            "malonaldehyde": _ccsd("malonaldehyde_ccsd_t.zip"),
            "toluene": _ccsd("toluene_ccsd_t.zip"),
        },
        levels={"aspirin": "CCSD/cc-pVDZ", "ethanol": "CCSD(T)/cc-pVTZ"},
    ),
    "tio2": DataSet(
        title="TiO2 of aenet",
        about="7 800 structures of titanium dioxide: several phases, strained, defective and disordered.",
        level="PBE (Quantum ESPRESSO)",
        licence="not stated by its page",
        cite="Artrith, Urban, Comput. Mater. Sci. 114 (2016) 135, doi 10.1016/j.commatsci.2015.11.047",
        page="http://ann.atomistic.net/download/",
        reader="xsf",
        # As colabfit's script for this set has it.
        file=File("data-set-2016-TiO2.tar.bz2", "http://ann.atomistic.net/files/data-set-2016-TiO2.tar.bz2"),
    ),
    "lmnto": DataSet(
        title="LMNTO",
        about="Dynamics of the cathode Li8Mo2Ni7Ti7O32 at 400 K, with its train and validation frames.",
        level="SCAN (VASP)",
        licence="see its page",
        cite="Cooper et al., npj Comput. Mater. 6 (2020) 54, doi 10.1038/s41524-020-0323-8",
        page="https://doi.org/10.24435/materialscloud:2020.0037/v1",
        reader="xsf",
        # The archive holds water too. Colabfit's script for this set names its folders and no address of a file.
        file=File("lmnto.tar.gz", None),
    ),
    "zeo22": DataSet(
        title="Si-ZEO22",
        about="Dynamics of pure silica zeolites; each topology, such as cha, is a part.",
        level="PBE-D3(BJ) (VASP)",
        licence="CC0",
        cite="github.com/tysours/Si-ZEO22",
        page="https://github.com/tysours/Si-ZEO22",
        reader="zeo",
        pattern="https://raw.githubusercontent.com/tysours/Si-ZEO22/HEAD/data/{part}.npz",
    ),
    "gap20-phosphorus": DataSet(
        title="P-GAP-20",
        about="Phosphorus: random structures, liquids, crystals, layers and fragments.",
        level="PBE+MBD",
        licence="CC BY 4.0",
        cite="Deringer, Caro, Csányi, Nat. Commun. 11 (2020) 5461, doi 10.1038/s41467-020-19168-z",
        page="https://doi.org/10.5281/zenodo.4003703",
        reader="frames",
        # Address and checksum as load-atoms has them (src/load_atoms/database/importers/p_gap_20.py).
        file=File(
            "P_GAP_20_fitting_data.xyz",
            "https://zenodo.org/records/4003703/files/P_GAP_20_fitting_data.xyz",
            sha256="ab3059018068",
        ),
    ),
    "mptrj": DataSet(
        title="MPtrj 2022.9",
        about="1.58 million frames of relaxations of the Materials Project, 89 elements, with stress.",
        level="PBE or PBE+U (VASP), energies corrected by MP2020",
        licence="MIT",
        cite="Deng et al., Nat. Mach. Intell. 5 (2023) 1031, doi 10.1038/s42256-023-00716-3",
        page="https://doi.org/10.6084/m9.figshare.23713842",
        reader="mptrj",
        # As matbench-discovery has it.
        file=File("MPtrj_2022.9_full.json", "https://figshare.com/ndownloader/files/41619375"),
        most=13 * GIGA,
    ),
}
