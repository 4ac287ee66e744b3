"""`python -m simplemix_cli`."""

from . import main

main()
