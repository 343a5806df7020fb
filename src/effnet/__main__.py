"""``python -m effnet`` is the ``effnet`` command."""

from effnet.cli.main import main

main()
