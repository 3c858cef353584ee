"""commerce's tables, a file for each of its nouns: what its migrations have made. A test compares the two.

Money is minor units, quantities are base units; arrays of a line follow the order's discounts or payments.
"""
