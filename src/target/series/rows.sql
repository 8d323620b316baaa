        -- Each row stands for the steps since the one before it, and the last one of a group for those
        -- after it too.
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
{groups}                        ) g
                        WINDOW each AS ({partition}ORDER BY g.__place)
                    ) c
                ) s
            ) e
        ) f
        LIMIT {rows_max} + 1;
