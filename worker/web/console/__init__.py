"""The operator's console: what happened, what comes next and why, and how to put it right by hand."""
