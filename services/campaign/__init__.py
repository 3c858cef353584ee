"""campaign: promotions, coupons, budgets, and the engine that finds the best price and explains it."""
