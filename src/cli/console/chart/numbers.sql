WITH steps AS (
    SELECT date_part('epoch', s.bucket) AS at, s.complete, {part} AS part, s.{measure}::float8 AS value
    FROM {series}({since}, {until}, {step}, by => {by}) s
), greatest_parts AS (
    SELECT part, row_number() OVER (ORDER BY sum(value) DESC NULLS LAST, part) AS place
    FROM steps GROUP BY part ORDER BY place LIMIT {parts_max}
)
SELECT g.place, s.part, s.at, s.value, s.complete
FROM steps s JOIN greatest_parts g ON g.part IS NOT DISTINCT FROM s.part
ORDER BY g.place, s.at
