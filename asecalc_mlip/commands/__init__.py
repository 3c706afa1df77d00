"""Commands of `asecalc`, a file per subject; what they need is imported when they run."""
