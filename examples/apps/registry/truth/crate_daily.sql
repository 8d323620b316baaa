SELECT date AS bucket, crate_id, sum(downloads) AS downloads, sum(downloads) FILTER (WHERE yanked) AS of_yanked,
    count(DISTINCT version_id) AS versions
FROM (TABLE version_downloads UNION ALL TABLE exported_downloads) d JOIN versions ON versions.id = version_id
WHERE date < :'until'::timestamptz AT TIME ZONE 'UTC'
GROUP BY 1, 2
