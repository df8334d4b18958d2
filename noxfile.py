"""The checks in environments of their own: `nox --list`. Commands stand in the Makefile, versions in pyproject.toml.

Interpreters are found by name (python3.10, ...). With pyenv, name them first:
PYENV_VERSION="$(pyenv version-name):$(pyenv latest 3.10)" nox --session "tests(oldest)"
"""

import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "docs", "package", "coverage"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PROJECT = PYPROJECT["project"]
PYTHONS = nox.project.python_versions(PYPROJECT)
OLDEST = [need.replace(">=", "==") for need in PROJECT["dependencies"]]

# With versions that nobody pins, only the core is tested: training scripts and bridges to other libraries need packages
# with ranges of their own, the other files test the checkout. Tests of an extra that is not installed are skipped.
TOOLS = [
    need
    for need in PROJECT["optional-dependencies"]["test"]
    if re.match(r"pytest|hypo|mpm|hatch|pack|tomli", need)
]
NOT_CORE = ["reference_training", "interop", "test_benchmarks.py", "test_packaging.py"]

FORMULAS = ["entropy", "information", "divergence", "coding_rate", "rank", "sandwiched", "dependence"]
FORMULA_TESTS = [
    *(f"test_{name}.py" for name in FORMULAS),
    "test_information_multivariate.py",
    "test_spectral_functions.py",
    "test_routes.py",
    "test_contract.py",
    "test_contract_errors.py",
    "test_gradients.py",
    "test_second_derivatives.py",
    "test_gradients_singular.py",
    "test_alpha_continuity.py",
]


def develop(session: nox.Session) -> None:
    """This checkout with everything, at the pinned versions."""
    session.install("-c", "constraints.txt", "-e", ".[dev]")


def make(session: nox.Session, *words: str) -> None:
    """A target of the Makefile, with the interpreter of the session."""
    session.run("make", *words, "PYTHON=python", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and format."""
    session.install("-c", "constraints.txt", "ruff")
    make(session, "lint")


@nox.session
def types(session: nox.Session) -> None:
    """Static types of matinfo/."""
    develop(session)
    make(session, "types")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; warnings are errors."""
    develop(session)
    make(session, "docs")


@nox.session
@nox.parametrize(
    ("python", "versions"),
    [(PYTHONS[0], "oldest"), (PYTHONS[-1], "newest")],
    ids=["oldest", "newest"],
)
def tests(session: nox.Session, versions: str) -> None:
    """The core's tests with the oldest and the newest Python, torch, NumPy and SciPy."""
    pins = OLDEST if versions == "oldest" else PROJECT["dependencies"]
    session.install("--upgrade", "--upgrade-strategy", "eager", *pins, *TOOLS, "-e", ".[metrics,plot]")
    session.run("python", "--version")
    session.run(
        "python",
        "-c",
        "import torch, numpy, scipy; print(*map(lambda m: m.__version__, (torch, numpy, scipy)))",
    )
    ignored = [f"--ignore=tests/{name}" for name in NOT_CORE]
    session.run(
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *ignored,
        *(session.posargs or ["matinfo", "tests"]),
    )


@nox.session
def package(session: nox.Session) -> None:
    """Sdist and wheel, tested with their dependencies installed anew."""
    session.install("-c", "constraints.txt", "build", "hatchling")
    session.run("python", ".ci/check_package.py", "--from-index")


@nox.session
def coverage(session: nox.Session) -> None:
    """Every test that is not slow, and the lines of matinfo/ that they run."""
    develop(session)
    make(session, "coverage")


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutation testing of the formula modules: docs/development/mutation.md. Names of mutants may follow after --."""
    develop(session)
    session.install("mutmut>=3.8")
    copy = Path(session.create_tmp()) / "copy"
    if not session.posargs:
        shutil.rmtree(copy, ignore_errors=True)
        without_decorators(copy)
    session.chdir(copy)
    session.run("pip", "uninstall", "-y", "matinfo", silent=True)  # the copy is what has to be imported
    session.run("mutmut", "run", *session.posargs, env={"OMP_NUM_THREADS": "1"})
    session.run("mutmut", "results")


def without_decorators(copy: Path) -> None:
    """Copy what mutmut needs. It skips decorated functions, so ``@quantity`` is applied in the last lines instead."""
    for name in ("matinfo", "tests", "reference_training"):
        shutil.copytree(name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", copy)
    paths = [copy / "matinfo" / f"{name}.py" for name in FORMULAS]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        names = re.findall(r"^@quantity\ndef (\w+)", text, re.MULTILINE)
        text = re.sub(r"^@quantity\n(?=def )", "", text, flags=re.MULTILINE)
        text += "\n\n" + "".join(f"{name} = quantity({name})\n" for name in names)
        path.write_text(text, encoding="utf-8")
    options = {
        "source_paths": ["matinfo"],
        "also_copy": ["reference_training"],
        "only_mutate": [str(path.relative_to(copy)) for path in paths] + ["matinfo/spectral/functions.py"],
        "pytest_add_cli_args": [
            "-p",
            "no:cacheprovider",
            "-k",
            "not compile",
        ],  # Dynamo does not trace mutmut's switch
        "pytest_add_cli_args_test_selection": [f"tests/{name}" for name in FORMULA_TESTS],
        "timeout_constant": ["60"],
    }
    lines = [f"{key} =\n" + "".join(f"    {value}\n" for value in values) for key, values in options.items()]
    (copy / "setup.cfg").write_text("[mutmut]\n" + "".join(lines), encoding="utf-8")
