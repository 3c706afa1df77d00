"""Labelled structures: read, counted, judged, converted, fetched, made; and the errors of a model on them."""
