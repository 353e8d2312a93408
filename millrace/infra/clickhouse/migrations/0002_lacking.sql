-- What a transaction's control records named and could not be used yet; and what a latency is the time of.
ALTER TABLE {database}.commits
    ADD COLUMN IF NOT EXISTS `lacking` Map(LowCardinality(String), String)
    COMMENT 'What of that could not be used yet, and why: `model/version` to the reason.' AFTER `control`;

ALTER TABLE {database}.predictions
    COMMENT COLUMN `outputs` 'Name to number or numbers; empty where there is no answer.';

ALTER TABLE {database}.predictions
    COMMENT COLUMN `output_lists` 'Name to number or numbers; empty where there is no answer. Those that are lists.';

ALTER TABLE {database}.predictions
    COMMENT COLUMN `latency_seconds` 'From the request\'s append until its micro-batch was taken up, by wall clock. The run and the commit follow.';
