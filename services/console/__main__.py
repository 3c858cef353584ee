"""`python -m services.console` is `siyu`."""

from services.console.main import main

main()
