SELECT date_trunc('quarter', date)::date AS bucket, sum(downloads) AS downloads,
    count(DISTINCT version_id) AS versions
FROM version_downloads
WHERE date < :'until'::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1
