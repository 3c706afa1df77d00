"""Methods of the study of sparse data: what a training starts from and is given beside its labels.

Settings as `asecalc train` takes them, and names that `sparse_rows.stages` reads: `start` is a random network,
`teacher` what its first training learns, `shared` the steps of one such model for all seeds, `own` those of one for
each, `temperature` (K) that of frames that `sparse_rows.hot_frames` makes, `correct` the networks that correct the
labels of these frames, `before` the share of steps on them, `learns` the steps of a model that is the teacher.
"""

from __future__ import annotations

from typing import Any

__all__ = ["HOT_FRAMES", "METHODS"]

PAINN = {"architecture": "painn", "cutoff": 5.0, "n_features": 64, "n_interactions": 3, "n_rbf": 20}
TENSORNET = {"architecture": "tensornet", "cutoff": 5.0, "n_features": 64, "n_interactions": 2, "n_rbf": 32}
# Coefficients of the weak losses are those of docs/studies/piwsl.md, found on aspirin.
TOTAL = {"weak.method": "piwsl", "weak.normalisation": "total"}
FIRST = {**TOTAL, "weak.order": "first", "weak.pitc": 1.0, "weak.pisc": 0.01}
ANTITHETIC = {**TOTAL, "weak.order": "antithetic", "weak.pitc": 100.0, "weak.pisc": 1.0}
REPLAY = {
    "far.teacher": "base",
    "far.sources": "[bonds,two_step,dynamics]",
    "far.share": 0.1,
    "far.weight": 1.0,
}
TAUGHT = {"pretrain.teacher": "xtb", "data.n_val": 5, "optimizer.lr": 1e-3}
# All atoms moved at random by up to 0.1 Å, nothing pulled together: what is learned first is to hold near the data.
XTB = {
    **TAUGHT,
    "pretrain.rounds": 20,
    "pretrain.strength": 0.1,
    "pretrain.n_pairs": 0,
    "pretrain.max_atoms": 1000,
}
IN_TURN = {**TAUGHT, "pretrain.rounds": 10, "pretrain.temperature": 1500}
# Frames of the dynamics of a published model, labelled by GFN2-xTB and networks of its difference to the data.
CORRECTED = {
    **TAUGHT,
    "pretrain.rounds": 60,
    "pretrain.temperature": 800,
    "pretrain.sampler": "TensorNet-ANI-1x",
    "pretrain.correct": 4,
}
FAR = {"far.teacher": "xtb", "far.weight": 0.1}
# The default of before.
ALL_FAR = {**FAR, "far.weight": 1.0}
# Frames of the teacher's dynamics.
HOT_FRAMES = 1000
# The curvature of the teacher at the training frames, as a target beside the labels.
CURVATURE = {"weak.method": "curvature_label", "weak.teacher": "xtb"}
METHODS: dict[str, dict[str, Any]] = {
    "PaiNN": {"start": PAINN},
    "PaiNN, xtb first": {"start": PAINN, "teacher": XTB},
    "PaiNN, xtb first, 75 % of steps": {"start": PAINN, "teacher": XTB, "before": 0.75},
    # Other numbers and kinds of the structures of the teacher: copies moved further, or frames of its own dynamics.
    "PaiNN, xtb first, 5 copies": {"start": PAINN, "teacher": {**XTB, "pretrain.rounds": 5}},
    "PaiNN, xtb first, 40 copies": {"start": PAINN, "teacher": {**XTB, "pretrain.rounds": 40}},
    "PaiNN, xtb first, 0.2 Å": {"start": PAINN, "teacher": {**XTB, "pretrain.strength": 0.2}},
    "PaiNN, xtb first, 500 K": {"start": PAINN, "teacher": XTB, "temperature": 500},
    "PaiNN, xtb first, 1500 K": {"start": PAINN, "teacher": XTB, "temperature": 1500},
    "PaiNN, xtb first, 3000 K": {"start": PAINN, "teacher": XTB, "temperature": 3000},
    # The same by the setting of `asecalc train`: ten frames from each structure, in turn.
    "PaiNN, xtb first, 1500 K in turn": {"start": PAINN, "teacher": IN_TURN},
    "TensorNet, xtb first, 1500 K": {"start": TENSORNET, "teacher": XTB, "temperature": 1500},
    "PaiNN, xtb curvature": {"start": PAINN, **CURVATURE},
    **{
        f"PaiNN, xtb curvature × {factor:g}": {"start": PAINN, **CURVATURE, "weak.coefficient": factor}
        for factor in (0.1, 0.01, 10)
    },
    **{
        f"PaiNN, ANI-1x curvature × {factor:g}": {
            "start": PAINN,
            **CURVATURE,
            "weak.teacher": "TensorNet-ANI-1x",
            "weak.coefficient": factor,
        }
        for factor in (0.1, 0.01)
    },
    "PaiNN, xtb first, 1500 K, then curvature": {"start": PAINN, "teacher": XTB, "temperature": 1500, **CURVATURE},
    # The labels of these frames are those of the teacher plus the mean of networks of its difference to the data.
    "PaiNN, xtb first, 1500 K, corrected": {"start": PAINN, "teacher": XTB, "temperature": 1500, "correct": 3},
    "TensorNet, xtb first, 1500 K, corrected": {"start": TENSORNET, "teacher": XTB, "temperature": 1500, "correct": 3},
    # A small, fast network learns the fine-tuned model of the same frames, and then the labels.
    "PaiNN, distilled": {
        "start": PAINN,
        "teacher": {**XTB, "pretrain.rounds": 40, "pretrain.strength": 0.2},
        "learns": 2000,
    },
    "TensorNet": {"start": TENSORNET},
    "TensorNet, first": {"start": TENSORNET, **FIRST},
    "TensorNet, far": {"start": TENSORNET, **ALL_FAR},
    "TensorNet, far, share 0.03": {"start": TENSORNET, **ALL_FAR, "far.share": 0.03},
    "TensorNet, far, weight 0.1": {"start": TENSORNET, **FAR},
    "TensorNet, far, weight 0.01": {"start": TENSORNET, **FAR, "far.weight": 0.01},
    "TensorNet, xtb first": {"start": TENSORNET, "teacher": XTB},
    "fine-tuned": {},
    # One model for all seeds; it has seen structures of the first, and no label of any.
    "fine-tuned, xtb first": {"teacher": {**XTB, "pretrain.rounds": 40, "pretrain.strength": 0.2}, "shared": 6000},
    "fine-tuned, xtb first, 1500 K": {"teacher": XTB, "shared": 6000, "temperature": 1500},
    # Torn bonds, overlapping atoms and hot dynamics by GFN2-xTB; on the labels the model of the first step is replayed.
    "fine-tuned, xtb first, far": {
        "teacher": {**XTB, "pretrain.rounds": 40, "pretrain.strength": 0.2, **ALL_FAR},
        "shared": 6000,
        **REPLAY,
    },
    # The same with frames of the teacher's dynamics, twice the steps, and a smaller loss of what is far.
    "fine-tuned, xtb first, 1500 K, far": {
        "teacher": {**IN_TURN, "pretrain.rounds": 40, **FAR},
        "shared": 12_000,
        **REPLAY,
        "far.weight": 0.1,
    },
    "TensorNet, corrected xtb first, far": {
        "start": TENSORNET,
        "teacher": {**CORRECTED, **FAR, "far.sources": "[bonds,two_step,dynamics]"},
        "own": 20_000,
        **REPLAY,
        "far.weight": 0.1,
    },
    # The same with hotter frames, for hotter dynamics.
    "TensorNet, corrected xtb first, 1200 K, far": {
        "start": TENSORNET,
        "teacher": {**CORRECTED, **FAR, "pretrain.temperature": 1200, "far.sources": "[bonds,two_step,dynamics]"},
        "own": 20_000,
        **REPLAY,
        "far.weight": 0.1,
    },
    # A published model has no repulsion of nuclei of its own.
    "fine-tuned, zbl": {"finetune.delta": "zbl"},
    "fine-tuned, layer decay": {"finetune.layer_decay": 0.7},
    "fine-tuned, first": FIRST,
    "fine-tuned, antithetic": ANTITHETIC,
    # Trials on the validation frames, as many for plain training as for each order.
    "fine-tuned, rate 0.0002": {"optimizer.lr": 2e-4},
    "fine-tuned, rate 0.001": {"optimizer.lr": 1e-3},
    "fine-tuned, first × 0.1": {**FIRST, "weak.pitc": 0.1, "weak.pisc": 0.001},
    "fine-tuned, first × 10": {**FIRST, "weak.pitc": 10.0, "weak.pisc": 0.1},
    "fine-tuned, antithetic × 0.1": {**ANTITHETIC, "weak.pitc": 10.0, "weak.pisc": 0.1},
    "fine-tuned, antithetic × 0.01": {**ANTITHETIC, "weak.pitc": 1.0, "weak.pisc": 0.01},
    # Energies alone say less, and the same weak loss weighs more beside them.
    "fine-tuned, first × 0.001": {**FIRST, "weak.pitc": 0.001, "weak.pisc": 1e-5},
    "fine-tuned, antithetic × 0.0001": {**ANTITHETIC, "weak.pitc": 0.01, "weak.pisc": 1e-4},
    "fine-tuned, replay": REPLAY,
}
