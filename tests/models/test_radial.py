"""Radial functions and their derivatives in closed form."""

import pytest
import torch

from asecalc_mlip.models import TensorNet
from asecalc_mlip.models.radial import cosine_cutoff, make_radial_basis


def test_cutoff_is_smooth():
    distances = torch.tensor([0.0, 2.5, 5.0, 5.1, 9.9], dtype=torch.float64)
    assert cosine_cutoff(distances, 5.0).tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.0], abs=1e-15)


def test_far_gaussians_are_no_denormal_numbers():
    values = make_radial_basis("gaussian", 20, 5.0)(torch.tensor([0.1, 4.9]))
    assert values.min() > torch.finfo(torch.float32).tiny


@pytest.mark.parametrize(("name", "n_rbf", "message"), [("wave", 8, "'wave' is unknown"), ("bessel", 1, "at least 2")])
def test_bad_options(name, n_rbf, message):
    with pytest.raises(ValueError, match=message):
        make_radial_basis(name, n_rbf, 5.0)


def test_an_unknown_basis_names_all_that_the_network_has():
    with pytest.raises(ValueError, match=r"\['bessel', 'expnorm', 'gaussian', 'smooth_bessel'\]"):
        TensorNet(n_features=8, radial_basis="wave")
