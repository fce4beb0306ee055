"""Whether this machine can do what the package is for, and how to mend what is wrong: ``hcoatnet doctor``."""
