"""Show reports and verdicts to people: on the terminal and as an HTML page."""
