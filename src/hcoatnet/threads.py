"""How the threads of OpenMP, with which torch computes, wait for each other."""

from collections.abc import MutableMapping

SPINS = "2000"
"""Turns of an empty loop, some microseconds."""


def spin_briefly(variables: MutableMapping[str, str]) -> None:
    """Let waiting threads spin for microseconds and then sleep, unless ``variables`` says how they are to wait.

    By default they spin for milliseconds, which makes training several times slower beside any other busy process. Put
    to sleep at once, they wake up late in each of many small operations: half as slow again on a machine of its own.

    Args:
        variables: Of the environment of a process that has not loaded torch yet. GOMP_SPINCOUNT is that of libgomp;
            other runtimes do not read it.
    """
    if "OMP_WAIT_POLICY" not in variables:
        variables.setdefault("GOMP_SPINCOUNT", SPINS)
