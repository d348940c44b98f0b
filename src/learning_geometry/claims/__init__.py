"""The ledger of claims: what the works say, as data, and rules that judge it from the tables of runs."""
