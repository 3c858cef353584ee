"""The demo's rules, implemented a second time: plain loops over the same files, slow, and easy to check by reading.

Nothing here comes from the services, from the runtime or from the console: what `make demo` compares must not share a
mistake. The only input besides the data files is the plan (intents without arithmetic, see services/console/demo).
The demo starts it as a process of its own (`python -m tests.reference --plan … --out …`).
"""
