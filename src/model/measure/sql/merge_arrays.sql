-- The union of several exact sets.
CREATE OR REPLACE AGGREGATE tallymark.merge_sets(anyarray) (
    SFUNC = tallymark.merged_sets, STYPE = anyarray, COMBINEFUNC = tallymark.merged_sets, PARALLEL = SAFE
)
