"""Photos, the manifest that lists them, and splits that do not leak."""
