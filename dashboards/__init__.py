"""Answers: analysis of the ledger, figures, tables, report and app."""
