"""What another policy would have earned, from the log of the one that ran: estimates with intervals valid at any time, or a refusal."""
