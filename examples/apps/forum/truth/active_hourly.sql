SELECT date_trunc('hour', visited_at) AS bucket, count(*) AS visits, count(DISTINCT user_id) AS users
FROM visits
WHERE visited_at >= '2019-02-01 00:00 America/Sao_Paulo' AND visited_at < :'until'
GROUP BY 1
