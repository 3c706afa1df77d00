"""Figures of runs, probes, trainings and studies."""
