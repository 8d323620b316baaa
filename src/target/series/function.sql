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
{choices}    IF {is_plain} AND {is_single} THEN
{single}    ELSIF {is_plain} THEN
        -- A step is a bucket, so that a group has one row in it.
{plain}    ELSE
        -- The rows of each group and step are merged.
{merged}    END IF;
    GET DIAGNOSTICS __rows = ROW_COUNT;
    IF __rows > {rows_max} THEN
        RAISE EXCEPTION 'the series has more than {rows_max} rows'
            USING ERRCODE = 'program_limit_exceeded',
                HINT = 'use a wider step, a shorter range, fewer dimensions in by, or only';
    END IF;
END
$series$
