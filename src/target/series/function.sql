CREATE OR REPLACE FUNCTION {name}(since timestamptz, until timestamptz, step interval,
    zone text DEFAULT {zone}, by text[] DEFAULT NULL, "only" jsonb DEFAULT NULL)
RETURNS SETOF {name} LANGUAGE plpgsql STABLE
SET search_path = pg_catalog{schemas}, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off
AS $series$
#variable_conflict use_column
DECLARE
    __starts timestamptz[];
    __seconds bigint;
    __steps integer;
    __places {place_type}[];
    __first double precision;
    __before integer;
    __standing smallint[];
    __rows bigint;
{variables}BEGIN
    PERFORM tallymark.refuse_unknown({dimensions}, $5, $6);
    SELECT s.starts, s.seconds INTO __starts, __seconds
    FROM tallymark.steps_of({bucket}, {zone}, {week_start}, $1, $2, $3, coalesce($4, {zone})) s;
    IF __starts IS NULL THEN
        RETURN;
    END IF;
    __steps := array_length(__starts, 1) - 1;
    __places := {places};
    __first := date_part('epoch', __starts[1]);
    SELECT s.before, s.standing INTO __before, __standing
    FROM tallymark.standing_of({rollup}, {definition}, __starts) s;
{choices}    -- The rows of each group and step are merged. Each row stands for the steps since the one before
    -- it, and the last one of a group for those after it too.
    RETURN QUERY
    SELECT __places[f.__at]{outer_dimensions}{columns}, f.__standing = 2
    FROM (
        SELECT e.__at, e.__standing{filled}
        FROM (
            SELECT s.*, coalesce(__standing[s.__at - __before], 2) AS __standing
            FROM (
                SELECT generate_series(c.__last + 1, CASE WHEN c.__next IS NULL THEN __steps ELSE c.__place END) AS __at, c.*
                FROM (
                    SELECT g.*, lag(g.__place, 1, 0) OVER each AS __last, lead(g.__place) OVER each AS __next
                    FROM (
                        SELECT __place{inner_dimensions}{merged}
                        FROM (
                            SELECT {place} AS __place{grouped}{read}
                            FROM {table} t
                            WHERE t.bucket >= __places[1] AND t.bucket < __places[__steps + 1]{conditions}
                            UNION ALL
                            SELECT 1{nothing} WHERE {is_total}
                        ) r
                        GROUP BY __place{inner_dimensions}
                    ) g
                    WINDOW each AS ({partition}ORDER BY g.__place)
                ) c
            ) s
        ) e
    ) f
    LIMIT {rows_max} + 1;
    GET DIAGNOSTICS __rows = ROW_COUNT;
    IF __rows > {rows_max} THEN
        RAISE EXCEPTION 'the series has more than {rows_max} rows'
            USING ERRCODE = 'program_limit_exceeded',
                HINT = 'use a wider step, a shorter range, fewer dimensions in by, or only';
    END IF;
END
$series$
