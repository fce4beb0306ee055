"""Training: loop, objective, optimisation, checkpoints and the run directory."""
