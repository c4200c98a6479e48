"""Judge a report: compare its facts with the limits and the artifacts, and return a verdict. Every refusal is here."""
