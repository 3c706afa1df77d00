"""Public data sets by name: small files in the form of the real ones, and such that are damaged or made to harm."""

import hashlib
import io
import json
from urllib.error import HTTPError

import numpy as np
import pytest
from ase.io import write
from click.testing import CliRunner

from asecalc_mlip import cli
from asecalc_mlip.data import downloads, published_files
from asecalc_mlip.data.json_files import read_materials
from asecalc_mlip.data.published import PUBLISHED, DataSet, File
from asecalc_mlip.data.published_files import fetch
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.xsf_files import parse_xsf
from asecalc_mlip.errors import DataError, InputError
from tests.data.published_samples import (
    SAMPLES,
    write_ani,
    write_mptrj,
    write_spice,
    write_tar,
    xsf_text,
)
from tests.teacher import as_reference, crystal_frames


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_frames_labels_and_units_are_those_of_the_file(name, tmp_path):
    path, expected = SAMPLES[name](tmp_path)
    found = fetch(name, tmp_path / "out.xyz", source=path, progress=False)
    frames = read_frames(found.target)
    assert (found.frames, found.left_out, found.checked) == (len(expected), 0, False)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for atoms, wanted in zip(frames, expected, strict=True):
        assert atoms.get_chemical_symbols() == wanted.get_chemical_symbols()
        assert np.allclose(atoms.positions, wanted.positions, atol=1e-6)
        assert np.allclose(atoms.cell, wanted.cell, atol=1e-6) and (atoms.pbc == wanted.pbc).all()
        assert atoms.info["energy"] == pytest.approx(wanted.info["energy"], abs=1e-6)
        assert np.allclose(atoms.arrays["forces"], wanted.arrays["forces"], atol=1e-6)
        if name in ("mptrj", "gap20-phosphorus"):
            assert np.allclose(atoms.info["stress"], wanted.info["stress"], atol=1e-9)
        assert atoms.info["licence"] == PUBLISHED[name].licence and atoms.info["units"] == "eV, Å"
        assert atoms.info["level"] in {PUBLISHED[name].level, *(PUBLISHED[name].levels or {}).values()}
        assert "10." in atoms.info["cite"] or "github" in atoms.info["cite"]
    header = found.target.read_text().splitlines()[1]
    assert "REF_energy=" in header and "REF_forces:R:3" in header


def test_the_table_is_complete():
    for name, row in PUBLISHED.items():
        ways = [row.file is not None, row.parts is not None, row.pattern is not None]
        assert sum(ways) == 1, name
        for file in [row.file, *(row.parts or {}).values()]:
            if file is not None:
                assert file.md5 is None or (len(file.md5) == 32 and int(file.md5, 16))
                assert file.size is None or file.size <= row.most
                assert file.url is None or file.url.startswith(("https://", "http://"))
        assert set(row.levels or {}) <= set(row.parts or {})


def test_names_are_those_of_schnetpack():
    datasets = pytest.importorskip("schnetpack.datasets")
    theirs = datasets.MD22("unused.db", molecule="DHA", batch_size=1)
    ours = PUBLISHED["md22"].parts
    assert {name: file.name for name, file in ours.items()} == theirs.datasets_dict
    assert all(file.url == theirs.download_url + file.name for file in ours.values())


def test_names_are_those_of_torch_geometric():
    theirs = pytest.importorskip("torch_geometric.datasets").MD17
    ours = PUBLISHED["md17-ccsd"].parts
    assert {file.name for file in ours.values()} == {f for n, f in theirs.file_names.items() if "CCSD" in n}
    assert all(file.url.endswith(f"/gdml/data/npz/{file.name}") for file in ours.values())
    assert theirs.gdml_url.endswith("/gdml/data/npz")


def test_parts_and_splits(tmp_path):
    spice, _ = write_spice(tmp_path)
    fetch("spice", tmp_path / "a.xyz", source=spice, part="SPICE Dipeptides", progress=False)
    assert {atoms.info["subset"] for atoms in read_frames(tmp_path / "a.xyz")} == {"SPICE Dipeptides"}
    with pytest.raises(InputError, match="no part 'Water'; it has SPICE DES370K, SPICE Dipeptides"):
        fetch("spice", tmp_path / "b.xyz", source=spice, part="Water", progress=False)
    ccsd, _ = SAMPLES["md17-ccsd"](tmp_path)
    found = fetch("md17-ccsd", tmp_path / "c.xyz", source=ccsd, part="ethanol", split="train", progress=False)
    frames = read_frames(found.target)
    assert {atoms.info["split"] for atoms in frames} == {"train"} and len(frames) == 3
    assert frames[0].info["level"] == "CCSD(T)/cc-pVTZ"
    with pytest.raises(InputError, match="no frames of the split 'half'; it has test, train"):
        fetch("md17-ccsd", tmp_path / "d.xyz", source=ccsd, split="half", progress=False)
    with pytest.raises(InputError, match="ani1x has no parts"):
        fetch("ani1x", tmp_path / "d.xyz", part="H2O", progress=False)
    for name, part, message in (
        ("md22", None, "choose one with --part, of Ac-Ala3-NHMe"),
        ("md22", "water", "no part 'water'; it has Ac-Ala3"),
        ("zeo22", "../../etc", "no part '../../etc'"),
        ("gold", None, "no data set 'gold'; there are ani1x, gap20"),
        ("lmnto", None, "no address that is known here.*materialscloud.*--from"),
    ):
        with pytest.raises(InputError, match=message):
            fetch(name, tmp_path / "d.xyz", part=part, progress=False)
    assert not (tmp_path / "d.xyz").exists()


def test_a_random_choice_has_each_frame_once_and_in_order(tmp_path):
    path, expected = write_ani(tmp_path)
    energies = [atoms.info["energy"] for atoms in expected]
    chosen = []
    for seed in range(20):
        fetch("ani1x", tmp_path / "o.xyz", source=path, n_frames=3, seed=seed, overwrite=True, progress=False)
        rows = [int(np.argmin(np.abs(np.array(energies) - a.info["energy"]))) for a in read_frames(tmp_path / "o.xyz")]
        assert rows == sorted(set(rows)) and len(rows) == 3
        chosen += rows
    # Each of the 7 frames is expected 9 times.
    assert np.bincount(chosen, minlength=len(energies)).min() >= 2
    with pytest.raises(InputError, match="there are 7 frames, not 8"):
        fetch("ani1x", tmp_path / "p.xyz", source=path, n_frames=8, progress=False)


def test_frames_without_labels_are_left_out_and_told(tmp_path, caplog):
    path, expected = write_ani(tmp_path, missing=2)
    found = fetch("ani1x", tmp_path / "o.xyz", source=path, progress=False)
    assert (found.frames, found.left_out) == (len(expected) - 2, 2)
    assert "2 frames without finite energy and forces" in caplog.text
    # And those that have no such label at all.
    frames = crystal_frames(3)
    del frames[0].arrays["forces"]
    write(tmp_path / "some.xyz", as_reference(frames), format="extxyz")
    found = fetch("gap20-phosphorus", tmp_path / "p.xyz", source=tmp_path / "some.xyz", progress=False)
    assert (found.frames, found.left_out) == (2, 1)


@pytest.mark.parametrize("value", ["NaN", "null", "-Infinity"])
def test_one_material_that_did_not_converge_is_named_and_left_out(value, tmp_path, caplog):
    path, expected = write_mptrj(tmp_path)
    content = json.loads(path.read_text())
    names = [(material, name) for material, frames in content.items() for name in frames]
    for key, (material, name) in zip(("corrected_total_energy", "force", "stress"), names, strict=False):
        row = content[material][name]
        row[key] = [["X", *row[key][0][1:]], *row[key][1:]] if key != "corrected_total_energy" else "X"
    path.write_text(json.dumps(content).replace('"X"', value))
    found = fetch("mptrj", tmp_path / "o.xyz", source=path, progress=False)
    assert (found.frames, found.left_out) == (len(expected) - 3, 3)
    assert f"are left out: {', '.join(name for _, name in names[:3])}" in caplog.text


def test_a_folder_of_xsf(tmp_path):
    frames = crystal_frames(3)
    for split, k in (("LMNTO-SCAN-train-data", 0), ("LMNTO-SCAN-validation-data", 2)):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "structure.xsf").write_text(xsf_text(frames[k]))
    found = fetch("lmnto", tmp_path / "o.xyz", source=tmp_path / "data", progress=False)
    assert [atoms.info["split"] for atoms in read_frames(found.target)] == ["train", "validation"]
    assert found.sha256 is None


def test_an_open_structure_in_xsf():
    atoms = parse_xsf(b"# total energy = -3.5 eV\nATOMS\n8 0 0 0 0 0 0.5\nH 0 0 1 0 0 -0.5\n", "a.xsf")
    assert atoms.get_chemical_symbols() == ["O", "H"] and not atoms.pbc.any()
    assert atoms.info["energy"] == -3.5 and atoms.arrays["forces"][1, 2] == -0.5


@pytest.mark.parametrize(
    ("folder", "split"), [("strained", None), ("LMNTO-SCAN-train-data", "train"), ("a/Validation", "validation")]
)
def test_the_split_in_the_folder_of_an_xsf(folder, split):
    text = b"# total energy = -3.5 eV\nATOMS\n8 0 0 0 0 0 0.5\nH 0 0 1 0 0 -0.5\n"
    assert parse_xsf(text, "a.xsf", f"{folder}/a.xsf").info.get("split") == split


@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_json_is_cut_at_any_place(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("asecalc_mlip.data.json_files.CHUNK", chunk)
    path, expected = write_mptrj(tmp_path)
    frames = [make() for make in read_materials(path)]
    assert [atoms.info["energy"] for atoms in frames] == [atoms.info["energy"] for atoms in expected]
    content = path.read_text()
    (tmp_path / "cut.json").write_text(content[:-20])
    with pytest.raises(DataError, match="cut off"):
        list(read_materials(tmp_path / "cut.json"))


class Server:
    """Stands for urlopen: a file that breaks off after some bytes, and goes on where it is asked to."""

    def __init__(self, content, tag='"one"', breaks=None):
        self.content, self.tag, self.breaks, self.asked = content, tag, breaks, []

    def __call__(self, request, timeout):
        self.asked.append(request.headers)
        start = 0
        if request.headers.get("If-range") == self.tag:
            start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                raise HTTPError("https://x/set.json", 416, "Range Not Satisfiable", {}, None)
        body = self.content[start:]
        answer = io.BytesIO(body if self.breaks is None else body[: self.breaks])
        answer.status = 206 if start else 200
        answer.headers = {"Content-Length": str(len(body)), "ETag": self.tag}
        if start:
            answer.headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        return answer


@pytest.fixture
def one_set(tmp_path, monkeypatch):
    """A data set with a checksum, and what stands for its server."""
    content = write_mptrj(tmp_path)[0].read_bytes()
    file = File("set.json", "https://x/set.json", len(content), hashlib.md5(content).hexdigest())
    row = PUBLISHED["mptrj"]
    small = DataSet(**{**row.__dict__, "file": file})
    monkeypatch.setitem(published_files.PUBLISHED, "mptrj", small)
    server = Server(content)
    monkeypatch.setattr(downloads, "urlopen", server)
    folder = tmp_path / "new"
    folder.mkdir()
    return folder, server


def test_an_interrupted_download_goes_on(one_set):
    folder, server = one_set
    server.breaks = 300
    for n in (1, 2):
        with pytest.raises(InputError, match=rf"ended after {300 * n} of .*set.json.part keeps what was loaded"):
            fetch("mptrj", folder / "o.xyz", progress=False)
        assert (folder / "set.json.part").read_bytes() == server.content[: 300 * n]
    server.breaks = None
    found = fetch("mptrj", folder / "o.xyz", progress=False)
    assert found.checked and server.asked[-1]["Range"] == "bytes=600-"
    assert sorted(path.name for path in folder.iterdir()) == ["o.xyz", "set.json"]
    # What is there is used again.
    fetch("mptrj", folder / "p.xyz", progress=False)
    assert len(server.asked) == 3


def test_a_download_that_was_killed_when_it_had_all_goes_on(one_set):
    folder, server = one_set
    (folder / "set.json.part").write_bytes(server.content)
    (folder / "set.json.part.tag").write_text(server.tag)
    assert fetch("mptrj", folder / "o.xyz", progress=False).checked
    assert sorted(path.name for path in folder.iterdir()) == ["o.xyz", "set.json"]


def test_two_processes_do_not_load_one_file_at_the_same_time(one_set, monkeypatch):
    folder, server = one_set

    def opened(request, timeout):
        with pytest.raises(InputError, match="in use by another running process"):
            fetch("mptrj", folder / "p.xyz", progress=False)
        return server(request, timeout)

    monkeypatch.setattr(downloads, "urlopen", opened)
    assert fetch("mptrj", folder / "o.xyz", progress=False).checked
    assert sorted(path.name for path in folder.iterdir()) == ["o.xyz", "set.json"]


def test_a_file_that_changed_meanwhile_is_loaded_anew(one_set):
    folder, server = one_set
    server.breaks, server.tag = 300, '"old"'
    with pytest.raises(InputError):
        fetch("mptrj", folder / "o.xyz", progress=False)
    (folder / "set.json.part").write_bytes(b"x" * 300)
    server.breaks, server.tag = None, '"new"'
    assert fetch("mptrj", folder / "o.xyz", progress=False).checked
    # Without a tag, or with a weak one, nothing is gone on with.
    (folder / "set.json").unlink()
    server.breaks, server.tag = 300, 'W/"weak"'
    with pytest.raises(InputError):
        fetch("mptrj", folder / "p.xyz", progress=False)
    server.breaks = None
    fetch("mptrj", folder / "p.xyz", progress=False)
    assert "Range" not in server.asked[-1]


def test_the_beginning_of_a_sha256_is_compared(one_set, monkeypatch):
    folder, server = one_set
    row = published_files.PUBLISHED["mptrj"]

    def fetch_with(beginning):
        file = File("set.json", row.file.url, sha256=beginning)
        monkeypatch.setitem(published_files.PUBLISHED, "mptrj", DataSet(**{**row.__dict__, "file": file}))
        return fetch("mptrj", folder / "o.xyz", progress=False, overwrite=True)

    right = hashlib.sha256(server.content).hexdigest()[:12]
    # What is loaded, and then what lies there.
    assert fetch_with(right).checked and fetch_with(right).checked
    with pytest.raises(DataError, match="its SHA-256 is not"):
        fetch_with("0" * 12)
    (folder / "set.json").unlink()
    with pytest.raises(InputError, match="its SHA-256 is not"):
        fetch_with("0" * 12)
    assert not (folder / "set.json").exists()


def test_another_content_and_too_much_of_it_are_refused(one_set):
    folder, server = one_set
    good = server.content
    server.content = good.replace(b"-1", b"-2")
    with pytest.raises(InputError, match="its MD5 is not that of the published file"):
        fetch("mptrj", folder / "o.xyz", progress=False)
    server.content = good + b" " * 2000
    with pytest.raises(InputError, match=f"more than the {len(good)} bytes"):
        fetch("mptrj", folder / "o.xyz", progress=False)
    assert not (folder / "set.json").exists()
    (folder / "set.json").write_bytes(good.replace(b"-1", b"-2"))
    with pytest.raises(DataError, match="MD5 is not that of the published file. Remove it"):
        fetch("mptrj", folder / "o.xyz", progress=False)


def test_command(tmp_path):
    path, _ = write_tar(tmp_path)
    arguments = ["data", "tio2", str(tmp_path / "tio2.xyz"), "--from", str(path), "-n", "2", "--no-progress"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    assert "2 frames of TiO2 of aenet, in eV and Å" in result.output
    assert "licence: not stated by its page; cite: Artrith" in result.output
    assert f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}; no published checksum" in result.output
    assert "exists already" in CliRunner().invoke(cli.main, arguments).stderr
    assert CliRunner().invoke(cli.main, [*arguments, "--overwrite"]).exit_code == 0


def test_without_h5py_it_says_how_to_install_it(tmp_path, monkeypatch):
    path, _ = write_ani(tmp_path)
    monkeypatch.setattr("asecalc_mlip.extras._absent", lambda name: name == "h5py")
    monkeypatch.delitem(__import__("sys").modules, "h5py")
    with pytest.raises(InputError, match=r"this data set needs h5py.*\[hdf5\]"):
        fetch("ani1x", tmp_path / "o.xyz", source=path, progress=False)
