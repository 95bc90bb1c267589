"""``python -m lit_condense``."""

from lit_condense.cli import main

if __name__ == "__main__":
    main()
