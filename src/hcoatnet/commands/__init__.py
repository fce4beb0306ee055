"""The commands by topic: each parses, calls one function, and prints where the result lies."""
