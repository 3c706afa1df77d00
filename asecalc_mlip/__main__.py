"""The commands as `python -m asecalc_mlip`, for where the script `asecalc` is not on the path."""

from asecalc_mlip.cli import main

main(prog_name="asecalc")
