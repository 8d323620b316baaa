        -- The rows of the group stand beside the steps.
        RETURN QUERY
        WITH r AS MATERIALIZED (
            SELECT t.bucket AS __bucket{read}
            FROM {table} t
            WHERE t.bucket >= __places[1] AND t.bucket < __places[__steps + 1]{conditions}
        )
        SELECT f.__bucket{outer_dimensions}{columns}, f.__standing = 2
        FROM (
            SELECT s.__bucket, s.__standing{filled}
            FROM (
                SELECT b.__bucket, coalesce(__standing[b.__at - __before], 2) AS __standing{dimensions}
                FROM (SELECT * FROM r LIMIT 1) g,
                    unnest(__places[1:__steps]) WITH ORDINALITY AS b (__bucket, __at)
            ) s
            LEFT JOIN r ON r.__bucket = s.__bucket
        ) f;
