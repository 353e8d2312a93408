-- Experiments that are measured and judged: validated outcomes, moments, results, policies and signals; and what plans and assignments say of it.
-- Columns of plans have defaults, so that a row of before says what its record's bytes mean today.
CREATE TABLE IF NOT EXISTS {database}.outcomes_by_unit
(
    `id` String COMMENT 'Hash of unit, metric and the producer\'s id; of the place in `outcomes` where there is no such id.',
    `unit_id` String COMMENT 'The unit that it happened to.',
    `metric` LowCardinality(String) COMMENT 'What was measured.',
    `value` Float64 COMMENT 'The measured value, finite, at most 1e15 in size.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it happened.',
    `request_id` Nullable(String) COMMENT 'The request that it answers, where known.',
    `outcome_id` Nullable(String) COMMENT 'The producer\'s id of it, where it has one.',
    `_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of the topic that the record stood on.',
    `_partition` Int32 COMMENT 'Its partition.',
    `_offset` Int64 COMMENT 'Its offset.',
    `_appended` DateTime64(3, 'UTC') COMMENT 'When the broker appended it.',
    `_key` Nullable(String) COMMENT 'Its key, as bytes.',
    `_headers` Map(LowCardinality(String), String) COMMENT 'Its headers.',
    `_raw` Nullable(String) COMMENT 'Its value, as bytes, where it could not be decoded.',
    `_error` String COMMENT 'Why it could not be decoded; empty where it could.',
    `_lease` DateTime('UTC') COMMENT 'Until when its writer was allowed to insert it.',
    INDEX id_lookup `id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX unit_id_lookup `unit_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX request_id_lookup `request_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'A validated outcome, on its unit\'s partition.';

ALTER TABLE {database}.assignments
    COMMENT COLUMN `bucket` 'Where the variant hash of the unit (or request) fell, in [0, 1).';

ALTER TABLE {database}.assignments
    ADD COLUMN IF NOT EXISTS `policy_version` Int64
    COMMENT 'The version of the policy whose weights were used; 0 where they were the plan\'s.' AFTER `model`;

ALTER TABLE {database}.assignments
    ADD COLUMN IF NOT EXISTS `propensities` Map(LowCardinality(String), Float64)
    COMMENT 'Each variant\'s chance, where a policy gave it; empty where the plan\'s weights did.' AFTER `policy_version`;

ALTER TABLE {database}.assignments
    ADD COLUMN IF NOT EXISTS `segments` Map(LowCardinality(String), String)
    COMMENT 'The plan\'s segments that the request falls into, field to value.' AFTER `propensities`;

ALTER TABLE {database}.assignments
    ADD COLUMN IF NOT EXISTS `features` Map(LowCardinality(String), Float64)
    COMMENT 'The numbers that a contextual policy chose by.' AFTER `segments`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `unit` LowCardinality(String) DEFAULT 'unit'
    COMMENT 'What is randomised and analysed: unit or request.' AFTER `variants`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `layer` Nullable(String)
    COMMENT 'The layer that it lives in, and its range there.' AFTER `unit`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `holdout` Float64
    COMMENT 'The share of units that no experiment with such a share may touch: the same units in all.' AFTER `layer`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `ramp` String DEFAULT '[]'
    COMMENT 'What share of the sample takes part from when on; empty means all.' AFTER `sample`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `target_units` Array(String)
    COMMENT 'Units that alone may take part; empty means all.' AFTER `ramp`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `spans` String DEFAULT '[]'
    COMMENT 'Which buckets give which variant; empty means by weight, in order.' AFTER `hypothesis`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `allocation` Nullable(String)
    COMMENT 'How weights are learnt; null means that they are fixed.' AFTER `spans`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `metrics` String DEFAULT '[]'
    COMMENT 'What is measured.' AFTER `allocation`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `segments` String DEFAULT '{}'
    COMMENT 'Fields of the context, and the values that are told apart.' AFTER `metrics`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `analysis` String DEFAULT '{"alpha":0.05,"difference":"relative","rule":"always_valid","tuning":5000.0,"tau":null,"looks":null,"correction":"holm","prior":null,"chance_to_win":0.95,"minimal_units":100,"minimal_seconds":0.0,"maximal_seconds":null,"lateness_seconds":3600.0,"ratio_alpha":0.001,"stop_on_harm":false}'
    COMMENT 'How it is judged.' AFTER `segments`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `created` Nullable(DateTime64(6, 'UTC'))
    COMMENT 'When its first version was written.' AFTER `analysis`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `started` Nullable(DateTime64(6, 'UTC'))
    COMMENT 'When it first began to run.' AFTER `created`;

ALTER TABLE {database}.experiments
    ADD COLUMN IF NOT EXISTS `conclusion` String
    COMMENT 'What was concluded, by whom or by which rule.' AFTER `started`;

CREATE TABLE IF NOT EXISTS {database}.policies
(
    `experiment` LowCardinality(String) COMMENT 'The experiment.',
    `version` Int64 COMMENT 'The policy\'s version.',
    `plan_version` Int64 COMMENT 'The plan that it was learnt under.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was made.',
    `offsets` String COMMENT 'What it was learnt from: source partition, topic, and the offset below which.',
    `weights` Map(LowCardinality(String), Float64) COMMENT 'Variant to its chance; of a contextual policy, its chance at the average features so far.',
    `contextual` String COMMENT 'Coefficients of a contextual policy, by which each request gets its own weights.',
    `_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of the topic that the record stood on.',
    `_partition` Int32 COMMENT 'Its partition.',
    `_offset` Int64 COMMENT 'Its offset.',
    `_appended` DateTime64(3, 'UTC') COMMENT 'When the broker appended it.',
    `_key` Nullable(String) COMMENT 'Its key, as bytes.',
    `_headers` Map(LowCardinality(String), String) COMMENT 'Its headers.',
    `_raw` Nullable(String) COMMENT 'Its value, as bytes, where it could not be decoded.',
    `_error` String COMMENT 'Why it could not be decoded; empty where it could.',
    `_lease` DateTime('UTC') COMMENT 'Until when its writer was allowed to insert it.',
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'A learning experiment\'s weights, and what they were learnt from.';

CREATE TABLE IF NOT EXISTS {database}.moments
(
    `id` String COMMENT 'Hash of experiment, metric, partition and offsets.',
    `experiment` LowCardinality(String) COMMENT 'The experiment.',
    `plan_version` Int64 COMMENT 'The newest plan version that was known.',
    `partition` Int64 COMMENT 'The source partition.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was emitted.',
    `offsets` Map(LowCardinality(String), Int64) COMMENT 'Topic to the offset below which everything of this partition is in it.',
    `metric` LowCardinality(String) COMMENT 'The metric; empty for the record that seals.',
    `moments` String COMMENT 'Variant to n and the sums of y, y*y, z, z*z, y*z, x, x*x, y*x (y the value, z the denominator, x the covariate, in whole steps); those of a segment under `variant|field=value`.',
    `arms` String COMMENT 'Variant to what was seen of it, in the record that seals.',
    `digest` String COMMENT 'Hash of what the plan says of the metric: sums of another digest do not add.',
    `_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of the topic that the record stood on.',
    `_partition` Int32 COMMENT 'Its partition.',
    `_offset` Int64 COMMENT 'Its offset.',
    `_appended` DateTime64(3, 'UTC') COMMENT 'When the broker appended it.',
    `_key` Nullable(String) COMMENT 'Its key, as bytes.',
    `_headers` Map(LowCardinality(String), String) COMMENT 'Its headers.',
    `_raw` Nullable(String) COMMENT 'Its value, as bytes, where it could not be decoded.',
    `_error` String COMMENT 'Why it could not be decoded; empty where it could.',
    `_lease` DateTime('UTC') COMMENT 'Until when its writer was allowed to insert it.',
    INDEX id_lookup `id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'What one partition says of one metric of one experiment.';

CREATE TABLE IF NOT EXISTS {database}.results
(
    `id` String COMMENT 'Hash of experiment, plan version and offsets.',
    `experiment` LowCardinality(String) COMMENT 'The experiment.',
    `plan_version` Int64 COMMENT 'The version of the plan that it was judged by.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was judged.',
    `offsets` String COMMENT 'Source partition, topic, and the offset below which everything is in it.',
    `difference` LowCardinality(String) COMMENT 'Whether effects are relative or absolute.',
    `alpha` Float64 COMMENT 'The level of intervals and tests.',
    `units` Int64 COMMENT 'Units that count, over all arms.',
    `decision` String COMMENT 'What to do, by which rule, and why.',
    `arms` String COMMENT 'Variant to what was seen of it.',
    `metrics` String COMMENT 'The metrics, in the plan\'s order.',
    `health` String COMMENT 'What speaks against trusting it, the worst first.',
    `late` Int64 COMMENT 'Outcomes that came too late to count.',
    `_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of the topic that the record stood on.',
    `_partition` Int32 COMMENT 'Its partition.',
    `_offset` Int64 COMMENT 'Its offset.',
    `_appended` DateTime64(3, 'UTC') COMMENT 'When the broker appended it.',
    `_key` Nullable(String) COMMENT 'Its key, as bytes.',
    `_headers` Map(LowCardinality(String), String) COMMENT 'Its headers.',
    `_raw` Nullable(String) COMMENT 'Its value, as bytes, where it could not be decoded.',
    `_error` String COMMENT 'Why it could not be decoded; empty where it could.',
    `_lease` DateTime('UTC') COMMENT 'Until when its writer was allowed to insert it.',
    INDEX id_lookup `id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'The judged experiment.';

CREATE TABLE IF NOT EXISTS {database}.signals
(
    `id` String COMMENT 'Hash of fingerprint and of what it was computed from.',
    `fingerprint` String COMMENT 'Hash of kind, subject and rule: signals of one are one story.',
    `time` DateTime64(6, 'UTC') COMMENT 'When the rule looked.',
    `kind` LowCardinality(String) COMMENT 'guardrail, health, decision or drift.',
    `subject` LowCardinality(String) COMMENT 'The experiment or model.',
    `rule` LowCardinality(String) COMMENT 'The rule, e.g. a guardrail\'s metric and variant.',
    `firing` Bool COMMENT 'Whether the rule\'s condition holds.',
    `severity` LowCardinality(String) COMMENT 'critical, warning or info.',
    `message` String COMMENT 'One sentence for a person.',
    `value` Float64 COMMENT 'The number that was looked at.',
    `threshold` Float64 COMMENT 'What it was compared with.',
    `offsets` String COMMENT 'What it was computed from.',
    `evidence` Map(LowCardinality(String), Float64) COMMENT 'The numbers behind it.',
    `_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of the topic that the record stood on.',
    `_partition` Int32 COMMENT 'Its partition.',
    `_offset` Int64 COMMENT 'Its offset.',
    `_appended` DateTime64(3, 'UTC') COMMENT 'When the broker appended it.',
    `_key` Nullable(String) COMMENT 'Its key, as bytes.',
    `_headers` Map(LowCardinality(String), String) COMMENT 'Its headers.',
    `_raw` Nullable(String) COMMENT 'Its value, as bytes, where it could not be decoded.',
    `_error` String COMMENT 'Why it could not be decoded; empty where it could.',
    `_lease` DateTime('UTC') COMMENT 'Until when its writer was allowed to insert it.',
    INDEX id_lookup `id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'A rule looked at a number.';
