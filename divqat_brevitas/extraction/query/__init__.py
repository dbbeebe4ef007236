"""What an attacker can ask, and what it gets: victim and ledger, oracles, predictors."""
