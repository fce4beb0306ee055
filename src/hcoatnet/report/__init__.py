"""Figures and pages made from the files of a run, without a model and without torch."""
