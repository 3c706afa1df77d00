"""The older level of theory of a base: structures to replay, and what is forgotten of it."""
