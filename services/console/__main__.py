"""`python -m services.console`: the `siyu` command."""

import os

# Read when grpc is first imported: we start programs and never fork, and each start would print a line about it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from services.console.main import main

if __name__ == "__main__":
    main()
