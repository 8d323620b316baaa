SELECT date AS bucket, version_id, sum(downloads) AS downloads
FROM version_downloads
WHERE date < :'until'::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1, 2
