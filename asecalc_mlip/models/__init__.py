"""Architectures: one file each, AtomGraph in, per-atom energies out."""

from __future__ import annotations

from asecalc_mlip.models.cgcnn import CGCNN
from asecalc_mlip.models.combine import add_potentials, architecture_text, core_potential, has_core, parts_of
from asecalc_mlip.models.eam import EAM
from asecalc_mlip.models.equiformer_v2 import EquiformerV2
from asecalc_mlip.models.escn import ESCN
from asecalc_mlip.models.m3gnet import M3GNet
from asecalc_mlip.models.painn import PaiNN
from asecalc_mlip.models.potential import Potential, Prediction, predict
from asecalc_mlip.models.registry import (
    ARCHITECTURES,
    build_network,
    build_potential,
    check_trainable,
    hyperparameters_of,
    register,
    trainable,
)
from asecalc_mlip.models.schnet import SchNet
from asecalc_mlip.models.spinconv import SpinConv
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.tensornet import TensorNet
from asecalc_mlip.models.torchmd_et import TorchMDET
from asecalc_mlip.models.traits import Memory, Network, OwnHessian, Traits
from asecalc_mlip.models.vector_head import VectorHead
from asecalc_mlip.models.zbl import ZBL

__all__ = [
    "ARCHITECTURES",
    "CGCNN",
    "EAM",
    "ESCN",
    "EquiformerV2",
    "M3GNet",
    "Memory",
    "Network",
    "OwnHessian",
    "PaiNN",
    "Potential",
    "Prediction",
    "SchNet",
    "SpinConv",
    "Sum",
    "TensorNet",
    "TorchMDET",
    "Traits",
    "ZBL",
    "VectorHead",
    "add_potentials",
    "architecture_text",
    "build_network",
    "build_potential",
    "check_trainable",
    "core_potential",
    "has_core",
    "hyperparameters_of",
    "parts_of",
    "predict",
    "register",
    "trainable",
]
