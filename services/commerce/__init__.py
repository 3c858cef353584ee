"""commerce: catalogue, prices, stock, orders, off-line sales, refunds, supplier orders and settlement."""
