-- The server's offsets from UTC at these instants: the first, and each that differs from the one
-- before.
(SELECT string_agg(at || '=' || ahead, ',' ORDER BY at) FROM (
    SELECT at, ahead, lag(ahead) OVER (ORDER BY at) AS before FROM (
        SELECT at, extract(epoch FROM (to_timestamp(at) AT TIME ZONE {zone})
                                    - (to_timestamp(at) AT TIME ZONE 'UTC'))::bigint AS ahead
        FROM (
            SELECT generate_series({from}::bigint, {until}::bigint, {step}) AS at
            UNION SELECT unnest(ARRAY[{changes}]::bigint[])
        ) instants
    ) offsets
) changes WHERE ahead IS DISTINCT FROM before)
