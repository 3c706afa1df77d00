"""Neighbour lists: of one structure, kept with a Verlet skin, and of a batch."""

from asecalc_mlip.neighbors.lists import complete_box, neighbor_list

__all__ = ["complete_box", "neighbor_list"]
