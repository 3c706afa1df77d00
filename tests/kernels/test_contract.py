"""The two sides of the native library agree, and a library of another version is refused."""

import ctypes
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from asecalc_mlip.kernels import library, native_library
from asecalc_mlip.kernels.library import ABI, Graph
from asecalc_mlip.models import ARCHITECTURES, ZBL

KERNELS = Path(library.__file__).parent
CLASSES = [*ARCHITECTURES.values(), ZBL]
NATIVE = list({cls.traits.native.name: cls.traits.native for cls in CLASSES if cls.traits.native is not None}.values())
needs_library = pytest.mark.skipif(native_library() is None, reason="the native library was not built")


def struct_of(source, name):
    """Names and kinds of the fields of a C++ struct of this package, in order."""
    text = re.sub(r"//[^\n]*", "", (KERNELS / source).read_text())
    body = re.search(rf"struct {name} \{{(.*?)\n\}};", text, re.DOTALL).group(1)
    found = []
    for line in (part.strip() for part in body.split(";") if part.strip()):
        kind, names = re.match(r"((?:const\s+)?[\w:]+(?:<T>)?)\s*(.*)", line, re.DOTALL).groups()
        for field in names.split(","):
            pointer = "*" in line
            found.append((field.strip(" *\n"), "pointer" if pointer else kind))
    return found


def struct_here(cls):
    kinds = {ctypes.c_int64: "index_t", ctypes.c_double: "double"}
    return [(name, kinds.get(kind, "pointer")) for name, kind in cls._fields_]


@pytest.mark.parametrize("kernel", NATIVE, ids=lambda kernel: kernel.name)
def test_structs_have_the_same_fields_in_the_same_order(kernel):
    assert struct_here(kernel.weights) == struct_of(f"{kernel.name}.cpp", "Network")
    last, kind = kernel.weights._fields_[-1]
    if last == "block":
        assert struct_here(kind._type_) == struct_of(f"{kernel.name}.cpp", "Block")


def test_graph_and_version():
    assert struct_here(Graph) == struct_of("asecalc_kernels.h", "Graph")
    (number,) = re.findall(r"#define ASECALC_ABI (\d+)", (KERNELS / "asecalc_kernels.h").read_text())
    assert int(number) == ABI
    includes = {"lanes.h": "asecalc_kernels.h", "operations.h": "lanes.h", "message.cpp": "operations.h"}
    assert all(f'#include "{other}"' in (KERNELS / name).read_text() for name, other in includes.items())


@needs_library
@pytest.mark.parametrize("kernel", NATIVE, ids=lambda kernel: kernel.name)
def test_the_library_has_the_kernels(kernel):
    assert kernel.missing() is None
    for dtype in kernel.multiples:
        workspace, evaluate = kernel.functions(dtype)
        assert len(workspace.argtypes) == 2 and len(evaluate.argtypes) == 5


@needs_library
def test_a_call_with_too_few_arguments_is_refused():
    with pytest.raises(TypeError, match="at least 9 arguments"):
        native_library().schnet_forward_f32(1, 16)


@pytest.fixture
def built(tmp_path):
    """Function that builds a library from a line of C++."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")

    def build(name, code):
        (tmp_path / "code.cpp").write_text(code)
        command = [compiler, "-shared", "-fPIC", str(tmp_path / "code.cpp"), "-o", str(tmp_path / name)]
        subprocess.run(command, check=True)
        return tmp_path

    return build


STALE = [
    ("_native.so", f'extern "C" long long asecalc_abi() {{ return {ABI - 1}; }}', f"version {ABI - 1}"),
    ("_message.so", 'extern "C" int schnet_forward_f32() { return 0; }', "no version"),
]


@pytest.mark.parametrize(("name", "code", "found"), STALE)
def test_a_library_of_another_version_is_refused_with_one_warning(built, name, code, found):
    folder = built(name, code)
    with pytest.warns(UserWarning, match=rf"{name} has {found}, .*needs version {ABI}.* pip install -e \.") as warned:
        assert library._find(folder) is None
    assert len(warned) == 1


@needs_library
def test_a_library_of_this_version_beside_a_stale_one_is_taken(built):
    folder = built(*STALE[1][:2])
    shutil.copy(native_library()._name, folder / "_native.so")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library._find(folder) is not None
        assert library._find(folder / "nowhere") is None


@needs_library
def test_a_kernel_that_the_library_does_not_have(monkeypatch):
    (painn,) = (kernel for kernel in NATIVE if kernel.name == "painn")
    monkeypatch.setattr(library, "native_library", lambda: object())
    assert "no kernel painn of this version; install the package again" in painn.missing()
