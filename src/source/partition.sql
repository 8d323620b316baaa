-- The partitions of captured tables as they were seen last, with the hours that each holds, by axis. Rows
-- that come or go with a partition, or with a TRUNCATE of a new one, fire no trigger.
CREATE TABLE IF NOT EXISTS tallymark.partition (
    capture text,
    relation bigint,
    state text NOT NULL,
    hours jsonb NOT NULL,
    PRIMARY KEY (capture, relation)
)
