"""Published figures against ours: `audit()` judges every number that the four papers print."""

from orchestrator.audit.ranks import RankChange, rank_changes
from orchestrator.audit.render import to_html, to_json, to_markdown
from orchestrator.audit.rows import Row, Summary, audit, audit_table, summary
from orchestrator.audit.verdicts import Verdict

__all__ = [
    "RankChange",
    "Row",
    "Summary",
    "Verdict",
    "audit",
    "audit_table",
    "rank_changes",
    "summary",
    "to_html",
    "to_json",
    "to_markdown",
]
