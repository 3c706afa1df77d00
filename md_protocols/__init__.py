"""Scripts to run and to read; nothing here is imported by others."""
