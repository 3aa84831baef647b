"""``python -m galpaca.fake_cuda CARD MODULE [ARGUMENTS]``: runs a module in this process with a pretended card."""

import sys

from galpaca.errors import InputError
from galpaca.fake_cuda.card import CARDS
from galpaca.fake_cuda.process import run


def main() -> int:
    if len(sys.argv) < 3 or sys.argv[1] not in CARDS:
        print(f"usage: python -m galpaca.fake_cuda {{{','.join(CARDS)}}} MODULE [ARGUMENTS]", file=sys.stderr)
        return 2
    try:
        run(sys.argv[1], sys.argv[2], sys.argv[3:])
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
