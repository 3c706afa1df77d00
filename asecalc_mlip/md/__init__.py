"""Molecular dynamics: settings, integrators, monitor, files, single runs, replicas and campaigns."""
