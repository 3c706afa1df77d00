"""Rows of the study of sparse data: what is equal between those that are compared."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies.grid import settings_of
from benchmarks.studies.sparse_figures import curves_figure, survivors, weak_panels
from benchmarks.studies.sparse_report import (
    control_table,
    dynamics_table,
    few_table,
    teacher_table,
    trials_table,
    weak_table,
)
from benchmarks.studies.sparse_rows import PARTS, Row, hot_file, stages
from training.config import load_config

DATA, OUTPUT = Path("data"), Path("runs/row")


def steps_of(settings):
    return settings["run.steps_per_epoch"] * settings["run.max_epochs"]


def result(method, seed, forces, steps=600, n=50):
    mae = {"energy": 20.0, "forces": forces}
    return Row("aspirin", n, method, seed, steps).to_dict() | {"mae": mae, "cpu_seconds": 30.0}


def test_all_rows_have_settings_that_a_training_takes():
    rows = {row.key: row for part in PARTS.values() for row in part()}
    kinds = {(row.data, row.method): row for row in rows.values()}
    for row in kinds.values():
        for settings in stages(row, DATA, OUTPUT):
            assert settings_of(settings).run.threads == 1


@pytest.mark.parametrize("name", ["PaiNN", "TensorNet"])
def test_a_teacher_takes_half_of_the_steps_and_sees_the_same_frames(name):
    row = Row("aspirin", 100, name, 2, 10_000)
    (plain,), (first, last) = stages(row, DATA, OUTPUT), stages(replace(row, method=f"{name}, xtb first"), DATA, OUTPUT)
    assert steps_of(last) == steps_of(plain) / 2 and 0.95 < steps_of(first) / steps_of(last) <= 1
    for key in ("data.train", "data.n_train", "data.split_seed", "run.batch_size"):
        assert first[key] == last[key] == plain[key]
    assert "data.test" not in first and last["data.test"] == plain["data.test"]
    assert last["finetune.base"] == first["run.output"] / "model.pt"
    assert "pretrain.teacher" not in last


def test_a_shared_teacher_is_one_model_for_all_seeds():
    rows = [Row("aspirin", 50, "fine-tuned, xtb first", seed, 600) for seed in (0, 1)]
    (first, last), (same, other) = (stages(row, DATA, OUTPUT / str(row.seed)) for row in rows)
    assert first == same and first["run.output"].parent == OUTPUT
    assert (last["data.split_seed"], other["data.split_seed"]) == (0, 1)
    assert last["finetune.base"] == other["finetune.base"]


def test_the_structures_far_away_stay_in_the_second_step():
    row = Row("aspirin", 50, "fine-tuned, xtb first, far", 1, 600)
    first, last = stages(row, DATA, OUTPUT / "x")
    assert (first["far.teacher"], last["far.teacher"]) == ("xtb", "base")
    assert first["far.sources"] == last["far.sources"]
    near = stages(replace(row, method="fine-tuned, xtb first"), DATA, OUTPUT / "x")[0]
    assert first["run.output"] != near["run.output"]


def test_the_recipe_for_few_labels_is_that_of_the_study():
    """But for what a study sets: names of files, seeds, threads, and more validation frames in the second step."""
    recipes = Path(__file__).resolve().parents[2] / "benchmarks" / "recipes"
    study = stages(Row("aspirin", 50, "TensorNet, corrected xtb first, far", 0, 600), DATA, OUTPUT / "x")
    for name, settings in zip(("few_labels_first", "few_labels"), study, strict=True):
        found, wanted = load_config([recipes / f"{name}.yaml"], ["data.train=x.xyz"]), settings_of(settings)
        for section in (
            "pretrain",
            "far",
            "loss",
            "optimizer",
            "weak",
            *(["model"] if wanted.finetune.base is None else []),
        ):
            assert getattr(found, section) == getattr(wanted, section), (name, section)
        for key in ("batch_size", "steps_per_epoch", "max_epochs"):
            assert getattr(found.run, key) == getattr(wanted.run, key), (name, key)


def test_a_student_learns_the_model_that_is_fine_tuned_on_its_frames():
    tuned, first, last = stages(Row("silica", 30, "PaiNN, distilled", 1, 8000), DATA, OUTPUT)
    assert tuned == stages(Row("silica", 30, "fine-tuned", 1, 2000), DATA, tuned["run.output"])[0]
    assert first["pretrain.teacher"] == tuned["run.output"] / "model.pt"
    for key in ("data.train", "data.n_train", "data.split_seed"):
        assert tuned[key] == first[key] == last[key]
    assert first["model.architecture"] == "painn" and "finetune.base" not in first


def test_tables_compare_seed_with_seed():
    rows = [result("fine-tuned", seed, 40.0 + seed) for seed in range(3)]
    rows += [result("fine-tuned, first", seed, 0.9 * (40.0 + seed)) for seed in range(3)]
    rows += [result("PaiNN", 1, 80.0, n=100), result("PaiNN, xtb first", 1, 60.0, n=100)]
    results = {f"{k}": row for k, row in enumerate(rows)}
    weak = weak_table(results)
    assert "| first | 3 |" in weak and "−10.0 %" in weak
    p = float(weak.split("−10.0 % | ")[1].split(" |")[0])
    assert p < 1e-3
    results["hot"] = result("PaiNN, xtb first, 1500 K", 1, 40.0, n=100)
    table = teacher_table(results)
    assert "| PaiNN, 600 | copies | 1 | 80.0 | 60.0 | −25 % | 20 → 20 |" in table
    assert "| PaiNN, 600 | dynamics at 1500 K | 1 | 80.0 | 40.0 | −50 % | 20 → 20 |" in table
    assert "41.0 ± 1.0" in few_table(results)


def test_the_table_of_the_control_compares_equal_seeds():
    def of(method, seed, forces, **more):
        row = Row("ethanol", 950, method, seed, 20_000).to_dict()
        return row | {"mae": {"energy": 1.0, "forces": forces}, "cpu_seconds": 30.0, **more}

    far = {"forces": {"bonds": 0.5, "two_step": 0.8, "dynamics": 0.3}, "flags": ["H-H: a well", "O-O: a kink"]}
    rows = [of("TensorNet", 0, 8.0), of("TensorNet", 1, 1.0), of("TensorNet, far, weight 0.1", 0, 8.8, far=far)]
    table = control_table({str(k): row for k, row in enumerate(rows)})
    assert "| nothing | 2 | 4.50 ± 4.95 |  | 1.00 ± 0.00 |" in table
    assert "| a tenth, weight 0.1 | 1 | 8.80 | +10.0 % | 1.00 | 0.50 | 0.80 | 0.30 | 2 |" in table


def test_the_table_of_dynamics_counts_the_trajectories_of_all_models():
    row = Row("aspirin", 50, "fine-tuned", 0, 600).to_dict() | {"temperature_K": 500, "length_ps": 50.0}
    first = row | {"stable_ps": [50.0, 50.0], "stable": 2, "failures": {}}
    other = row | {"seed": 1, "stable_ps": [50.0, 10.0], "stable": 1, "failures": {"broken_bond": 1}}
    table = dynamics_table({"a": first, "b": other})
    assert "| aspirin, 50 | fine-tuned | 500 K | 2 | 3 of 4 | 40.0 of 50 ps | broken bond: 1 |" in table


def test_a_table_says_what_was_not_run():
    assert re.search(r"Of the (\d+) trainings of .*, \1 were not run\.$", trials_table({}))
    every = {row.key: result(row.method, row.seed, 40.0) | {"curve": [[50, 40.0]]} for row in PARTS["weak-trials"]()}
    assert re.search(r"All \d+ trainings of .* were run\.$", trials_table(every))


def test_a_training_has_one_colour_in_both_panels():
    rows = [result("TensorNet", 0, 40.0, n=n) | {"curve": [[50, 60.0], [600, 40.0]]} for n in (50, 100)]
    left, right = curves_figure({str(k): row for k, row in enumerate(rows)}).axes
    (one,), (other,) = left.lines, right.lines
    assert one.get_color() == other.get_color() and one.get_label() == other.get_label() == "TensorNet"


def test_the_figure_of_fine_tuning_has_the_change_of_each_seed_by_the_chosen_coefficients():
    rows = [result("fine-tuned", 0, 40.0), result("fine-tuned", 1, 50.0)]
    rows += [result("fine-tuned, first × 0.1", 1, 45.0), result("fine-tuned, first", 0, 80.0)]
    alone = Row("malonaldehyde", 950, "fine-tuned", 0, 2000).to_dict() | {"mae": {"energy": 20.0}}
    rows += [alone, {**alone, "method": "fine-tuned, antithetic × 0.01", "mae": {"energy": 50.0}}]
    forces, energies = weak_panels({str(k): row for k, row in enumerate(rows)})
    assert forces.values == {"first": {"aspirin, 50": [pytest.approx(-10.0)]}}
    assert energies.values == {"antithetic": {"malonaldehyde, 950": [2.5]}}


def test_the_figure_of_dynamics_has_every_trajectory_of_all_models():
    row = Row("aspirin", 50, "fine-tuned", 0, 600).to_dict() | {"temperature_K": 1200, "stable_ps": [20.0, 3.0]}
    rows = [row, {**row, "seed": 1, "stable_ps": [5.0]}, {**row, "temperature_K": 500, "stable_ps": [50.0]}]
    assert survivors({str(k): r for k, r in enumerate(rows)}) == {"50 frames": {"fine-tuned": [20.0, 3.0, 5.0]}}


def test_frames_of_the_teachers_dynamics_are_shared_by_networks():
    rows = [Row("aspirin", 100, f"{network}, xtb first, 1500 K", 1, 600) for network in ("PaiNN", "TensorNet")]
    first, last = zip(*(stages(row, DATA, OUTPUT) for row in rows), strict=True)
    assert {one["data.train"] for one in first} == {OUTPUT.parent / hot_file(rows[0])}
    assert all("pretrain.teacher" not in one for one in first)
    assert {one["data.train"].name for one in last} == {"rmd17_aspirin_train.xyz"}
    assert hot_file(Row("aspirin", 100, "PaiNN, xtb first", 1)) is None
