"""The table of claims sets what is published beside what was run, and says what was not."""

import json
from itertools import chain

from benchmarks.studies.piwsl_claims import PUBLISHED, panels, table
from benchmarks.studies.piwsl_rows import PARTS


def row(loss, seed, energy, forces, **changes):
    errors = {"rmse": {"energy": energy, "forces": forces}, "mae": {"energy": energy / 2, "forces": forces / 2}}
    named = {"data": "aspirin", "n_train": 100, "model": "painn-direct", "forces_weight": 100.0, "steps": 3000}
    return {**named, "loss": loss, "seed": seed, **errors, **changes}


def lines(claim, rows):
    text = table({"source": "a paper", "claims": [claim]}, {str(k): r for k, r in enumerate(rows)})
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:] if "|" in line]


CLAIM = {
    "name": "a set",
    "energy": [50.0, 25.0],
    "forces": [3.0, 2.0],
    "ours": {"data": "aspirin", "n_train": 100, "model": "painn-direct"},
    "part": "aspirin-direct",
}


def test_factors_are_plain_over_the_others_in_the_seeds_that_have_both():
    rows = [row("plain", 0, 90.0, 20.0), row("plain", 1, 110.0, 20.0), row("first", 0, 50.0, 20.0)]
    energy, forces = lines(CLAIM, [*rows, row("plain", 2, 1.0, 1.0, data="ethanol")])
    assert energy[1:3] == ["energy 50 → 25", "2.00"]
    assert energy[4:6] == ["energy: plain 100, first 50", "1.80"]
    assert energy[6] == "1 to 2 seeds, 3000 steps: `piwsl_study.py run aspirin-direct`"
    assert forces[1:3] == ["forces 3 → 2", "1.50"] and forces[5] == "1.00"


def test_trainings_without_a_seed_in_common_have_no_factor():
    energy, _ = lines(CLAIM, [row("plain", 0, 90.0, 20.0), row("first", 1, 50.0, 20.0)])
    assert energy[5] == "–"
    rows = {"a": row("first", 0, 90.0, 20.0), "b": row("antithetic", 0, 50.0, 20.0)}
    assert not panels({"claims": [CLAIM]}, rows)[0].rows


def test_other_errors_and_energies_per_atom():
    claim = {**CLAIM, "ours": {**CLAIM["ours"], "error": "mae"}}
    rows = [row("plain", 0, 90.0, 20.0), row("first", 0, 30.0, 10.0)]
    for entry in rows:
        entry["mae"]["energy_per_atom"] = entry["rmse"]["energy_per_atom"] = entry["mae"]["energy"] / 10
    energy, forces = lines(claim, rows)
    assert energy[4:6] == ["energy per atom (MAE): plain 4.5, first 1.5", "3.00"]
    assert forces[4:6] == ["forces (MAE): plain 10, first 5", "2.00"]


def test_the_figure_has_the_factor_of_each_seed_and_what_is_published_once():
    ours = {"data": "tio2", "n_train": 1000, "model": "escn-direct", "error": "mae"}
    claim = {**CLAIM, "name": "beside it: a set", "ours": ours}
    same = {"data": "tio2", "n_train": 1000, "model": "escn-direct"}
    errors = {"plain": (90.0, 110.0), "first": (45.0,), "first, per atom": (30.0, 55.0)}
    rows = [row(name, seed, e, 8.0, **same) for name, es in errors.items() for seed, e in enumerate(es)]
    energies, forces = panels({"claims": [claim, claim]}, {str(k): r for k, r in enumerate(rows)})
    assert energies.rows == ["paper: a set", "eSCN, TiO2 1000"]
    assert energies.values["published"] == {"paper: a set": [2.0]}
    # Residuals per atom, as the energies, where both were run.
    assert energies.values["first"] == {"eSCN, TiO2 1000": [3.0, 2.0]}
    assert forces.values["first"] == {"eSCN, TiO2 1000": [1.0, 1.0]} and not forces.values["antithetic"]


def test_what_was_not_run_says_so_with_its_command():
    energy, forces = lines(CLAIM, [])
    assert energy[4:] == ["not run", "–", "not run: `piwsl_study.py run aspirin-direct`"]
    assert forces[4:6] == ["not run", "–"]


def test_every_claim_that_has_rows_names_the_part_that_trains_them():
    for claim in json.loads(PUBLISHED.read_text())["claims"]:
        if "ours" not in claim:
            assert claim["command"].startswith("asecalc ")
            continue
        ours = claim["ours"]
        wanted = (ours["data"], ours["n_train"], ours["model"], ours.get("forces_weight", 100.0))
        assert wanted in {(r.data, r.n_train, r.model, r.forces_weight) for r in PARTS[claim["part"]]()}
        losses = {f"{loss}{ours.get('suffix', '')}" for loss in ours.get("losses", ["plain"])}
        assert losses <= {r.loss for r in chain(*(part() for part in PARTS.values()))}
