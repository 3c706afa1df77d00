"""Structures that no data set has, made from those of one."""
