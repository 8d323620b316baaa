-- Marks are recorded by ID, because IDs become visible in another order than they are assigned.
CREATE TABLE IF NOT EXISTS tallymark.taken (
    mark bigint,
    consumer bigint,
    PRIMARY KEY (mark, consumer)
)
