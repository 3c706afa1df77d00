"""The operations of trainings on a GPU, in Triton: forward, first and second derivative, as operations.h says.

One program has one atom and a block of channels and goes over a row of edges: those of a centre, or those that end in
an atom. Each sum has one owner, so nothing is added atomically, and results do not change from run to run. The kernels
run on a GPU, and on the CPU under TRITON_INTERPRET=1, for tests. Importing this package does not import triton, which
the build of torch for CPUs does not bring.
"""
