-- The union of several sketches of distinct values.
CREATE OR REPLACE AGGREGATE tallymark.merge_sets(bytea) (
    SFUNC = tallymark.gathered_sketches, STYPE = bytea[], INITCOND = '{}',
    FINALFUNC = tallymark.merged_sketches, PARALLEL = SAFE
)
