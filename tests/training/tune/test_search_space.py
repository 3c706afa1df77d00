"""What `--space` may say, and what is refused before anything is trained."""

import pytest

from asecalc_mlip.errors import InputError

pytest.importorskip("schnetpack")
from training.config import load_config  # noqa: E402
from training.tune.space import make_space  # noqa: E402


class Trial:
    """Stands for a trial of Optuna, which takes the lower end or the last choice."""

    def suggest_float(self, key, low, high, *, log):
        return float(low)

    def suggest_int(self, key, low, high, *, log):
        return int(low)

    def suggest_categorical(self, key, choices):
        return choices[-1]


def space(*texts, overrides=()):
    return make_space(texts, load_config([], overrides))


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("plain", ["weak.pitc", "weak.pisc", "weak.epsilon"]),
        ("piwsl", ["weak.pitc", "weak.pisc", "weak.epsilon"]),
        ("curvature", ["weak.coefficient", "weak.epsilon"]),
        ("asam", ["weak.rho"]),
    ],
)
def test_default_space_is_what_the_method_reads(method, keys):
    parameters, config = space(overrides=[f"weak.method={method}"])
    assert [p.key for p in parameters] == keys
    assert all(p.log and p.kind == "float" for p in parameters)
    assert config.weak.method == ("piwsl" if method == "plain" else method)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("weak.pitc=1e-1:100:log", "float", 0.1),
        ("weak.pisc=0:1", "float", 0.0),
        ("weak.order=first,trapezoid", "choice", "trapezoid"),
        ("weak.remove_translation=false,true", "choice", True),
        ("weak.epsilon=0.01,5e-2", "choice", 0.05),
        ("run.batch_size=2:8", "int", 2),
        ("optimizer.lr=0.0001:0.01:log", "float", 0.0001),
        ("model.architecture=painn,schnet", "choice", "schnet"),
        ("model.hyperparameters.n_features=16,32", "choice", 32),
        ("model.hyperparameters.n_interactions=1:3", "int", 1),
        ("model.hyperparameters.cutoff=4:6", "float", 4.0),
        ("model.hyperparameters.direct_forces=false,true", "choice", True),
    ],
)
def test_kinds_of_settings(text, kind, value):
    (parameter,), _ = space(text)
    assert parameter.kind == kind
    suggested = parameter.suggest(Trial())
    assert suggested == value and type(suggested) is type(value)
    again, _ = space(str(parameter))
    assert again == [parameter]


def test_a_plain_training_stays_plain_where_no_weak_setting_is_searched():
    assert space("optimizer.lr=0.001:0.01")[1].weak.method == "plain"
    assert space("weak.pitc=1:10")[1].weak.method == "piwsl"
    assert space("weak.method=plain,piwsl", "weak.pitc=1:10")[1].weak.method == "plain"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weak.pitc", "not of the form KEY=LOW:HIGH"),
        ("weak.pitc=", "not of the form"),
        ("weak.pitc=1:2:lin", "not of the form"),
        ("weak.pitc=1:2:3:4", "not of the form"),
        ("weak.pitcc=1:2", r"unknown setting weak\.pitcc; did you mean weak\.pitc"),
        ("waek.pitc=1:2", "unknown setting waek; did you mean weak"),
        ("weak.pitc.x=1:2", r"unknown setting weak\.pitc\.x"),
        ("weak=1:2", "group of settings"),
        ("model.given=1:2", "group of settings"),
        ("weak.pitc=2:1", "empty range: 2 is not below 1"),
        ("weak.pitc=1:1", "empty range"),
        ("weak.pitc=0:1:log", "logarithmic range cannot begin at 0"),
        ("weak.pitc=a:1", "an end is 'a'; expected a number from"),
        ("weak.pitc=0:inf", "an end is 'inf'; expected a number from"),
        ("weak.pitc=-1:1", r"weak\.pitc is -1\.0; expected a number from 0"),
        ("weak.pitc=1,x", r"weak\.pitc is 'x'"),
        ("weak.order=first", "two different values"),
        ("weak.order=first,first", "two different values"),
        ("weak.order=first,second", "allowed: first, trapezoid, antithetic"),
        ("weak.order=1:2", "is no number; name its values"),
        ("weak.rho=0.1:1", r"weak\.rho has no effect with weak\.method=piwsl"),
        ("run.batch_size=1.5:4", r"an end is '1\.5'; expected a whole number"),
        ("run.seed=1:4", r"run\.seed cannot be searched"),
        ("loss.forces_weight=1:10", "what trials are compared by"),
        ("data.n_train=50:100", "could not be compared"),
        ("model.hyperparameters.n_feature=8,16", "tensornet has no hyper-parameter 'n_feature'"),
        ("model.hyperparameters.n_features=0:16", "n_features is 0"),
    ],
)
def test_refused(text, message):
    with pytest.raises(InputError, match=message):
        space(text)


def test_refused_together():
    with pytest.raises(InputError, match=r"names weak\.pitc twice"):
        space("weak.pitc=1:2", "weak.pitc=1:3")
    with pytest.raises(InputError, match=r"weak\.epsilon 0\.5 Å is larger than weak\.skin"):
        space("weak.epsilon=0.01:0.5", overrides=["weak.skin=0.5"])
    with pytest.raises(InputError, match="needs force labels"):
        space("weak.coefficient=1:2", overrides=["weak.method=taylor_label", "loss.forces_weight=0"])
