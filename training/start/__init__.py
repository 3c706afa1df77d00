"""The potential that a run begins with, and its reference energies."""
