"""Public data sets: small archives in the form of the real ones, fetched through file:// addresses."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from ase import units
from click.testing import CliRunner

pytest.importorskip("schnetpack", reason="needs the extra train: pip install 'asecalc-mlip[train]'")

from asecalc_mlip import cli
from asecalc_mlip.data import downloads
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from tests.teacher import molecule_frames

KCAL = units.kcal / units.mol


@pytest.fixture(scope="module")
def labels():
    """40 frames of an ethanol-like molecule."""
    frames = molecule_frames(40)
    return {
        "numbers": frames[0].numbers.astype(np.uint8),
        "positions": np.array([atoms.positions for atoms in frames]),
        "energies": np.array([atoms.info["energy"] for atoms in frames]) / KCAL,
        "forces": np.array([atoms.arrays["forces"] for atoms in frames]) / KCAL,
    }


@pytest.fixture
def server(tmp_path, labels, monkeypatch):
    """A folder that holds both downloads, with the addresses turned to it."""
    folder = tmp_path / "server"
    folder.mkdir()
    _write_rmd17(folder / "23950376", labels)
    np.savez(
        folder / "md17_ethanol.npz",
        z=labels["numbers"], R=labels["positions"], E=labels["energies"][:, None], F=labels["forces"],
        name="ethanol", theory="PBE", md5="none",
    )  # fmt: skip
    real = downloads.source

    def local(molecule, data_set="rmd17"):
        where = real(molecule, data_set)
        return downloads.Source((folder / where.url.rpartition("/")[2]).as_uri(), where.file, where.member, where.page)

    monkeypatch.setattr(downloads, "source", local)
    return folder


def _write_rmd17(path: Path, labels: dict) -> None:
    """A tar.bz2 with the .npz two folders deep, as on figshare."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        nuclear_charges=labels["numbers"], coords=labels["positions"], energies=labels["energies"],
        forces=labels["forces"], old_indices=1000 + np.arange(len(labels["energies"])),
        old_energies=labels["energies"], old_forces=labels["forces"],
    )  # fmt: skip
    with tarfile.open(path, "w:bz2") as archive:
        for name, data in (("rmd17/readme.txt", b"read me"), ("rmd17/npz_data/rmd17_ethanol.npz", content.getvalue())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize(("data_set", "first"), [("rmd17", 1000), ("md17", 0)])
def test_frames_are_those_of_the_archive(server, labels, tmp_path, data_set, first):
    files = downloads.fetch_molecule("ethanol", tmp_path / "a/b", data_set=data_set, n_frames=15, progress=False)
    assert [file.name for file in files] == [f"{data_set}_ethanol_train.xyz", f"{data_set}_ethanol_test.xyz"]
    parts = [read_frames(file) for file in files]
    used = [[int(atoms.info["md17_index"]) - first for atoms in part] for part in parts]
    assert len(set(used[0]) | set(used[1])) == 30  # no frame twice, none in both
    for part, rows in zip(parts, used, strict=True):
        for atoms, row in zip(part, rows, strict=True):
            assert atoms.info["energy"] == pytest.approx(labels["energies"][row] * KCAL, abs=1e-6)
            np.testing.assert_allclose(atoms.arrays["forces"], labels["forces"][row] * KCAL, atol=1e-7)
            np.testing.assert_allclose(atoms.positions, labels["positions"][row], atol=1e-7)


def test_names_in_the_file_are_the_reference_names(server, tmp_path):
    train, _ = downloads.fetch_molecule("ethanol", tmp_path, n_frames=2, progress=False)
    header = train.read_text().splitlines()[1]
    assert "REF_forces:R:3" in header and "REF_energy=" in header


def test_a_file_in_the_folder_is_used_without_network(server, tmp_path):
    for name, file in (("23950376", "rmd17.tar.bz2"), ("md17_ethanol.npz", "md17_ethanol.npz")):
        (server / name).rename(tmp_path / file)
    for data_set in ("rmd17", "md17"):
        downloads.fetch_molecule("ethanol", tmp_path, data_set=data_set, n_frames=3, progress=False)


@pytest.mark.parametrize(("data_set", "file"), [("rmd17", "rmd17.tar.bz2"), ("md17", "md17_ethanol.npz")])
def test_without_network_it_says_what_to_do(server, tmp_path, data_set, file):
    for name in server.iterdir():
        name.unlink()
    folder = tmp_path / "data"
    with pytest.raises(InputError, match=rf"(?s)by hand.*{file}.*again"):
        downloads.fetch_molecule("ethanol", folder, data_set=data_set, progress=False)
    assert list(folder.iterdir()) == []


class Answer(io.BytesIO):
    """What urlopen returns, with a length it does not keep."""

    headers = {"Content-Length": "100"}


def test_a_broken_connection_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "urlopen", lambda *args, **kwargs: Answer(b"only this"))
    with pytest.raises(InputError, match="9 of 100 bytes"):
        downloads.download("http://x/file", tmp_path / "file", page="p", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data_set", ["rmd17", "md17"])
def test_a_damaged_download_is_told(server, tmp_path, data_set):
    name = {"rmd17": "23950376", "md17": "md17_ethanol.npz"}[data_set]
    content = (server / name).read_bytes()
    (server / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        downloads.fetch_molecule("ethanol", tmp_path, data_set=data_set, n_frames=5, progress=False)
    assert not list(tmp_path.glob("*.xyz"))


def test_bad_requests(server, tmp_path):
    with pytest.raises(InputError, match="no molecule 'water'; it has aspirin, azobenzene"):
        downloads.fetch_molecule("water", tmp_path)
    with pytest.raises(InputError, match="1 to 20"):
        downloads.fetch_molecule("ethanol", tmp_path, n_frames=21, progress=False)
    with pytest.raises(DataError, match="npz_data/rmd17_toluene.npz"):
        downloads.fetch_molecule("toluene", tmp_path, n_frames=5, progress=False)
    downloads.fetch_molecule("ethanol", tmp_path, n_frames=5, progress=False)
    with pytest.raises(InputError, match="exists already"):
        downloads.fetch_molecule("ethanol", tmp_path, n_frames=5, progress=False)


def test_real_addresses():
    assert downloads.source("aspirin").member == "rmd17/npz_data/rmd17_aspirin.npz"
    assert downloads.source("aspirin").url.startswith("https://figshare.com/")
    assert downloads.source("ethanol", "md17").url.endswith("/md17_ethanol.npz")
    assert len(downloads.molecules()) == 10


def test_command(server, tmp_path):
    arguments = ["data", "rmd17", "ethanol", "-o", str(tmp_path), "--n", "4", "--no-progress"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("energy 4/4, forces 4/4") == 2
    assert CliRunner().invoke(cli.main, ["data", "rmd17", "gold"]).exit_code == 2
    assert CliRunner().invoke(cli.main, [*arguments, "--original"]).exit_code == 0
    assert "md17_ethanol_train.xyz" in {path.name for path in tmp_path.iterdir()}
