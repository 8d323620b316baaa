CREATE OR REPLACE FUNCTION tallymark.refuse_unknown(dimensions text[], by text[], chosen jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $body$
-- An error if a series is asked for by something that is no dimension of its rollup.
DECLARE
    unknown text;
BEGIN
    IF jsonb_typeof(chosen) <> 'object' THEN
        RAISE EXCEPTION 'only is no object of dimensions' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'write such as {"kind": "view"}, with a value or an array of values for each dimension';
    END IF;
    unknown := (SELECT min(name) FROM (
        SELECT unnest(by) UNION ALL SELECT jsonb_object_keys(chosen)) AS given (name)
        WHERE name <> ALL (dimensions));
    IF unknown IS NOT NULL OR array_position(by, NULL) IS NOT NULL THEN
        RAISE EXCEPTION '% is no dimension', coalesce(unknown, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = CASE WHEN dimensions = '{}'
                THEN 'leave by and only out: the rollup has no dimensions'
                ELSE format('use %s', array_to_string(dimensions, ', ')) END;
    END IF;
END
$body$
