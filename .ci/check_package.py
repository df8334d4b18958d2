"""Build the sdist and a wheel from it, and test the wheel with the sdist's tests where nothing else of this project is.

    python .ci/check_package.py               dependencies shared with the environment that runs this
    python .ci/check_package.py --from-index  dependencies installed anew, which takes minutes and gigabytes

Everything happens in a temporary folder.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["entropy", "information", "divergence", "coding_rate", "rank", "kernels", "losses_forms"]
"""Of tests/, one file a topic: what they cover of the formulas, the wheel has to carry in full."""

IMPORT_EVERYTHING = """
import importlib, importlib.metadata, pathlib, sys
import matinfo
site = pathlib.Path(sys.argv[1])
assert site in pathlib.Path(matinfo.__file__).resolve().parents, matinfo.__file__
modules = [matinfo, *(importlib.import_module(f"matinfo.{name}") for name in ("kernels", "losses"))]
names = [getattr(module, name) for module in modules for name in module.__all__]
scripts = [entry.load() for entry in importlib.metadata.distribution("matinfo").entry_points]
print(len(names), "public names imported,", len(scripts), "entry points loaded")
"""


def say(text: str) -> None:
    """Print at once, so that a log shows how far it came."""
    sys.stdout.write(f"{text.strip()}\n")
    sys.stdout.flush()


def run(*command: object, **options: object) -> str:
    """Run a command, and show what it said if it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def empty_environment(folder: Path, wheel: Path, *, from_index: bool) -> tuple[Path, Path]:
    """A virtual environment with the wheel: its interpreter and its folder of packages."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()).resolve()
    if from_index:
        run(python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", f"{wheel}[test]")
        say(run(python, "-m", "pip", "check"))
    else:
        run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
        # Path files are followed one step only: the link of this environment to the checkout stays out.
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python, site


def main() -> None:
    """Build, install, import, test."""
    parser = argparse.ArgumentParser(
        description="Build the distributions and test the wheel away from the checkout."
    )
    parser.add_argument("--from-index", action="store_true", help="install the dependencies anew")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", work / "dist", ROOT)
        (sdist,), (wheel,) = work.glob("dist/*.tar.gz"), work.glob("dist/*.whl")
        say(f"built {sdist.name} {wheel.name}")
        python, site = empty_environment(work / "venv", wheel, from_index=options.from_index)
        say(run(python, "-I", "-c", IMPORT_EVERYTHING, site, cwd=work))

        with tarfile.open(sdist) as archive:
            archive.extractall(work, filter="data")
        source = work / sdist.name.removesuffix(".tar.gz")
        shutil.rmtree(source / "matinfo")  # so that only the wheel can be tested
        files = [f"tests/test_{topic}.py" for topic in TESTS]
        say(run(python, "-I", "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, cwd=source))


if __name__ == "__main__":
    main()
