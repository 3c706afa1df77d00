"""Radial functions and their derivatives in closed form."""

import pytest
import torch

from asecalc_mlip.models.radial import EnvelopedBasis, cosine_cutoff, make_radial_basis


@pytest.mark.parametrize("name", ["gaussian", "bessel"])
def test_slopes_are_the_derivatives(name):
    radial = EnvelopedBasis(make_radial_basis(name, 12, 5.0))
    distances = torch.linspace(0.2, 5.2, 101, dtype=torch.float64, requires_grad=True)
    values, slopes = radial.with_slopes(distances)
    assert torch.equal(values, radial(distances))
    for k in range(13):
        (expected,) = torch.autograd.grad(values[:, k].sum(), distances, retain_graph=True)
        assert torch.allclose(slopes[:, k], expected, atol=1e-12)


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
