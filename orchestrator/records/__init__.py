"""What happened, kept: the ledger (SQL, the truth) and its MLflow mirror."""
