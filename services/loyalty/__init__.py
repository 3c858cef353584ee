"""Points, tiers and programmes; see README.md."""
