"""``python -m effnet`` is the ``effnet`` command; torchrun starts it so."""

from effnet.cli.main import main

if __name__ == "__main__":
    main()
