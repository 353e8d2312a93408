-- The tables of all topics. Rendered from millrace/schemas/tables.py; from here on every change is a migration of its own.

CREATE TABLE IF NOT EXISTS {database}.requests
(
    `id` String COMMENT 'The producer\'s id of this request; the same id is answered with the same derived ids.',
    `unit_id` String COMMENT 'Who or what the decision is about; the key of everything derived from it.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was asked for; the record\'s timestamp where absent.',
    `model` LowCardinality(Nullable(String)) COMMENT 'The model\'s route. Absent: assignments alone.',
    `features` String COMMENT 'Features by name: an object of finite numbers.',
    `vector` Array(Float32) COMMENT 'Features in the model\'s declared order: numbers, or float32 in binary.',
    `entities` Map(LowCardinality(String), String) COMMENT 'Entities whose stored features are looked up, kind to id.',
    `context` String COMMENT 'What experiments target by.',
    `deadline` Nullable(DateTime64(6, 'UTC')) COMMENT 'After this time an answer is useless: it is answered `expired`.',
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
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'A decision was asked for.';

CREATE TABLE IF NOT EXISTS {database}.outcomes
(
    `unit_id` String COMMENT 'The unit that it happened to.',
    `metric` LowCardinality(String) COMMENT 'What was measured, e.g. `label` or `revenue`.',
    `value` Float64 COMMENT 'The measured value, finite.',
    `id` Nullable(String) COMMENT 'The producer\'s id of this outcome, for counting a repeated one once.',
    `request_id` Nullable(String) COMMENT 'The request that it answers, where known.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it happened; the record\'s timestamp where absent.',
    `_topic_id` LowCardinality(String) COMMENT 'Kafka\'s id of the topic that the record stood on.',
    `_partition` Int32 COMMENT 'Its partition.',
    `_offset` Int64 COMMENT 'Its offset.',
    `_appended` DateTime64(3, 'UTC') COMMENT 'When the broker appended it.',
    `_key` Nullable(String) COMMENT 'Its key, as bytes.',
    `_headers` Map(LowCardinality(String), String) COMMENT 'Its headers.',
    `_raw` Nullable(String) COMMENT 'Its value, as bytes, where it could not be decoded.',
    `_error` String COMMENT 'Why it could not be decoded; empty where it could.',
    `_lease` DateTime('UTC') COMMENT 'Until when its writer was allowed to insert it.',
    INDEX unit_id_lookup `unit_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX id_lookup `id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX request_id_lookup `request_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Something happened to a unit.';

CREATE TABLE IF NOT EXISTS {database}.assignments
(
    `id` String COMMENT 'Hash of request id and experiment.',
    `request_id` String COMMENT 'The request it was made for.',
    `unit_id` String COMMENT 'The unit that was assigned.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was decided.',
    `experiment` LowCardinality(String) COMMENT 'The experiment\'s name.',
    `plan_version` Int64 COMMENT 'The version of the plan that assigned.',
    `variant` LowCardinality(String) COMMENT 'The variant given.',
    `bucket` Float64 COMMENT 'Where the unit\'s variant hash fell, in [0, 1).',
    `propensity` Float64 COMMENT 'The chance that this variant had, in (0, 1].',
    `exposed` Bool COMMENT 'Whether the unit really met the variant: an expired or failed request did not.',
    `override` Bool COMMENT 'Whether the plan names this unit\'s variant by hand; such units are left out of results.',
    `model` LowCardinality(Nullable(String)) COMMENT 'The model that the variant chose, where it chooses one.',
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
    INDEX request_id_lookup `request_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX unit_id_lookup `unit_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One experiment gave one unit one variant.';

CREATE TABLE IF NOT EXISTS {database}.predictions
(
    `id` String COMMENT 'Hash of request id, model, and the shadow\'s version where it is one.',
    `request_id` String COMMENT 'The request that is answered.',
    `unit_id` String COMMENT 'The request\'s unit.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was decided.',
    `model` LowCardinality(String) COMMENT 'The model\'s name.',
    `version` Int64 COMMENT 'The model\'s version; 0 where none could be chosen.',
    `digest` LowCardinality(String) COMMENT 'sha256 of the model\'s bytes; empty where none could be chosen.',
    `status` LowCardinality(String) COMMENT 'ok, expired or error.',
    `outputs` Map(LowCardinality(String), Float64) COMMENT 'Name to number or numbers.',
    `output_lists` Map(LowCardinality(String), Array(Float64)) COMMENT 'Name to number or numbers. Those that are lists.',
    `features` String COMMENT 'The features really used, by name.',
    `vector` Array(Float32) COMMENT 'The features really used, in the model\'s order.',
    `features_digest` String COMMENT 'Hash of the features, where the model records no more than that.',
    `shadow` Bool COMMENT 'Whether this answer came from a shadow and was not to be acted upon.',
    `requested` Nullable(DateTime64(6, 'UTC')) COMMENT 'The request\'s own time.',
    `latency_seconds` Float64 COMMENT 'From the request\'s append to this answer, by wall clock.',
    `batch_records` Int64 COMMENT 'How many requests the model answered in the same run.',
    `cache` LowCardinality(String) COMMENT 'Whether looked-up features came from a cache: empty where none was asked.',
    `error` String COMMENT 'Why there is no output.',
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
    INDEX request_id_lookup `request_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX unit_id_lookup `unit_id` TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX time_range `time` TYPE minmax GRANULARITY 1,
    CONSTRAINT lease CHECK now() <= _lease
)
ENGINE = {engine}
PARTITION BY toYYYYMM(_appended)
ORDER BY (_topic_id, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'A model answered.';

CREATE TABLE IF NOT EXISTS {database}.experiments
(
    `name` LowCardinality(String) COMMENT 'The experiment.',
    `version` Int64 COMMENT 'The plan\'s version.',
    `state` LowCardinality(String) COMMENT 'draft, running, paused, stopped or completed.',
    `time` DateTime64(6, 'UTC') COMMENT 'When this version was written.',
    `salt` String COMMENT 'What the hashes are salted with; it never changes while running.',
    `variants` String COMMENT 'The arms; the first is the control.',
    `sample` Float64 COMMENT 'The share of targeted units that take part.',
    `targeting` String COMMENT 'All must hold for a request to take part.',
    `overrides` Map(LowCardinality(String), String) COMMENT 'Units whose variant is named by hand.',
    `models` Array(String) COMMENT 'The routes it takes part in; empty means all, and requests without a model.',
    `owner` LowCardinality(String) COMMENT 'Who answers for it.',
    `hypothesis` String COMMENT 'What it is to show.',
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
COMMENT 'A version of an experiment\'s plan.';

CREATE TABLE IF NOT EXISTS {database}.models
(
    `name` LowCardinality(String) COMMENT 'The model.',
    `version` Int64 COMMENT 'Its version: 1, 2, 3 ...',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was added.',
    `digest` String COMMENT 'sha256 of the model\'s bytes, in hex.',
    `size_bytes` Int64 COMMENT 'The size of the model\'s bytes.',
    `input` String COMMENT 'The input tensor, of shape (n, k), float32.',
    `features` Array(String) COMMENT 'The k features, in the order of the vector.',
    `outputs` String COMMENT 'The named outputs of a prediction.',
    `operators` Array(String) COMMENT 'The ONNX operators it uses.',
    `golden` String COMMENT 'One input and its answer, checked at every load.',
    `defaults` Map(LowCardinality(String), Float64) COMMENT 'The value of a feature that a request leaves out.',
    `data` String COMMENT 'The model\'s bytes, where they fit into a record.',
    `location` String COMMENT 'The name of the bytes in the object store, where they do not.',
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
COMMENT 'A version of a model.';

CREATE TABLE IF NOT EXISTS {database}.routes
(
    `name` LowCardinality(String) COMMENT 'The model.',
    `version` Int64 COMMENT 'The route\'s own version.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was set.',
    `shares` String COMMENT 'The versions that serve, by weight.',
    `shadows` Array(Int64) COMMENT 'Versions that answer too, marked as shadows.',
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
COMMENT 'Which versions serve what share.';

CREATE TABLE IF NOT EXISTS {database}.allowances
(
    `version` Int64 COMMENT 'Allowances are counted: 1, 2, 3 ...',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was given.',
    `worker` LowCardinality(String) COMMENT 'The role that is held.',
    `topic` LowCardinality(String) COMMENT 'The topic that it reads.',
    `partition` Int64 COMMENT 'The held partition.',
    `through` Int64 COMMENT 'The last offset that may be dead-lettered without counting towards the cap.',
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
COMMENT 'An operator lets a held worker dead-letter on.';

CREATE TABLE IF NOT EXISTS {database}.dead_letters
(
    `id` String COMMENT 'Hash of topic id, partition and offset.',
    `time` DateTime64(6, 'UTC') COMMENT 'When it was refused.',
    `worker` LowCardinality(String) COMMENT 'The role that refused it.',
    `topic` LowCardinality(String) COMMENT 'The topic it stands on.',
    `topic_id` LowCardinality(String) COMMENT 'That topic\'s id.',
    `partition` Int64 COMMENT 'Its partition.',
    `offset` Int64 COMMENT 'Its offset.',
    `reason` String COMMENT 'Why, and where in the payload.',
    `key` Nullable(String) COMMENT 'Its key, base64 in JSON.',
    `value` Nullable(String) COMMENT 'Its value, base64 in JSON.',
    `headers` String COMMENT 'Its headers.',
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
COMMENT 'What could not be used.';

CREATE TABLE IF NOT EXISTS {database}.commits
(
    `id` String COMMENT 'Hash of slot, input ranges and `time`.',
    `time` DateTime64(6, 'UTC') COMMENT 'The `now` that its steps were given.',
    `worker` LowCardinality(String) COMMENT 'The role.',
    `slot` LowCardinality(String) COMMENT 'Role and ordinal.',
    `inputs` String COMMENT 'The offsets consumed.',
    `control` Map(LowCardinality(String), Int64) COMMENT 'The next offset of each control topic: what was known.',
    `watermarks` String COMMENT 'The watermark that timers were given, by partition group, in ms.',
    `records` Int64 COMMENT 'How many records it took in.',
    `emitted` Int64 COMMENT 'How many events it stated.',
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
COMMENT 'One data-plane transaction.';
