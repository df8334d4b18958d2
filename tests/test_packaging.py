"""What is shipped: the wheel holds every module and works alone, and the files that repeat a fact agree."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
MODULE_OF_PACKAGE = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "mlflow-skinny": "mlflow",
    "sentence-transformers": "sentence_transformers",
}


def built(kind, folder):
    """The distribution of one kind, built from this checkout."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder], cwd=ROOT, check=True
    )
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return built("sdist", tmp_path_factory.mktemp("sdist"))


def listed_by_git():
    """The paths that a commit of this checkout would hold; skips the test where there is no git."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


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
    """The core's dependencies and those of extras, with the extras that an extra names."""
    needs = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for need in map(Requirement, PROJECT["optional-dependencies"][extra]):
            needs += requirements(*need.extras) if need.name == PROJECT["name"] else [need]
    return needs


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


def metadata_of(text):
    """Metadata that a package index would accept: an invalid field raises."""
    return Metadata.from_email(text, validate=True)


def test_wheel_and_sdist_have_the_same_valid_metadata(wheel, sdist):
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    ours = metadata_of(archive.read(name))
    with tarfile.open(sdist) as packed:
        path = f"matinfo-{PROJECT['version']}/PKG-INFO"
        sdist_text = packed.extractfile(path).read()
    assert metadata_of(sdist_text).as_rfc822().as_bytes() == ours.as_rfc822().as_bytes()
    assert str(ours.version) == PROJECT["version"]
    assert ours.description_content_type == "text/markdown"
    assert ours.description.startswith("# matinfo")
    assert set(ours.provides_extra) == set(PROJECT["optional-dependencies"])
    assert str(ours.requires_python) == PROJECT["requires-python"]


def test_sdist_contains_every_file_of_the_project(sdist):
    with tarfile.open(sdist) as packed:
        names = {name.split("/", 1)[1] for name in packed.getnames()}
    absent = {name for name in listed_by_git() if name not in names}
    assert absent <= {".gitignore"}
    assert {
        "tests/conftest.py",
        "noxfile.py",
        "SECURITY.md",
        ".ci/run",
        ".github/PULL_REQUEST_TEMPLATE.md",
    } <= names


IMPORT_EVERYTHING = """
import sys
from pathlib import Path
target, checkout = Path(sys.argv[1]), Path(sys.argv[2])
sys.path = [str(target)] + [entry for entry in sys.path if Path(entry).resolve() != checkout]
import matinfo, matinfo.kernels, matinfo.losses, matinfo.streaming, matinfo.plot, matinfo.cli
print(*{name.split(".")[0] for name in sys.modules})
for module in (matinfo, matinfo.kernels, matinfo.losses):
    for name in module.__all__:
        getattr(module, name)
        print(module.__name__, name)
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "matinfo"]
assert all(target in Path(file).parents for file in ours), ours
"""


@pytest.fixture(scope="module")
def imported(wheel, tmp_path_factory):
    """What the package of the wheel has loaded when it is imported, and its public names."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    loaded, *names = run_isolated(IMPORT_EVERYTHING, folder, ROOT).splitlines()
    return loaded.split(), names


def test_wheel_imports_every_public_name_where_the_checkout_is_not(imported):
    assert {"matinfo renyi_entropy", "matinfo.kernels rbf", "matinfo.losses mmae_tcr_loss"} <= set(
        imported[1]
    )


def test_imports_wait_for_what_takes_long_and_for_the_extras(imported):
    assert {"scipy", "matplotlib", "torchmetrics"} & set(imported[0]) == set()
    assert {"matinfo", "torch"} <= set(imported[0])


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
rooms = {"matinfo.metrics", "matinfo.plot", "matinfo.monitor", "matinfo.cli"}  # may need an extra, and then name it
for module in pkgutil.walk_packages(matinfo.__path__, "matinfo.", onerror=lambda name: None):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        assert ".".join(module.name.split(".")[:2]) in rooms, module.name
        extra = "metrics]" if module.name.startswith("matinfo.metrics") else ""
        assert "pip install 'matinfo[" + extra in str(error), (module.name, error)
import torch
print(matinfo.effective_rank(torch.eye(3)).item())
"""


def test_core_works_where_no_extra_is_installed():
    extras = {need.name for need in requirements("train", "docs", "test")}
    blocked = {MODULE_OF_PACKAGE.get(name, name) for name in extras - {"torch", "numpy", "scipy"}}
    assert {"torchvision", "timm", "lightning", "torchmetrics", "matplotlib", "sklearn"} <= blocked
    assert float(run_isolated(IMPORT_WITHOUT_EXTRAS, ROOT, *blocked)) == pytest.approx(3.0)


def statements(node):
    """Statements at any depth, but not their expressions, of which there are ten times as many."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):
            yield child
            yield from statements(child)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("matinfo", ["metrics", "plot", "layers", "monitor", "trackers", "cli"]),
        ("reference_training", ["train", "test"]),
        ("tests", ["train", "test"]),
    ],
)
def test_imports_are_declared_as_dependencies(folder, extras):
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in statements(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    imported = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    here = {
        path.stem
        for path in [
            *ROOT.glob("*"),
            *ROOT.glob("reference_training/*"),
            *ROOT.glob("docs/_extensions/*"),
            *(ROOT / "tests").rglob("*.py"),
        ]
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
    needs = [
        need for need in requirements("dev") if need.name != "tomli"
    ]  # that one: before Python 3.11 only
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
    homes = re.compile(r"(?:/home/|/Users/|/root/|/tmp/|/var/folders/|C:\\Users\\)[A-Za-z]")
    around = [f"{folder}/" for folder in ROOT.parents if str(folder) not in {"/", tempfile.gettempdir()}]
    guilty = []
    for name in listed_by_git():
        data = (ROOT / name).read_bytes()
        text = "" if b"\0" in data else data.decode("utf-8", errors="ignore")
        guilty += [f"{name}: {match}" for match in homes.findall(text)]
        guilty += [f"{name}: {folder}" for folder in around if folder in text]
    assert guilty == []


def test_python_versions_of_the_classifiers_are_those_that_are_allowed():
    listed = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert listed == sorted(listed, key=Version)
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={listed[0]}")
    nearest = Version(listed[0])
    assert not SpecifierSet(PROJECT["requires-python"]).contains(f"{nearest.major}.{nearest.minor - 1}.99")


def make(*words):
    """What make would run, one command a line; also where make itself has started these tests, with options."""
    set_outside = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "OPTIONS", "VENV", "HTML", "DOCTREES", "NOX"}
    outside = {k: v for k, v in os.environ.items() if k not in set_outside}
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *words, "PYTHON=python"],
        cwd=ROOT, env=outside, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_runs_the_commands_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (install,) = re.findall(r"^python -m pip install -c .*", readme, re.MULTILINE)
    (train,) = re.findall(r"^python reference_training/pretrain_mmae\.py.*", readme, re.MULTILINE)
    assert install in make("install")
    assert make("test")[-1].endswith("&& $python -m pytest -n auto")
    assert make("demo")[-1].endswith(train.replace("python", "&& $python", 1))
    assert '.venv && $python -m pip install -q -c constraints.txt -e ".[dev]"' in "\n".join(make("demo"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_check_is_everything_that_ci_runs():
    (checks,) = re.findall(r"^CHECKS = (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"lint", "types", "docs", "package", "demo", "coverage", "slow"} <= set(checks.split())
    commands = make("check")
    assert [command for check in checks.split() for command in make(check) if command not in commands] == []
    assert "make" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_oldest_supported_versions_are_exact_lower_bounds():
    for need in map(Requirement, PROJECT["dependencies"]):
        (bound,) = need.specifier
        assert bound.operator == ">=", f"{need}: the session tests(oldest) turns >= into =="


def test_benchmark_results_carry_their_environment():
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    for path in files:
        result = json.loads(path.read_text(encoding="utf-8"))
        for part in [result] if "environment" in result else result.values():
            environment = part.get("environment", {})
            assert {"date", "commit", "processor", "threads", "python", "versions"} <= set(environment), (
                path.name
            )
            assert {"torch", "numpy", "scipy"} <= set(environment["versions"]), path.name
