"""Rows of the two large studies: settings that a training takes, and names that are theirs alone."""

from pathlib import Path

import pytest

from benchmarks.studies import eam_report, eam_rows, piwsl_report, piwsl_rows
from benchmarks.studies.grid import settings_of

DATA, OUTPUT = Path("data"), Path("runs/row")


def rows_of(study):
    return [row for part in study.PARTS.values() for row in part()]


def settings(row):
    if isinstance(row, piwsl_rows.Row):
        return settings_of(piwsl_rows.overrides(row, DATA, OUTPUT))
    return settings_of(eam_rows.train_overrides(row, DATA))


def kind(row):
    """What the settings of a row depend on, but for seeds and numbers of frames."""
    return row.data, row.model, getattr(row, "loss", None) or row.label


@pytest.mark.parametrize("study", [piwsl_rows, eam_rows])
def test_rows_have_names_of_their_own_and_settings_that_a_training_takes(study):
    rows, named = rows_of(study), {}
    for row in rows:
        # A row may stand in several parts.
        assert named.setdefault(row.key, row) == row
    kinds = {kind(row): row for row in rows if row.data in ("aspirin", "silica", "ethanol-methanol")}
    for row in kinds.values():
        found = settings(row)
        assert found.run.threads == 1 and found.run.early_stop == row.stop


def test_rows_to_convergence_are_of_the_size_one_would_ship():
    parts = [part for name, part in piwsl_rows.PARTS.items() if name.startswith("converged-")]
    rows = [row for part in parts for row in part()]
    assert {row.data for row in rows} == set(piwsl_rows.DATA) - {"formic-acid-dimer"}
    for row in rows[:40:7]:
        found = settings(row)
        assert found.model.hyperparameters["n_features"] == 64 and found.optimizer.schedule == "plateau"
        assert found.run.steps_per_epoch * found.run.max_epochs == row.steps
        assert found.run.early_stop > 2 * found.optimizer.plateau_patience
    # Residuals count as the energies do.
    (periodic,) = {settings(row).weak.normalisation for row in rows if row.data == "tio2" and "first" in row.loss}
    (molecular,) = {settings(row).weak.normalisation for row in rows if row.data == "ethanol" and "first" in row.loss}
    assert (periodic, molecular) == ("per_atom", "total")


def test_reports_know_every_model_and_data_set():
    assert {row.model for row in rows_of(piwsl_rows)} <= set(piwsl_report.KINDS)
    heads = {name for name, kind in piwsl_report.KINDS.items() if kind.endswith(" with a force head")}
    assert heads == {name for name, model in piwsl_rows.MODELS.items() if model.get("direct_forces")}
    assert {row.model for row in rows_of(eam_rows)} <= set(eam_report.NAMES)
    assert {row.data for row in rows_of(eam_rows)} <= set(eam_report.DATA_NAMES)
