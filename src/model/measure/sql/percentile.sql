CREATE OR REPLACE FUNCTION tallymark.percentile(sketch bigint[], share double precision) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The middle of the bucket that holds the value of this rank, which is the one of percentile_disc(). An entry
-- of the sketch is the bucket's number times 2^44 plus its count. A bucket's number is the sign, the exponent
-- and the first 6 bits of the fraction of a double.
DECLARE
    rank bigint := 0;
    seen bigint := 0;
    entry bigint;
    bucket bigint;
    magnitude double precision;
BEGIN
    IF share < 0 OR share > 1 THEN
        RAISE EXCEPTION 'the share % is not between 0 and 1', share
            USING ERRCODE = 'numeric_value_out_of_range', HINT = 'write 0.99 for the 99th percentile';
    END IF;
    FOREACH entry IN ARRAY sketch LOOP
        rank := rank + (entry & 17592186044415);
    END LOOP;
    IF rank = 0 THEN
        RETURN NULL;
    END IF;
    rank := pg_catalog.ceil(share * rank);
    FOREACH entry IN ARRAY sketch LOOP
        seen := seen + (entry & 17592186044415);
        EXIT WHEN seen >= rank;
    END LOOP;
    bucket := entry >> 44;
    IF bucket = 0 THEN
        RETURN 0;
    ELSIF bucket = 131009 THEN
        RETURN 'NaN';
    ELSIF pg_catalog.abs(bucket) = 131008 THEN
        RETURN CASE WHEN bucket > 0 THEN 'Infinity' ELSE '-Infinity' END;
    END IF;
    magnitude := (1 + ((pg_catalog.abs(bucket) & 63) + 0.5::float8) / 64)
        * pg_catalog.power(2::float8, ((pg_catalog.abs(bucket) >> 6) - 1023)::float8);
    RETURN CASE WHEN bucket > 0 THEN magnitude ELSE -magnitude END;
END
$body$
