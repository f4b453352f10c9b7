"""`python -m tokensearch.cli` is `tokensearch`."""

from tokensearch.cli.main import main

main()
