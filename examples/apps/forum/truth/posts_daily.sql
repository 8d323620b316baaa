SELECT (posts.created_at AT TIME ZONE 'America/Sao_Paulo')::date AS bucket, topics.category_id, post_type, count(*) AS posts,
    count(DISTINCT posts.user_id) AS authors, avg(word_count) AS words, max(word_count) AS longest
FROM posts JOIN topics ON topics.id = posts.topic_id
WHERE deleted_at IS NULL AND posts.created_at >= '2019-02-01 00:00 America/Sao_Paulo' AND posts.created_at < :'until'
GROUP BY 1, 2, 3
