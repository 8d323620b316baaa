CREATE OR REPLACE FUNCTION tallymark.at_most(set anyarray, members_max bigint, measure text) RETURNS anyarray
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
-- The set itself, or an error if it has too many members. An exact set grows with each new member, and a
-- forgotten limit would fill the table with sets of gigabytes.
BEGIN
    IF pg_catalog.cardinality(set) OPERATOR(pg_catalog.>) members_max THEN
        RAISE EXCEPTION 'measures.%: a set has % members, and members_max is %',
            measure, pg_catalog.cardinality(set), members_max
            USING ERRCODE = 'program_limit_exceeded',
                  HINT = 'write merge = "approximate", or raise members_max';
    END IF;
    RETURN set;
END
$body$
