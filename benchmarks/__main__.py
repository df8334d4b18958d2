"""Entry point. The thread counts of the numerical libraries have to be set before any of them is loaded."""

import os
import sys

from benchmarks.cli import parse

if __name__ == "__main__":
    options = parse(sys.argv[1:])
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[variable] = str(options.threads)

    from benchmarks.run import main

    sys.exit(main(options))
