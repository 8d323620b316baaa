-- The slices that have not succeeded, so that the cost of reading them depends on their number
-- alone.
CREATE INDEX ON {table} (rollup, sort) WHERE unfinished
