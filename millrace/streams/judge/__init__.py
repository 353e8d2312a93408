"""From the sealed sums of all source partitions to a judged experiment: estimates, harm, health, a decision; and the policy they teach."""
