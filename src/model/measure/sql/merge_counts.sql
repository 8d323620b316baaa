-- The sum of several sketches of percentiles.
CREATE OR REPLACE AGGREGATE tallymark.merge_sketches(bigint[]) (
    SFUNC = tallymark.merged_counts, STYPE = bigint[], COMBINEFUNC = tallymark.merged_counts, PARALLEL = SAFE
)
