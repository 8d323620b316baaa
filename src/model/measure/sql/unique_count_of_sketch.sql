CREATE OR REPLACE FUNCTION tallymark.unique_count(sketch bytea) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $body$
-- The estimated number of distinct values of a sketch, by Otmar Ertl's improved estimator (New cardinality estimation
-- algorithms for HyperLogLog sketches, 2017): no bias at any size, no table of corrections. Only additions,
-- multiplications and divisions of doubles, which every processor rounds in the same way.
DECLARE
    registers CONSTANT double precision := 16384;
    -- A copy, as get_byte() would decompress a stored value at each call.
    plain CONSTANT bytea := sketch || ''::bytea;
    used double precision[] := pg_catalog.array_fill(0::float8, ARRAY[50]);
    rank integer;
    number bigint;
    unused double precision := registers;
    share double precision;
    weight double precision := 1;
    total double precision := 0;
BEGIN
    IF pg_catalog.length(plain) = 0 THEN
        RETURN 0;
    ELSIF pg_catalog.length(plain) < 16384 THEN
        FOR place IN 1 .. pg_catalog.length(plain) / 3 LOOP
            rank := pg_catalog.get_byte(plain, 3 * place - 1) & 63;
            used[rank] := used[rank] + 1;
        END LOOP;
        unused := registers - pg_catalog.length(plain) / 3;
    ELSE
        FOR rank, number IN
            SELECT r, pg_catalog.count(*)
            FROM (SELECT pg_catalog.get_byte(plain, i) FROM pg_catalog.generate_series(0, 16383) AS i) AS ranks (r)
            WHERE r > 0 GROUP BY r
        LOOP
            used[rank] := number;
            unused := unused - number;
        END LOOP;
    END IF;
    FOR rank IN REVERSE 50 .. 1 LOOP
        total := 0.5::float8 * (total + used[rank]);
    END LOOP;
    -- The contribution of unused registers: σ of their share.
    share := unused / registers;
    total := total + registers * share;
    WHILE share > 1e-40::float8 LOOP
        share := share * share;
        total := total + registers * share * weight;
        weight := weight + weight;
    END LOOP;
    RETURN pg_catalog.round(0.72134752044448170368::float8 * registers * registers / total);
END
$body$
