-- The union of several exact sets.
CREATE OR REPLACE AGGREGATE tallymark.merge_sets(anyarray) (
    SFUNC = tallymark.gathered_sets, STYPE = anyarray, INITCOND = '{}',
    FINALFUNC = tallymark.merged_sets, PARALLEL = SAFE
)
