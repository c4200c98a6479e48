"""From texts to a verdict: corpus, metrics, compare, report (facts), policy (limits), gate (every "no"), render."""
