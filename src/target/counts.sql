SELECT coalesce(sum(__rows), 0)::bigint AS rows_read,
       coalesce(max(__new), 0) AS groups,
       count({time}) AS joined,
       (SELECT count(*) FROM __added) AS inserted,
       (SELECT count(*) FROM __changed) AS updated,
       (SELECT count(*) FROM __gone) AS deleted
FROM __diff
