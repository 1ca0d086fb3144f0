"""MASK: the deployed optimisation and what the attacker follows of it."""
