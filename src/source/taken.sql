-- By its very ID: IDs become visible in another order than they are given.
CREATE TABLE IF NOT EXISTS tallymark.taken (
    mark bigint,
    consumer bigint,
    PRIMARY KEY (mark, consumer)
)
