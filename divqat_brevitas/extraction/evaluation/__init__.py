"""How well attackers did and what a defence costs: records, metrics, the rule that compares."""
