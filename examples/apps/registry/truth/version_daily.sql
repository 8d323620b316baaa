SELECT date AS bucket, version_id, sum(downloads) AS downloads
FROM (TABLE version_downloads UNION ALL TABLE exported_downloads) d
WHERE date < :'until'::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1, 2
