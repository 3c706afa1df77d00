"""Files that are written, their locks and their names."""

import bz2
import errno
import gzip
import lzma
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from asecalc_mlip import files, locks
from asecalc_mlip.analysis.rdf_report import _read as frames_of_a_trajectory
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import write_json, write_text
from asecalc_mlip.locks import locked, locked_file
from asecalc_mlip.plots.style import LONGEST, figure_bytes, new_figure, plain
from tests.commands import asecalc
from training.config import load_config


@pytest.mark.skipif(sys.platform == "win32", reason="another meaning of signal 0")
def test_what_a_killed_process_had_begun_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".old.{dead.pid}.writing.png").touch()
    (tmp_path / f".new.{dead.pid}-{files._machine()}.writing.png").touch()
    # Another machine has processes of its own, which this one does not see.
    kept = [".other.1.writing.png", f".there.{dead.pid}-00000000.writing.pt"]
    for name in kept:
        (tmp_path / name).touch()
    write_json(tmp_path / "new.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [*kept, "new.json"]


def marked(path):
    """The same file with the byte order mark that some editors write before UTF-8."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return path


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.cif", "POSCAR", "a.json"])
def test_a_byte_order_mark_before_a_structure_is_passed_over(name, tmp_path):
    files.write_structure(tmp_path / name, bulk("Cu"))
    path = marked(tmp_path / name)
    every = [files.read_structure(path), *files.read_structures(path), *frames_of_a_trajectory(str(path))]
    if name != "a.json":
        every += read_frames(path)
    assert [atoms.get_chemical_formula() for atoms in every] == ["Cu"] * len(every)
    assert not files._has_several(path)


def test_open_directions_need_no_cell_vectors(tmp_path):
    slab = bulk("Cu", cubic=True)
    slab.pbc, slab.cell[2] = (True, True, False), 0.0
    write(tmp_path / "slab.xyz", slab)
    assert files.read_structure(tmp_path / "slab.xyz").cell.rank == 2
    slab.cell[1] = 2 * slab.cell[0]
    write(tmp_path / "flat.xyz", slab)
    with pytest.raises(InputError, match="periodic where its cell has no vector of its own"):
        files.read_structure(tmp_path / "flat.xyz")


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.xyz", "a.cif"])
def test_packed_files_and_other_encodings_with_a_mark_are_read(name, encoding, ending, tmp_path):
    files.write_structure(tmp_path / name, bulk("Cu"))
    content = (tmp_path / name).read_text(encoding="utf-8").encode(encoding)
    path = tmp_path / f"b{name}{ending}"
    path.write_bytes(PACK[ending](content))
    every = [files.read_structure(path), *read_frames(path), *frames_of_a_trajectory(str(path))]
    assert [atoms.get_chemical_formula() for atoms in every] == ["Cu"] * 3


@pytest.mark.parametrize(
    ("name", "made", "told"),
    [
        (
            "a.xyz",
            gzip.compress,
            "It is packed by gzip: unpack it, or give its name the ending; text in .gz,",
        ),
        ("a.cif", bz2.compress, "It is packed by bzip2: unpack it, or"),
        ("a.xyz", lambda text: b"PK\x03\x04" + text, "It is packed by zip: unpack it; text in .gz"),
        ("a.xyz.zst", lambda text: b"\x28\xb5\x2f\xfd" + text, "It is packed by zstandard: unpack it"),
        ("a.xyz.xz", bytes, "It is not packed, though its name ends in .xz: give it another name"),
        (
            "a.xyz",
            lambda text: text.decode().encode("utf-16-le"),
            "it is none in UTF-8: save it so, or with a",
        ),
    ],
)
def test_what_a_file_is_that_cannot_be_read_is_told(name, made, told, tmp_path):
    files.write_structure(tmp_path / "plain.xyz", bulk("Cu"))
    (tmp_path / name).write_bytes(made((tmp_path / "plain.xyz").read_bytes()))
    for read in (files.read_structure, read_frames, lambda path: frames_of_a_trajectory(str(path))):
        with pytest.raises(InputError, match=rf"{name}.* cannot be read.*{told}"):
            read(tmp_path / name)


def test_a_byte_order_mark_before_settings_is_passed_over(tmp_path):
    write_json(tmp_path / "a.json", {"seed": 3})
    write_text(tmp_path / "a.yaml", "run: {seed: 3}\n")
    assert files.read_json(marked(tmp_path / "a.json")) == {"seed": 3}
    assert load_config([marked(tmp_path / "a.yaml")], ["data.train=a.xyz"]).run.seed == 3


@pytest.mark.parametrize("name", ["a.xyz.gz", "a.cif", "POSCAR"])
def test_a_structure_has_the_format_that_its_name_says(name, tmp_path):
    files.write_structure(tmp_path / name, bulk("Cu"))
    found = files.read_structure(tmp_path / name)
    assert found.get_chemical_formula() == "Cu" and found.pbc.all()


def test_which_of_several_structures_is_told_and_can_be_chosen(tmp_path, caplog):
    frames = [bulk("Cu", a=3.6 + 0.01 * k) for k in range(3)]
    path = tmp_path / "several.xyz"
    write(path, frames)

    def volume(name, **options):
        return files.read_structure(name, **options).get_volume()

    assert volume(path) == pytest.approx(frames[-1].get_volume()) and not caplog.records
    assert volume(path, tell=True) == pytest.approx(frames[-1].get_volume())
    assert "several structures: the last one is taken; give" in caplog.text and f"{path}@0" in caplog.text
    caplog.clear()
    for number in (0, 1, -3):
        assert volume(f"{path}@{number}", tell=True) == pytest.approx(frames[number].get_volume())
    for name in ("POSCAR", "one.xyz"):
        write(tmp_path / name, frames[0])
        assert volume(tmp_path / name, tell=True) == pytest.approx(frames[0].get_volume(), rel=1e-6)
    assert not caplog.records
    with pytest.raises(InputError, match=r"several.xyz cannot be read: .*Is there a structure 7\? The first is 0"):
        volume(f"{path}@7")
    with pytest.raises(InputError, match=r"none.xyz@0: no such file"):
        volume(tmp_path / "none.xyz@0")


@pytest.mark.skipif(locks.fcntl is None, reason="no locks there")
def test_a_file_system_that_locks_no_folders(tmp_path, monkeypatch):
    """As NFS: flock(2) becomes a lock of fcntl(2), which needs a file that is open for writing."""
    flock = locks.fcntl.flock

    def as_nfs(handle, how):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, how)

    monkeypatch.setattr(locks.fcntl, "flock", as_nfs)
    folder = tmp_path / "run"
    for _ in range(2):
        with locked(folder), pytest.raises(InputError, match="in use by another"), locked(folder):
            pass
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_in_between_is_told(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="run cannot be written to"), locked(folder):
        folder.rmdir()
        (folder / "log.csv").open("w")


def test_one_process_for_a_file_that_grows(tmp_path):
    path = tmp_path / "labels.xyz"
    with locked_file(path):
        with pytest.raises(InputError, match=r"labels\.xyz is in use by another running process"), locked_file(path):
            pass
    with locked_file(path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(locks.fcntl is None, reason="no locks there")
@pytest.mark.parametrize("wait", [False, True])
def test_a_lock_that_was_removed_before_it_was_held(tmp_path, monkeypatch, wait):
    """The process before lets go of a lock between the moments when the next one opens it and holds it."""
    path, folder, flock = tmp_path / "labels.xyz", tmp_path / "run", locks.fcntl.flock

    def late(remove):
        def once(handle, how):
            monkeypatch.setattr(locks.fcntl, "flock", flock)
            remove()
            flock(handle, how)

        return once

    monkeypatch.setattr(locks.fcntl, "flock", late(path.with_name(".labels.xyz.lock").unlink))
    with locked_file(path):
        with pytest.raises(InputError, match="in use by another"), locked_file(path):
            pass
    monkeypatch.setattr(locks.fcntl, "flock", late(folder.rmdir))
    with locked(folder, wait=wait):
        assert folder.is_dir()
        with pytest.raises(InputError, match="in use by another"), locked(folder):
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_goes_before_its_lock(tmp_path, monkeypatch):
    rmdir = Path.rmdir

    def told(folder):
        with pytest.raises(InputError, match="in use by another"), locked(folder):
            pass
        rmdir(folder)

    monkeypatch.setattr(Path, "rmdir", told)
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_text_that_is_none_can_be_written(tmp_path):
    write_text(tmp_path / "a.txt", "a\udcffb")
    assert (tmp_path / "a.txt").read_text() == "a\\udcffb"


@pytest.mark.parametrize("title", ["a$x$", "$", r"$\frac{", "a" * 5000])
def test_a_name_is_no_formula(title):
    assert figure_bytes(new_figure(3, 2, title), dpi=30)[:4] == b"\x89PNG"
    assert len(plain("a" * 5000)) == LONGEST


@pytest.mark.parametrize("name", ["a" * 300, "b" * 5000])
@pytest.mark.parametrize("command", [["info"], ["rdf"], ["nvt", "aspirin.pt"], ["evaluate", "aspirin.pt"]])
def test_names_that_are_too_long(command, name):
    result = asecalc(*command, name)
    line = result.stderr.splitlines()[-1]  # before it may stand that no kernels are built
    assert result.exit_code == 2 and "in fewer letters" in line and len(line) < 300


@pytest.mark.parametrize("command", ["info", "nvt"])
def test_names_that_are_no_text(command):
    result = asecalc(command, "a\udcff.pt")
    assert result.exit_code == 2 and result.stderr.startswith(r"Error: 'a\udcff.pt' is not UTF-8 text")


def test_a_folder_as_output(tmp_path):
    for command in (["eam", "label", "x.xyz", "x.pt"], ["eam", "export", "x.pt"], ["core", "aspirin.pt"]):
        result = asecalc(*command, "-o", tmp_path)
        assert result.exit_code == 2 and "is a folder; name a file in it" in result.stderr


def test_an_interruption_is_told(monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("asecalc_mlip.checkpoint.describe", interrupt)
    result = asecalc("info", "aspirin.pt")
    assert result.exit_code == 130 and result.stderr.startswith("Interrupted.") and "Aborted" not in result.stderr


def test_a_shipped_model_need_not_be_fetched():
    result = asecalc("zoo", "get", "aspirin.pt")
    assert result.exit_code == 2 and "aspirin.pt is shipped with this package" in result.stderr


def test_values_that_are_none():
    pytest.importorskip("schnetpack")
    for value in ("", "~"):
        result = asecalc("train", f"data.test={value}")
        assert result.exit_code == 2 and "has no value; to leave data.test unset, write null" in result.stderr
