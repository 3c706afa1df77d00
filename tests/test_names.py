"""How models and calculators are called, and found by completion."""

import pytest

import asecalc_mlip
from asecalc_mlip import EAMCalculator, PIWSLCalculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.units import threads_text
from tests.cases import model_file


def test_a_sum_is_called_by_its_parts(tmp_path):
    calculator = PIWSLCalculator.load(model_file(tmp_path, "sum"), device="cpu")
    assert calculator.card["architecture"] == "painn + eam + zbl"
    assert "sum.pt: painn + eam + zbl, elements" in repr(calculator) and "sum," not in repr(calculator.model)
    with pytest.raises(InputError, match=r"is not an EAM but painn \+ eam \+ zbl"):
        EAMCalculator.load(model_file(tmp_path, "sum"))


def test_names_of_the_package_are_found_by_completion():
    assert {"PIWSLCalculator", "EAMCalculator", "CommitteeCalculator"} <= set(dir(asecalc_mlip))


def test_one_thread_is_not_called_threads():
    assert [threads_text(number) for number in (1, 2)] == ["1 thread", "2 threads"]
