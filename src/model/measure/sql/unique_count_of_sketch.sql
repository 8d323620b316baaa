CREATE OR REPLACE FUNCTION tallymark.unique_count(sketch bytea) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The estimated number of distinct values of a sketch, by Otmar Ertl's improved estimator (New cardinality estimation
-- algorithms for HyperLogLog sketches, 2017): no bias at any size, no table of corrections. Only additions,
-- multiplications and divisions of doubles, which every processor rounds in the same way.
DECLARE
    registers CONSTANT double precision := 16384;
    used double precision[] := pg_catalog.array_fill(0::float8, ARRAY[50]);
    rank integer;
    number bigint;
    unused double precision := registers;
    share double precision;
    weight double precision := 1;
    sum double precision := 0;
BEGIN
    FOR rank, number IN
        SELECT r, pg_catalog.count(*) FROM (
            SELECT pg_catalog.get_byte(sketch, 3 * i + 2) & 63 FROM pg_catalog.generate_series(0,
                CASE WHEN pg_catalog.length(sketch) < 16384 THEN pg_catalog.length(sketch) / 3 - 1 END) AS i
            UNION ALL
            SELECT pg_catalog.get_byte(sketch, i) FROM pg_catalog.generate_series(0,
                CASE WHEN pg_catalog.length(sketch) = 16384 THEN 16383 END) AS i
            WHERE pg_catalog.get_byte(sketch, i) > 0
        ) AS ranks (r) GROUP BY r
    LOOP
        used[rank] := number;
        unused := unused - number;
    END LOOP;
    IF unused = registers THEN
        RETURN 0;
    END IF;
    FOR i IN REVERSE 50 .. 1 LOOP
        sum := 0.5 * (sum + used[i]);
    END LOOP;
    -- The contribution of unused registers: σ of their share.
    share := unused / registers;
    sum := sum + registers * share;
    WHILE share > 1e-40 LOOP
        share := share * share;
        sum := sum + registers * share * weight;
        weight := weight + weight;
    END LOOP;
    RETURN pg_catalog.round(0.72134752044448170368 * registers * registers / sum);
END
$body$
