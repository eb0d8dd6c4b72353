"""The ledger and the rows that stand in it."""
