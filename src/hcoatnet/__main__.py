"""`python -m hcoatnet`, also under torchrun."""

from hcoatnet.cli import main

main()
