SELECT (created_at AT TIME ZONE 'America/Sao_Paulo')::date AS bucket, post_type, count(*) AS posts,
    count(DISTINCT user_id) AS authors, avg(word_count) AS words, max(word_count) AS longest
FROM posts
WHERE deleted_at IS NULL AND created_at >= '2019-02-01 00:00 America/Sao_Paulo' AND created_at < :'until'
GROUP BY 1, 2
