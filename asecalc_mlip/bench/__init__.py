"""How fast a calculator is on this machine: structures, timing of steps as in dynamics, and a report.

`structures` and `timing` need only ASE and NumPy, so that calculators of other packages can be timed in environments
that have nothing else of this one.
"""
