-- The slices that have not succeeded: what is read of them costs what there is of them.
CREATE INDEX ON {table} (rollup, sort) WHERE unfinished
