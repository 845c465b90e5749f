"""``python -m ldoms.lab`` is ``ldoms-lab``."""

from ldoms.lab.main import main

if __name__ == "__main__":
    main()
