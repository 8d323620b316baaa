-- The partitions of captured tables as they were last seen, with the hours that each holds, by
-- axis. Attaching or detaching a partition, or a TRUNCATE of a new one, fires no trigger.
CREATE TABLE IF NOT EXISTS tallymark.partition (
    capture text,
    relation bigint,
    state text NOT NULL,
    hours jsonb NOT NULL,
    PRIMARY KEY (capture, relation)
)
