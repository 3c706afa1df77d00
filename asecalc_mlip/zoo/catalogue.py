"""Published models that can be converted, with their licence, size, place and checksums; plain facts, no code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asecalc_mlip.errors import InputError
from asecalc_mlip.files import cache_folder

__all__ = ["CATALOGUE", "Published", "cached", "published"]

_REPOSITORY, _COMMIT = "materialyzeai/matgl", "e9cde2291acd0b4c4a342428e7dd5e4d596b7bf9"


@dataclass(frozen=True)
class Published:
    """A model of another package.

    Attributes
    ----------
    name : str
        As `PIWSLCalculator.load` takes it.
    folder : str
        Its name in the repository it comes from.
    files : dict
        Name of a file → SHA-256 and size in bytes.
    level, elements, licence, cite : str
    errors : str
        As its authors state them.
    """

    name: str
    folder: str
    files: dict[str, tuple[str, int]]
    level: str
    elements: str
    licence: str = "BSD-3-Clause, (c) 2022 Materials Virtual Lab"
    cite: str = ""
    errors: str = "not stated"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files.values())

    def url(self, file: str) -> str:
        """Address of one of the files."""
        return f"https://raw.githubusercontent.com/{_REPOSITORY}/{_COMMIT}/pretrained_models/{self.folder}/{file}"

    @property
    def page(self) -> str:
        """Where people find the files."""
        return f"https://github.com/{_REPOSITORY}/tree/{_COMMIT}/pretrained_models/{self.folder}"


CATALOGUE = (
    Published(
        "TensorNet-MatPES-PBE",
        "TensorNet-MatPES-PBE-v2025.1-PES",
        {
            "state.pt": ("d2dfa51a65d23a47fd935eb0628177d2a1088584562091ef3350ce3a002fce6a", 3_403_519),
            "model.json": ("cf7d1db6c89da617245021a8fde16fb79db5bc06f7b6e11ee837f06eb32137d8", 5_609),
        },
        "PBE",
        "89 elements",
        cite="Simeon, De Fabritiis, NeurIPS 2023, arXiv 2306.06482; Kaplan et al., arXiv 2503.04070",
        errors="test MAE 42 meV/atom, 146 meV/Å, 0.63 GPa",
    ),
    Published(
        "TensorNet-MatPES-r2SCAN",
        "TensorNet-MatPES-r2SCAN-v2025.1-PES",
        {
            "state.pt": ("b1f87297bac09ada6f0e2f41d362d784f894ff0f1f031478187c55ec661b71ba", 3_403_519),
            "model.json": ("408b29cb197ae7ebfb72cff6685745bb112018be983ab23040669a4c7c4b87df", 5_305),
        },
        "r2SCAN",
        "89 elements",
        cite="Simeon, De Fabritiis, NeurIPS 2023, arXiv 2306.06482; Kaplan et al., arXiv 2503.04070",
        errors="test MAE 41 meV/atom, 148 meV/Å, 0.68 GPa",
    ),
    Published(
        "TensorNet-ANI-1x",
        "TensorNet-ANI-1x-Subset-PES",
        {
            "state.pt": ("02fdfcd16e751c5d3c93ccbe7792366faa6448614a39f75f31c3e8bb7802dcb6", 856_757),
            "model.json": ("2bf61dc9c45cd3a3a11539cf5448fa488fce48dac44e39fd6e2bb502aab8898e", 1_735),
        },
        "ωB97X/6-31G(d)",
        "H C N O",
        cite="Simeon, De Fabritiis, NeurIPS 2023, arXiv 2306.06482; Smith et al., Sci. Data 7 (2020) 134",
    ),
    Published(
        "M3GNet-MatPES-PBE",
        "M3GNet-MatPES-PBE-v2025.1-PES",
        {
            "state.pt": ("9f710eac88ec2c666c8e488883c59768cf11c116f177e9d82896ae56f3fc338d", 2_733_214),
            "model.json": ("6ab754c8593efef1005a37882a27b25417153bfd0b5624d0943901f18116b552", 5_593),
        },
        "PBE",
        "89 elements",
        cite="Chen, Ong, Nat. Comput. Sci. 2 (2022) 718; Kaplan et al., arXiv 2503.04070",
        errors="test MAE 45 meV/atom, 181 meV/Å, 0.89 GPa",
    ),
    Published(
        "M3GNet-MP-2021.2.8",
        "M3GNet-MP-2021.2.8-PES",
        {
            "state.pt": ("a9aa723705bd1a242ec8749332f137811c4a94e17995a564f8f94a9aca68061b", 1_228_529),
            "model.json": ("05e7db8676ceb37eb07848aff49c556b188699e1035f3df0cbbf1a2c4959148f", 5_211),
        },
        "PBE and PBE+U",
        "89 elements",
        cite="Chen, Ong, Nat. Comput. Sci. 2 (2022) 718; Materials Project",
        errors="validation MAE 21 meV/atom, 72 meV/Å, 0.38 GPa",
    ),
    Published(
        "M3GNet-ANI-1x",
        "M3GNet-ANI-1x-Subset-PES",
        {
            "state.pt": ("4efa3b11dfb1f6c6d0ae562e470e617ebf0aae23749381a097e39dbe6738a304", 1_164_446),
            "model.json": ("eb0d67411a85474f3f447541ced671e9f7dbbba192bd344b1a4932da9efedabe", 1_755),
        },
        "ωB97X/6-31G(d)",
        "H C N O",
        cite="Chen, Ong, Nat. Comput. Sci. 2 (2022) 718; Smith et al., Sci. Data 7 (2020) 134",
        errors="test MAE 3.7 meV/atom, 85 meV/Å",
    ),
)


def published(name: str) -> Published:
    """Model of the catalogue by its name, with or without .pt.

    Raises
    ------
    InputError
        For a name that is not there.
    """
    wanted = name.removesuffix(".pt").lower()
    for model in CATALOGUE:
        if wanted in (model.name.lower(), model.folder.lower(), model.folder.lower().removesuffix("-pes")):
            return model
    raise InputError(f"there is no published model {name!r}; there are {', '.join(m.name for m in CATALOGUE)}")


def cached(model: Published) -> Path:
    """Where the converted model lies in the user's cache, once it is there."""
    return cache_folder() / "models" / f"{model.name}.pt"
