-- The union of several sketches of distinct values.
CREATE OR REPLACE AGGREGATE tallymark.merge_sets(bytea) (
    SFUNC = tallymark.merged_sets, STYPE = bytea, COMBINEFUNC = tallymark.merged_sets, PARALLEL = SAFE
)
