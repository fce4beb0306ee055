"""Tests of the audit: a package, so that its conftest does not take the place of the one above."""
