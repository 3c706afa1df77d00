"""Options that have no effect beside the others are refused: a user who gave them meant another result."""

import shlex

import pytest
from ase.build import bulk, molecule
from ase.io import write

from asecalc_mlip.errors import InputError
from asecalc_mlip.teachers import TeacherOptions, open_teacher
from asecalc_mlip.workers import Workers
from tests.commands import asecalc
from training.learn import LearnSettings

LEARN = "learn water.xyz --labels xtb"
REFUSED = {
    "train --defaults run.seed=1": "has no effect with --defaults",
    "train --defaults --trust-data": "--trust-data has no effect with --defaults, which prints the defaults alone",
    "finetune aspirin.pt data.train=a.xyz finetune.base=silica.pt": "finetune.base=silica.pt: the base is aspirin.pt",
    "diatomic aspirin.pt --title x": "--title has no effect without --figure FILE",
    "eos silica.pt --as-is --rigid --fmax 0.01": "--fmax has no effect with --as-is and --rigid, which relax nothing",
    "vibrations aspirin.pt --as-is --fmax 0.01": "--fmax has no effect with --as-is, which relaxes nothing",
    "bench aspirin.pt --largest 100": "--largest has no effect without --scaling: leave it out",
    "report aspirin.pt --frames 10": "--frames counts structures of --data",
    "data atoms H --longest 4": "--longest has no effect without --dimers N",
    "data lmnto out.xyz --seed 1": "--seed has no effect without -n N",
    "lammps plugin --sources --again": "--again has no effect with --sources",
    "lammps monitor plain.pt --temperature 300": "plain.pt does not say how close atoms come in its training data",
    "ipi aspirin.pt --unix a --port 3000 --host b": "--host and --port have no effect with --unix",
    "eam fit water.xyz --morse-only --compare": "--compare has no effect with --morse-only, which has no density",
    "eam fit water.xyz --morse-only --exponentials 4": "--exponentials has no effect with --morse-only",
    "eam label water.xyz eam.pt -o out.xyz --rounds 1 --strength 1 --seed 1":
        "--strength and --seed have no effect with --rounds 1",
    f"{LEARN} --data water.xyz --initial 5": "--initial has no effect with --data FILE",
    f"{LEARN} --threshold 1 --tolerance 0.2": "--tolerance has no effect with --threshold",
    f"{LEARN} data.n_train=5": "data.n_train=5: the loop sets it itself; leave it out",
    f"{LEARN} data.split_seed=5": "data.split_seed=5: the loop sets it itself; leave it out",
    f"{LEARN} --processes 2 --dask tcp://a:1": "leave one out",
    **dict.fromkeys((
        "rdf water.xyz -o ./water.xyz",
        "rdf water.xyz --save-reference water.xyz",
        "vibrations aspirin.pt water.xyz -o water.xyz",
        "vibrations aspirin.pt water.xyz@0 -o water.xyz",
        "diatomic aspirin.pt --training water.xyz -o water.xyz",
        "core aspirin.pt --data water.xyz -o water.xyz",
        "dimers aspirin.pt --data water.xyz -o water.xyz",
        "bench aspirin.pt -s water.xyz -o water.xyz",
    ), "water.xyz is the file that is read, and would be lost"),
    "evaluate plain.pt water.xyz -o plain.pt": "plain.pt is the file that is read, and would be lost",
    "learn water.xyz --labels aspirin.pt --charge -1": "--charge and --multiplicity are for xtb and pyscf; aspirin.pt",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("water.xyz", molecule("H2O"))
    return tmp_path


@pytest.mark.parametrize("command", REFUSED)
def test_refused(command, folder):
    if "plain.pt" in command:
        from tests.md.models import random_model

        random_model(folder / "plain.pt")
    before, water = sorted(folder.iterdir()), (folder / "water.xyz").read_bytes()
    result = asecalc(*shlex.split(command))
    assert result.exit_code == 2 and REFUSED[command] in result.stderr, result.output
    assert sorted(folder.iterdir()) == before and (folder / "water.xyz").read_bytes() == water


def test_a_default_that_is_not_given_is_not_refused():
    write("si.xyz", bulk("Si"))
    result = asecalc("eos", "silica.pt", "si.xyz", "--as-is", "--rigid")
    assert "has no effect" not in result.output


@pytest.mark.parametrize(
    ("command", "begun"),
    [
        ("eam fit absent.xyz -o eam.pt --morse-only --exponentials 4", "eam.ckpt"),
        ("eam label absent.xyz eam.pt -o out.xyz --rounds 1 --strength 1", "out.xyz"),
    ],
)
def test_what_was_begun_with_them_goes_on(command, begun, folder):
    assert "effect" in asecalc(*shlex.split(command)).stderr
    (folder / begun).touch()
    assert "absent.xyz" in (told := asecalc(*shlex.split(command)).stderr) and "effect" not in told


def test_from_python():
    with pytest.raises(InputError, match="--multiplicity are for xtb and pyscf; water.py"):
        open_teacher("water.py", TeacherOptions(multiplicity=3))
    with pytest.raises(InputError, match="leave one out"):
        Workers(2, "tcp://a:1")
    with pytest.raises(InputError, match="data.n_val=3"):
        LearnSettings("xtb", training=("data.n_val=3",))
