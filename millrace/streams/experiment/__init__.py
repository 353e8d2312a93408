"""The experiment fold: from assignments and outcomes of one partition to mergeable moments, a set function of the log."""
