"""What is shipped: the wheel holds every module and works alone, and the files that repeat a fact agree."""

import ast
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
MODULE_OF_PACKAGE = {"scikit-learn": "sklearn", "pillow": "PIL"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True
    )
    (path,) = folder.glob("*.whl")
    return path


def run_isolated(program, *arguments):
    """Run a program in a new interpreter without the current folder and the environment variables."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def requirements(*extras):
    groups = [PROJECT["optional-dependencies"][extra] for extra in extras]
    return [Requirement(line) for line in sum(groups, PROJECT["dependencies"])]


def test_wheel_contains_every_module_and_nothing_else(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    present = {path.relative_to(ROOT).as_posix() for path in (ROOT / "matinfo").rglob("*.py")}
    assert packed == present | {"matinfo/py.typed"}
    assert "matinfo/__init__.py" in packed


def test_wheel_metadata_has_the_license_and_the_core_dependencies(wheel):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: MIT" in metadata
    needed = {
        Requirement(line.split(": ", 1)[1])
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ")
    }
    assert {need.name for need in needed if need.marker is None} == {"torch", "numpy", "scipy"}


IMPORT_EVERYTHING = """
import sys
from pathlib import Path
target, checkout = Path(sys.argv[1]), Path(sys.argv[2])
sys.path = [str(target)] + [entry for entry in sys.path if Path(entry).resolve() != checkout]
import matinfo, matinfo.kernels, matinfo.losses
for module in (matinfo, matinfo.kernels, matinfo.losses):
    for name in module.__all__:
        getattr(module, name)
        print(module.__name__, name)
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "matinfo"]
assert all(target in Path(file).parents for file in ours), ours
"""


def test_wheel_imports_every_public_name_where_the_checkout_is_not(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    printed = run_isolated(IMPORT_EVERYTHING, tmp_path, ROOT).splitlines()
    assert "matinfo renyi_entropy" in printed
    assert "matinfo.kernels rbf" in printed
    assert "matinfo.losses mmae_tcr_loss" in printed


IMPORT_WITHOUT_EXTRAS = """
import importlib, pkgutil, sys
blocked = set(sys.argv[2:])
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent)
sys.path.insert(0, sys.argv[1])
import matinfo
for module in pkgutil.walk_packages(matinfo.__path__, "matinfo."):
    if not module.name.startswith("matinfo.metrics"):  # the one room that needs an extra
        importlib.import_module(module.name)
import torch
print(matinfo.effective_rank(torch.eye(3)).item())
"""


def test_core_works_where_no_extra_is_installed():
    extras = {need.name for need in requirements("train", "metrics", "docs", "test")}
    blocked = {MODULE_OF_PACKAGE.get(name, name) for name in extras - {"torch", "numpy", "scipy"}}
    assert {"torchvision", "timm", "lightning", "torchmetrics", "matplotlib", "sklearn"} <= blocked
    assert float(run_isolated(IMPORT_WITHOUT_EXTRAS, ROOT, *blocked)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("matinfo", ["metrics"]),
        ("reference_training", ["train", "test"]),
        ("tests", ["train", "test"]),
    ],
)
def test_imports_are_declared_as_dependencies(folder, extras):
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    imported = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    here = {
        path.stem
        for path in [*ROOT.glob("*"), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("reference_training/*")]
    }
    declared = {MODULE_OF_PACKAGE.get(need.name, need.name) for need in requirements(*extras)}
    assert imported - here - declared == set()
    assert {"torch", "numpy"} <= imported


def test_constraints_are_exact_versions_without_any_address():
    pins = [line for line in CONSTRAINTS if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    assert [line for line in CONSTRAINTS if "://" in line] == []


def test_constraints_pin_every_direct_dependency_within_its_range():
    pins = {
        name.lower().replace("_", "-"): version
        for name, _, version in (line.partition("==") for line in CONSTRAINTS)
    }
    needs = requirements("train", "metrics", "docs", "test", "dev")
    needs = [
        need for need in needs if need.name not in {"matinfo", "tomli"}
    ]  # tomli: before Python 3.11 only
    assert {need.name for need in needs} <= set(pins)
    assert [str(need) for need in needs if not need.specifier.contains(pins[need.name])] == []


def test_version_is_the_same_in_every_file():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, date = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)", changelog, re.MULTILINE)[0]
    assert re.findall(r"^version: (\S+)", citation, re.MULTILINE) == [PROJECT["version"]]
    assert newest == PROJECT["version"]
    assert re.findall(r"^date-released: (\S+)", citation, re.MULTILINE) == [date]


def test_files_name_no_folder_of_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    homes = re.compile(r"(?:/home/|/Users/|/root/|C:\\Users\\)[A-Za-z]")
    around = [f"{folder}/" for folder in ROOT.parents if str(folder) not in {"/", tempfile.gettempdir()}]
    guilty = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        data = path.read_bytes() if path.is_file() else b""
        text = "" if b"\0" in data else data.decode("utf-8", errors="ignore")
        guilty += [f"{name}: {match}" for match in homes.findall(text)]
        guilty += [f"{name}: {folder}" for folder in around if folder in text]
    assert guilty == []
